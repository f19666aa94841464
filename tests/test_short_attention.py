"""Attention of short rows in bfloat16: the same as PyTorch's, against float64, whatever the mask."""

from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_llama
from torch.nn.functional import scaled_dot_product_attention as attention

from surefoot import short_attention
from surefoot.arithmetic import arithmetic
from surefoot.stages.trl import _TRAINERS

OURS = "_ShortAttentionBackward"
SEEN = torch.ones(12, 12, dtype=torch.bool).tril()
PADDED = (SEEN & (torch.arange(12) >= torch.tensor([0, 3, 11])[:, None, None]))[:, None]
"""Three rows, of which the second and the third begin with padding: their first tokens see nothing."""
CASES = {
    "causal": {"is_causal": True},
    "all of it": {},
    "scaled": {"is_causal": True, "scale": 0.3},
    "padding on the left": {"attn_mask": PADDED},
    "one mask for all": {"attn_mask": SEEN[None, None]},
    "added": {"attn_mask": torch.linspace(-2, 2, 144).view(1, 1, 12, 12).masked_fill(~SEEN, -torch.inf)},
    "fewer keys' heads": {"is_causal": True, "enable_gqa": True},
}


def inputs(case, dtype=torch.bfloat16, tokens=12):
    generator = torch.Generator().manual_seed(5)
    heads = (4, 2, 2) if "enable_gqa" in CASES[case] else (4, 4, 4)
    return [
        torch.randn(3, h, tokens, 16, generator=generator).to(torch.bfloat16).to(dtype).requires_grad_() for h in heads
    ]


def exact(case):
    """Output and gradients in float64, from the formula."""
    q, k, v = inputs(case, torch.float64)
    options = dict(CASES[case])
    wide = [x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v)]
    scores = q @ wide[0].mT * options.get("scale", 16**-0.5)
    mask = options.get("attn_mask", SEEN if options.get("is_causal") else None)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    found = scores.softmax(-1).nan_to_num(0) @ wide[1]
    return found, torch.autograd.grad(found, (q, k, v), torch.ones_like(found).cumsum(-1))


def gradients(found, tensors):
    return torch.autograd.grad(found, tensors, torch.ones_like(found).cumsum(-1))


def error(found, wanted):
    return max(float((a.double() - b).detach().norm() / b.detach().norm()) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("rows_at_once", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_are_those_of_the_formula(case, rows_at_once, monkeypatch):
    monkeypatch.setattr(short_attention, "_AT_ONCE", rows_at_once * 4 * 12 * 12)
    output, wanted = exact(case)
    tensors = inputs(case)
    with short_attention.QuickAttention():
        found = attention(*tensors, **CASES[case])
    assert type(found.grad_fn).__name__ == OURS
    assert error([found], [output]) < 0.004
    assert error(gradients(found, tensors), wanted) < 0.005


def used_now(tensors=None, **options):
    return type(attention(*(tensors or inputs("causal")), **options).grad_fn).__name__ == OURS


def used(tensors, **options):
    with short_attention.QuickAttention():
        return used_now(tensors, **options)


def test_it_is_used_where_it_gains_and_nowhere_else():
    causal = {"is_causal": True}
    assert used(inputs("causal"), **causal)
    assert used(inputs("causal", tokens=256), **causal)
    assert not used(inputs("causal", tokens=257), **causal)
    assert not used(inputs("causal", torch.float32), **causal)
    assert not used([x.detach() for x in inputs("causal")], **causal)
    assert not used(inputs("causal"), dropout_p=0.5)
    with torch.no_grad():
        assert not used(inputs("causal"), **causal)
    with torch.autocast("cpu", torch.bfloat16):
        assert used(inputs("causal", torch.float32), **causal)


def test_a_pass_that_learns_in_bfloat16_uses_it_and_comes_to_the_same_gradients(monkeypatch):
    ids = torch.arange(40).view(2, 20) % 30

    def loss(model):
        with arithmetic(torch.device("cpu"), bfloat16=True):
            return model(ids, labels=ids).loss

    def learned(model):
        loss(model).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    calls = []
    plain = short_attention.short_attention
    monkeypatch.setattr(short_attention, "short_attention", lambda *a, **k: calls.append(1) or plain(*a, **k))
    model = tiny_llama()
    ours = learned(model)
    assert len(calls) == model.config.num_hidden_layers
    with torch.no_grad():
        loss(model)
    assert len(calls) == model.config.num_hidden_layers
    monkeypatch.setattr(short_attention, "LONGEST", 0)
    without = learned(tiny_llama())
    assert float((ours - without).norm() / without.norm()) < 0.02


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("stage", _TRAINERS)
def test_the_other_stages_use_it_unless_activations_are_made_again(stage, recomputes, monkeypatch):
    """For these are made without a mode (tests/stages/test_sft.py makes some)."""
    active = []
    kind = _TRAINERS[stage]

    def step(self, *args):
        active.append(used_now())
        return "loss"

    monkeypatch.setattr(kind.__mro__[2], "training_step", step)
    trainer = object.__new__(kind)
    trainer.args = SimpleNamespace(activation_checkpointing=recomputes)
    assert kind.training_step(trainer) == "loss"
    assert active == [not recomputes]
