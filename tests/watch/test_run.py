"""The watch over a run's evaluations: what is written into them, what is done, and what is refused."""

import pytest

from surefoot.callbacks import Evaluation
from surefoot.watch.run import RunWatch, best_of

COUNT = 10


def evaluation(step, gold=None, score=0.0, order=1, count=COUNT):
    """Ten answers to the prompts 40 to 49, whose gold alternates around a mean from step to step."""
    rows = [
        {
            "step": step, "prompt": f"p{i}", "response": f"w{i} x{i} y{i} z{i}", "score": score + i / 100,
            "kl": 0.1 * step, "length": 4, "entropy": 2.0, "row": 40 + i,
            **({} if gold is None else {"gold": gold + (0.05 if (i + step) % 2 else -0.05)}),
        }
        for i in range(count)
    ][::order]  # fmt: skip
    metrics = {"eval/score": score, "eval/entropy": 2.0 - 0.1 * step}
    return Evaluation(step, 8 * step, metrics if gold is None else metrics | {"eval/gold": gold}, rows)


def walked(watch, golds):
    """The evaluations of a run with these golds, each seen by the watch."""
    seen = []
    for step, gold in enumerate(golds):
        seen.append(watch.seen(evaluation(step, gold), seen))
    return seen


def test_an_evaluation_gets_its_signs_as_metrics_and_keeps_its_own():
    watch = RunWatch("warn")
    first = watch.seen(evaluation(0, 1.0), [])
    then = watch.seen(evaluation(5, 2.0, score=0.3), [first])
    assert then.metrics["eval/score"] == 0.3
    assert then.metrics["eval/watch/length_ratio"] == 1.0
    assert then.metrics["eval/watch/entropy_ratio"] == 0.75
    assert then.metrics["eval/watch/outside"] == 1.0
    assert "eval/watch/kl_price" not in first.metrics  # nothing came before it
    assert then.metrics["eval/watch/kl_price"] == pytest.approx(0.5 / (0.3 / (0.01 * (10 * 11 / 12) ** 0.5)))


def test_off_leaves_an_evaluation_alone():
    found = evaluation(1, 0.0)
    assert RunWatch("off").seen(found, [evaluation(0, 9.0)]) is found


def test_a_fall_names_prompts_by_their_rows_whatever_order_processes_gave_them_in():
    watch = RunWatch("warn")
    first = watch.seen(evaluation(0, 5.0), [])
    (alarm,) = watch.seen(evaluation(1, 1.0, order=-1), [first]).alarms
    assert (alarm["sign"], alarm["done"]) == ("gold", "warn")
    assert alarm["prompts"] == [41, 43, 45, 47, 49]  # where the wobble adds to the fall
    assert alarm == watch.seen(evaluation(1, 1.0), [first]).alarms[0]


def test_a_warning_is_not_repeated_while_gold_stays_down_and_is_when_it_falls_on():
    seen = walked(RunWatch("warn"), [0.0, 5.0, 2.0, 2.0, 2.2, 0.0])
    assert [len(e.alarms) for e in seen] == [0, 0, 1, 0, 0, 1]


def test_stop_ends_the_run_at_the_fall_and_knows_the_best():
    watch = RunWatch("stop_and_restore")
    seen = walked(watch, [0.0, 5.0, 4.9, 2.0])
    assert [watch.reason(seen[: n + 1]) is None for n in range(4)] == [True, True, True, False]
    assert watch.reason(seen).startswith("watch: gold fell from 5 at step 1 to 2 (")
    assert [watch.keeps(seen[: n + 1]) for n in range(4)] == [True, True, False, False]
    assert best_of(seen).step == 1
    assert watch.restores(watch.reason(seen), seen)
    assert watch.restores("finished: all 3 steps are done", seen[:3])
    assert not watch.restores("finished: all 1 steps are done", seen[:2])
    assert not watch.restores("stopped: by SIGTERM", seen)
    assert not any(watch.raises(e) for e in seen)


def test_raise_acts_at_each_fall_and_never_ends_a_run():
    watch = RunWatch("raise_kl")
    seen = walked(watch, [0.0, 5.0, 2.0, 2.0, 0.0])
    assert [watch.raises(e) for e in seen] == [False, False, True, False, True]
    assert watch.reason(seen) is None
    assert not watch.restores("finished: all 4 steps are done", seen)


def test_at_the_end_of_a_run_nothing_is_said_to_be_done():
    watch = RunWatch("raise_kl")
    (alarm,) = watch.seen(evaluation(1, 0.0), [evaluation(0, 5.0)], acts=False).alarms
    assert alarm["done"] == "warn"


def test_without_gold_the_best_is_the_one_with_the_highest_score_and_nothing_acts():
    seen = [evaluation(0, score=1.0), evaluation(1, score=3.0), evaluation(2, score=3.0)]
    assert best_of(seen).step == 1
    assert RunWatch("stop_and_restore").reason(seen) is None


def test_evaluations_of_other_prompts_are_not_compared():
    watch = RunWatch("warn")
    assert watch.seen(evaluation(1, 0.0), [evaluation(0, 5.0, count=9)]).alarms == []


@pytest.mark.parametrize("action", ["raise_kl", "stop_and_restore"])
def test_what_cannot_be_acted_on_is_refused(action):
    check = RunWatch(action).check
    with pytest.raises(ValueError, match=f"watch='{action}' needs gold, a scorer that nothing is trained on"):
        check(gold=False, prompts=32, folder=True)
    with pytest.raises(ValueError, match=r"at least 8 evaluation prompts .* there are 7: raise eval_prompts"):
        check(gold=True, prompts=7, folder=True)
    check(gold=True, prompts=8, folder=True)
    for quiet in ("off", "warn"):
        RunWatch(quiet).check(gold=False, prompts=0, folder=False)


def test_a_model_can_only_be_brought_back_from_a_folder():
    with pytest.raises(ValueError, match="needs output_dir"):
        RunWatch("stop_and_restore").check(gold=True, prompts=32, folder=False)
    RunWatch("raise_kl").check(gold=True, prompts=32, folder=False)
