"""Passes in bfloat16 autocast: what stays in float32, how far the numbers drift, and a reference held in half."""

from collections import Counter

import pytest
import tiny
import torch
from oracle import ppo
from steps import Batch, make_trainer
from torch.utils._python_dispatch import TorchDispatchMode

from surefoot import assemble
from surefoot.config import PPOConfig

both_precisions = pytest.mark.parametrize("precision", ["float32", "bfloat16"])


def tied_llama(seed=0):
    return tiny.tiny_llama(seed, tie_word_embeddings=True)


def stepped(policy, reference=None, **options):
    batch = Batch()
    trainer = make_trainer(policy, reference, **options)
    return trainer, trainer.step(batch.queries, batch.responses, batch.scores)


# ------------------------------------------------------------------------------------------ what stays in float32


@both_precisions
def test_log_probabilities_are_those_of_the_logits_in_double_precision(precision, monkeypatch):
    trainer, batch, rows, logits = make_trainer(tiny.tiny_llama(), precision=precision), Batch(), [], []
    states, read = trainer.models.states, trainer.models.logits
    monkeypatch.setattr(trainer.models, "states", lambda r: rows.append(r) or states(r))
    monkeypatch.setattr(trainer.models, "logits", lambda s: logits.append(read(s)) or logits[-1])
    trainer.step(batch.queries, batch.responses, batch.scores)
    assert logits[0].dtype == getattr(torch, precision)
    found = trainer.last_experience.rollout.old_logprobs
    exact = logits[0].detach().double().numpy()
    wanted = torch.tensor(ppo.token_logprobs([exact], [rows[0].response_ids.tolist()], 1.0)[0])
    difference = found[found != 0].double().sort().values - wanted.sort().values  # a pass has an order of its own
    assert difference.abs().max() < 1e-5  # in bfloat16 it would be about 0.02


def test_everything_after_the_logits_and_all_that_is_trained_is_float32():
    trainer, _ = stepped(tiny.tiny_llama(), precision="bfloat16", optimizer=torch.optim.AdamW)
    experience = trainer.last_experience
    numbers = [getattr(experience, name) for name in ("rewards", "advantages", "returns")]
    numbers += [getattr(experience.rollout, name) for name in ("old_logprobs", "ref_logprobs", "kl", "entropies",
                                                               "old_values", "last_values")]  # fmt: skip
    trained = list(trainer.models.trainable().values())
    moments = [m for state in trainer.optimizer.state.values() for m in state.values() if torch.is_tensor(m)]
    assert {t.dtype for t in [*numbers, *trained, *moments]} == {torch.float32}
    assert len(moments) >= 2 * len(trained)


def test_values_are_a_float32_product_of_the_last_states(monkeypatch):
    trainer = make_trainer(tiny.tiny_llama(), precision="bfloat16")
    seen = []
    inside = trainer.critic.forward
    monkeypatch.setattr(trainer.critic, "forward", lambda states: seen.append((states, inside(states))) or seen[-1][1])
    batch = Batch()
    trainer.step(batch.queries, batch.responses, batch.scores)
    states, values = seen[0]
    assert values.dtype == torch.float32
    wanted = states.detach().double() @ WEIGHT.double() + 0.1
    torch.testing.assert_close(values.detach().double(), wanted, atol=1e-5, rtol=1e-5)


WEIGHT = torch.linspace(-0.3, 0.3, 32)
"""What `make_trainer` gives the critic's head to start with; its bias is 0.1."""


# ------------------------------------------------------------------------------------------ drift


def test_the_drift_of_bfloat16_passes_is_bounded():
    exact, _ = stepped(tiny.tiny_llama())
    rough, stats = stepped(tiny.tiny_llama(), precision="bfloat16")
    rollouts = exact.last_experience.rollout, rough.last_experience.rollout
    present = rollouts[0].old_logprobs != 0
    difference = (rollouts[0].old_logprobs - rollouts[1].old_logprobs)[present].abs()
    assert 0 < difference.mean() < 0.02
    assert difference.max() < 0.15
    assert stats["objective/kl"] == 0
    assert stats["ppo/policy/first_ratio"] == pytest.approx(1, abs=1e-6)
    start = dict(tiny.tiny_llama().named_parameters())
    moved = [
        torch.cat([(p - start[name]).flatten() for name, p in trainer.policy.named_parameters()])
        for trainer in (exact, rough)
    ]
    assert torch.cosine_similarity(*moved, dim=0) > 0.99  # plain SGD: what moved is the gradient


# ------------------------------------------------------------------------------------------ the reference


@pytest.mark.parametrize("make_model", [tiny.tiny_llama, tied_llama, tiny.tiny_gpt2], ids=["llama", "tied", "gpt2"])
def test_a_reference_held_in_bfloat16_says_what_autocast_would(make_model, monkeypatch):
    held, _ = stepped(make_model(), make_model(1), precision="bfloat16")
    monkeypatch.setattr(assemble, "hold_in_bfloat16", lambda model: None)
    cast, _ = stepped(make_model(), make_model(1), precision="bfloat16")
    rollouts = held.last_experience.rollout, cast.last_experience.rollout
    assert torch.equal(rollouts[0].ref_logprobs, rollouts[1].ref_logprobs)
    assert rollouts[0].kl.abs().max() > 0.01
    sizes = [sum(p.nbytes for p in t.models.reference.model.parameters()) for t in (held, cast)]
    assert sizes[0] < 0.85 * sizes[1]


@pytest.mark.parametrize("make_model", [tiny.tiny_llama, tied_llama, tiny.tiny_gpt2], ids=["llama", "tied", "gpt2"])
def test_the_first_divergence_from_a_reference_in_bfloat16_is_exactly_0(make_model):
    policy = make_model()
    trainer, stats = stepped(policy, precision="bfloat16")
    assert stats["objective/kl"] == 0
    rollout = trainer.last_experience.rollout
    assert torch.equal(rollout.old_logprobs, rollout.ref_logprobs)
    reference = trainer.models.reference.model
    linear = {p.dtype for m in reference.modules() if isinstance(m, torch.nn.Linear) for p in m.parameters()}
    assert linear == {torch.bfloat16}
    assert reference.get_input_embeddings().weight.dtype == torch.float32
    assert {p.dtype for p in policy.parameters()} == {torch.float32}


def test_in_float32_the_reference_is_not_rounded():
    trainer, _ = stepped(tiny.tiny_llama(), precision="float32")
    assert {p.dtype for p in trainer.models.reference.model.parameters()} == {torch.float32}


def test_a_base_under_lora_stays_as_it_was_brought():
    policy = tiny.tiny_llama()
    trainer, stats = stepped(policy, precision="bfloat16", lora_r=2)
    assert stats["objective/kl"] == 0
    assert {p.dtype for p in trainer.policy.parameters()} == {torch.float32}


class Rounded(TorchDispatchMode):
    """Counts how often each weight is copied into bfloat16."""

    def __init__(self, model):
        self.weights = {p.data_ptr(): name for name, p in model.named_parameters() if p.dim() == 2}
        self.counts = Counter()
        super().__init__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        copies = function in (torch.ops.aten._to_copy.default, torch.ops.aten.to.dtype)
        if copies and torch.bfloat16 in (*args[1:], *(kwargs or {}).values()) and args[0].dtype == torch.float32:
            self.counts[self.weights.get(args[0].data_ptr(), "another tensor")] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("lora_r", [0, 2])
def test_sampling_rounds_each_weight_once_frozen_ones_too(lora_r):
    trainer = make_trainer(tiny.tiny_llama(), precision="bfloat16", lora_r=lora_r)
    before = [p.requires_grad for p in trainer.policy.parameters()]
    with Rounded(trainer.policy) as seen:
        answers = trainer.generate([torch.tensor([20, 21, 22])] * 2, max_new_tokens=12)
    assert max(map(len, answers)) > 3
    queries = [name for name in seen.counts if "q_proj" in name]
    assert len(queries) == (6 if lora_r else 2)
    assert all(seen.counts[name] == 1 for name in queries)
    assert [p.requires_grad for p in trainer.policy.parameters()] == before


def test_auto_means_float32_on_a_cpu_whatever_it_can():
    assert PPOConfig().precision == "auto"
    trainer = make_trainer(tiny.tiny_llama())
    with trainer.models.arithmetic():
        assert not torch.is_autocast_enabled("cpu")
