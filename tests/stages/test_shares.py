"""Intervals of what is judged in pairs, against SciPy, arithmetic and simulation."""

import numpy as np
import pytest
from scipy import stats

from surefoot.stages.shares import (
    effective_count,
    group_numbers,
    mean_with_interval,
    rank_correlation,
    share_of,
)


def test_pairs_with_a_prompt_of_their_own_count_in_full_and_a_tie_by_half():
    share = share_of(np.array([1, 1, 0, 0.5]), np.arange(4))
    assert (share.value, share.count) == (0.625, 4)
    z2 = 1.959963984540054**2 / 4  # (p̂ + z²/2n ± z √(p̂(1 - p̂)/n + z²/4n²)) / (1 + z²/n)
    half = (z2 * 0.625 * 0.375 + z2 * z2 / 4) ** 0.5
    assert share.low == pytest.approx((0.625 + z2 / 2 - half) / (1 + z2))
    assert share.high == pytest.approx((0.625 + z2 / 2 + half) / (1 + z2))


def test_copies_of_a_pair_are_worth_one_pair():
    right = np.array([1, 0, 1, 1, 0, 1, 1, 0, 1, 1], dtype=float)
    groups = np.arange(10)
    worth = effective_count(np.repeat(right, 7), np.repeat(groups, 7))
    assert worth == pytest.approx(10 * 9 / 10)  # G / (G - 1): the variance of ten prompts is itself estimated
    assert effective_count(right, groups) == 10


def test_pairs_of_one_prompt_that_are_independent_count_in_full():
    generator = np.random.default_rng(0)
    right = (generator.random(6000) < 0.7).astype(float)
    assert effective_count(right, np.repeat(np.arange(2000), 3)) == pytest.approx(6000, rel=0.06)


def test_where_all_are_right_prompts_are_counted_and_not_pairs():
    assert effective_count(np.ones(20), np.repeat([0, 1], 10)) == 2


def test_the_interval_of_pairs_in_prompts_covers_the_truth():
    """Each of 60 prompts is one that the reward gets right in 9 of 10 pairs, or in 5 of 10: 0.7 in the mean."""
    generator = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), 8)
    hits = naive = 0
    for _ in range(400):
        chance = generator.choice([0.9, 0.5], size=60)
        right = (generator.random(480) < chance[groups]).astype(float)
        share = share_of(right, groups)
        hits += share.low <= 0.7 <= share.high
        reach = stats.binomtest(int(right.sum()), 480).proportion_ci(method="wilson")
        naive += reach.low <= 0.7 <= reach.high
    assert hits / 400 == pytest.approx(0.95, abs=0.03)
    assert naive / 400 < 0.92  # what the design effect is for


def test_the_interval_of_a_mean_is_the_normal_one_for_many_values():
    values = np.random.default_rng(2).normal(0.3, 2.0, size=2000)
    found = mean_with_interval(values, np.arange(2000))
    half = 1.96 * values.std() / np.sqrt(2000)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.1 * half)


def test_the_interval_of_a_mean_draws_whole_prompts():
    values = np.random.default_rng(3).normal(size=300)
    apart = mean_with_interval(values, np.arange(300))
    copies = mean_with_interval(np.repeat(values, 5), np.repeat(np.arange(300), 5))
    assert (copies.value, copies.low, copies.high) == pytest.approx((apart.value, apart.low, apart.high))


def test_rank_correlation_is_spearmans_with_an_interval_of_its_usual_width():
    generator = np.random.default_rng(4)
    x = generator.integers(0, 30, size=800).astype(float)  # with many ties
    y = x + generator.normal(0, 15, size=800)
    found = rank_correlation(x, y, np.arange(800))
    assert found.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    fisher = np.tanh(np.arctanh(found.value) + np.array([-1.96, 1.96]) / np.sqrt(797))
    assert (found.low, found.high) == pytest.approx(tuple(fisher), abs=0.02)


def test_nothing_correlates_with_what_never_changes():
    assert rank_correlation(np.ones(5), np.arange(5.0), np.arange(5)) is None
    assert rank_correlation(np.arange(2.0), np.arange(2.0), np.arange(2)) is None


def test_equal_keys_have_equal_numbers():
    assert group_numbers(["a", "b", "a", ("c",)]).tolist() == [0, 1, 0, 2]
