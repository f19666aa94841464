"""The report: what it says is right, what it shows is inert, and it says something about every run."""

import html
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from made_run import make_run

from surefoot.config import PPOConfig
from surefoot.report import write_picture, write_report
from surefoot.report.notes import notes
from surefoot.report.numbers import Run, bootstrap_interval, changed_options, pairs, read_run
from surefoot.report.svg import Series, chart, shown, tick_labels, ticks
from surefoot.tracking import RunFolder
from surefoot.types import StepStats


class Page(HTMLParser):
    """Elements, attributes and text of a page, as a browser's parser would see them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words, self.styles = [], [], [], []
        self._in_style = False
        self.feed(text)
        self.close()
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._in_style = tag == "style"

    def handle_endtag(self, tag):
        self._in_style = False

    def handle_data(self, data):
        (self.styles if self._in_style else self.words).append(data)


def report_of(path):
    return Page(write_report(path).read_text(encoding="utf-8"))


def an_answer(row, score, **more):
    return {"step": 0, "prompt": f"p{row}", "response": f"r{row}", "score": score, "scores": {"a": score}, "kl": 1.0,
            "length": 10, "finish_reason": "stop", "row": row} | more  # fmt: skip


def small_run(path, before, after=None, **stats):
    """One step, evaluated before and (where given) after it."""
    folder = RunFolder(path)
    folder.start(PPOConfig(model_name="tiny"), ["surefoot", "ppo"])
    for step, samples in ((0, before), (1, after)):
        if step:
            folder.log_step(
                StepStats({"step": 1, "episode": 8, "ppo/mean_scores": 0.5} | stats), [], with_samples=False
            )
        if samples is not None:
            mean = sum(s["score"] for s in samples) / len(samples) if samples else math.nan
            folder.log_evaluation(
                step, 8 * step, {"eval/score": mean, "eval/rewards/a": mean, "eval/kl": 1.0}, samples
            )
    return path


def test_the_bootstrap_interval_is_that_of_the_normal_approximation_for_many_values():
    x = np.random.default_rng(3).normal(2.0, 1.5, 400)
    low, high = bootstrap_interval(list(x))
    half = 1.959964 * x.std() / math.sqrt(len(x))
    assert low == pytest.approx(x.mean() - half, abs=0.06 * half)
    assert high == pytest.approx(x.mean() + half, abs=0.06 * half)


def test_the_bootstrap_interval_of_two_values_spans_them():
    # the mean of two draws is 1, 2 or 3 with probabilities 1/4, 1/2, 1/4: both 2.5 % tails lie on the ends
    assert bootstrap_interval([1.0, 3.0]) == (1.0, 3.0)


def test_one_value_and_a_missing_value_have_no_interval():
    assert bootstrap_interval([1.0]) is None
    assert bootstrap_interval([1.0, math.nan]) is None


# ------------------------------------------------------------------------------------------ what it says
def test_the_table_holds_means_changes_and_paired_intervals(tmp_path):
    # before 1 and 3: mean 2, interval 1 to 3; after 4 and 8: mean 6; changes 3 and 5: mean 4, interval 3 to 5
    before = [an_answer(0, 1.0), an_answer(1, 3.0)]
    after = [an_answer(1, 8.0), an_answer(0, 4.0)]
    text = report_of(small_run(tmp_path, before, after)).text
    assert "Score 2.001.00 to 3.00 6.004.00 to 8.00 +4.003.00 to 5.00".replace(" ", "") in text.replace(" ", "")
    assert "rose by 4.00 (95 % interval over the same 2 prompts: 3.00 to 5.00), from 2.00 to 6.00." in text


def test_a_score_that_fell_is_told_as_a_fall(tmp_path):
    text = report_of(
        small_run(tmp_path, [an_answer(0, 4.0), an_answer(1, 8.0)], [an_answer(0, 1.0), an_answer(1, 3.0)])
    )
    assert "fell by 4.00 (95 % interval over the same 2 prompts: 3.00 to 5.00), from 6.00 to 2.00." in text.text


def watched_run(path, words="gold fell"):
    """Three evaluations: the score rises, gold peaks at the second, whose model is the one that was saved."""
    folder = RunFolder(path)
    folder.start(PPOConfig(model_name="tiny"), ["surefoot", "ppo"])
    for step, (score, gold) in enumerate([(1.0, 1.0), (2.0, 4.0), (3.0, 2.0)]):
        if step:
            stats = StepStats({"step": step, "episode": 8 * step, "ppo/mean_scores": score})
            folder.log_step(stats, [], with_samples=False)
        rows = [an_answer(row, score + row, gold=gold + row, golds={"judge": gold + row}) for row in (0, 1)]
        metrics = {"eval/score": score + 0.5, "eval/score_std": 0.5, "eval/gold": gold + 0.5, "eval/gold_std": 0.5,
                   "eval/gold/judge": gold + 0.5, "eval/kl": float(step)}  # fmt: skip
        alarm = {"sign": "gold", "words": words, "prompts": [1, 0], "done": "stop_and_restore"}
        folder.log_evaluation(step, 8 * step, metrics, rows, [alarm] if step == 2 else [])
    folder.finish("watch: gold fell", {"model_step": 1})
    return path


def test_gold_is_told_beside_the_score_of_the_model_that_was_saved(tmp_path):
    page = report_of(watched_run(tmp_path))
    assert "The evaluation score rose by 1.00" in page.text
    assert "Gold rose by 3.00 (95 % interval over the same 2 prompts: 3.00 to 3.00), from 1.50 to 4.50." in page.text
    assert "After step 1" in page.text.replace("Afterstep", "After step")
    assert "Model saved of step 1, the best by gold" in page.text.replace("savedof", "saved of")
    assert "Step 2: gold fell; the run ends. Look at these samples: prompts 1, 0." in page.text
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert {"Gold", "Score and gold"} <= set(labels)


def test_what_an_alarm_quotes_stays_text(tmp_path):
    page = report_of(watched_run(tmp_path, words="<script>alert(1)</script>"))
    assert "script" not in page.tags
    assert "Step 2: <script>alert(1)</script>; the run ends" in page.text


def test_no_interval_is_made_from_samples_that_are_not_all_of_an_evaluation(tmp_path):
    folder = RunFolder(tmp_path)
    folder.start(PPOConfig(), [])
    folder.log_evaluation(0, 0, {"eval/score": 9.0}, [an_answer(0, 1.0), an_answer(1, 3.0)])
    text = report_of(tmp_path).text
    assert "9.00" in text
    assert "1.00 to 3.00" not in text


def test_pairs_are_matched_by_prompt_not_by_place(tmp_path):
    before = [an_answer(2, 1.0, response="old two"), an_answer(5, 1.0, response="old five")]
    after = [an_answer(5, 1.0, response="new five"), an_answer(7, 1.0), an_answer(2, 1.0, response="new two")]
    found = pairs(read_run(small_run(tmp_path, before, after)))
    assert [(a["response"], b["response"]) for a, b in found] == [("old two", "new two"), ("old five", "new five")]


def test_several_answers_to_one_prompt_count_as_one_prompt(tmp_path):
    # rows 0: 1 and 3, mean 2; row 1: 6 and 6: two prompt means, 2 and 6
    samples = [an_answer(0, 1.0), an_answer(0, 3.0), an_answer(1, 6.0), an_answer(1, 6.0)]
    assert "4.00 2.00 to 6.00".replace(" ", "") in report_of(small_run(tmp_path, samples)).text.replace(" ", "")


def test_the_headline_says_model_steps_answers_time_and_why_it_ended(tmp_path):
    small_run(tmp_path, [an_answer(0, 1.0)], [an_answer(0, 2.0)], **{"time/step": 100.0, "time/generate": 50.0})
    RunFolder(tmp_path).finish("patience: 3 evaluations without a better score")
    text = report_of(tmp_path).text
    for part in ("tiny", "Steps1", "Answers seen8", "Time in steps2 min", "patience: 3 evaluations"):
        assert part in text


def test_options_that_differ_from_the_defaults_are_listed_and_no_others():
    config = {"steps": 3, "lam": 0.95, "reward": ["a:b"], "stop_strings": [], "unheard_of": 1}
    assert changed_options(config) == [("reward", ("a:b",), ()), ("steps", 3, None), ("unheard_of", 1, None)]


# ------------------------------------------------------------------------------------------ inert
HOSTILE = (
    "<script>alert(1)</script></textarea></style><img src=http://evil.example/x onerror=alert(2)> \" onload=x '"
    "&lt;b&gt; ]]><!-- \u202eevil\u2066 \x00\x1b[31m \ud800 \u200b javascript:alert(3)"
)


@pytest.fixture
def hostile_report(tmp_path):
    folder = RunFolder(tmp_path)
    config = PPOConfig(model_name="m/" + HOSTILE.split(" ")[0], prompt_template="{prompt} <script>x</script>")
    folder.start(config, ["surefoot", HOSTILE])
    bad = an_answer(0, 1.0, prompt=HOSTILE, response=HOSTILE, scores={HOSTILE: 1.0, "b": 2.0}, finish_reason=HOSTILE)
    bad["length"] = "<script>"
    folder.log_step(StepStats({"step": 1, "episode": 1, HOSTILE: math.nan}), [bad], with_samples=True)
    folder.log_evaluation(0, 0, {"eval/score": 1.0, "eval/rewards/" + HOSTILE: 1.0}, [bad])
    folder.log_evaluation(1, 1, {"eval/score": 1.0, "eval/rewards/" + HOSTILE: 1.0}, [bad])
    folder.finish(HOSTILE)
    return write_report(tmp_path).read_text(encoding="utf-8")


def test_hostile_texts_become_no_element_and_no_attribute(hostile_report):
    page = Page(hostile_report)
    assert not {"script", "img", "textarea", "iframe", "object", "embed", "link", "base", "form"} & set(page.tags)
    assert not [
        name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "action", "style")
    ]
    assert not [value for _, value in page.attributes if value and ("alert" in value or "evil" in value)]
    assert page.tags.count("style") == 1


def test_hostile_texts_are_shown_with_their_hidden_characters_spelled_out(hostile_report):
    text = Page(hostile_report).text
    assert "<script>alert(1)</script></textarea>" in text
    for spelled in (r"\u202e", r"\u2066", r"\x00", r"\x1b", r"\ud800", r"\u200b"):
        assert spelled in text
    for hidden in "\u202e\u2066\x00\x1b\u200b":
        assert hidden not in hostile_report


def test_writing_that_needs_joiners_tabs_and_lines_is_left_alone():
    text = "می‌خواهم\n\t👩‍👩‍👧 é 漢"
    assert shown(text) == html.escape(text)


def test_a_report_loads_nothing(tmp_path):
    text = write_report(make_run(tmp_path / "run", steps=20)).read_text(encoding="utf-8")
    page = Page(text)
    assert not [v for n, v in page.attributes if n in ("src", "href", "xlink:href", "srcset", "data", "background")]
    assert not [v for _, v in page.attributes if v and "://" in v]
    assert not any(word in "".join(page.styles) for word in ("url(", "@import", "://"))
    assert ("http-equiv", "Content-Security-Policy") in page.attributes
    assert "default-src 'none'" in dict(a for a in page.attributes if a[0] == "content" and "src" in a[1])["content"]


# ------------------------------------------------------------------------------------------ every run
def test_a_run_of_many_steps_has_every_picture(tmp_path):
    page = report_of(make_run(tmp_path / "run", steps=20))
    assert page.tags.count("svg") == 13
    assert not [v for n, v in page.attributes if n in ("d", "x", "y", "cx", "cy") and ("nan" in v or "inf" in v)]


def test_a_run_of_one_step_without_evaluations_or_samples_has_a_report(tmp_path):
    text = report_of(small_run(tmp_path, None)).text
    assert "no evaluations" in text
    assert "kept no samples" in text
    small_run(tmp_path / "b", None, None)
    assert "Score" in report_of(tmp_path / "b").text


def test_a_run_that_has_only_been_started_has_a_report(tmp_path):
    RunFolder(tmp_path).start(PPOConfig(), [])
    assert "still running, or was interrupted" in report_of(tmp_path).text


def test_a_run_of_one_evaluation_shows_its_answers_alone(tmp_path):
    text = report_of(small_run(tmp_path, [an_answer(0, 1.0), an_answer(1, 3.0)])).text
    assert "After" not in text
    assert "r1" in text


def test_empty_evaluations_and_empty_texts_have_a_report(tmp_path):
    small_run(tmp_path / "a", [], [])
    assert "Score" in report_of(tmp_path / "a").text
    small_run(tmp_path / "b", [an_answer(0, 1.0, response="", prompt="")], [an_answer(0, 2.0, response="")])
    assert "(nothing)" in report_of(tmp_path / "b").text


def test_a_folder_that_holds_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        write_report(tmp_path)


# ------------------------------------------------------------------------------------------ notes
HEALTHY = {
    "ppo/std_scores": 0.5, "objective/kl_per_token": 0.1, "objective/target_kl": 0.1, "ppo/policy/entropy": 2.0,
    "tokens/truncated_rate": 0.1, "ppo/val/explained_variance": 0.5, "ppo/policy/first_ratio": 1.0,
    "ppo/policy/skipped_minibatches": 0,
}  # fmt: skip


def run_with(changes, first=()):
    steps = [{"step": n, "episode": 8 * n} | HEALTHY | changes for n in range(2, 31)]
    return Run("r", metrics=[{"step": 1, "episode": 8} | HEALTHY | dict(first or changes), *steps])


def test_a_healthy_run_has_no_notes(tmp_path):
    assert notes(run_with({})) == []
    assert notes(read_run(make_run(tmp_path / "run", steps=60))) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ppo/std_scores": 0.0}, "same score in 30 of 30 steps (first: step 1)"),
        ({"objective/kl_per_token": 0.21}, "0.21 nats, above twice its target of 0.1"),
        ({"objective/kl_per_token": -0.05}, "negative (-0.05 nats)"),
        ({"tokens/truncated_rate": 0.9}, "90% of the answers were cut off"),
        ({"ppo/val/explained_variance": -0.25}, "explained -0.25 of the returns' variance"),
        ({"ppo/policy/first_ratio": 0.9}, "in 30 steps it did not (farthest: 0.9 at step 30)"),
        ({"ppo/policy/skipped_minibatches": 2}, "60 minibatches were left out"),
        ({"ppo/loss/value": math.nan}, "not finite: ppo/loss/value"),
    ],
)
def test_a_number_that_is_off_is_pointed_at_once(changes, words):
    found = notes(run_with(changes))
    assert len(found) == 1
    assert words in found[0]
    assert "Look at" in found[0]


def test_an_entropy_below_a_tenth_of_its_start_is_pointed_at():
    fallen = run_with({"ppo/policy/entropy": 0.19}, first={"ppo/policy/entropy": 2.0})
    assert ["fell from 2 to 0.19" in note for note in notes(fallen)] == [True]
    assert notes(run_with({"ppo/policy/entropy": 0.21}, first={"ppo/policy/entropy": 2.0})) == []


def test_scores_that_follow_length_are_pointed_at():
    samples = [{"length": n, "score": n * 0.1} for n in range(10)]
    assert "only longer?" in notes(Run("r", metrics=[{"step": 1}], last_samples=samples))[0]


def test_trouble_that_is_long_past_is_not_told_as_if_it_were_now():
    late = run_with({})
    early = [m | {"objective/kl_per_token": 9.0, "tokens/truncated_rate": 1.0} for m in late.metrics[:10]]
    assert notes(Run("r", metrics=[*early, *late.metrics[10:]])) == []


# ------------------------------------------------------------------------------------------ pictures
@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.3, 0.07), (0, 7680), (1.0, 1.0001), (-5e-6, 2e-5), (3, 1e9)])
def test_ticks_are_few_equally_spaced_inside_and_labelled_apart(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 5
    assert all(low - 1e-9 * (high - low) <= t <= high + 1e-9 * (high - low) for t in found)
    assert np.allclose(np.diff(found), found[1] - found[0])
    assert len(set(tick_labels(found))) == len(found)


def test_ticks_are_the_numbers_a_person_would_choose():
    assert ticks(0, 1) == pytest.approx([0, 0.5, 1.0])
    assert ticks(0, 7680) == [0, 2000, 4000, 6000]
    assert tick_labels([0, 2000, 4000]) == ["0", "2,000", "4,000"]
    assert tick_labels([0, 20_000, 40_000]) == ["0", "20k", "40k"]
    assert tick_labels([-0.5, 0.0, 0.5]) == ["\u22120.5", "0.0", "0.5"]


def test_a_missing_number_breaks_the_line():
    drawn = chart("t", [Series("", [0, 1, 2, 3, 4], [1, 2, math.nan, 2, 1])])
    line = drawn.split("class=line")[1].split('"')[1]
    assert line.count("M") == 2
    assert line.count("L") == 2


def test_a_chart_of_nothing_is_nothing():
    assert chart("t", [Series("", [0, 1], [math.nan, math.nan])]) == ""


def test_a_long_line_is_thinned_to_means_of_equal_stretches():
    drawn = chart("t", [Series("", list(range(4000)), [1.0, 3.0] * 2000)], span=(0.0, 4.0), size=(360, 248))
    line = drawn.split("class=line")[1].split('"')[1]
    heights = {point.split(" ")[1] for point in line[1:].split("L")}
    assert line.count("L") == 399
    assert heights == {"110.0"}  # the mean, 2, halfway between the frame's top at 10 and its bottom at 210


def test_the_overview_is_drawn_as_png_and_svg_the_same_every_time(tmp_path):
    run = make_run(tmp_path / "run", steps=20)
    png = write_picture(run, tmp_path / "a.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert write_picture(run, tmp_path / "b.png").read_bytes() == png
    svg = write_picture(run, tmp_path / "a.svg").read_text()
    assert "What a score costs" in svg
    assert write_picture(run, tmp_path / "b.svg").read_text() == svg


def test_the_overview_of_a_run_without_evaluations_or_steps_is_drawn(tmp_path):
    small_run(tmp_path / "a", None)
    assert write_picture(tmp_path / "a", tmp_path / "a.png").exists()
    RunFolder(tmp_path / "b").start(PPOConfig(), [])
    assert write_picture(tmp_path / "b", tmp_path / "b.png").exists()


def test_a_picture_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.png or \.svg"):
        write_picture(tmp_path, tmp_path / "a.pdf")
