"""Intervals, best of n and the place of equal KL, against closed forms, SciPy, brute force and simulated seeds."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from surefoot.evaluate.statistics import (
    best_of_kl,
    best_of_weights,
    crossing,
    difference_of,
    mean_of,
    per_unit,
    wins,
)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


# ------------------------------------------------------------------------------------------ seeds and prompts


def test_the_interval_of_one_seed_is_that_of_the_normal_law_over_prompts():
    x = normal(7, 1, 400)
    found = mean_of(x)
    reach = 1.96 * x.std() / math.sqrt(400)
    assert found.value == pytest.approx(x.mean())
    assert found.high - found.value == pytest.approx(reach, rel=0.1)
    assert found.value - found.low == pytest.approx(reach, rel=0.1)


@pytest.mark.parametrize("means", [(1.0, 2.0, 4.0), (0.0, 1.0), (3.0, 3.5, 3.1, 2.0, 2.2)])
def test_where_only_seeds_differ_the_interval_is_students_t(means):
    x = np.repeat(np.array(means)[:, None], 50, axis=1)
    low, high = stats.t.interval(0.95, len(means) - 1, loc=np.mean(means), scale=stats.sem(means))
    found = mean_of(x)
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.01)


def test_seeds_that_are_all_alike_add_nothing():
    x = normal(3, 1, 40)
    assert mean_of(np.repeat(x, 3, axis=0)).high == pytest.approx(mean_of(x).high)


def test_a_difference_is_paired_by_prompt():
    x = 10 * normal(1, 3, 50)
    found = difference_of(np.repeat(x[:1], 3, axis=0) + 1, x[:1])
    assert (found.low, found.value, found.high) == pytest.approx((1, 1, 1))
    assert found.direction == 1


def test_a_difference_of_other_prompts_is_refused():
    with pytest.raises(ValueError, match=r"50 and 40 prompts"):
        difference_of(normal(0, 1, 50), normal(0, 1, 40))


def hierarchical(x, generator, draws=500):
    """The plain bootstrap of seeds and prompts, written anew: what the product does not do."""
    rows = generator.integers(len(x), size=(draws, len(x)))
    columns = generator.integers(x.shape[1], size=(draws, x.shape[1]))
    means = [x[np.ix_(r, c)].mean() for r, c in zip(rows, columns, strict=True)]
    return np.quantile(means, [0.025, 0.975])


def simulated(generator, of_seed, of_prompt, anew, seeds=3, prompts=30):
    """Runs of which the truth is 0."""
    shift, ease = generator.standard_normal((seeds, 1)), generator.standard_normal((1, prompts))
    return of_seed * shift + of_prompt * ease + anew * generator.standard_normal((seeds, prompts))


@pytest.mark.parametrize("spread", [(1, 1, 1), (0.3, 1, 1), (0, 1, 1), (0, 0, 1), (1, 0, 0.1)])
def test_the_interval_holds_the_truth_nineteen_times_of_twenty_whatever_varies(spread):
    generator = np.random.default_rng(5)
    held = [found.low <= 0 <= found.high for _ in range(300) if (found := mean_of(simulated(generator, *spread)))]
    assert 0.92 < np.mean(held) < 0.99


def test_a_plain_bootstrap_of_three_seeds_does_not():
    generator = np.random.default_rng(5)
    ends = [hierarchical(simulated(generator, 1, 1, 1), generator) for _ in range(100)]
    assert np.mean([low <= 0 <= high for low, high in ends]) < 0.87


@pytest.mark.parametrize(("seeds", "others"), [(3, 1), (3, 3), (1, 1)])
def test_the_interval_of_a_difference_holds_the_truth(seeds, others):
    generator, held = np.random.default_rng(8), []
    for _ in range(250):
        ease = generator.standard_normal((1, 40))  # the same prompts, which are as hard for both
        x, y = (simulated(generator, of_seed=0.2 * (n > 1), of_prompt=0, anew=1, seeds=n, prompts=40) + 5 * ease
                for n in (seeds, others))  # fmt: skip
        found = difference_of(x, y)
        held.append(found.low <= 0 <= found.high)
    assert 0.92 < np.mean(held) < 0.99


def test_a_ratio_of_sums_is_the_mean_of_what_its_prompts_add():
    kl, tokens = np.array([[1.0, 5.0], [2.0, 2.0]]), np.array([[10.0, 20.0], [4.0, 4.0]])
    assert per_unit(kl, tokens).mean(1) == pytest.approx([6 / 30, 4 / 8])


def test_the_interval_of_a_ratio_is_that_of_its_bootstrap():
    tokens = 20 + np.abs(10 * normal(2, 1, 200))
    kl = 0.1 * tokens + normal(4, 1, 200)
    rows = np.random.default_rng(1).integers(200, size=(4000, 200))
    low, high = np.quantile(kl[0][rows].sum(1) / tokens[0][rows].sum(1), [0.025, 0.975])
    found = mean_of(per_unit(kl, tokens))
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.02)


def test_wins_count_every_pair_and_ties_half():
    assert wins(np.array([[1.0, 3.0]]), np.array([[1.0, 2.0, 3.0, 0.0]])) == pytest.approx(
        np.array([[(1 + 0.5) / 4, (3 + 0.5) / 4]])
    )


# ------------------------------------------------------------------------------------------ best of n


def mean_of_every_subset(proxy, values, n):
    """Brute force: each subset gives its best answer, or the mean of those that are equally the best."""
    found = []
    for subset in itertools.combinations(range(len(proxy)), n):
        best = max(proxy[i] for i in subset)
        found.append(np.mean([values[i] for i in subset if proxy[i] == best]))
    return np.mean(found)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("proxy", [(3, 1, 4, 1.5, 9, 2, 6), (1, 1, 1, 1, 1, 1, 1), (0, 1, 1, 0, 2, 2, 2)])
def test_best_of_n_is_the_mean_over_every_subset(proxy, n):
    values = [0.3, -2, 5, 1, 7, 0, 4]
    weights = best_of_weights(np.array([proxy, proxy[::-1]], dtype=float), n)
    assert weights.sum(1) == pytest.approx([1, 1])
    assert float(weights[0] @ values) == pytest.approx(mean_of_every_subset(proxy, values, n))
    assert float(weights[1] @ values[::-1]) == pytest.approx(mean_of_every_subset(proxy, values, n))


def test_the_best_of_more_answers_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"best of 8 needs at least 8 answers, not 7"):
        best_of_weights(np.zeros((1, 7)), 8)


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_the_kl_of_best_of_n_is_what_it_comes_to_with_many_answers_and_a_bound_with_few(n):
    def exact(answers):
        """Of the best of n equally probable answers, all different, from those answers."""
        ranks = np.arange(1, answers + 1) / answers
        best = ranks**n - (ranks - 1 / answers) ** n
        return float(np.sum(best * np.log(best * answers)))

    assert best_of_kl(n) == pytest.approx(exact(100_000), abs=1e-3)
    assert exact(10) <= best_of_kl(n) + 1e-12


# ------------------------------------------------------------------------------------------ equal KL


def test_a_path_is_followed_on_the_axis_of_the_root():
    assert crossing([0, 1, 4], 2.25) == (1, pytest.approx(0.5))
    assert crossing([0, 4, 1], 1) == (0, pytest.approx(0.5))  # where it first gets there
    assert crossing([0, 1, 4], 4) == (1, pytest.approx(1))
    assert crossing([0, 1], 0) == (0, 0)


def test_nothing_is_said_beyond_the_last_point():
    with pytest.raises(ValueError, match=r"lies beyond all points \(the largest is 4\)"):
        crossing([0, 4, 1], 4.1)
