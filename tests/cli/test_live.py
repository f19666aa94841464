"""What is shown of a run, in a terminal and elsewhere."""

import contextlib
import dataclasses
import io
import math

import pytest
from fake_runs import FakeTrainer, evaluation, result, samples, stats
from rich.cells import cell_len
from rich.console import Console

from surefoot.live import GOLD, ROWS, LiveView, closing, duration, short
from surefoot.tracking import RunFolder


def console(terminal=False, width=100, **how):
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, height=40, highlight=False, **how)


def shown(to, renderable):
    to.file.truncate(0)
    to.file.seek(0)
    to.print(renderable)
    return to.file.getvalue()


def drive(view, steps=2):
    trainer = FakeTrainer()
    with view:
        view.on_start(trainer)
        view.on_evaluation(trainer, evaluation(0, 0.1))
        for step in range(1, steps + 1):
            view.on_step(trainer, stats(step, objective__scores=0.25 * step), samples(step, 1.0))
        view.on_evaluation(trainer, evaluation(steps, 0.6))
        view.on_end(trainer, result())
    return view


def test_a_run_that_goes_on_shows_the_first_numbers_it_ever_had(tmp_path):
    """As the run does that was not stopped: the table's columns "now" and "first"."""
    to, trainer = console(terminal=True), FakeTrainer()
    trainer.folder = RunFolder(tmp_path)
    trainer.progress.steps, trainer.progress.evaluations = 2, [evaluation(0, 0.125), evaluation(2, 0.25)]
    for step in (1, 2):
        trainer.folder.log_step(stats(step, objective__scores=0.375 * step), [], with_samples=False)
    with LiveView(to) as view:
        view.on_start(trainer)
        rows = {line[:16].strip(): line[16:].split()[:2] for line in shown(console(), view.render()).splitlines()}
    assert rows["score"] == ["0.750", "0.375"]
    assert rows["evaluation score"] == ["0.250", "0.125"]
    assert view.now["step"] == 2


def test_without_a_terminal_a_step_is_one_line_of_about_110_characters():
    to = console()
    drive(LiveView(to))
    lines = to.file.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("evaluation at step 0: score 0.100 (first 0.100)")
    assert lines[1].startswith(
        "step   1/100  score  0.250 ± 0.500  KL 3e-06/token at 0.200  length 48.2, 75% finished  3.0 s"
    )
    assert lines[3].startswith("evaluation at step 2: score 0.600 (first 0.100)")
    assert all(len(line) <= 120 for line in lines)
    assert "\x1b" not in to.file.getvalue()


def test_quiet_shows_nothing():
    for terminal in (False, True):
        to = console(terminal)
        drive(LiveView(to, quiet=True))
        assert to.file.getvalue() == ""


def test_the_table_holds_at_most_twelve_numbers_now_and_first():
    view = drive(LiveView(console(width=110)))
    lines = shown(console(width=110), view.render()).splitlines()
    assert len(ROWS) <= 12
    assert len([line for line in lines if line.split("  ")[0] in {row[0] for row in ROWS}]) == len(ROWS)
    rows = {row[0]: next(line for line in lines if line.startswith(row[0])).split() for row in ROWS}
    assert rows["score"][1:3] == ["0.500", "0.250"]
    assert rows["evaluation score"][2:4] == ["0.600", "0.100"]
    assert rows["finished answers"][2] == "75%"
    assert rows["gradient norm"][2] == "12.3"
    assert "target 0.1" in " ".join(rows["KL per token"])
    assert lines[0].startswith("step 2 of 100")
    assert " left" in lines[0]


def test_columns_are_aligned_on_the_right_edge_of_their_numbers():
    view = drive(LiveView(console()))
    lines = shown(console(), view.render()).splitlines()
    head = next(line for line in lines if "now" in line and "first" in line)
    edge = head.index("now") + 3
    table = [line for line in lines if line.split("  ")[0] in {row[0] for row in ROWS}]
    assert all(line[edge - 1] != " " and line[edge] == " " for line in table)


def test_no_line_is_wider_than_a_narrow_terminal():
    view = drive(LiveView(console(width=60)))
    view._sample = samples(1, 1.0, response="海" * 200)[0]
    assert max(cell_len(line) for line in shown(console(width=60), view.render()).splitlines()) <= 60


def test_control_characters_in_answers_are_escaped():
    view = drive(LiveView(console(terminal=True, no_color=True)))
    text = shown(console(), view.render())
    assert "An answer.\\n\\x1b[31mred" in text
    assert "\x1b[31m" not in text
    end = shown(console(), closing(result(evaluation(0, 0.1), evaluation(3, 0.6)), 100))
    assert "\x1b" not in end


def with_gold(step, score, gold, **more):
    found = evaluation(step, score)
    return dataclasses.replace(found, metrics={**found.metrics, "eval/gold": gold, "eval/gold_std": 1.0}, **more)


ALARM = {"sign": "gold", "words": "gold fell \x1b[31m", "prompts": [3, 5], "done": "stop_and_restore"}


def test_gold_stands_beside_the_score_and_an_alarm_under_it_with_its_samples():
    to, trainer = console(), FakeTrainer()
    with LiveView(to) as view:
        view.on_evaluation(trainer, with_gold(0, 0.1, 1.5))
        view.on_evaluation(trainer, with_gold(4, 0.6, 1.25, alarms=[ALARM]))
    _, line, alarm = to.file.getvalue().splitlines()
    assert line.startswith("evaluation at step 4: score 0.600 (first 0.100)  gold 1.25 (first 1.50)")
    assert alarm == "  watch: gold fell \\x1b[31m; the run ends. Look at these samples: prompts 3, 5"


def test_the_table_with_gold_has_twelve_rows_and_the_newest_alarms_below():
    view = drive(LiveView(console(width=110)))
    view.on_evaluation(FakeTrainer(), with_gold(2, 0.6, 1.25, alarms=[ALARM] * 5))
    text = shown(console(width=110), view.render())
    row = next(line for line in text.splitlines() if line.startswith("gold "))
    assert row.split()[1:3] == ["1.25", "1.25"]
    names = {name for name, *_ in (*ROWS, GOLD)}
    assert sum(line.split("  ")[0] in names for line in text.splitlines()) == 12
    assert text.count("step 2: gold fell \\x1b[31m; the run ends") == 3
    assert "\x1b" not in text


def test_the_end_compares_the_model_that_was_saved():
    ended = dataclasses.replace(
        result(with_gold(0, 0.1, 1.0), with_gold(4, 0.6, 3.0), with_gold(8, 0.9, 2.0)), model_step=4
    )
    text = shown(console(), closing(ended, 100))
    assert "after (step 4)" in text
    assert next(line for line in text.splitlines() if line.startswith("gold")).split() == [
        "gold", "1.00", "\u00b1", "0.800", "3.00", "\u00b1", "0.800",
    ]  # fmt: skip


def test_a_terminal_gets_the_table_and_is_left_as_it_was():
    to = console(terminal=True, _environ={"TERM": "xterm"})
    view = LiveView(to)
    with contextlib.suppress(KeyboardInterrupt), view:
        view.on_start(FakeTrainer())
        view.on_step(FakeTrainer(), stats(1), samples(1, 1.0))
        raise KeyboardInterrupt
    written = to.file.getvalue()
    assert "gradient norm" in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l"), "the cursor is shown again"


def test_no_color_switches_colours_off(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    to = Console(file=io.StringIO(), force_terminal=True, width=100)
    view = drive(LiveView(to))
    assert "\x1b[3" not in shown(to, view.render())


def test_a_dumb_terminal_gets_lines():
    to = Console(file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "dumb"})
    drive(LiveView(to))
    assert len(to.file.getvalue().splitlines()) == 4


def test_time_left_is_the_mean_of_the_last_steps_times_the_steps_that_remain(monkeypatch):
    view, trainer = LiveView(console()), FakeTrainer()
    monkeypatch.setattr("surefoot.live.time.monotonic", iter([0.0, 50.0, 60.0, 80.0]).__next__)
    view.on_start(trainer)
    view.on_evaluation(trainer, evaluation(0, 0.1))
    assert view.time_left() == ""
    view.on_step(trainer, stats(1), [])
    view.on_step(trainer, stats(2), [])
    assert view.time_left() == "24 min left"  # steps of 10 s and 20 s, 98 to go: 1470 s


def test_a_run_without_an_end_shows_no_time_left():
    view = LiveView(console())
    trainer = FakeTrainer()
    trainer.total_steps = None
    view.on_start(trainer)
    view.on_step(trainer, stats(1), [])
    assert view.time_left() == ""
    assert view.console.file.getvalue().startswith("step 1  score")
    assert "step 1 " in shown(console(), view.render())


def test_the_end_compares_both_evaluations_on_the_same_five_prompts():
    text = shown(console(), closing(result(evaluation(0, -0.25), evaluation(3, 1.5)), 100))
    lines = text.splitlines()
    score = next(line for line in lines if line.startswith("score"))
    assert score.split() == ["score", "-0.250", "±", "0.400", "1.50", "±", "0.400"]  # 1.96 * 0.5 / sqrt(6)
    assert "before (step 0)" in text
    assert "after (step 3)" in text
    assert len([line for line in lines if line.startswith("prompt")]) == 5
    assert [line.split()[1] for line in lines if line.startswith("before ") and "(" not in line] == [
        "-0.250", "0.750", "1.75", "2.75", "3.75"
    ]  # fmt: skip


def test_the_end_says_when_nothing_was_evaluated():
    assert "no evaluations" in shown(console(), closing(result(), 100))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.12345, "", "0.123"), (1.2345, "", "1.23"), (-12.345, "", "-12.3"), (1234.5, "", "1234"), (0.0, "", "0.000"),
        (2e-6, "", "2e-06"), (1e6, "", "1e+06"), (0.123, "%", "12%"), (None, "", "-"), (math.nan, "%", "-"),
        (math.inf, "", "inf"),
    ],
)  # fmt: skip
def test_numbers_are_short(value, unit, text):
    assert short(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (42, "42 s"), (150, "2 min"), (3600, "1 h 00 min"), (7500, "2 h 05 min")]
)
def test_durations_are_words(seconds, text):
    assert duration(seconds) == text
