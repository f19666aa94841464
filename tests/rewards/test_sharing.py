"""Reward models that are adapters of the policy's base. The oracle is peft's model, on a base of its own."""

import logging
import re

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from reward_adapters import alone, save_adapter, save_base
from steps import Batch
from tiny_classifier import TEXTS, classifier, prompts, said
from transformers import AutoModelForCausalLM, AutoTokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.rewards import ModelReward
from surefoot.rewards.sharing import SharedClassifier


def trainer_of(base, reward, policy=None, **options):
    settings = {"batch_size": 8, "mini_batch_size": 4, "ppo_epochs": 2, "learning_rate": 1e-4, "lora_r": 4,
                "model_name": base, "max_new_tokens": 6}  # fmt: skip
    policy = AutoModelForCausalLM.from_pretrained(base) if policy is None else policy
    config = PPOConfig(**(settings | options))
    return PPOTrainer(config, policy, None, AutoTokenizer.from_pretrained(base), reward=reward)


def step(trainer):
    batch = Batch()
    return trainer.step(batch.queries, batch.responses, batch.scores)


def scores_of(trainer, name="judge"):
    return trainer.reward(prompts(), said(*TEXTS)).parts[name]


def rows(end=()):
    return [[tiny.byte_id(c) for c in "Q: " + text] + list(end) for text in TEXTS]


def is_shared(trainer, name="judge"):
    return isinstance(trainer.reward.rewards[name].model, SharedClassifier)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("pad", ["own", "eos", "none"])
@pytest.mark.parametrize("ends", [False, True])
def test_scores_are_those_of_a_separate_model_before_and_after_updates(tmp_path, kind, pad, ends):
    base = save_base(tmp_path / "base", kind, pad)
    tokenizer = tiny.tiny_tokenizer(pad=pad, adds_eos=True) if ends else None
    folder = save_adapter(tmp_path / "judge", base, tokenizer=tokenizer)
    trainer = trainer_of(base, folder, critic="adapter")
    assert is_shared(trainer)
    expected = alone(folder, base, rows([tiny.EOS_ID] * ends))
    assert len({round(s, 3) for s in expected}) == len(TEXTS)
    assert scores_of(trainer) == pytest.approx(expected, abs=1e-5)
    before = policy_weights(trainer)
    for _ in range(2):
        step(trainer)
    assert any(not torch.equal(p, before[n]) for n, p in policy_weights(trainer).items())
    assert scores_of(trainer) == pytest.approx(expected, abs=1e-5)


def policy_weights(trainer):
    return {n: p.detach().clone() for n, p in trainer.models.trainable().items()}


def test_no_second_base_is_held(tmp_path):
    base = save_base(tmp_path / "base")
    trainer = trainer_of(base, save_adapter(tmp_path / "judge", base))
    own = trainer.reward.rewards["judge"].model
    of_a_layer = 4 * sum(a + b for a, b in [(32, 32), (32, 16), (32, 16), (32, 32), (32, 64), (32, 64), (64, 32)])
    assert sum(p.numel() for p in own.parameters()) == 2 * of_a_layer + 32  # r x (in + out), and the head
    assert own.get_input_embeddings() is trainer.policy.get_input_embeddings()


@pytest.mark.parametrize("critic", ["head", "adapter", "model"])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj"]])
def test_training_is_the_same_to_the_last_bit_as_without_the_reward(tmp_path, critic, targets):
    base = save_base(tmp_path / "base")
    folder = save_adapter(tmp_path / "judge", base, target_modules=targets)
    with_it, without = trainer_of(base, folder, critic=critic), trainer_of(base, None, critic=critic)
    assert set(policy_weights(with_it)) == set(policy_weights(without))
    for _ in range(2):
        scores_of(with_it)
        seen, plain = step(with_it), step(without)
    same = [k for k, v in plain.items() if isinstance(v, float) and "time" not in k and "memory" not in k]
    assert [seen[k] for k in same] == [plain[k] for k in same]
    weights = policy_weights(without)
    assert all(torch.equal(p, weights[n]) for n, p in policy_weights(with_it).items())


def test_answers_and_random_numbers_are_the_same_with_it(tmp_path):
    base = save_base(tmp_path / "base")
    folder = save_adapter(tmp_path / "judge", base)
    torch.manual_seed(1)
    answers = trainer_of(base, folder).generate(["Q: one", "Q: two"])
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert trainer_of(base, None).generate(["Q: one", "Q: two"]) == answers
    assert torch.equal(torch.rand(3), drawn)


def test_the_saved_adapter_is_the_policys_alone(tmp_path):
    base = save_base(tmp_path / "base")
    trainer = trainer_of(base, save_adapter(tmp_path / "judge", base))
    plain = trainer_of(base, None)
    for each, place in ((trainer, "with"), (plain, "without")):
        scores_of(each) if each.reward else None
        step(each)
        each.save_model(tmp_path / place / "model")
    files = [sorted(p.name for p in (tmp_path / place / "model").rglob("*")) for place in ("with", "without")]
    assert files[0] == files[1]
    read = [(tmp_path / p / "model" / "adapter_model.safetensors").read_bytes() for p in ("with", "without")]
    assert read[0] == read[1]


def test_a_merged_policy_has_nothing_of_the_reward_in_it(tmp_path):
    base = save_base(tmp_path / "base")
    trainer = trainer_of(base, save_adapter(tmp_path / "judge", base))
    step(trainer)
    ids = torch.tensor(rows()[1:2])
    expected = trainer.policy(ids).logits
    trainer.policy.peft_config["default"].base_model_name_or_path = None  # so that it is written merged
    trainer.save_model(tmp_path / "out" / "model")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    assert torch.allclose(merged(ids).logits, expected, atol=1e-4)


def test_a_checkpoint_goes_on_and_refuses_another_reward_by_its_name(tmp_path):
    base = save_base(tmp_path / "base")
    folder = save_adapter(tmp_path / "judge", base)
    trainer = trainer_of(base, folder)
    step(trainer)
    trainer.save(tmp_path / "state")
    resumed = trainer_of(base, folder)
    resumed.restore(tmp_path / "state")
    step(resumed), step(trainer)
    weights = policy_weights(trainer)
    assert all(torch.equal(p, weights[n]) for n, p in policy_weights(resumed).items())
    assert not any("surefoot_reward" in name for name in weights)
    other = save_adapter(tmp_path / "other" / "judge", base, seed=6)
    with pytest.raises(ValueError, match=r"^reward judge: not what"):
        trainer_of(base, other).restore(tmp_path / "state")


def test_a_base_in_several_files_is_compared_too(tmp_path):
    base = save_base(tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(base, max_shard_size="30KB")
    (tmp_path / "base" / "model.safetensors").unlink(missing_ok=True)
    folder = save_adapter(tmp_path / "judge", base)
    assert len(list((tmp_path / "base").glob("model-*.safetensors"))) > 2
    trainer = trainer_of(base, folder)
    assert is_shared(trainer)
    assert scores_of(trainer) == pytest.approx(alone(folder, base, rows()), abs=1e-5)
    with torch.no_grad():
        policy = AutoModelForCausalLM.from_pretrained(base)
        policy.model.norm.weight[-1] += 1e-3
    assert not is_shared(trainer_of(base, folder, policy))


def test_ranks_and_scales_of_an_adapter_are_kept(tmp_path):
    base = save_base(tmp_path / "base")
    options = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 12}, "use_rslora": True,
               "layers_to_transform": [1], "lora_dropout": 0.5}  # fmt: skip
    folder = save_adapter(tmp_path / "judge", base, target_modules=["q_proj", "down_proj"], **options)
    trainer = trainer_of(base, folder)
    assert is_shared(trainer)
    assert scores_of(trainer) == pytest.approx(alone(folder, base, rows()), rel=1e-5, abs=1e-5)


def test_two_adapters_share_one_base_under_names_of_their_own(tmp_path):
    base = save_base(tmp_path / "base")
    folders = [save_adapter(tmp_path / name, base, seed=i) for i, name in enumerate(("kind", "short"))]
    trainer = trainer_of(base, folders)
    for folder, name in zip(folders, ("kind", "short"), strict=True):
        assert is_shared(trainer, name)
        assert scores_of(trainer, name) == pytest.approx(alone(folder, base, rows()), abs=1e-5)


def test_only_adapter_and_head_are_offloaded(tmp_path):
    base = save_base(tmp_path / "base")
    folder = save_adapter(tmp_path / "judge", base)
    trainer = trainer_of(base, folder, offload_frozen=True)
    away = {id(t) for t in trainer.presence.away._tensors}
    assert away == {id(p) for p in trainer.reward.rewards["judge"].model.parameters()}
    step(trainer)
    with trainer.presence.frozen():
        assert scores_of(trainer) == pytest.approx(alone(folder, base, rows()), abs=1e-5)


def test_a_policy_that_starts_from_an_adapter_shares_its_base_too(tmp_path):
    base = save_base(tmp_path / "base")
    folder = save_adapter(tmp_path / "judge", base, target_modules=["q_proj", "down_proj"])
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    policy = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    trainer = trainer_of(base, folder, policy, lora_r=0)
    assert is_shared(trainer)
    assert step(trainer)["objective/kl"] == pytest.approx(0, abs=1e-5)
    assert scores_of(trainer) == pytest.approx(alone(folder, base, rows()), abs=1e-5)


def another_base(tmp_path, base):
    other = save_base(tmp_path / "other")
    return save_adapter(tmp_path / "judge", other), AutoModelForCausalLM.from_pretrained(base), {}


def full_weights(tmp_path, base):
    return save_adapter(tmp_path / "judge", base), AutoModelForCausalLM.from_pretrained(base), {"lora_r": 0}


def lora_on_embeddings(tmp_path, base):
    with pytest.warns(UserWarning, match="embedding layers found"):
        folder = save_adapter(tmp_path / "judge", base, target_modules=["q_proj", "embed_tokens"])
    return folder, AutoModelForCausalLM.from_pretrained(base), {}


def policy_with_lora_on_embeddings(tmp_path, base):
    config = LoraConfig(target_modules=["q_proj", "embed_tokens"], task_type="CAUSAL_LM")
    policy = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    return save_adapter(tmp_path / "judge", base), policy, {"lora_r": 0}


def policy_that_trains_a_whole_layer(tmp_path, base):
    config = LoraConfig(target_modules=["q_proj"], modules_to_save=["norm"], task_type="CAUSAL_LM")
    policy = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    return save_adapter(tmp_path / "judge", base), policy, {"lora_r": 0}


def changed_in_memory(tmp_path, base):
    policy = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        policy.model.layers[1].mlp.down_proj.weight[3, 5] += 1e-3
    return save_adapter(tmp_path / "judge", base), policy, {}


def biases_too(tmp_path, base):
    return save_adapter(tmp_path / "judge", base, bias="all"), AutoModelForCausalLM.from_pretrained(base), {}


def another_way_of_positions(tmp_path, base):
    policy = AutoModelForCausalLM.from_pretrained(base, rope_parameters={"rope_type": "default", "rope_theta": 77.0})
    return save_adapter(tmp_path / "judge", base), policy, {}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (another_base, "its base is .*other, the policy's is .*base"),
        (full_weights, "all weights of the policy are trained"),
        (lora_on_embeddings, "more than LoRA on linear layers"),
        (policy_with_lora_on_embeddings, "LoRA on its embeddings"),
        (policy_that_trains_a_whole_layer, "more of the policy is trained than LoRA"),
        (changed_in_memory, "layers.1.mlp.down_proj.weight of the policy is not that of"),
        (biases_too, "bias, which may change the base"),
        (another_way_of_positions, "config of its base is not the policy's"),
    ],
)
def test_what_does_not_match_has_a_base_of_its_own_and_says_so(tmp_path, caplog, make, said):
    base = save_base(tmp_path / "base", attention_bias=True)
    folder, policy, options = make(tmp_path, base)
    with caplog.at_level(logging.INFO, logger="surefoot"):
        trainer = trainer_of(base, folder, policy, **options)
    lines = [(r.levelno, r.getMessage()) for r in caplog.records if r.name == "surefoot" and "judge" in r.getMessage()]
    assert len(lines) == 1
    assert lines[0][0] == logging.INFO
    assert re.search(f"a base of its own.*{said}", lines[0][1])
    assert not is_shared(trainer)
    step(trainer)
    source = str(tmp_path / "other") if make is another_base else base
    assert scores_of(trainer) == pytest.approx(alone(folder, source, rows()), abs=1e-5)


def test_objects_are_taken_as_they_are(tmp_path):
    base = save_base(tmp_path / "base")
    model = classifier()
    reward = ModelReward(model, tiny.tiny_tokenizer(), "judge")
    assert trainer_of(base, reward).reward.rewards["judge"].model is model
