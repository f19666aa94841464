"""A real vLLM behind the engine, from the environment that `make vllm` makes: it draws what the policy would draw."""

import contextlib
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from tiny import byte_id, tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.callbacks import Callback
from surefoot.engine.vllm import VLLMEngine, folder
from surefoot.types import Sampling

pytestmark = pytest.mark.vllm

PYTHON = os.environ.get("SUREFOOT_VLLM_PYTHON", str(Path(__file__).parents[3] / ".vllm" / "bin" / "python"))
TEXTS = [f"{'a longer one, ' * (i % 3)}prompt {i}" for i in range(96)]
STEPS, ROWS = 3, 128


@pytest.fixture(scope="module", autouse=True)
def interpreter():
    assert Path(PYTHON).exists(), f"there is no {PYTHON}: run `make vllm`, or leave these tests out (-m 'not vllm')"


def model():
    """Tied embeddings, and heads as wide as vLLM's kernels for CPUs want them."""
    return tiny_llama(hidden_size=128, intermediate_size=128, tie_word_embeddings=True, initializer_range=0.08)


def vowels(completions, **_):
    return [float(sum(c.count(v) for v in "aeiou")) for c in completions]


class Keep(Callback):
    """Keeps the statistics, and kills the sampler after the first step where that is wanted."""

    def __init__(self, kills):
        self.steps, self._kills = [], kills

    def on_step(self, trainer, stats, samples):
        self.steps.append(dict(stats.scalars()))
        if self._kills and len(self.steps) == 1:
            os.kill(trainer.engine._child.pid, signal.SIGKILL)


def run(engine, *, kills=False, seed=11, **changes):
    keep = Keep(kills)
    options = {"vllm_python": PYTHON, "importance_cap": 2.0} if engine == "vllm" else {}
    config = PPOConfig(
        engine=engine, batch_size=ROWS, mini_batch_size=64, ppo_epochs=2, max_new_tokens=24, steps=STEPS,
        learning_rate=3e-3, eval_prompts=0, seed=seed, **options, **changes,
    )  # fmt: skip
    trainer = PPOTrainer(config, model(), None, tiny_tokenizer(), reward=vowels, dataset=TEXTS * 4, callbacks=[keep])
    trainer.train()
    return keep.steps, trainer


@pytest.fixture(scope="module")
def undisturbed():
    steps, trainer = run("vllm")
    starts = trainer.engine.starts
    trainer.engine.close()
    return steps, starts, {n: p.detach().clone() for n, p in trainer.policy.named_parameters()}


@pytest.mark.filterwarnings("ignore:learning_rate")
def test_three_steps_of_ppo_give_the_scores_and_the_divergence_of_the_other_engine(undisturbed):
    steps, starts, _ = undisturbed
    assert starts == 1
    for step in steps:
        assert step["sampler/logprob_gap_max"] < 1e-4
        assert step["sampler/effective_share"] == pytest.approx(1, abs=1e-6)
    plain = [run("transformers", seed=seed)[0] for seed in (11, 12, 13, 14)]
    for name in ("objective/scores", "objective/kl_k3"):
        for i in range(STEPS):
            theirs = torch.tensor([run[i][name] for run in plain])
            noise = float(theirs.std()) * (1 + 1 / len(theirs)) ** 0.5  # of one more run beside these
            assert abs(steps[i][name] - float(theirs.mean())) <= 4 * noise + 1e-6, (name, i)
    assert steps[-1]["objective/kl_k3"] > 1e-3  # it has moved


@pytest.mark.filterwarnings("ignore:learning_rate")
def test_a_run_whose_vllm_is_killed_goes_on_as_if_it_had_not_been(undisturbed):
    steps, _, weights = undisturbed
    again, trainer = run("vllm", kills=True)
    assert trainer.engine.starts == 2
    assert [s["objective/scores"] for s in again] == [s["objective/scores"] for s in steps]
    for name, parameter in trainer.policy.named_parameters():
        assert torch.allclose(parameter, weights[name], atol=1e-6)
    trainer.engine.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:learning_rate")
@pytest.mark.parametrize("kills", [False, True])
def test_a_step_ahead_learns_from_answers_that_are_one_step_old_or_from_new_ones_where_vllm_is_killed(
    undisturbed, kills
):
    steps, trainer = run("vllm", kills=kills, overlap=True)
    trainer.engine.close()
    assert trainer.engine.starts == 1 + kills
    assert [s["sampler/staleness"] for s in steps] == ([0, 0, 1] if kills else [0, 1, 1])
    assert steps[0]["objective/scores"] == undisturbed[0][0]["objective/scores"]
    for step in steps:
        assert all(math.isfinite(value) for value in step.values())
        assert step["ppo/policy/first_ratio"] == pytest.approx(1, abs=1e-5)
        if step["sampler/staleness"] == 0:
            assert step["sampler/logprob_gap_max"] < 1e-4
            assert step["sampler/effective_share"] == pytest.approx(1, abs=1e-6)
        else:  # what a step moved
            assert step["sampler/logprob_gap_max"] > 1e-3
            assert 0.5 < step["sampler/effective_share"] < 1 - 1e-6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:learning_rate")
def test_adapters_arrive_merged_and_in_bfloat16_within_its_roundings():
    steps, trainer = run("vllm", lora_r=8, precision="bfloat16")
    trainer.engine.close()
    assert trainer.engine.starts == 1
    for step in steps:
        assert step["sampler/logprob_gap"] < 0.02  # bfloat16 has 8 bits: 0.4 % of logits of a few nats
        assert step["sampler/effective_share"] > 0.99
    assert steps[-1]["objective/kl_k3"] > 1e-3  # the adapter has moved, and the answers with it


def moved(policy, seed):
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def gaps(policy, queries, answers, temperature):
    """How far each log-probability lies from the policy's own."""
    found = []
    for query, answer in zip(queries, answers, strict=True):
        logits = policy(torch.tensor([[*query, *answer.token_ids]])).logits[0, len(query) - 1 : -1] / temperature
        seen = logits.log_softmax(-1)[range(len(answer.token_ids)), list(answer.token_ids)]
        found.append(float((seen - torch.tensor(answer.logprobs)).abs().max()))
    return max(found)


def listening(pid):
    """Sockets that wait for somebody, of a process and all it has started."""
    group = [p.name for p in Path("/proc").iterdir() if p.name.isdigit() and _group(p) == pid]
    sockets = {os.readlink(f) for p in group for f in Path(f"/proc/{p}/fd").iterdir() if f.is_symlink()}
    rows = [
        line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]
    ]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]


def _group(process):
    try:
        return int((process / "stat").read_text().rsplit(")", 1)[1].split()[2])
    except OSError:
        return None


def test_weights_tied_heads_temperature_and_stops_arrive(monkeypatch):
    policy, tokenizer = model(), tiny_tokenizer()
    sampler = VLLMEngine(policy, tokenizer, (2,), autocast=contextlib.nullcontext, python=PYTHON, context=256)
    queries = [tokenizer(text)["input_ids"] for text in TEXTS[:12]]
    how = Sampling(16, temperature=0.7, stop_token_ids=(byte_id("e"),), stop_strings=("a",))
    first = sampler.generate(queries, range(12), how)
    assert gaps(policy, queries, first, 0.7) < 1e-4
    assert listening(sampler._child.pid) == []
    for answer in first:
        ends = answer.token_ids[-1] in (2, byte_id("e")) or "a" in str(answer)
        assert answer.finish_reason == ("stop" if ends else "length")
        assert not {2, byte_id("e")} & set(answer.token_ids[:-1])
        assert "a" not in str(answer)[:-1]
        assert len(answer.token_ids) == 16 or ends
    assert {a.finish_reason for a in first} == {"stop", "length"}
    assert [a.token_ids for a in sampler.generate(queries[:4], range(4), how)] == [a.token_ids for a in first[:4]]

    moved(policy, 1)
    assert gaps(policy, queries, sampler.generate(queries, range(12), how), 0.7) < 1e-4
    assert sampler.starts == 1

    monkeypatch.setattr(folder, "_tied", lambda *_: {})  # what vLLM itself makes of a folder with tied embeddings
    moved(policy, 2)
    assert gaps(policy, queries, sampler.generate(queries, range(12), how), 0.7) < 1e-4
    assert sampler.starts == 2  # the canary saw the old head
    sampler.close()
