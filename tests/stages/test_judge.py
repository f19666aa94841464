"""The judgement of a reward model on held-out pairs, by hand and by simulation."""

import json
import math

import numpy as np
import pytest

from surefoot.stages.card import calibration_chart
from surefoot.stages.judge import judge_reward

LOGIT = {p: math.log(p / (1 - p)) for p in (0.55, 0.65, 0.75, 0.85, 0.95)}


def judge(margins, chosen_lengths=None, rejected_lengths=None, **options):
    lengths = [10.0] * len(margins)
    return judge_reward(
        margins, [0.0] * len(margins), chosen_lengths or lengths, rejected_lengths or lengths, **options
    )


def warned(card, words):
    return [sentence for sentence in card.warnings if words in sentence]


def drawn(sure, count=2000, seed=0):
    """Margins of a reward that says p, from 0.5 to 0.9, and is right with probability sure(p)."""
    generator = np.random.default_rng(seed)
    p = generator.uniform(0.5, 0.9, size=count)
    right = generator.random(count) < sure(p)
    return list(np.where(right, 1, -1) * np.log(p / (1 - p)))


def test_every_number_of_four_pairs_by_hand():
    margins = [LOGIT[0.75], LOGIT[0.55], -LOGIT[0.55], 0.0]
    card = judge(margins, [30, 10, 20, 20], [20, 20, 10, 20])
    assert (card.pairs, card.ties, card.accuracy.value) == (4, 1, 2.5 / 4)
    assert card.log_loss == pytest.approx(-(math.log(0.75) + math.log(0.55) + math.log(0.45) + math.log(0.5)) / 4)
    assert card.says == pytest.approx((0.75 + 0.55 + 0.55 + 0.5) / 4)
    low, high = card.calibration  # three pairs below 60 %, one between 70 % and 80 %
    assert (low.name, low.right.count, low.right.value) == ("50% to 60%", 3, 1.5 / 3)
    assert (high.name, high.right.count, high.right.value) == ("70% to 80%", 1, 1.0)
    # 3/4 x |1/2 - 1.6/3| + 1/4 x |1 - 0.75|
    assert card.calibration_error == pytest.approx(3 / 4 * (1.6 / 3 - 0.5) + 0.25 / 4)
    assert (card.length_rule, card.length_accuracy) == ("longer", 2.5 / 4)  # longer, shorter, longer, as long
    assert card.beyond_length.value == 0.0
    assert [(s.name, s.right.count, s.right.value, s.length_rule) for s in card.by_length] == [
        ("chosen is shorter", 1, 1.0, 0.0), ("of similar length", 1, 0.5, 0.5), ("chosen is longer", 2, 0.5, 1.0),
    ]  # fmt: skip
    assert card.margin_mean == pytest.approx(LOGIT[0.75] / 4)
    assert (card.chosen_mean, card.rejected_mean) == (pytest.approx(LOGIT[0.75] / 4), 0.0)


def test_quarters_of_the_margin_are_of_equal_number_and_in_order():
    generator = np.random.default_rng(5)
    margins = list(generator.normal(0.5, 1, size=400))
    quarters = judge(margins).by_margin
    assert [q.right.count for q in quarters] == [100] * 4
    size = np.sort(np.abs(margins))
    assert quarters[0].says == pytest.approx((1 / (1 + np.exp(-size[:100]))).mean())
    assert quarters[3].says == pytest.approx((1 / (1 + np.exp(-size[300:]))).mean())


def test_equal_margins_share_a_quarter():
    assert [(q.name, q.right.count) for q in judge([1.0] * 8).by_margin] == [("0.00 to 1.00", 8)]


def test_a_calibrated_reward_is_not_warned_of_and_its_error_is_what_chance_explains():
    cards = [judge(drawn(lambda p: p, count=400, seed=seed)) for seed in range(25)]
    assert sum(card.calibration_error > card.calibration_chance for card in cards) <= 2  # 1 in 100 by chance
    assert sum(bool(warned(card, "the size of its scores is not")) for card in cards) <= 2
    assert np.mean([card.calibration_error for card in cards]) > 0.02  # chance alone is no small error


def test_a_reward_that_is_too_sure_or_not_sure_enough_is_told_so():
    assert warned(judge(drawn(lambda p: 0.5 + (p - 0.5) / 3)), "it is too sure")
    assert warned(judge(drawn(lambda p: np.minimum(1, p + 0.15))), "it is not sure enough")


def test_a_reward_that_is_too_sure_here_and_not_sure_enough_there_is_not_called_either():
    card = judge(drawn(lambda p: np.where(p < 0.7, 0.8, 0.6)))
    assert warned(card, "it does not know how sure it can be")


def test_a_reward_that_guesses_is_told_so():
    card = judge(drawn(lambda p: np.full(len(p), 0.5)))
    assert warned(card, "cannot be told from guessing")
    assert warned(card, "no better than saying nothing (0.693)")
    assert judge([0.0] * 100).log_loss == pytest.approx(math.log(2))


def test_swapped_answers_are_suspected():
    assert warned(judge([-m for m in drawn(lambda p: p)]), "swapped")


def test_what_is_too_good_to_be_true_is_suspected():
    assert warned(judge([1.0] * 97 + [-1.0] * 3), "look for held-out pairs that were learnt")
    assert not warned(judge([1.0] * 90 + [-1.0] * 10), "look for")


def lengths_of(count, longer, seed=6):
    generator = np.random.default_rng(seed)
    base = generator.integers(20, 200, size=count)
    return (base + np.where(generator.random(count) < longer, 15.0, -15.0)).tolist(), base.astype(float).tolist()


def test_a_reward_that_only_counts_tokens_is_caught():
    chosen, rejected = lengths_of(500, 0.7)
    card = judge_reward([c / 100 for c in chosen], [r / 100 for r in rejected], chosen, rejected)
    assert (card.accuracy.value, card.length_accuracy) == (card.length_accuracy, card.accuracy.value)
    assert (card.beyond_length.low, card.beyond_length.value, card.beyond_length.high) == (0.0, 0.0, 0.0)
    assert warned(card, 'cannot be told from "the longer answer is better"')
    assert card.length_correlation.value == pytest.approx(1.0)
    assert warned(card, "its scores follow length (rank correlation 1.00)")


def test_where_shorter_answers_are_better_that_is_the_rule_to_beat():
    chosen, rejected = lengths_of(500, 0.2)
    card = judge_reward([-c for c in chosen], [-r for r in rejected], chosen, rejected)
    assert card.length_rule == "shorter"
    assert card.length_accuracy == pytest.approx(sum(c < r for c, r in zip(chosen, rejected, strict=True)) / 500)
    assert warned(card, '"the shorter answer is better"')


def test_a_reward_worse_than_length_and_one_beyond_it_are_told_apart():
    chosen, rejected = lengths_of(500, 0.85)
    generator = np.random.default_rng(7)
    worse = judge(list(np.where(generator.random(500) < 0.6, 1.0, -1.0)), chosen, rejected)
    assert warned(worse, "it is worse than")
    assert worse.beyond_length.high < 0
    better = judge(list(np.where(generator.random(500) < 0.94, 1.0, -1.0)), chosen, rejected)
    assert better.beyond_length.low > 0
    assert not warned(better, "answer is better")


def test_agreement_with_a_second_scorer_is_cohens_kappa_over_both_orders():
    ours, theirs = [1, 1, 1, -1, -1, 1, 1, 1, 0, 1], [1, 1, -1, -1, 1, 1, 1, 1, 1, 0]
    card = judge([float(m) for m in ours], second=([float(m) for m in theirs], [0.0] * 10))
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a and b]
    both = pairs + [(-a, -b) for a, b in pairs]  # every pair also the other way round
    raw = sum(a == b for a, b in both) / len(both)
    first = [sum(x[i] == 1 for x in both) / len(both) for i in (0, 1)]
    chance = first[0] * first[1] + (1 - first[0]) * (1 - first[1])
    assert card.second.kappa == pytest.approx((raw - chance) / (1 - chance))
    assert (card.second.ties, card.second.raw.count, card.second.raw.value) == (2, 8, 6 / 8)
    assert card.second.accuracy.value == pytest.approx((7 + 0.5) / 10)
    assert card.second.by_chance_errors == pytest.approx(6 / 8 * 6 / 8 + 2 / 8 * 2 / 8)
    assert card.second.kappa_of_errors == pytest.approx((0.75 - 0.625) / (1 - 0.625))


def test_scorers_that_decide_no_pair_in_common_are_not_compared():
    assert judge([1.0, 0.0], second=([0.0, 1.0], [0.0, 0.0])).second is None


def test_independent_errors_have_no_kappa_in_common():
    generator = np.random.default_rng(8)
    a, b = (np.where(generator.random(4000) < 0.7, 1.0, -1.0) for _ in range(2))
    second = judge(list(a), second=(list(b), [0.0] * 4000)).second
    assert second.kappa_of_errors == pytest.approx(0.0, abs=0.05)
    assert second.raw.value == pytest.approx(0.7**2 + 0.3**2, abs=0.03)
    assert not warned(judge(list(a), second=(list(a), [0.0] * 4000)), "hardly agrees")
    assert warned(judge(list(a), second=(list(b), [0.0] * 4000)), "hardly agrees")


def test_pairs_of_one_prompt_widen_the_intervals():
    margins = drawn(lambda p: p, count=100)
    apart = judge(margins)
    copies = judge(margins * 5, prompts=list(range(100)) * 5)
    assert copies.accuracy.value == apart.accuracy.value
    assert (copies.pairs, copies.prompts) == (500, 100)
    width = [c.accuracy.high - c.accuracy.low for c in (apart, copies)]
    assert width[1] == pytest.approx(width[0], rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([], [], [], []), "chosen_scores must be a list of at least one number"),
        (([1.0], [1.0, 2.0], [1], [1]), "1 chosen_scores but 2 rejected_scores"),
        (([1.0], [0.0], [1], [1, 2]), "1 chosen_scores but 2 rejected_lengths"),
        (([1.0, math.nan], [0.0, 0.0], [1, 1], [1, 1]), r"chosen_scores\[1\] is nan"),
    ],
)
def test_what_cannot_be_judged_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        judge_reward(*arguments)


def test_the_card_is_a_file_a_table_and_a_picture():
    chosen, rejected = lengths_of(300, 0.6)
    margins = drawn(lambda p: p, count=300)
    card = judge(margins, chosen, rejected, second=(margins, [0.0] * 300))
    written = json.loads(json.dumps(card.as_dict()))
    assert written["accuracy"] == {"value": card.accuracy.value, "low": card.accuracy.low, "high": card.accuracy.high,
                                   "count": 300}  # fmt: skip
    assert written["warnings"] == card.warnings
    assert written["second"]["kappa"] == 1.0
    assert (
        "second    a judge is right in" in judge(margins, second=(margins, [0.0] * 300), second_name="a judge").text()
    )
    lines = card.text().split("\n")
    assert lines[0].startswith(f"reward    right in {card.accuracy.value:.1%} (")
    assert max(map(len, lines)) < 260
    picture = calibration_chart(card)
    assert picture.count("<circle") == len(card.calibration)
    assert picture.count("whisker") == len(card.calibration)
    assert picture.count('<g class="a points">') == picture.count('<g class="b dash">') == 1  # colours of the sheet
