"""Answers against answers: what scores and verdicts make of pairs, by hand."""

import math

import numpy as np
import pytest

from surefoot.evaluate.duel import by_judge, by_scorer, sentences
from surefoot.evaluate.judging import Said

FIRST, SECOND, TIE = Said("first"), Said("second"), Said("tie")
UNREAD, SILENT = Said(None, why_not="the reply ends with no verdict"), Said(None, answered=False, why_not="no reply")


def numbers(gold, length=10.0):
    """Scores [P, K], and lengths that are all the same unless given."""
    gold = np.array(gold, dtype=float)
    return {"gold/g": gold, "length": np.broadcast_to(np.asarray(length, dtype=float), gold.shape)}


def judged(*pairs):
    """A duel with one pair a prompt, all answers equally long."""
    alike = numbers(np.zeros((len(pairs), 1)))
    return by_judge("judge j", [[pair] for pair in pairs], alike, alike)


def test_a_scorer_meets_every_answer_with_every_other_to_its_prompt():
    duel = by_scorer("gold/g", numbers([[1, 2], [0, 0]]), numbers([[1, 0], [1, 0]]))
    assert (duel.counts.win, duel.counts.tie, duel.counts.loss) == (3, 3, 2)
    assert duel.score.value == pytest.approx((3.5 / 4 + 1 / 4) / 2)
    assert duel.decided.value == pytest.approx(3 / 5)
    assert duel.orders is None


@pytest.mark.parametrize(
    ("mine_first", "mine_second", "outcome"),
    [
        (FIRST, SECOND, "win"),
        (SECOND, FIRST, "loss"),
        (TIE, TIE, "tie"),
        (FIRST, FIRST, "tie"),  # whoever stands first is preferred: that says nothing of the answers
        (SECOND, SECOND, "tie"),
        (FIRST, TIE, "tie"),
        (TIE, FIRST, "tie"),
    ],
)
def test_an_answer_wins_where_it_was_preferred_in_both_orders(mine_first, mine_second, outcome):
    counts = judged((mine_first, mine_second), (TIE, TIE)).counts
    expected = {"win": (1, 1, 0), "tie": (0, 2, 0), "loss": (0, 1, 1)}[outcome]
    assert (counts.win, counts.tie, counts.loss) == expected


def test_pairs_without_both_verdicts_are_left_out_and_counted():
    duel = judged((FIRST, SECOND), (UNREAD, SECOND), (FIRST, SILENT), (SILENT, UNREAD), (TIE, TIE))
    assert duel.counts.all == 2
    assert duel.score.value == pytest.approx(3 / 4)
    o = duel.orders
    assert (o.pairs, o.left_out, o.unread, o.unanswered) == (5, 3, 2, 2)
    assert o.examples == ("the reply ends with no verdict", "no reply")
    words = " ".join(sentences(duel, "policy", "SFT"))
    assert "3 of 5 pairs are left out: 2 replies of judge j held no verdict, and 2 questions had no reply" in words
    assert "won 1, tied 1, lost 0 of 2 pairs" in words


def test_the_agreement_of_the_orders_and_the_pull_of_the_first_place_are_reported():
    duel = judged((FIRST, SECOND), (FIRST, FIRST), (FIRST, FIRST), (SECOND, TIE))
    assert duel.orders.consistent.value == pytest.approx(1 / 4)
    assert (duel.orders.consistent.count, duel.orders.position.left.count) == (4, 7)
    assert duel.orders.position.left.value == pytest.approx(5 / 7)


def test_a_judge_that_follows_length_is_found_out_at_equal_length():
    """The longer answer wins four times in five, the model's is the longer one nine times in ten: nothing else."""
    generator = np.random.default_rng(0)
    mine_longer = generator.random(600) < 0.9
    ratio = np.where(mine_longer, 1.0, -1.0) * generator.uniform(0.2, 1.0, 600)
    longer_wins = generator.random(600) < 1 / (1 + np.exp(-2.3 * np.abs(ratio)))
    wins = mine_longer == longer_wins
    said = [[(FIRST, SECOND)] if won else [(SECOND, FIRST)] for won in wins]
    mine = numbers(np.zeros((600, 1)), 100 * np.exp(ratio)[:, None])
    duel = by_judge("judge j", said, mine, numbers(np.zeros((600, 1)), 100.0))
    assert duel.decided.low > 0.6
    assert duel.length.win_rate.low < 0.5 < duel.length.win_rate.high
    assert duel.length.slope.low > 0


def test_a_judge_that_judges_nothing_is_no_result():
    with pytest.raises(ValueError, match="judge j judged none of 2 pairs"):
        judged((UNREAD, UNREAD), (SILENT, FIRST))


def test_each_prompt_counts_once_however_many_of_its_pairs_were_judged():
    alike = numbers(np.zeros((2, 2)))
    duel = by_judge("judge j", [[(FIRST, SECOND), (FIRST, SECOND)], [(SECOND, FIRST), (UNREAD, FIRST)]], alike, alike)
    assert duel.score.value == pytest.approx(1 / 2)
    assert duel.decided.value == pytest.approx(2 / 3)
    assert math.isfinite(duel.score.low)
