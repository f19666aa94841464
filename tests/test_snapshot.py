"""Every kind of state goes into plain JSON and comes back as it was; what cannot is refused by name."""

import json
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from surefoot.snapshot import (
    generator_states,
    optimizer_state,
    pack,
    plain,
    prompts_digest,
    restore_generators,
    unpack,
    unplain,
    weights_digest,
)
from surefoot.types import Prompt

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
keys = st.text(max_size=5) | st.integers() | st.just("kind of value")
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a, b):
    if isinstance(a, float) and isinstance(b, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


@given(values)
def test_plain_values_survive_strict_json_with_their_types(value):
    text = json.dumps(plain(value, "here"), allow_nan=False)
    assert same(unplain(json.loads(text)), value)


def test_what_is_not_plain_is_refused_with_its_place():
    with pytest.raises(TypeError, match=r"lr_scheduler\.base\.1 is a function"):
        plain({"base": {1: test_what_is_not_plain_is_refused_with_its_place}}, "lr_scheduler")


class Part:
    """An object with state, like a controller."""

    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def trained(make_optimizer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = nn.Parameter(torch.randn(3, 4, generator=generator))
    optimizer = make_optimizer([weight])
    for _ in range(3):
        weight.grad = torch.randn(3, 4, generator=generator)
        optimizer.step()
    return weight, optimizer


OPTIMIZERS = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "AdamW amsgrad": lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "SGD momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1, centered=True),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.1),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_bit_for_bit(name):
    make = OPTIMIZERS[name]
    weight, optimizer = trained(make)
    tensors, state = pack({"w": weight}, optimizer, {})
    tensors = {k: t.detach().clone() for k, t in tensors.items()}
    other = nn.Parameter(torch.zeros(3, 4))
    fresh = make([other])
    unpack(tensors, json.loads(json.dumps(state)), {"w": other}, fresh, {})
    gradient = torch.randn(3, 4, generator=torch.Generator().manual_seed(9))
    for w, o in ((weight, optimizer), (other, fresh)):
        w.grad = gradient.clone()
        o.step()
    assert torch.equal(weight, other)


def test_options_of_the_groups_come_from_the_checkpoint():
    weight, optimizer = trained(lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.9)))
    tensors, state = pack({"w": weight}, optimizer, {})
    _, fresh = trained(lambda p: torch.optim.AdamW(p, lr=0.3, betas=(0.5, 0.6)))
    other = fresh.param_groups[0]["params"][0]
    unpack(tensors, json.loads(json.dumps(state)), {"w": other}, fresh, {})
    assert fresh.param_groups[0]["lr"] == 0.1
    assert fresh.param_groups[0]["betas"] == (0.8, 0.9)


def test_an_optimizer_with_state_of_another_kind_is_refused():
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.LBFGS([weight])
    optimizer.step(lambda: (weight.grad is None or weight.grad.zero_(), (weight**2).sum().backward(), weight.sum())[2])
    with pytest.raises(TypeError, match=r"LBFGS keeps '.*' as a list"):
        optimizer_state(optimizer)


@pytest.mark.parametrize("kind", ["MultiStepLR", "CosineAnnealingLR", "SequentialLR", "OneCycleLR", "ExponentialLR"])
def test_schedulers_of_torch_go_on_where_they_were(kind):
    def make():
        weight = nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        s = torch.optim.lr_scheduler
        made = {
            "MultiStepLR": lambda: s.MultiStepLR(optimizer, [2, 4, 4]),
            "CosineAnnealingLR": lambda: s.CosineAnnealingLR(optimizer, 8),
            "ExponentialLR": lambda: s.ExponentialLR(optimizer, 0.7),
            "OneCycleLR": lambda: s.OneCycleLR(optimizer, 2.0, total_steps=20, cycle_momentum=False),
            "SequentialLR": lambda: s.SequentialLR(
                optimizer, [s.LinearLR(optimizer, 0.1, total_iters=3), s.ExponentialLR(optimizer, 0.5)], [3]
            ),
        }[kind]()
        return weight, optimizer, made

    def walk(optimizer, scheduler, steps):
        rates = []
        for _ in range(steps):
            optimizer.step()
            scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
        return rates

    _, optimizer, scheduler = make()
    straight = walk(optimizer, scheduler, 7)
    weight, optimizer, scheduler = make()
    walk(optimizer, scheduler, 3)
    tensors, state = pack({"w": weight}, optimizer, {"lr_scheduler": scheduler})
    weight, optimizer, scheduler = make()
    unpack(tensors, json.loads(json.dumps(state)), {"w": weight}, optimizer, {"lr_scheduler": scheduler})
    assert walk(optimizer, scheduler, 4) == straight[3:]


def other_trainer(*, name="w", shape=(3, 4), dtype=torch.float32, groups=1, parts=()):
    weight = nn.Parameter(torch.zeros(shape, dtype=dtype))
    spare = [nn.Parameter(torch.zeros(1)) for _ in range(groups - 1)]
    optimizer = torch.optim.SGD([{"params": [w]} for w in (weight, *spare)], lr=0.1)
    return {name: weight}, optimizer, {p: Part({}) for p in parts}


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ({"name": "v"}, "of other models: v is on one side only"),
        ({"shape": (4, 4)}, r"of other models: w is \(\(3, 4\), torch.float32\) in it and \(\(4, 4\)"),
        ({"dtype": torch.bfloat16}, "torch.bfloat16"),
        ({"groups": 2}, "optimizer has 1 groups of parameters, this one 2"),
        ({"parts": ("lr_scheduler",)}, "differ in lr_scheduler: only one of the two has it"),
    ],
)
def test_another_trainer_is_refused_and_left_as_it_was(difference, message):
    weight, optimizer = trained(lambda p: torch.optim.SGD(p, lr=0.1))
    tensors, state = pack({"w": weight}, optimizer, {})
    parameters, other, parts = other_trainer(**difference)
    with pytest.raises(ValueError, match=message):
        unpack(tensors, state, parameters, other, parts)
    assert not next(iter(parameters.values())).any()


# ------------------------------------------------------------------------------------------ generators
@pytest.fixture
def _generators_as_they_were():
    before = json.dumps(generator_states())
    yield
    restore_generators(json.loads(before))


@pytest.mark.usefixtures("_generators_as_they_were")
def test_the_generators_that_a_reward_may_draw_from_go_on_where_they_were():
    def draw():
        return random.random(), random.gauss(), np.random.rand(), np.random.randn(), torch.rand(3).tolist()  # noqa: NPY002

    draw()  # gauss and randn keep half of a pair
    text = json.dumps(generator_states(), allow_nan=False)
    expected = draw()
    draw()
    restore_generators(json.loads(text))
    assert draw() == expected


# ------------------------------------------------------------------------------------------ identity
def test_frozen_weights_are_told_apart_by_name_shape_type_and_any_single_bit():
    weights = {"a": torch.randn(4, 5), "b": torch.randn(3).bfloat16(), "c": torch.zeros(0), "d": torch.tensor([True])}
    found = {weights_digest(weights)}
    for name in ("a", "b"):
        changed = dict(weights)
        changed[name] = weights[name].clone()
        changed[name].view(torch.int16)[0] ^= 1
        found.add(weights_digest(changed))
    found.add(weights_digest(weights | {"a": weights["a"].reshape(5, 4)}))
    found.add(weights_digest({("x" if n == "a" else n): t for n, t in weights.items()}))
    found.add(weights_digest(weights | {"b": weights["b"].view(torch.int16)}))
    assert len(found) == 6
    assert weights_digest(dict(reversed(weights.items()))) == weights_digest(weights)


def test_prompts_are_told_apart_by_their_tokens_and_their_order():
    lists = [[(1, 2), (3,)], [(1,), (2, 3)], [(3,), (1, 2)], [(1, 2)], []]
    digests = [prompts_digest([Prompt("", ids) for ids in rows]) for rows in lists]
    assert len(set(digests)) == 5
    assert prompts_digest([Prompt("other text", (1, 2)), Prompt("", (3,))]) == digests[0]
