"""The benchmark's rule, scorers and tables, on numbers made by hand; its page is what its results say."""

import json

import numpy as np
import pytest

from benchmarks import mini_gao
from benchmarks.letters import ALPHABET, numbers, scorer, words
from benchmarks.over_optimisation import RESULTS, chosen, recorded, stopped, tried
from benchmarks.over_optimisation_page import BEGIN, END, PAGE, PICTURE, kept, lost, picture, section, split
from benchmarks.watch_calibration import Walk
from surefoot.watch import Look, signals


def a_walk(golds):
    """Gold of sixteen answers around each mean, alternating from look to look."""
    looks = [
        Look(step=n, scores=[n - 1.0, n + 1.0] * 8, lengths=[3.0] * 16, kl=[2.0 * n] * 16, answers=[list("abc")] * 16,
             gold=[g + (0.1 if (i + n) % 2 else -0.1) for i in range(16)])
        for n, g in enumerate(golds)
    ]  # fmt: skip
    return Walk(np.array(golds, dtype=float), looks, signals(looks))


HUMP, RISE = a_walk([0, 2, 4, 3, 1]), a_walk([0, 1, 2, 3, 4])


def test_the_rule_stops_at_the_first_fall_and_keeps_the_best_look():
    assert stopped(HUMP, 16, 4.0, 0.1) == (2, True)
    assert stopped(HUMP, 16, 4.0, 0.5) == (2, True)  # at the last look, when half was lost
    assert stopped(RISE, 16, 4.0, 0.0) == (4, False)
    assert tried([HUMP, RISE], 16, 4.0, 0.1) == {"kept": [1.0, 1.0], "alarm": [True, False]}


def test_thresholds_that_cry_wolf_are_not_chosen():
    """The control dips by 0.6 of 4, by 11.6 standard errors: only the demand that a fifth be lost stays quiet."""
    dips = a_walk([0, 4, 3.4, 4])
    assert chosen([HUMP], [dips, RISE], 16)[1] == 0.2


def test_words_and_numbers_are_each_others_inverse_and_strangers_earn_nothing():
    texts = np.array([[0, 7, 3, 1, 2, 4, 5, 6, 0, 0, 1, 7]])
    assert words(texts) == ["ahdbcefgaabh"]
    assert (numbers(words(texts)) == texts).all()
    assert numbers(["ab?"]).tolist() == [[0, 1] + [len(ALPHABET)] * 10]


def test_the_reward_functions_are_those_of_the_exact_worlds():
    problem = mini_gao.made(5)
    texts = mini_gao.sample(mini_gao.reference(problem), 50, np.random.default_rng(0))
    prompts, answers = zip(*((text[:2], text[2:]) for text in words(texts)), strict=True)
    assert scorer(problem.proxy)(prompts, answers) == pytest.approx(mini_gao.proxy_of(texts, problem))
    gold = scorer(problem.pair_gold, problem.triple_gold)
    assert gold(prompts, answers) == pytest.approx(mini_gao.gold_of(texts, problem))
    short = gold(["ab"], ["c"])[0]
    assert short == pytest.approx(problem.pair_gold[0, 1] + problem.pair_gold[1, 2] + problem.triple_gold[0, 1, 2])


def test_the_recorded_problem_has_the_recorded_peak():
    found = recorded(0, "N1000_noise0.25")
    assert found["peak"] == pytest.approx(4.83, abs=0.1)
    assert found["alarm"]
    assert found["stopped"] > found["end"]


def a_run(seed, truths, kind="noisy", arm="no watch", model_step=None):
    looks = [{"step": n, "kl": float(n), "score": float(n), "gold": t, "truth": t, "signs": []}
             for n, t in enumerate(truths)]  # fmt: skip
    return {"seed": seed, "kind": kind, "arm": arm, "looks": looks, "score_spread": 2.0, "steps": len(truths) - 1,
            "model_step": len(truths) - 1 if model_step is None else model_step}  # fmt: skip


def test_worlds_are_sorted_by_what_was_lost_and_a_model_by_the_unwatched_peak():
    over, even, clean = a_run(1, [0, 4, 3]), a_run(2, [0, 4, 3.5]), a_run(1, [0, 2, 1.9], "clean")
    assert [round(lost(run), 3) for run in (over, even, clean)] == [0.25, 0.125, 0.05]
    assert split([over, even, clean], 0.2, 0.0501) == ([1], [1])
    assert kept(a_run(1, [0, 3, 1], model_step=1), over) == 0.75


def test_page_and_picture_are_what_the_results_say():
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    text = PAGE.read_text(encoding="utf-8")
    assert text.split(BEGIN)[1].split(END)[0].strip() == section(found)
    if found["trained"]:
        assert PICTURE.read_text(encoding="utf-8") == picture(found).render()
