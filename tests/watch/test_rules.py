"""When a series of looks is worth a word: series made by hand, each with one thing wrong, or nothing."""

import math

import pytest

from surefoot.watch import Look, alarms, gold_alarm, told, warnings

COUNT = 16
WORDS = [f"w{i} x{i} y{i} z{i} u{i} v{i}".split() for i in range(COUNT)]
WOBBLE = [0.1 if i % 2 else -0.1 for i in range(COUNT)]
"""Alternating, of mean 0. Its standard error over 16 answers is 0.1 sqrt(16/15) / 4 = 0.0258."""


def look(step=0, gold=None, score=0.0, **more):
    """Sixteen answers of different words; `gold` is a mean around which answers alternate from look to look."""
    given = {
        "scores": [score + i / COUNT for i in range(COUNT)],
        "lengths": [10.0 + i % 3 for i in range(COUNT)],
        "kl": [0.1 * step] * COUNT,
        "answers": WORDS,
        "gold": () if gold is None else [gold + (w if step % 2 else -w) for w in WOBBLE],
    }
    return Look(step=step, **(given | more))


def series(*golds):
    return [look(step, gold, score=float(step)) for step, gold in enumerate(golds)]


def signs(looks, since=0):
    return [alarm.sign for alarm in alarms(looks, since)]


# ---------------------------------------------------------------------------------------------- gold
def test_gold_that_rises_and_stays_is_quiet():
    assert gold_alarm(series(0.0, 1.0, 2.0)) is None
    assert gold_alarm(series(0.0, 1.0, 2.0, 2.0)) is None


def test_gold_that_falls_surely_and_by_enough_is_an_alarm_with_its_numbers():
    """Between looks 2 and 3 answers differ by 0.5 ± 0.2 in turn: standard error 0.2 sqrt(16/15) / 4 = 0.0516."""
    found = gold_alarm(series(0.0, 1.0, 2.0, 1.5))
    assert found.sign == "gold"
    assert found.words == (
        "gold fell from 2 at step 2 to 1.5 (9.7 standard errors, 25 % of what it had won), and the score rose by 1"
    )
    assert found.rows == (0, 2, 4, 6, 8)  # where the wobble adds to the fall


def test_a_fall_within_the_noise_is_none():
    """0.2 is 3.87 standard errors of 0.0516, 0.22 is 4.26; a tenth of the gain of 2 would be reached by both."""
    assert gold_alarm(series(0.0, 1.0, 2.0, 1.8)) is None
    assert gold_alarm(series(0.0, 1.0, 2.0, 1.78)) is not None


def test_a_sure_fall_of_less_than_a_tenth_of_the_gain_is_none():
    assert gold_alarm(series(0.0, 5.0, 10.0, 9.1)) is None
    assert gold_alarm(series(0.0, 5.0, 10.0, 8.9)) is not None


def test_a_fall_from_the_start_is_an_alarm_though_nothing_was_won():
    found = gold_alarm(series(0.0, -1.0))
    assert found.words == "gold fell from 0 at step 0 to -1 (19.4 standard errors), and the score rose by 1"


def test_after_something_was_done_gold_is_judged_anew():
    looks = series(0.0, 2.0, 1.0, 1.2, 0.2)
    assert signs(looks[:3]) == ["gold"]
    assert signs(looks[:4], since=2) == []
    assert signs(looks[:4]) == ["gold"]  # against the peak it would be one still
    assert signs(looks, since=2) == ["gold"]


def test_answers_and_looks_without_gold_are_left_out():
    some = [[math.nan if i == 3 else g for i, g in enumerate(lk.gold)] for lk in series(0.0, 2.0, 0.0)]
    looks = [look(9), *(look(step, gold=0.0) for step in range(3))]
    looks = [looks[0], *(Look(step=n, scores=lk.scores, lengths=lk.lengths, kl=lk.kl, answers=lk.answers, gold=g)
                         for n, (lk, g) in enumerate(zip(looks[1:], some, strict=True)))]  # fmt: skip
    found = gold_alarm(looks)
    assert found.sign == "gold"
    assert 3 not in found.rows
    assert gold_alarm([look(0), look(1)]) is None


def test_of_seven_answers_nothing_is_said():
    def few(step, gold):
        whole = look(step, gold)
        return Look(step=step, scores=whole.scores[:7], lengths=whole.lengths[:7], kl=whole.kl[:7],
                    answers=whole.answers[:7], gold=whole.gold[:7])  # fmt: skip

    assert alarms([few(0, 5.0), few(1, 0.0)]) == []


# ---------------------------------------------------------------------------------------------- the other signs
def test_the_first_look_and_one_like_it_say_nothing():
    assert warnings([look()]) == []
    assert warnings([look(), look(1)]) == []


@pytest.mark.parametrize(
    ("sign", "change", "words", "rows"),
    [
        ("outside", {"scores": [2.0 + i for i in range(COUNT)]}, "100% of the answers score higher than any",
         (15, 14, 13, 12, 11)),
        ("phrase", {"answers": [[*words, "thank", "you", "so", "much"] if i < 12 else words
                                for i, words in enumerate(WORDS)]},
         "75% of the answers hold the same words, \u201cthank you so much\u201d", (0, 1, 2, 3, 4)),
        ("repeats", {"answers": [["a", "b"] * 3 if i % 4 else WORDS[i] for i in range(COUNT)]},
         "answers repeat themselves or each other", (1, 2, 3, 5, 6)),
        ("length", {"lengths": [16.0 + i % 3 for i in range(COUNT)]}, "answers have become longer: 17 tokens, 11 at",
         (2, 5, 8, 11, 14)),
        ("length", {"lengths": [3.0 + i % 3 for i in range(COUNT)]}, "answers have become shorter: 4 tokens, 11 at",
         (0, 3, 6, 9, 12)),
        ("pays for length", {"lengths": [5.0 + i for i in range(COUNT)]}, "only longer", (15, 14, 13, 12, 11)),
    ],
)  # fmt: skip
def test_each_sign_is_told_once_with_the_samples_to_look_at(sign, change, words, rows):
    first, then = look(), look(1, **change)
    found = {alarm.sign: alarm for alarm in warnings([first, then])}
    assert words in found[sign].words
    assert found[sign].rows == rows
    assert warnings([first, then, look(2, **change)]) == []  # it was told before
    again = warnings([first, then, look(2), look(3, **change)])
    assert sign in {alarm.sign for alarm in again}  # it had gone


def test_a_prompt_that_all_answers_repeat_from_the_start_is_no_sign():
    alike = [[*words, "sure", "here", "it", "is"] for words in WORDS]
    assert warnings([look(answers=alike), look(1, answers=alike)]) == []


def test_scores_that_are_not_numbers_raise_nothing():
    assert signs([look(), look(1, scores=[math.nan] * COUNT)]) == []


def test_an_alarm_says_where_to_look_and_what_is_done():
    alarm = {"sign": "gold", "words": "gold fell", "prompts": [3, 9], "done": "raise_kl"}
    assert told(alarm) == "gold fell; the KL price is multiplied by 2. Look at these samples: prompts 3, 9"
    assert told(alarm | {"done": "stop_and_restore"}) == "gold fell; the run ends. Look at these samples: prompts 3, 9"
    assert told(alarm | {"done": "warn"}) == "gold fell. Look at these samples: prompts 3, 9"
