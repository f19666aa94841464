"""The trainer as its users see it: the classic program, the two ways to run it, exact resume, every stop rule."""

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import EOS_ID, tiny_gpt2, tiny_llama, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from surefoot import Completion, PPOConfig, PPOTrainer
from surefoot.callbacks import Callback
from surefoot.prompts import PromptOrder
from surefoot.saving import load_critic
from surefoot.types import Sampling

TEXTS = [f"prompt number {i}" for i in range(24)]


def options(**changes):
    return PPOConfig(
        **(
            {
                "learning_rate": 1e-3,
                "batch_size": 8,
                "mini_batch_size": 4,
                "ppo_epochs": 2,
                "seed": 7,
                "max_new_tokens": 6,
                "steps": 4,
                "eval_prompts": 4,
                "eval_every": 2,
            }
            | changes
        )
    )


def vowels(text: str) -> float:
    return float(sum(text.count(v) for v in "aeiou")) + 0.1 * len(text)


def trainer(
    model=None,
    *,
    reward=vowels,
    dataset=TEXTS,
    optimizer=None,
    callbacks=(),
    ref_model=None,
    peft_config=None,
    value_model=None,
    **changes,
):
    model = tiny_llama() if model is None else model
    return PPOTrainer(
        options(**changes),
        model,
        ref_model,
        tiny_tokenizer(pad="eos"),
        reward=reward,
        dataset=dataset,
        optimizer=optimizer,
        callbacks=callbacks,
        peft_config=peft_config,
        value_model=value_model,
    )


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ------------------------------------------------------------------------------------------------ the classic program
@pytest.mark.parametrize("kind", ["text", "ids"])
def test_the_classic_program_runs_as_it_stands(tmp_path, kind):
    tiny_gpt2().save_pretrained(tmp_path / "your-sft-model")
    tiny_tokenizer(pad="none").save_pretrained(tmp_path / "your-sft-model")
    config = PPOConfig(
        model_name=str(tmp_path / "your-sft-model"),
        learning_rate=1e-6,
        batch_size=8,
        mini_batch_size=4,
        ppo_epochs=4,
        init_kl_coef=0.1,
        target_kl=0.1,
        cliprange=0.2,
        seed=42,
    )
    policy = AutoModelForCausalLM.from_pretrained(config.model_name)
    ref_model = AutoModelForCausalLM.from_pretrained(config.model_name)
    tokenizer = AutoTokenizer.from_pretrained(config.model_name)
    ppo_trainer = PPOTrainer(config, policy, ref_model, tokenizer)
    before = weights(policy)
    for batch in [{"prompt_text": TEXTS[:8]}, {"prompt_text": TEXTS[8:13]}]:  # the last batch is shorter
        queries = batch["prompt_text"]
        if kind == "ids":
            queries = [torch.tensor(tokenizer(q)["input_ids"]) for q in queries]
        responses = ppo_trainer.generate(queries, max_new_tokens=5)
        assert all(isinstance(r, Completion if kind == "text" else torch.Tensor) for r in responses)
        stats = ppo_trainer.step(queries, responses, [float(i) for i in range(len(queries))])
    assert stats["objective/kl"] == pytest.approx(0, abs=0.05)
    assert stats["ppo/optimizer_steps"] == 4 * 2  # five rows in minibatches of four
    assert ppo_trainer.policy is policy
    assert not equal(before, weights(policy))
    assert not any(p.requires_grad for p in ref_model.parameters())


@pytest.mark.parametrize("form", ["floats", "tensor", "array", "zero-dim tensors", "ints", "one-element tensors"])
def test_scores_of_every_form_give_the_same_step(form):
    numbers = [1, 0, 2, 5]
    forms = {
        "floats": [float(x) for x in numbers],
        "tensor": torch.tensor(numbers),
        "ints": numbers,
        "array": torch.tensor(numbers).double().numpy(),
        "zero-dim tensors": [torch.tensor(x) for x in numbers],
        "one-element tensors": [torch.tensor([float(x)]) for x in numbers],
    }
    results = []
    for scores in (forms["floats"], forms[form]):
        t = trainer(reward=None, dataset=None, batch_size=4)
        t.step(TEXTS[:4], ["abc", "de", "f", "ghij"], scores)
        results.append(weights(t.policy))
    assert equal(*results)


def test_scores_of_every_token_act_where_they_stand():
    responses = [torch.tensor([20, 21, 22]), torch.tensor([30, 31])]
    queries = [torch.tensor([10, 11])] * 2
    last_only, scalar, early = (trainer(reward=None, dataset=None, batch_size=4) for _ in range(3))
    last_only.step(queries, responses, [torch.tensor([0.0, 0.0, 2.0]), torch.tensor([0.0, -1.0])])
    scalar.step(queries, responses, [2.0, -1.0])
    early.step(queries, responses, [torch.tensor([2.0, 0.0, 0.0]), torch.tensor([-1.0, 0.0])])
    assert equal(weights(last_only.policy), weights(scalar.policy))
    assert not equal(weights(early.policy), weights(scalar.policy))
    assert early.last_experience.rewards.tolist() == [[2.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]  # no divergence yet


def test_answers_come_query_by_query_and_need_no_tokenizing_again():
    t = trainer()
    answers = t.generate(TEXTS[:2], num_return_sequences=3, max_new_tokens=4)
    assert len(answers) == 6
    assert len({a.token_ids for a in answers[:3]}) > 1  # they are sampled, not the same greedy answer
    stats = t.step([q for q in TEXTS[:2] for _ in range(3)], answers, [0.0] * 6)
    assert stats["tokens/responses_dist"].tolist() == [len(a.token_ids) for a in answers]


# ------------------------------------------------------------------------------------------------ two ways, one result
def test_a_loop_by_hand_equals_train_bit_for_bit():
    whole, hand = trainer(eval_prompts=0), trainer(eval_prompts=0, reward=None)
    whole.train()
    order = PromptOrder(len(TEXTS), 7)
    for step in range(4):
        queries = [TEXTS[i] for i in order.take(step * 8, 8)]
        answers = hand.generate(queries)
        hand.step(queries, answers, [vowels(a) for a in answers])
    assert equal(weights(whole.policy), weights(hand.policy))
    assert equal(weights(whole.critic), weights(hand.critic))


@pytest.mark.parametrize(
    "changes", [{}, {"lora_r": 4, "critic": "adapter"}, {"critic": "model", "use_score_scaling": True}]
)
def test_saved_and_restored_equals_never_interrupted_bit_for_bit(tmp_path, changes):
    straight, first, second = (trainer(**changes) for _ in range(3))
    straight.train()

    class StopAfterTwo(Callback):
        def on_step(self, trainer, stats, samples):
            return trainer.steps_done == 2

    first.callbacks.append(StopAfterTwo())
    assert first.train().reason.startswith("callback")
    first.save(tmp_path / "checkpoint")
    second.restore(tmp_path / "checkpoint")
    assert second.train().steps == 4
    for part in ("policy", "critic"):
        assert equal(weights(getattr(straight, part)), weights(getattr(second, part)))
    assert straight.kl_controller.state_dict() == second.kl_controller.state_dict()
    assert straight.score_scaler.state_dict() == second.score_scaler.state_dict()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    a, b, c = trainer(), trainer(), trainer(seed=8)
    for t in (a, b, c):
        t.train()
    assert equal(weights(a.policy), weights(b.policy))
    assert not equal(weights(a.policy), weights(c.policy))


def test_nothing_global_is_seeded_or_drawn_from():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer(lora_r=2, critic="adapter").train()
    assert torch.equal(torch.rand(3), expected)


# ------------------------------------------------------------------------------------------------ references
def sft_adapter(model):
    """A LoRA adapter that has been trained: its B matrices are not 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.data.normal_(std=0.3)
    return adapted


def test_kl_is_exactly_zero_before_the_first_update_however_the_policy_starts():
    plain = tiny_llama()
    starts = [
        trainer(tiny_llama()),
        trainer(tiny_llama(), ref_model=tiny_llama()),
        trainer(tiny_llama(), lora_r=4),
        trainer(sft_adapter(plain)),
        trainer(sft_adapter(tiny_llama()), lora_r=0, critic="adapter"),
    ]
    for t in starts:
        answers = t.generate(TEXTS[:8])
        stats = t.step(TEXTS[:8], answers, [vowels(a) for a in answers])
        assert stats["objective/kl_dist"].tolist() == [0.0] * 8
        after = t.step(TEXTS[:8], answers, [vowels(a) for a in answers])
        assert after["objective/kl"] != 0  # the policy moves, the reference stays


def test_a_trained_adapter_is_its_own_reference_and_not_the_base():
    adapted = sft_adapter(tiny_llama())
    untouched = copy.deepcopy(adapted)
    t = trainer(adapted)
    t.train()
    answers = t.generate(TEXTS[:4])
    t.step(TEXTS[:4], answers, [0.0] * 4)
    rollout = t.last_experience.rollout
    reference = PPOTrainer(options(), untouched, None, tiny_tokenizer(pad="eos"))
    reference.step(TEXTS[:4], answers, [0.0] * 4)
    assert torch.allclose(rollout.ref_logprobs, reference.last_experience.rollout.old_logprobs, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"critic": "model"}, {"lora_r": 4}, {"lora_r": 4, "critic": "adapter"}])
def test_only_what_should_learn_learns(changes):
    t = trainer(**changes)
    base = {n: p for n, p in weights(t.policy).items() if "lora_" not in n}
    critic = weights(t.critic)
    adapters = {n: p for n, p in weights(t.policy).items() if "lora_B" in n}
    t.train()
    assert all(not torch.equal(p, weights(t.policy)[n]) for n, p in adapters.items())
    moved = {n: not torch.equal(p, base[n]) for n, p in weights(t.policy).items() if n in base}
    assert any(moved.values()) is (changes.get("lora_r", 0) == 0)
    assert all(not torch.equal(p, critic[n]) for n, p in weights(t.critic).items())


# ------------------------------------------------------------------------------------------------ saving
def test_saved_models_load_with_plain_transformers_and_the_critic_loads_again(tmp_path):
    t = trainer(output_dir=str(tmp_path / "run"))
    t.train()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert equal(weights(loaded), weights(t.policy))
    other = trainer()
    load_critic(other.models, tmp_path / "run" / "critic")
    assert equal(weights(other.critic), weights(t.critic))


def test_a_trained_adapter_is_saved_as_one_and_loads_on_its_base(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    t = trainer(base, lora_r=4, critic="adapter", learning_rate=1e-2, output_dir=str(tmp_path / "run"))
    t.train()
    assert {p.name for p in (tmp_path / "run" / "model").glob("adapter_*")} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model").eval()
    ids = torch.tensor([[10, 20, 30]])
    assert torch.allclose(again(ids).logits, t.policy(ids).logits, atol=1e-5)
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert not torch.allclose(fresh(ids).logits, t.policy(ids).logits, atol=1e-3)
    assert isinstance(t.policy, PeftModel)


def test_bfloat16_weights_are_trained_in_float32():
    model = tiny_llama().to(torch.bfloat16)
    t = trainer(model, learning_rate=1e-5)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    before = weights(model)
    t.train()
    assert not equal(before, weights(model))


# ------------------------------------------------------------------------------------------------ how a run ends
def test_a_run_says_which_rule_ended_it(tmp_path):
    assert trainer(steps=2).train().reason == "finished: all 2 steps are done"
    assert trainer(steps=None, total_episodes=17).train().steps == 3  # ceil(17 / 8)
    held = trainer(target_reward=-1e6, target_reward_evals=2, steps=50).train()
    assert held.reason.startswith("target_reward")
    assert held.steps == 2  # evaluated at 0 and at 2
    idle = trainer(reward=lambda text: 1.0, patience=2, steps=50).train()
    assert idle.reason.startswith("patience")
    assert idle.steps == 4  # the best is the first; two more without a better one
    far = trainer(kl_ceiling=1e-4, learning_rate=3e-3, steps=50).train()
    assert far.reason.startswith("kl_ceiling")


def test_evaluation_uses_the_same_prompts_and_random_numbers_every_time():
    t = trainer()
    first, second = t.evaluate(), t.evaluate()
    assert [s["response"] for s in first.samples] == [s["response"] for s in second.samples]
    assert len(first.samples) == 4
    assert not {s["prompt"] for s in first.samples} & {p.text for p in t.prompts}


def test_a_whole_run_leaves_the_files_that_the_design_names(tmp_path):
    run = tmp_path / "run"
    trainer(output_dir=str(run), save_every=2).train()
    names = {str(p.relative_to(run)) for p in run.rglob("*")}
    wanted = {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "evaluations.jsonl",
        "samples/step_000001.jsonl",
        "samples/eval_000000.jsonl",
        "checkpoints/step_000002",
        "checkpoints/step_000004",
        "model/config.json",
        "critic/critic.safetensors",
    }
    assert wanted <= names
    assert not [n for n in names if Path(n).suffix in (".bin", ".pt", ".pkl")]


# ------------------------------------------------------------------------------------------------ bad input
BAD_STEPS = {
    "fewer responses": (TEXTS[:3], ["a", "b"], [1.0, 2.0, 3.0], "3 queries, 2 responses and 3 scores"),
    "fewer scores": (TEXTS[:2], ["a", "b"], [1.0], "2 queries, 2 responses and 1 scores"),
    "nothing": ([], [], [], "at least one"),
    "empty response": (TEXTS[:2], ["a", ""], [1.0, 2.0], r"responses\[1\] is empty"),
    "empty query": (["a", ""], ["a", "b"], [1.0, 2.0], r"queries\[1\] is empty"),
    "two-dimensional scores": (TEXTS[:2], ["a", "b"], torch.zeros(2, 1), r"shape \(2, 1\)"),
    "NaN": (TEXTS[:2], ["a", "b"], [1.0, float("nan")], r"scores\[1\] is nan"),
    "infinity": (TEXTS[:2], ["a", "b"], [float("inf"), 1.0], r"scores\[0\] is inf"),
    "a text as score": (TEXTS[:2], ["a", "b"], ["good", 1.0], r"scores\[0\] is 'good'"),
    "None as score": (TEXTS[:2], ["a", "b"], [None, 1.0], r"scores\[0\] is None"),
    "too long": (["x" * 300], ["a"], [1.0], "more than the model's context of 256"),
    "unknown id": ([torch.tensor([1, 999])], [torch.tensor([5])], [1.0], "token id 999"),
    "negative id": ([torch.tensor([1, -2])], [torch.tensor([5])], [1.0], "token id -2"),
    "2-D ids": ([torch.zeros(1, 3).long()], [torch.tensor([5])], [1.0], "1-D tensor"),
}


@pytest.mark.parametrize("case", BAD_STEPS)
def test_bad_input_is_one_clear_error_and_nothing_is_trained(case):
    queries, responses, scores, message = BAD_STEPS[case]
    t = trainer(reward=None, dataset=None)
    before = weights(t.policy)
    with pytest.raises(ValueError, match=message):
        t.step(queries, responses, scores)
    assert equal(before, weights(t.policy))
    assert t.steps_done == 0


def test_models_that_do_not_belong_together_are_refused():
    model = tiny_llama()
    with pytest.raises(ValueError, match="ref_model is the same object"):
        PPOTrainer(options(), model, model, tiny_tokenizer())
    with pytest.raises(ValueError, match="tokenizer has 262 tokens but the model only 100"):
        PPOTrainer(options(), tiny_llama(vocab_size=100), None, tiny_tokenizer())
    with pytest.raises(ValueError, match="tokenizer is missing"):
        PPOTrainer(options(), model)
    with pytest.raises(ValueError, match="loaded causal language model"):
        PPOTrainer(options(), "gpt2", None, tiny_tokenizer())
    with pytest.raises(ValueError, match="the policy needs LoRA"):
        PPOTrainer(options(critic="adapter"), model, None, tiny_tokenizer())
    with pytest.raises(ValueError, match="none of the policy's parameters"):
        PPOTrainer(
            options(), model, None, tiny_tokenizer(), optimizer=torch.optim.SGD(tiny_llama().parameters(), lr=1)
        )
    with pytest.raises(TypeError, match="known are"):
        PPOTrainer(options(), model, None, tiny_tokenizer()).generate(["a"], beams=3)


def test_one_row_is_a_batch_too():
    t = trainer(reward=None, dataset=None)
    stats = t.step(["a prompt"], ["an answer"], [1.0])
    assert stats["ppo/optimizer_steps"] == 2


def test_a_reward_that_fails_stops_the_run_with_the_sample_shown_and_nothing_trained():
    def broken(text):
        raise RuntimeError("no model behind this")

    t = trainer(reward=broken, eval_prompts=0)
    before = weights(t.policy)
    with pytest.raises(ValueError, match="no model behind this"):
        t.train()
    assert equal(before, weights(t.policy))


# ------------------------------------------------------------------------------------------------ ends of sequences
def test_an_end_inside_the_prompt_means_nothing_and_a_stop_token_ends_like_any_other():
    t = trainer(stop_token_ids=(50,))
    query = torch.tensor([20, EOS_ID, 30, EOS_ID, 40])
    answers = t.generate([query] * 16, max_new_tokens=40)
    for ids in answers:
        ends = [i for i, token in enumerate(ids.tolist()) if token in (EOS_ID, 50)]
        assert ends in ([], [len(ids) - 1])
    stats = t.step([query], [torch.tensor([60, 61, 50])], [1.0])
    assert stats["tokens/truncated_rate"] == 0
    assert t.last_experience.rollout.response_mask.tolist() == [[True, True, True]]
    assert t.last_experience.rollout.query_mask.sum() == 5


def test_greedy_answers_equal_those_of_transformers_generate_whatever_the_padding():
    for model in (tiny_llama(), tiny_gpt2()):
        t = trainer(model)
        queries = [[20, 30], [40, 41, 42, 43, 44, 45, 46], [60], [70, 71, 72]]
        ours = t.generate([torch.tensor(q) for q in queries], max_new_tokens=12, do_sample=False)
        for query, answer in zip(queries, ours, strict=True):
            theirs = model.generate(
                torch.tensor([query]),
                attention_mask=torch.ones(1, len(query)).long(),
                max_new_tokens=12,
                do_sample=False,
                pad_token_id=0,
            )
            assert answer.tolist() == theirs[0, len(query) :].tolist()


def test_sampler_and_trainer_agree_on_every_log_probability():
    t = trainer(temperature=0.7)
    answers = t.generate(TEXTS[:8], max_new_tokens=20)
    t.step(TEXTS[:8], answers, [0.0] * 8)
    rollout = t.last_experience.rollout
    assert torch.allclose(rollout.sampler_logprobs, rollout.old_logprobs, atol=1e-4)
    assert (rollout.sampler_logprobs != rollout.old_logprobs).any()  # they were computed independently


def test_an_answer_depends_on_its_seed_alone_and_not_on_its_neighbours():
    t = trainer()
    together = t.engine.generate([[20, 21], [30], [40, 41, 42]], [11, 12, 13], Sampling(8))
    alone = [
        t.engine.generate([q], [s], Sampling(8))[0]
        for q, s in zip([[20, 21], [30], [40, 41, 42]], [11, 12, 13], strict=True)
    ]
    assert [a.token_ids for a in together] == [a.token_ids for a in alone]


def test_samples_follow_the_model_s_distribution():
    model = tiny_llama()
    t = trainer(model)
    with torch.no_grad():
        expected = model(torch.tensor([[20, 21]])).logits[0, -1].softmax(-1)
    drawn = torch.zeros(262)
    for answer in t.generate([torch.tensor([20, 21])], num_return_sequences=4000, max_new_tokens=1):
        drawn[answer[0]] += 1
    kept = expected * 4000 >= 5
    chi2 = ((drawn - 4000 * expected)[kept] ** 2 / (4000 * expected[kept])).sum()
    degrees = int(kept.sum()) - 1
    assert chi2 < degrees + 4 * (2 * degrees) ** 0.5  # four standard deviations of chi-squared
