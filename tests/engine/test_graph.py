"""A decoding step in fixed places, as a GPU records it, draws what the growing one draws (not recorded on a CPU)."""

import pytest
import torch
from families import FAMILIES, tiny_model
from sampling import engine, queries
from tiny import tiny_llama

from surefoot.engine.graph import FixedStep
from surefoot.types import Sampling

NOT_FIXED = ("Bloom", "Gemma2", "Mistral")
"""Bloom counts positions by its mask; the others, made tiny, forget keys within a room."""


@pytest.fixture
def made(monkeypatch):
    """Every fixed step that is made, with the number of its calls."""
    calls = []
    init, call = FixedStep.__init__, FixedStep.__call__

    def counting_init(self, *args):
        init(self, *args)
        calls.append(0)

    def counting_call(self, newest):
        calls[-1] += 1
        return call(self, newest)

    monkeypatch.setattr(FixedStep, "__init__", counting_init)
    monkeypatch.setattr(FixedStep, "__call__", counting_call)
    return calls


def fixed_engine(model, **options):
    sampler = engine(model, **options)
    sampler._fixes = None if "position_ids" in sampler._accepts else False
    return sampler


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_answers_are_those_of_the_growing_step(family, made):
    model, rows = tiny_model(family), queries()
    expected = engine(model, ends=(5,)).generate(rows, range(8), Sampling(40))
    sampler = fixed_engine(model, ends=(5,))
    assert sampler.generate(rows, range(8), Sampling(40)) == expected
    assert sampler._fixes is (family not in NOT_FIXED)
    assert (sum(made) > 30) is sampler._fixes


def test_a_step_is_made_anew_for_new_room_and_for_fewer_rows_only(made):
    model, rows = tiny_llama(), queries((9,) * 4)
    fixed_engine(model, ends=()).generate(rows, range(4), Sampling(33 + 32))
    # The first token needs no step, and the first step of each room is made in the growing way.
    assert made == [31, 31]


def test_rows_at_rest_change_no_answer():
    model, rows = tiny_llama(), queries()
    expected = engine(model).generate(rows, range(8), Sampling(30))
    sampler = fixed_engine(model)
    sampler._at_rest = 0.5
    assert len({len(answer.token_ids) for answer in expected}) > 4
    assert sampler.generate(rows, range(8), Sampling(30)) == expected


def test_waiting_rows_join_rows_in_fixed_places():
    model, rows = tiny_llama(), queries((5, 30, 1, 12) * 4)
    expected = engine(model).generate(rows, range(16), Sampling(20))
    assert fixed_engine(model, max_tokens=4 * 50).generate(rows, range(16), Sampling(20)) == expected


def test_a_model_that_answers_otherwise_in_fixed_places_is_found_out(monkeypatch):
    model, rows = tiny_llama(), queries()
    expected = engine(model).generate(rows, range(8), Sampling(20))
    right = FixedStep._pass
    monkeypatch.setattr(FixedStep, "_pass", lambda self: right(self).roll(1, -1))
    sampler = fixed_engine(model)
    assert sampler.generate(rows, range(8), Sampling(20)) == expected
    assert sampler._fixes is False


def test_unused_room_holds_zeros_so_that_a_mask_can_hide_it():
    sampler, layers = fixed_engine(tiny_llama()), []
    made_by = FixedStep.__init__

    def keep(self, model, cache, padding, width):
        layers.extend(cache.layers)
        made_by(self, model, cache, padding, width)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FixedStep, "__init__", keep)
        sampler.generate(queries((3,)), [0], Sampling(3))
    assert all(torch.count_nonzero(room[:, :, layer.end :]) == 0 for layer in layers for room in layer.rooms)
