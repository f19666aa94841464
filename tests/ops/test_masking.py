"""Masked statistics: cases with known numbers, the oracle, and what padding must never change."""

import math

import numpy as np
import pytest
import torch
from golden import case, close
from hypothesis import given
from oracle import ppo
from ragged import POISONS, ragged

from surefoot import ops


def test_whitening_uses_the_unbiased_variance_of_the_counted_tokens_only():
    a15 = case("A15")
    whitened = ops.masked_whiten(a15["x"], a15["mask"])
    close(whitened, a15["bessel"])
    close(whitened, a15["pop"] * a15["scale_ratio_bessel_over_pop"])


def test_mean_and_variance_of_the_counted_tokens_ignore_the_padding():
    a15 = case("A15")
    close(ops.masked_mean(a15["x"], a15["mask"]), a15["mask_mean"])
    count, mean, variance = ops.masked_moments(a15["x"], a15["mask"])
    close(count, 5.0)
    close(mean, a15["mask_mean"])
    close(variance, a15["mask_var"] * 5 / 4)  # the case records the population variance
    assert abs(float(mean) - a15["bug_mean"]) > 30


def test_scaling_keeps_the_mean_and_makes_the_unbiased_variance_one():
    a15 = case("A15")
    scaled = ops.masked_scale(a15["x"], a15["mask"])
    close(scaled, torch.where(a15["mask"], a15["bessel"] + a15["mask_mean"], 0))


@pytest.mark.parametrize("mask", [[[True, False]], [[False, False]]])
def test_fewer_than_two_tokens_whiten_to_zero_and_scale_to_themselves(mask):
    x, mask = torch.tensor([[7.0, 9.0]]), torch.tensor(mask)
    assert torch.equal(ops.masked_whiten(x, mask), torch.zeros(1, 2))
    assert torch.equal(ops.masked_scale(x, mask), torch.where(mask, x, 0))
    assert float(ops.masked_moments(x, mask).variance) == 0


def test_equal_tokens_whiten_to_zero_instead_of_dividing_by_zero():
    assert torch.equal(ops.masked_whiten(torch.full((2, 3), 4.5), torch.ones(2, 3).bool()), torch.zeros(2, 3))


@given(ragged(columns=1))
def test_masked_statistics_equal_the_oracle_on_ragged_batches(batch):
    (x,), mask = batch.columns, batch.mask
    numbers, places = x.numpy().astype(np.float64), mask.numpy()
    close(ops.masked_mean(x, mask), ppo.masked_mean(numbers, places), 1e-5)
    close(ops.masked_moments(x, mask).variance, ppo.masked_variance(numbers, places), 1e-4)
    if ppo.masked_variance(numbers, places) > 1e-3:
        close(ops.masked_whiten(x, mask), ppo.whiten(numbers, places), 1e-4)
        close(ops.masked_scale(x, mask), ppo.scale(numbers, places), 1e-4)


@given(ragged(columns=1))
def test_whitened_tokens_have_mean_zero_and_unbiased_variance_one(batch):
    (x,), mask = batch.columns, batch.mask
    kept = ops.masked_whiten(x.double(), mask)[mask]
    if len(kept) >= 2 and x[mask].std() > 1e-2:
        assert abs(kept.mean()) < 1e-6
        assert abs(kept.var(correction=1) - 1) < 1e-3


@pytest.mark.parametrize("poison", POISONS)
@given(batch=ragged(columns=1))
def test_what_stands_in_the_padding_changes_no_statistic(poison, batch):
    (x,), mask = batch.columns, batch.mask
    poisoned = torch.where(mask, x, poison)
    for function in (ops.masked_mean, ops.masked_whiten, ops.masked_scale):
        result = function(poisoned, mask)
        assert torch.equal(result, function(x, mask))
        assert torch.isfinite(result).all()


@pytest.mark.parametrize("poison", POISONS)
def test_what_stands_in_the_padding_reaches_no_gradient(poison):
    mask = torch.tensor([[True, True, False], [True, False, False]])
    for function in (ops.masked_mean, ops.masked_whiten, ops.masked_scale):
        x = torch.where(mask, torch.tensor([[1.0, 2.0, 0.0], [4.0, 0.0, 0.0]]), poison).requires_grad_()
        (function(x, mask) * torch.tensor([1.0, 2.0, 3.0])).square().sum().backward()
        assert torch.isfinite(x.grad).all(), function.__name__
        assert not x.grad[~mask].any(), function.__name__


@given(ragged(columns=1))
def test_row_order_and_wider_padding_change_no_statistic(batch):
    (x,), mask = batch.columns, batch.mask
    reverse = torch.arange(len(x)).flip(0)
    close(ops.masked_whiten(x[reverse], mask[reverse]), ops.masked_whiten(x, mask)[reverse], 1e-4)
    wide, wide_mask = (torch.nn.functional.pad(t, (0, 3)) for t in (x, mask))
    close(ops.masked_whiten(wide, wide_mask)[:, : x.shape[1]], ops.masked_whiten(x, mask), 1e-4)


def test_sums_over_all_processes_make_the_statistics_global():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([6.0])
    count, total, squares = 3.0, 9.0, (1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2
    sums = iter([count, total, squares])  # what this process and a second one, which holds b, would add up to
    moments = ops.masked_moments(a, torch.ones(2).bool(), lambda _: torch.tensor(next(sums)))
    close(torch.stack(moments), torch.tensor([3.0, 3.0, squares / 2]))
    whole = torch.cat([a, b])
    sums = iter([count, total, squares])
    close(ops.masked_whiten(a, torch.ones(2).bool(), lambda _: torch.tensor(next(sums))),
          (a - 3) / math.sqrt(float(whole.var()) + 1e-8))  # fmt: skip


# ------------------------------------------------------------------------------------------------ masks
def test_the_eos_mask_is_true_up_to_and_including_the_first_end():
    ids = torch.tensor([[5, 6, 2, 5], [2, 2, 2, 2], [5, 5, 5, 5], [5, 3, 2, 3]])
    expected = [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]
    assert ops.eos_mask(ids, [2, 3]).int().tolist() == expected


@given(ragged(columns=1, tokens=5))
def test_the_eos_mask_equals_the_oracle(batch):
    for eos_ids in ([], [0], [1, 4]):
        assert ops.eos_mask(batch.ids, eos_ids).numpy().tolist() == ppo.eos_mask(batch.ids, eos_ids).tolist()


def test_a_length_mask_counts_from_the_left():
    assert ops.length_mask(torch.tensor([0, 2, 3]), 3).int().tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1]]
