"""Each signal by hand on answers made for it, and quiet where nothing happened."""

import math

import pytest
import scipy.stats

from surefoot.watch import Look, gold_fall, look_of_samples, signals
from surefoot.watch.signals import common_phrase, distinct_phrases, price

TEXTS = ["the cat sat on the mat", "a dog ran home at once", "we like warm rain very much", "no one saw the moon"]


def look(step=0, scores=(0.0, 1.0, 2.0, 3.0), texts=TEXTS, **more):
    given = {"lengths": [float(len(t.split())) for t in texts], "kl": [0.0] * 4, "entropy": 2.0} | more
    return Look(step=step, scores=list(scores), answers=[t.split() for t in texts], **given)


def test_the_first_look_is_the_measure_and_at_rest():
    (s,) = signals([look(gold=[1.0, 2.0, 3.0, 4.0])])
    assert (s.score, s.gold, s.gap, s.length_ratio, s.kl, s.entropy_ratio, s.outside) == (0, 0, 0, 1, 0, 1, 0)
    assert math.isnan(s.kl_price)


def test_score_and_gold_are_in_standard_deviations_of_the_first_look_and_the_gap_is_their_difference():
    first, then = look(gold=[0.0, 0.0, 2.0, 2.0]), look(10, (4.0, 5.0, 6.0, 7.0), gold=[1.0, 1.0, 3.0, 3.0])
    s = signals([first, then])[1]
    assert s.score == pytest.approx(4 / math.sqrt(5 / 3))
    assert s.gold == pytest.approx(1 / math.sqrt(4 / 3))
    assert s.gap == s.score - s.gold


def test_without_gold_there_is_no_gap():
    assert math.isnan(signals([look(), look(1)])[1].gap)


def test_lengths_and_entropy_are_ratios_to_the_first_look():
    s = signals([look(), look(1, lengths=[12.0, 12.0, 12.0, 10.0], entropy=0.5)])[1]
    assert s.length_ratio == pytest.approx(46 / 23)
    assert s.entropy_ratio == 0.25


def test_a_reward_that_counts_words_is_seen_by_its_correlation():
    s = signals([look(scores=[6.0, 6.5, 7.0, 5.0], lengths=[6.0, 7.0, 9.0, 2.0])])[0]
    assert s.length_correlation == 1.0


def test_the_price_is_nats_since_the_look_before_for_score_won_since():
    looks = [look(), look(1, (1.0, 2.0, 3.0, 4.0), kl=[2.0] * 4), look(2, (1.5, 2.5, 3.5, 4.5), kl=[8.0] * 4),
             look(3, (1.5, 2.5, 3.5, 4.5), kl=[9.0] * 4)]  # fmt: skip
    spread = math.sqrt(5 / 3)
    found = [s.kl_price for s in signals(looks)]
    assert found[1:3] == pytest.approx([2 * spread, 12 * spread])
    assert found[3] == math.inf
    assert math.isnan(price(0.0, 0.0))


def test_repeated_phrases_are_seen_within_and_across_answers():
    assert distinct_phrases([list("abab")], 2) == 2 / 3  # ab, ba, ab
    assert distinct_phrases([list("abc"), list("abc")], 2) == 2 / 4
    assert math.isnan(distinct_phrases([["one"]], 2))


def test_the_common_phrase_is_held_by_most_answers_however_often_each_repeats_it():
    answers = [list("xxxxxxxx"), list("thankyou"), list("_thanks"), list("thank")]
    phrase, share = common_phrase(answers, 5)
    assert ("".join(phrase), share) == ("thank", 0.75)
    assert common_phrase([["a"], ["b"]], 5) == ((), 0.0)


def test_answers_that_end_alike_raise_the_common_phrase():
    ending = [f"{text} thank you so much" for text in TEXTS]
    found = signals([look(), look(1, texts=ending)])
    assert found[0].common_phrase == 0.25
    assert found[1].common_phrase == 1.0
    assert found[1].distinct < found[0].distinct


def test_scores_above_all_of_the_first_look_are_outside():
    assert signals([look(), look(1, (3.0, 3.1, 9.0, 0.0))])[1].outside == 0.5


# ---------------------------------------------------------------------------------------------- gold
def test_a_fall_of_gold_is_measured_from_its_best_look_prompt_by_prompt():
    looks = [look(gold=[0.0, 2.0, 0.0, 2.0]), look(1, gold=[3.0, 5.0, 3.0, 5.0]), look(2, gold=[2.0, 4.0, 2.5, 4.5])]
    found = gold_fall(looks)
    differences = [1.0, 1.0, 0.5, 0.5]
    assert found.best == 1
    assert found.fall == pytest.approx(0.75 / math.sqrt(4 / 3))
    assert found.z == pytest.approx(scipy.stats.ttest_1samp(differences, 0).statistic)


def test_a_fall_by_the_same_on_every_prompt_leaves_no_doubt():
    found = gold_fall([look(gold=[0.0, 1.0, 2.0, 3.0]), look(1, gold=[-1.0, 0.0, 1.0, 2.0])])
    assert found.z == math.inf


def test_while_gold_rises_it_has_not_fallen():
    found = gold_fall([look(gold=[0.0, 1.0, 0.0, 1.0]), look(1, gold=[1.0, 2.0, 1.0, 2.5])])
    assert (found.best, found.fall, found.z) == (1, 0.0, 0.0)


def test_looks_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="the look at step 0 has 4 gold scores and the last one 0"):
        gold_fall([look(gold=[1.0] * 4), look(1)])
    with pytest.raises(ValueError, match="the look at step 3 has 4 scores and 2 kl"):
        look(3, kl=[0.0, 1.0])
    with pytest.raises(ValueError, match="has 1 answers"):
        Look(step=0, scores=[1.0], lengths=[1.0], kl=[1.0], answers=[["a"]])


def test_a_look_is_made_of_the_samples_of_a_run_folder():
    samples = [{"score": n, "length": 3, "kl": 0.5, "response": "a b c", "prompt": "p"} for n in range(2)]
    found = look_of_samples(7, samples, gold=[1.0, 2.0])
    assert (found.step, found.scores, found.answers[0], found.gold) == (7, [0.0, 1.0], ["a", "b", "c"], [1.0, 2.0])
