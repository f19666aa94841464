"""The bootstrap by cluster: its spread is the one that theory gives, and it knows when it knows nothing."""

import math

import numpy as np
import pytest

from surefoot.evaluate.ratings.resample import between, redraw, weighted_share


def spread(hits, *labels):
    return weighted_share(hits, redraw(*labels, draws=20_000))[1:].std()


def test_of_clusters_of_one_the_spread_is_that_of_a_mean():
    hits = [1.0] * 30 + [0.0] * 70
    assert spread(hits, [str(n) for n in range(100)]) == pytest.approx(math.sqrt(0.3 * 0.7 / 100), rel=0.02)


def test_votes_that_always_agree_within_a_prompt_count_once():
    hits = [1.0] * 30 + [0.0] * 70
    prompts = [str(n // 2) for n in range(100)]
    assert spread(hits, prompts) == pytest.approx(math.sqrt(0.3 * 0.7 / 50), rel=0.02)


def test_raters_who_differ_widen_the_interval():
    prompts = [str(n) for n in range(60) for _ in range(3)]
    raters = ["a", "b", "c"] * 60
    guesses = np.random.default_rng(0).random(180) < 0.5
    hits = [float(r == "a" or guess) for r, guess in zip(raters, guesses, strict=True)]
    assert spread(hits, prompts, raters) > 3 * spread(hits, prompts)


def test_the_first_row_is_the_sample_itself_and_every_draw_is_as_large():
    weights = redraw(["p", "p", "q", "r"], draws=50)
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 0] + weights[:, 2] + weights[:, 3] == 3).all()


def test_one_prompt_says_nothing_about_chance():
    found = between(weighted_share([1.0, 0.0], redraw(["p", "p"])), 2)
    assert found.value == 0.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_no_interval_where_too_many_draws_have_nothing_to_say():
    values = np.r_[0.5, np.full(90, 0.4), np.full(10, np.nan)]
    assert math.isnan(between(values, 9).low)
    assert between(values[:-8], 9).low == 0.4


def test_the_same_seed_draws_the_same():
    labels = [str(n) for n in range(9)]
    assert (redraw(labels, seed=3) == redraw(labels, seed=3)).all()
    assert (redraw(labels, seed=3) != redraw(labels, seed=4)).any()


@pytest.mark.parametrize("together", [1, 2])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(together):
    g = np.random.default_rng(0)
    prompts = [str(n // together) for n in range(80 * together)]
    held = 0
    for trial in range(300):
        hits = np.repeat(g.random(80) < 0.6, together).astype(float)
        found = between(weighted_share(list(hits), redraw(prompts, draws=400, seed=trial)), len(hits))
        held += found.low <= 0.6 <= found.high
    assert 0.91 <= held / 300 <= 0.98
