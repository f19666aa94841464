"""Drawing a token: which one, how likely it was, and what top_k and top_p leave of the distribution."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surefoot.engine.draw import draw, filtered, uniforms
from surefoot.types import Sampling

LARGEST = 1 - 2**-24  # below one, as torch.rand gives it


def drawn(probabilities, number, **options):
    logits = torch.tensor(probabilities).log()[None]
    token, logprob = draw(logits, torch.tensor([number]), Sampling(1, **options))
    return token.item(), logprob.item()


@pytest.mark.parametrize(("number", "token"), [(0.0, 0), (0.249, 0), (0.251, 1), (0.749, 1), (0.751, 3), (LARGEST, 3)])
def test_a_token_is_drawn_where_the_running_sum_passes_the_number(number, token):
    probabilities = [0.25, 0.5, 0.0, 0.25, 0.0]
    assert drawn(probabilities, number) == (token, pytest.approx(math.log(probabilities[token])))


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=300),
    st.integers(0, 299),
    st.sampled_from([0.0, 0.5, LARGEST]),
)
def test_a_token_of_no_mass_is_never_drawn(logits, impossible, number):
    row = torch.tensor([logits])
    row[:, [i for i in (0, len(logits) - 1, impossible) if i < len(logits) and len(logits) > 3]] = -torch.inf
    token, logprob = draw(row, torch.tensor([number]), Sampling(1))
    assert torch.isfinite(logprob).all()
    assert torch.isfinite(row[0, token]).all()


def test_the_temperature_divides_the_logits():
    probabilities = [0.1, 0.2, 0.7]
    weights = [p**2 for p in probabilities]  # temperature 1/2 squares them
    token, logprob = drawn(probabilities, 0.99, temperature=0.5)
    assert token == 2
    assert logprob == pytest.approx(math.log(weights[2] / sum(weights)), abs=1e-6)


def test_greedy_takes_the_likeliest_token_and_says_its_probability():
    assert drawn([0.1, 0.6, 0.3], 0.0, greedy=True) == (1, pytest.approx(math.log(0.6)))


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"top_k": 1}, [1]),
        ({"top_k": 2}, [1, 2]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({"top_p": 0.5}, [1]),
        ({"top_p": 0.6}, [1, 2]),
        ({"top_p": 0.81}, [0, 1, 2]),
        ({"top_k": 2, "top_p": 0.99}, [1, 2]),
    ],
)
def test_top_k_and_top_p_leave_the_likeliest_tokens(options, left):
    logits = filtered(torch.tensor([[0.15, 0.5, 0.3, 0.05]]).log(), Sampling(1, **options))
    assert logits[0].isfinite().nonzero().flatten().tolist() == left


def test_random_numbers_are_a_function_of_the_seed_alone():
    before = torch.random.get_rng_state()
    assert uniforms(3, 5) == uniforms(3, 5) == uniforms(3, 9)[:5] != uniforms(4, 5)
    assert torch.equal(before, torch.random.get_rng_state())
