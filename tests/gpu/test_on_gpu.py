"""What only a GPU can show: run by `make test-gpu` where there is one."""

import copy

import pytest
import torch
from sampling import LENGTHS, engine, queries
from steps import make_trainer, weights
from tiny import tiny_gpt2, tiny_llama, tiny_tokenizer

from surefoot.kernels import fuse
from surefoot.networks import Trunk, trunk_of
from surefoot.rows import join_rows
from surefoot.types import Sampling

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_a_recorded_step_draws_what_the_cpu_draws(make):
    ends = tuple(range(2, 262, 40))
    cpu, gpu = engine(make(), ends), engine(make().cuda(), ends)
    answers = [sampler.generate(queries() * 3, range(24), Sampling(60)) for sampler in (cpu, gpu)]
    assert gpu._fixes is True
    assert gpu._fixed._graph is not None
    same = [a.token_ids == b.token_ids for a, b in zip(*answers, strict=True)]
    assert sum(same) >= 23  # a sum of probabilities may round to the other side of a random number


def test_greedy_answers_equal_those_of_generate_also_past_the_room_of_a_recording():
    model = tiny_llama(max_position_embeddings=1024).cuda()
    for query in queries((7, 40)):
        ids = torch.tensor([query]).cuda()
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=400, do_sample=False, eos_token_id=None,
            pad_token_id=0,
        )[0, len(query) :]  # fmt: skip
        ours = engine(model, ()).generate([query], [0], Sampling(400, greedy=True))[0]
        assert list(ours.token_ids) == theirs.tolist()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_first_ratio_is_one_and_the_first_divergence_zero(precision):
    trainer = make_trainer(tiny_llama().cuda(), precision=precision, batch_size=8, mini_batch_size=4)
    asked = [torch.tensor(row) for row in queries()]
    answers = trainer.generate(asked, max_new_tokens=12)
    stats = trainer.step(asked, answers, [float(i % 3) for i in range(8)])
    assert stats["objective/kl"] == 0
    assert stats["ppo/policy/first_ratio"] == pytest.approx(1, abs=1e-6 if precision == "float32" else 1e-3)
    assert stats["ppo/optimizer_steps"] > 0


def test_a_step_in_float32_ends_where_the_cpu_ends():
    asked = [torch.tensor(row) for row in queries()]
    ends = []
    for device in ("cpu", "cuda"):
        trainer = make_trainer(tiny_llama().to(device), batch_size=8, mini_batch_size=4, precision="float32")
        generator = torch.Generator().manual_seed(1)
        answers = [torch.randint(6, 262, (9,), generator=generator) for _ in asked]
        trainer.step(asked, answers, [float(i % 3) for i in range(8)])
        ends.append({name: w.detach().cpu() for name, w in weights(trainer).items()})
    for name, weight in ends[0].items():
        torch.testing.assert_close(ends[1][name], weight, atol=2e-4, rtol=0)


def test_rows_of_different_lengths_lie_end_to_end_in_half_precision_and_give_the_states_and_gradients_of_a_rectangle():
    model = tiny_llama(hidden_size=64, num_attention_heads=4, num_key_value_heads=2).cuda()
    asked, responses = queries(), queries(LENGTHS[::-1])
    ids, mask = torch.zeros(8, 30, dtype=torch.long), torch.zeros(8, 30, dtype=torch.bool)
    for i, query in enumerate(asked):
        ids[i, 30 - len(query) :], mask[i, 30 - len(query) :] = torch.tensor(query), True
    answers = torch.tensor([row + [0] * (30 - len(row)) for row in responses])
    found = join_rows(ids.cuda(), mask.cuda(), answers.cuda(), torch.tensor([len(r) for r in responses]).cuda())
    results = []
    for packs in (True, False):
        used = copy.deepcopy(model)
        trunk = Trunk(trunk_of(used))
        assert trunk.packs
        trunk.packs = packs
        with torch.autocast("cuda", torch.bfloat16):
            states = trunk.states(found).float()
        states.square().sum().backward()
        results.append((states.detach(), {n: p.grad for n, p in used.named_parameters() if p.grad is not None}))
    (packed, g1), (padded, g2) = results
    assert (packed - padded).abs().max() < 0.06 * padded.abs().max()
    for name, gradient in g2.items():
        assert (g1[name] - gradient).norm() < 0.05 * gradient.norm()


def test_liger_changes_the_model_it_is_given_and_its_numbers_by_a_rounding():
    pytest.importorskip("liger_kernel", reason="the extra `liger` is not installed")
    from transformers.models.llama import modeling_llama

    names = dict(vars(modeling_llama))
    gradients = []
    for fused in (True, False):
        model = tiny_llama(hidden_size=64, intermediate_size=128).cuda()
        if fused:
            assert fuse(model)
            assert "forward" in vars(model.model.layers[0].mlp)
        with torch.autocast("cuda", torch.bfloat16):
            model(torch.tensor(queries((30, 30))).cuda()).logits.float().logsumexp(-1).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[1].items():
        assert (gradients[0][name] - gradient).norm() < 0.05 * gradient.norm()
    assert dict(vars(modeling_llama)) == names
    assert "forward" not in vars(tiny_llama().model.layers[0].mlp)


def test_a_frozen_reference_waits_in_pinned_memory_and_changes_no_number():
    stats, learned = [], []
    for offload in (False, True):
        trainer = make_trainer(tiny_llama(1).cuda(), tiny_llama(2), offload_frozen=offload, precision="float32")
        generator = torch.Generator().manual_seed(1)
        answers = [torch.randint(6, 262, (9,), generator=generator) for _ in LENGTHS]
        step = trainer.step([torch.tensor(row) for row in queries()], answers, [float(i % 3) for i in range(8)])
        stats.append(step["objective/kl"])
        learned.append(weights(trainer))
        places = {p.device.type for p in trainer.models.reference.model.parameters()}
        assert places == {"cpu" if offload else "cuda"}
    assert stats[0] == pytest.approx(stats[1], rel=1e-6)
    for name, weight in learned[0].items():
        torch.testing.assert_close(learned[1][name], weight, atol=1e-6, rtol=0)


def test_a_restored_trainer_goes_on_as_the_one_that_was_saved(tmp_path):
    def steps(trainer, count):
        for _ in range(count):
            asked = [torch.tensor(row) for row in queries()]
            answers = trainer.generate(asked, max_new_tokens=8)
            trainer.step(asked, answers, [float(len(a)) for a in answers])

    options = {"precision": "float32", "optimizer": lambda p: torch.optim.AdamW(p, lr=1e-4)}
    straight = make_trainer(tiny_llama().cuda(), **options)
    steps(straight, 4)
    first = make_trainer(tiny_llama().cuda(), **options)
    steps(first, 2)
    first.save(tmp_path / "step")
    second = make_trainer(tiny_llama().cuda(), **options)
    second.restore(tmp_path / "step")
    steps(second, 2)
    expected = weights(straight)
    for name, weight in weights(second).items():
        torch.testing.assert_close(weight, expected[name], atol=1e-5, rtol=0)


def test_a_whole_run_under_lora_in_half_precision(tmp_path):
    from surefoot import PPOConfig, PPOTrainer

    config = PPOConfig(batch_size=8, mini_batch_size=4, steps=3, max_new_tokens=12, lora_r=4, learning_rate=1e-3,
                       eval_prompts=2, eval_every=2, output_dir=str(tmp_path / "run"))  # fmt: skip
    trainer = PPOTrainer(config, tiny_llama().cuda(), tokenizer=tiny_tokenizer(), reward=lambda text: float(len(text)),
                         dataset=[f"prompt {i}" for i in range(12)])  # fmt: skip
    result = trainer.train()
    assert result.steps == 3
    assert trainer.engine._fixes is True
    assert (tmp_path / "run" / "checkpoints" / "step_000003" / "manifest.json").exists()
