"""Truncated importance sampling: numbers made by hand, and what it does to the policy's loss."""

import math

import pytest
import torch
from golden import close
from hypothesis import given
from ragged import POISONS, ragged

from surefoot import ops

# two answers of two tokens and of one; policy over sampler is 2 and 1/2 in the first, 3 in the second
SAMPLER = torch.tensor([[math.log(0.2), math.log(0.4)], [math.log(0.1), 0.0]])
POLICY = torch.tensor([[math.log(0.4), math.log(0.2)], [math.log(0.3), 0.0]])
MASK = torch.tensor([[True, True], [True, False]])


def test_the_ratio_of_a_token_is_policy_over_sampler():
    close(ops.importance_ratios(POLICY, SAMPLER, MASK), torch.tensor([[2.0, 0.5], [3.0, 0.0]]))


def test_the_ratio_of_a_sequence_is_the_product_of_its_tokens_and_stands_on_each():
    close(ops.importance_ratios(POLICY, SAMPLER, MASK, "sequence"), torch.tensor([[1.0, 1.0], [3.0, 0.0]]))


def test_another_level_is_refused():
    with pytest.raises(ValueError, match="must be token or sequence"):
        ops.importance_ratios(POLICY, SAMPLER, MASK, "word")


@pytest.mark.parametrize(
    ("cap", "expected"),
    [(2.5, [[2.0, 0.5], [2.5, 0.0]]), (1.0, [[1.0, 0.5], [1.0, 0.0]]), (None, [[1.0, 1.0], [1.0, 1.0]])],
)
def test_weights_are_ratios_up_to_the_cap_and_1_without_one(cap, expected):
    close(ops.importance_weights(ops.importance_ratios(POLICY, SAMPLER, MASK), cap), torch.tensor(expected))


def test_the_effective_share_is_the_square_of_the_sum_over_n_sums_of_squares():
    close(ops.effective_share(torch.tensor([[2.0, 0.5], [3.0, 99.0]]), MASK), 5.5**2 / (3 * (4 + 0.25 + 9)))
    close(ops.effective_share(torch.full((2, 2), 0.7), MASK), 1.0)
    close(ops.effective_share(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), MASK), 1 / 3)
    close(ops.effective_share(torch.ones(2, 2), torch.zeros(2, 2).bool()), 0.0)


def test_a_sampler_that_says_the_same_leaves_every_ratio_at_exactly_1():
    assert ops.importance_ratios(POLICY, POLICY, MASK).tolist() == [[1, 1], [1, 0]]


def test_ratios_that_would_overflow_are_held():
    logprobs = torch.tensor([[0.0, -500.0]])
    found = ops.importance_ratios(logprobs, logprobs.flip(-1), torch.ones(1, 2).bool())
    close(found.log(), torch.tensor([[20.0, -20.0]]))


def test_weights_multiply_each_token_s_loss_and_its_gradient():
    logprobs = torch.log(torch.tensor([1.1, 0.9])).requires_grad_()
    advantages, mask = torch.tensor([2.0, -1.0]), torch.ones(2).bool()
    loss, seen = ops.policy_loss(logprobs, torch.zeros(2), advantages, mask, weights=torch.tensor([0.5, 2.0]))
    loss.backward()
    close(loss.detach(), 0.5 * -2.2 + 2.0 * 0.9)
    close(logprobs.grad, torch.tensor([0.5 * -2.2, 2.0 * 0.9]))
    close(seen.ratio, 2.0)  # what is told of the policy is not weighted


def test_the_weighted_mean_over_samples_of_the_sampler_is_the_mean_under_the_policy():
    policy, sampler = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    value = torch.tensor([1.0, -2.0, 4.0])
    ratios = ops.importance_ratios(policy.log()[None], sampler.log()[None], torch.ones(1, 3).bool())[0]
    close((sampler * ratios * value).sum(), (policy * value).sum())


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("poison", POISONS)
@given(ragged(columns=2))
def test_padding_changes_nothing(level, poison, batch):
    clean = ops.importance_ratios(*batch.columns, batch.mask, level)
    dirty = [torch.where(batch.mask, x, poison) for x in batch.columns]
    assert torch.equal(ops.importance_ratios(*dirty, batch.mask, level), clean)
    assert torch.equal(clean == 0, ~batch.mask)
