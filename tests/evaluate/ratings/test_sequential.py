"""Watched after every vote, the evidence is wrong as rarely as it says, and hardly slower than a fixed plan."""

import math

import numpy as np
import pytest
import scipy.special
from made_votes import vote, votes

from surefoot.evaluate.ratings.proportions import wilson
from surefoot.evaluate.ratings.sequential import (
    StoppingRule,
    confidence_sequence,
    log_e_path,
    log_e_value,
    progress,
)

SESSIONS, LONGEST = 2_000, 1_000


def watched(win_rate, *, ties=0.2, seed=0):
    """[sessions, votes]: running counts of wins and losses after every vote, ties among them."""
    g = np.random.default_rng(seed)
    decided = g.random((SESSIONS, LONGEST)) >= ties
    won = g.random((SESSIONS, LONGEST)) < win_rate
    return np.cumsum(decided & won, axis=1), np.cumsum(decided & ~won, axis=1)


# ---------------------------------------------------------------------------------------------- the e-value
@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (3, 2), (60, 40), (400, 380)])
def test_the_e_value_is_the_mixture_of_likelihood_ratios(wins, losses):
    by_scipy = scipy.special.betaln(1 + wins, 1 + losses) - (wins + losses) * math.log(0.5)
    assert log_e_value(wins, losses) == pytest.approx(by_scipy, abs=1e-9)
    assert log_e_path(np.array([wins]), np.array([losses]))[0] == pytest.approx(by_scipy, abs=1e-9)


def test_small_e_values_by_hand():
    assert math.exp(log_e_value(0, 0)) == 1
    assert math.exp(log_e_value(1, 0)) == pytest.approx(1.0)  # 1/2 · 2: one vote is no evidence
    assert math.exp(log_e_value(2, 0)) == pytest.approx(4 / 3)  # 1/3 · 4
    assert math.exp(log_e_value(1, 1)) == pytest.approx(2 / 3)  # 1/6 · 4


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (3, 2), (17, 40)])
def test_it_is_a_fair_bet_the_next_vote_is_expected_to_leave_it_where_it_is(wins, losses):
    after = [math.exp(log_e_value(wins + 1, losses)), math.exp(log_e_value(wins, losses + 1))]
    assert sum(after) / 2 == pytest.approx(math.exp(log_e_value(wins, losses)))


def test_under_no_difference_at_most_five_percent_of_sessions_watched_after_every_vote_stop():
    stopped = (log_e_path(*watched(0.5)) >= math.log(20)).any(axis=1)
    assert stopped.mean() <= 0.05
    assert stopped.mean() == 0.035, "the page says 3.5 %"


@pytest.mark.parametrize(("alpha", "wrong"), [(0.05, 0.08), (0.01, 0.06)])
def test_an_end_by_evidence_or_else_by_the_planned_number_is_wrong_as_often_as_the_page_says(alpha, wrong):
    right = np.cumsum(np.random.default_rng(7).random((20_000, 200)) < 0.5, axis=1)
    counts = np.arange(1, 201) - right
    early = (log_e_path(right, counts) >= math.log(1 / alpha)).any(axis=1)
    intervals = [wilson(wins, 200) for wins in range(201)]
    excluded = np.array([not i.low <= 0.5 <= i.high for i in intervals])[right[:, -1]]
    assert round((early | excluded).mean(), 2) == wrong


def test_the_usual_test_watched_as_often_is_wrong_far_more_often():
    wins, losses = (counts[:, :200] for counts in watched(0.5, ties=0.0))
    n = np.arange(1, 201)
    z = (wins - losses) / np.sqrt(n)
    assert (np.abs(z[:, 9:]) > 1.96).any(axis=1).mean() > 0.2


@pytest.mark.parametrize(("win_rate", "usual"), [(0.65, 86), (0.70, 47)])
def test_a_real_difference_stops_about_as_soon_as_a_fixed_plan_would(win_rate, usual):
    wins, losses = watched(win_rate, ties=0.0)
    reached = log_e_path(wins, losses) >= math.log(20)
    first = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, LONGEST)
    assert np.median(first) == pytest.approx(usual, rel=0.15)
    assert reached[:, :250].any(axis=1).mean() > 0.95


# ---------------------------------------------------------------------------------------------- the interval
@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (0, 7), (3, 2), (60, 40), (400, 380)])
def test_at_the_ends_of_the_interval_the_bet_has_just_won(wins, losses):
    found = confidence_sequence(wins, losses)
    assert found.low <= found.value <= found.high
    for p in (found.low, found.high):
        if 0 < p < 1:
            bet = scipy.special.betaln(1 + wins, 1 + losses) - wins * math.log(p) - losses * math.log1p(-p)
            assert bet == pytest.approx(math.log(20), abs=1e-6)


def test_one_half_is_outside_exactly_when_the_evidence_suffices():
    for wins in range(60):
        found = confidence_sequence(wins, 20)
        assert (found.low > 0.5 or found.high < 0.5) == (log_e_value(wins, 20) > math.log(20))


@pytest.mark.parametrize("votes", [200, 1000])
def test_the_width_is_that_of_laplaces_approximation(votes):
    """B(1 + w, 1 + l) ≈ p^w q^l √(2πpq/n), and the bet wins at n (p - p₀)² / 2pq = log 1/alpha + ½ log n/2πpq."""
    found, spread = confidence_sequence(votes * 6 // 10, votes * 4 // 10), 0.6 * 0.4
    reach = math.log(20) + math.log(votes / (2 * math.pi * spread)) / 2
    assert (found.high - found.low) / 2 == pytest.approx(math.sqrt(2 * spread / votes * reach), rel=0.02)


@pytest.mark.parametrize(("votes", "wider"), [(50, 1.6), (200, 1.7), (1000, 1.8)])
def test_what_looking_costs_in_width_is_what_the_page_says(votes, wider):
    wins = votes * 6 // 10
    sequence, fixed = confidence_sequence(wins, votes - wins), wilson(wins, votes)
    assert round((sequence.high - sequence.low) / (fixed.high - fixed.low), 1) == wider


def test_before_the_first_vote_the_rate_can_be_anything():
    found = confidence_sequence(0, 0)
    assert (found.low, found.high, found.count) == (0, 1, 0)


@pytest.mark.parametrize("rate", [0.3, 0.6, 0.9])
def test_the_true_rate_is_inside_at_all_times_at_once(rate):
    wins, losses = (counts[:, :400] for counts in watched(rate, ties=0.0, seed=1))
    bet = scipy.special.betaln(1 + wins, 1 + losses) - wins * np.log(rate) - losses * np.log1p(-rate)
    for session, place in [(0, 10), (1, 50), (2, 399)]:  # that `bet` is what the interval inverts
        w, n = int(wins[session, place]), int(losses[session, place])
        found = confidence_sequence(w, n)
        assert (found.low < rate < found.high) == (bet[session, place] < math.log(20))
    assert (bet >= math.log(20)).any(axis=1).mean() <= 0.05


# ---------------------------------------------------------------------------------------------- the rule
def test_results_stay_hidden_until_the_planned_number_ties_included():
    rule = StoppingRule(planned=5)
    assert progress(votes("ab+-"), rule).stop == ""
    found = progress(votes("ab+-a"), rule)
    assert (found.stop, found.judged, found.wins, found.losses) == ("planned number", 5, 2, 1)


def test_skipped_repeated_and_other_kinds_of_pairs_do_not_count():
    cast = votes("aas") + votes("aaa", "j", kind="sft-sft") + [vote("again", repeats="i0")]
    assert progress(cast, StoppingRule(planned=3)).judged == 2


def test_evidence_ends_it_sooner_and_stays_though_later_votes_say_otherwise():
    rule = StoppingRule(planned=100)
    assert progress(votes("a" * 7), rule).stop == ""  # 2⁷/8 = 16
    assert progress(votes("a" * 8), rule).stop == "evidence"  # 2⁸/9 = 28
    assert progress(votes("a" * 7), StoppingRule(planned=100, alpha=0.1)).stop == "evidence"
    later = progress(votes("a" * 8 + "b" * 8), rule)
    assert later.stop == "evidence"
    assert later.e_value < 1


def test_two_raters_of_a_prompt_are_one_piece_of_evidence():
    one = votes("a" * 6)
    both = one + votes("a" * 6, rater="bob")
    assert progress(both, StoppingRule(planned=100)).e_value == progress(one, StoppingRule(planned=100)).e_value
    same_prompt = [vote(f"i{n}", prompt_id="p", time=float(n)) for n in range(9)]
    assert progress(same_prompt, StoppingRule(planned=100)).wins == 1


def test_the_first_decided_vote_of_a_prompt_counts_in_the_order_of_time():
    cast = [vote(rater="ann", choice="b", time=2.0), vote(rater="bob", choice="a", time=1.0),
            vote(rater="cat", choice="both good", time=0.0)]  # fmt: skip
    found = progress(cast, StoppingRule(planned=9))
    assert (found.wins, found.losses, found.judged) == (1, 0, 1)


def test_raters_who_see_the_same_and_agree_do_not_make_false_stops_more_frequent():
    """150 sessions of 40 prompts and three raters who always agree; to count all their votes would fail this."""
    g = np.random.default_rng(0)
    stopped = naive = 0
    for _ in range(150):
        letters = "".join(g.choice(["a", "b"], size=40))
        cast = [v for rater in ("ann", "bob", "cat") for v in votes(letters, rater=rater)]
        stopped += progress(cast, StoppingRule(planned=1000)).stop == "evidence"
        runs = np.repeat([c == "a" for c in letters], 3)
        naive += bool((log_e_path(np.cumsum(runs), np.cumsum(~runs)) >= math.log(20)).any())
    assert stopped / 150 <= 0.05
    assert naive / 150 > 0.15


def test_overwhelming_evidence_is_a_number_still():
    assert math.isfinite(progress(votes("a" * 1100), StoppingRule(planned=9)).e_value)


@pytest.mark.parametrize(("more", "name"), [({"planned": 0}, "planned is 0"), ({"alpha": 1.0}, "alpha is 1.0")])
def test_a_rule_that_is_none_is_refused(more, name):
    with pytest.raises(ValueError, match=name):
        StoppingRule(**{"planned": 5} | more)
