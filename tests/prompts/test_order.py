"""The order of the prompts and the held-out ones."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surefoot.prompts import PromptOrder, split_eval
from surefoot.types import Prompt

SEEDS = st.integers(0, 2**63 - 1)


def prompts_of(*texts):
    return [Prompt(text, tuple(text.encode()), index=i) for i, text in enumerate(texts)]


@given(n=st.integers(1, 40), seed=SEEDS, epoch=st.integers(0, 1000))
def test_every_epoch_is_a_permutation(n, seed, epoch):
    assert sorted(PromptOrder(n, seed).take(epoch * n, n)) == list(range(n))


@given(n=st.integers(1, 12), seed=SEEDS, start=st.integers(0, 100), cuts=st.lists(st.integers(0, 15), max_size=8))
def test_the_order_is_the_same_however_it_is_cut(n, seed, start, cuts):
    order, pieces, position = PromptOrder(n, seed), [], start
    for size in cuts:
        pieces += order.take(position, size)
        position += size
    assert pieces == PromptOrder(n, seed).take(0, position)[start:]


def test_epochs_and_seeds_differ():
    order = PromptOrder(100, seed=1)
    assert order.take(0, 100) != order.take(100, 100)
    assert order.take(0, 100) != PromptOrder(100, seed=2).take(0, 100)
    assert order.take(100, 100) != PromptOrder(100, seed=2).take(0, 100)  # (1, 1) is not (2, 0)


def test_the_order_does_not_use_the_global_generator(monkeypatch):
    for name in ("random", "seed", "shuffle", "sample", "randrange", "randint"):
        monkeypatch.setattr(random, name, None)
    before = torch.random.get_rng_state()
    assert sorted(PromptOrder(50, seed=123_456).take(0, 50)) == list(range(50))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_order_of_a_seed_never_changes():
    # From the promise of `random`: sorted by the numbers random() gives after seeding with the text "0 0".
    generator = random.Random("0 0")
    keys = [generator.random() for _ in range(6)]
    by_hand = [keys.index(key) for key in sorted(keys)]
    assert PromptOrder(6, seed=0).take(0, 6) == by_hand


@pytest.mark.parametrize(("position", "n"), [(-1, 3), (0, -1)])
def test_negative_positions_and_counts_are_refused(position, n):
    with pytest.raises(ValueError, match="must not be negative"):
        PromptOrder(3, 0).take(position, n)


def test_an_order_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one prompt"):
        PromptOrder(0, 0)


@given(texts=st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=30), n=st.integers(0, 7), seed=SEEDS)
def test_no_text_is_on_both_sides_of_a_split(texts, n, seed):
    distinct = len(set(texts))
    if n >= distinct:
        with pytest.raises(ValueError, match="cannot be held out"):
            split_eval(prompts_of(*texts), n, seed)
        return
    train, held_out = split_eval(prompts_of(*texts), n, seed)
    assert len(held_out) == len({p.text for p in held_out}) == n
    assert not {p.text for p in train} & {p.text for p in held_out}
    assert len({p.text for p in train}) == distinct - n
    assert list(train) == sorted(train, key=lambda p: p.index)


def test_nothing_is_lost_while_texts_that_occur_once_suffice():
    for seed in range(20):
        train, held_out = split_eval(prompts_of("a", "b", "b", "c", "d", "d"), 2, seed)
        assert len(train) + len(held_out) == 6


def test_a_split_is_a_function_of_its_seed():
    rows = prompts_of(*map(str, range(50)))
    first = split_eval(rows, 5, seed=3)
    assert first == split_eval(rows, 5, seed=3)
    assert any(split_eval(rows, 5, seed) != first for seed in range(10))


def test_holding_out_none_keeps_all():
    rows = prompts_of("a", "a")
    assert split_eval(rows, 0, seed=0) == (tuple(rows), ())
