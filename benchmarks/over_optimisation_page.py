"""The results of over_optimisation.py as a section of docs/over-optimisation.md, and as a picture."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import table
from surefoot.evaluate.ratings.proportions import wilson
from surefoot.report.numbers import bootstrap_interval
from tools.pictures.canvas import Axes, Canvas

ROOT = Path(__file__).parents[1]
PAGE, PICTURE = ROOT / "docs" / "over-optimisation.md", ROOT / "docs" / "images" / "over-optimisation.svg"
BEGIN, END = "<!-- begin: python -m benchmarks.over_optimisation -->", "<!-- end -->"
Run = dict[str, Any]
KEPT_BAR = 0.95


def write_page(found: dict[str, Any]) -> None:
    """Writes the section and draws the picture."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n{section(found)}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
    if found["trained"]:
        PICTURE.write_text(picture(found).render(), encoding="utf-8")


def section(found: dict[str, Any]) -> str:
    """The tables, each with a line on what was done."""
    parts = exact_part(found["exact"])
    if found["trained"]:
        parts += trained_part(found)
    return "\n\n".join(part if part[0] in "|#!" else textwrap.fill(part, 125) for part in parts)


def exact_part(e: dict[str, Any]) -> list[str]:
    """The rule on worlds whose policies are exact optima."""
    sizes, chosen = e["worlds"]["tried"], [r["chosen"] for r in e["rules"]]
    best = ", ".join(f"{errors:g} and {lost:.0%}" for errors, lost in chosen)
    return [
        "### Exact worlds",
        f"The rule of `surefoot.watch` (gold {e['rule'][0]:g} standard errors below its best look, and "
        f"{e['rule'][1]:.0%} of its gain lost) on {sizes[0]} worlds that over-optimise and {sizes[1]} controls; none "
        f"of them was used to choose it. Without it {share(e['unwatched'])} of the peak's gain is left at the end. "
        f"Chosen for each number of labels by itself it would be {best}: one rule for all was taken from among them.",
        exact_table(e),
        "The recorded problems, in standard deviations of gold under the reference, with 64 labels a look:",
        recorded_table(e["recorded"]),
        "Four proxies fitted to resampled comparisons, and their mean, against one (150 comparisons, a quarter turned "
        "round), each walked to the lowest price:",
        ensemble_table(e["ensemble"]),
        exact_verdict(e),
    ]


def exact_verdict(e: dict[str, Any]) -> str:
    """Against the bar: 95 % kept on average at 10 % of false alarms."""
    met = [r["labels"] for r in e["rules"]
           if np.mean(r["over"]["kept"]) >= KEPT_BAR and np.mean(r["controls"]["alarm"]) <= 0.1]  # fmt: skip
    labels = " and ".join(map(str, met)) or "no number of"
    return (
        "The bar was gold at 95 % of its peak on average, where a fifth or more of the gain is lost without a watch, "
        f"at 10 % of false alarms or fewer. Here it is met with {labels} labels an evaluation."
    )


def trained_part(found: dict[str, Any]) -> list[str]:
    """The same question to real runs."""
    runs = found["trained"]
    over, controls = split(runs, found["over"], found["control"])
    return [
        "### Trained models",
        f"Real PPO runs of {found['steps']} steps: {len(over)} worlds whose reward model was fitted to 150 "
        f"comparisons, a quarter of them turned round, and in which gold lost at least {found['over']:.0%} of its "
        f"gain without a watch; {len(controls)} controls with a reward model of 3,000 clean comparisons in which it "
        f"lost at most {found['control']:.0%}{left_out(runs, over, controls)}. Gold is measured "
        "on 128 answers that the watch does not see; the watch sees 64. The rows of `stop_and_restore` are the "
        "unwatched runs up to their first alarm, with which such a run agrees bit for bit.",
        "![Gold and reward against the distance, in every trained run](images/over-optimisation.svg)",
        arms_table(runs, over, "noisy"),
        counts(runs, over),
        "The same on the controls:",
        arms_table(runs, controls, "clean"),
        "A reward model whose rater liked long texts, while gold does not care for length; the penalty is the slope "
        "of its score on length among texts of the reference:",
        lengths_table(runs),
        "How often each sign spoke in runs without a watch:",
        signs_table(runs, over, controls),
        verdict(runs, over, controls, found["exact"]),
    ]


# ---------------------------------------------------------------------------------------------- which runs count
def of(runs: Sequence[Run], kind: str, arm: str) -> dict[int, Run]:
    """Seed -> run."""
    return {run["seed"]: run for run in runs if (run["kind"], run["arm"]) == (kind, arm)}


def gains(run: Run) -> list[float]:
    return [look["truth"] for look in run["looks"]]


def lost(run: Run) -> float:
    """Part of the peak's gain that is gone at the end."""
    peak = max(gains(run))
    return 1 - gains(run)[-1] / peak if peak > 0 else math.inf


def split(runs: Sequence[Run], over: float, control: float) -> tuple[list[int], list[int]]:
    """Seeds whose noisy reward model over-optimised, and seeds whose clean one did not, both unwatched."""
    noisy, clean = of(runs, "noisy", "no watch"), of(runs, "clean", "no watch")
    return [s for s in noisy if lost(noisy[s]) >= over], [s for s in clean if lost(clean[s]) <= control]


def left_out(runs: Sequence[Run], over: Sequence[int], controls: Sequence[int]) -> str:
    every = len(of(runs, "noisy", "no watch"))
    between = [f"{every - len(over)} noisy"] * (every > len(over)) + [f"{every - len(controls)} clean"] * (
        every > len(controls)
    )
    return f" ({' and '.join(between)} ones lay between the two and are left out)" if between else ""


def kept(run: Run, unwatched: Run) -> float:
    """Gold of the saved model over the peak of the unwatched run."""
    saved = next(look for look in run["looks"] if look["step"] == run["model_step"])
    return float(saved["truth"] / max(gains(unwatched)))


def counts(runs: Sequence[Run], over: Sequence[int]) -> str:
    """In how many worlds nothing was left, the score rose past gold's peak, and the watch kept everything."""
    unwatched, watched = of(runs, "noisy", "no watch"), of(runs, "noisy", "stop_and_restore")
    gone = sum(gains(unwatched[s])[-1] < 0 for s in over)
    whole = sum(kept(watched[s], unwatched[s]) >= 1 for s in over)
    peaks = {s: max(unwatched[s]["looks"], key=lambda look: look["truth"]) for s in over}
    rose = sum(unwatched[s]["looks"][-1]["score"] > peaks[s]["score"] for s in over)
    return (
        f"Without a watch gold ended below where it began in {gone} of the {len(over)}, and the reward's score was "
        f"higher at the end than at gold's peak in {rose}. `stop_and_restore` kept all of the peak in {whole}."
    )


# ---------------------------------------------------------------------------------------------- tables
def share(values: Sequence[float], digits: int = 0) -> str:
    """Mean and 95 % bootstrap interval, in percent."""
    low, high = bootstrap_interval(values) or (math.nan, math.nan)
    return _true_minus(f"{100 * np.mean(values):.{digits}f} % ({100 * low:.{digits}f} to {100 * high:.{digits}f})")


def mean(values: Sequence[float], digits: int = 2) -> str:
    low, high = bootstrap_interval(values) or (math.nan, math.nan)
    return _true_minus(f"{np.mean(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")


def rate(events: Sequence[bool]) -> str:
    """Count and Wilson interval."""
    w = wilson(sum(events), len(events))
    return f"{sum(events)} of {len(events)} ({100 * w.low:.0f} to {100 * w.high:.0f} %)"


def _true_minus(text: str) -> str:
    return text.replace("-", "\u2212")


def exact_table(e: dict[str, Any]) -> str:
    head = ("gold labels a look", "gold kept of its peak", "worst world", "false alarms", "gold kept, controls")
    lines = [[str(r["labels"]), share(r["over"]["kept"]), _true_minus(f"{100 * min(r['over']['kept']):.0f} %"),
              rate(r["controls"]["alarm"]), share(r["controls"]["kept"])] for r in e["rules"]]  # fmt: skip
    return table(head, lines)


def recorded_table(cases: Sequence[dict[str, Any]]) -> str:
    head = ("labels turned round", "seed", "peak of gold", "at the end", "with the watch", "alarm")
    lines = [
        [
            "a quarter" if "0.25" in c["proxy"] else "none",
            str(c["seed"]),
            f"{c['peak']:.2f} at KL {c['peak_kl']:.1f}",
            f"{c['end']:.2f} at KL {c['end_kl']:.1f}",
            f"{c['stopped']:.2f} at KL {c['stopped_kl']:.1f}",
            "yes" if c["alarm"] else "no",
        ]
        for c in cases
    ]
    return table(head, [[_true_minus(cell) for cell in line] for line in lines])


def ensemble_table(worlds: Sequence[dict[str, Any]]) -> str:
    head = ("proxy", "peak of gold, SD", "at the end, SD", "KL at the end")
    lines = [[title, *(mean([w[name][key] for w in worlds]) for key in ("peak", "end")),
              mean([w[name]["end_kl"] for w in worlds], 1)]
             for title, name in (("one", "one"), ("mean of four", "mean"))]  # fmt: skip
    return table(head, lines)


def arms_table(runs: Sequence[Run], seeds: Sequence[int], kind: str) -> str:
    """One row an arm: what was kept, in how many steps, at what distance, and how often gold was said to fall."""
    head = ("run", "gold kept of the unwatched peak", "worst", "regret, SD", "own peak, SD", "steps",
            "KL of the model", "alarms")  # fmt: skip
    lines = []
    for arm in dict.fromkeys(run["arm"] for run in runs if run["kind"] == kind):
        mine, unwatched = of(runs, kind, arm), of(runs, kind, "no watch")
        shares = [kept(mine[s], unwatched[s]) for s in seeds]
        peaks = [max(gains(unwatched[s])) for s in seeds]
        saved = [next(k for k in mine[s]["looks"] if k["step"] == mine[s]["model_step"]) for s in seeds]
        lines.append([
            arm if "_" not in arm.split()[0] else f"`{arm}`",
            share(shares),
            _true_minus(f"{100 * min(shares):.0f} %"),
            mean([p - look["truth"] for p, look in zip(peaks, saved, strict=True)]),
            mean([max(gains(mine[s])) for s in seeds]),
            f"{np.mean([mine[s]['steps'] for s in seeds]):.0f}",
            f"{np.mean([look['kl'] for look in saved]):.1f}",
            f"{sum(_spoke(mine[s], 'gold') for s in seeds)} of {len(seeds)}",
        ])  # fmt: skip
    return table(head, lines)


def lengths_table(runs: Sequence[Run]) -> str:
    """First and last evaluation of the runs with and without a penalty for length."""
    head = ("run", "tokens at first", "tokens at the end", "KL", "gold at the end, SD")
    lines = []
    for title, arm in (("as it is", "no watch"), ("`length_penalty`", "length_penalty")):
        mine = list(of(runs, "length", arm).values())
        ends = [run["looks"][-1] for run in mine]
        starts = [run["looks"][0]["length"] for run in mine]
        lengths, kls, golds = ([end[key] for end in ends] for key in ("length", "kl", "truth"))
        lines.append([title, mean(starts, 1), mean(lengths, 1), mean(kls, 1), mean(golds)])
    return table(head, lines)


def signs_table(runs: Sequence[Run], over: Sequence[int], controls: Sequence[int]) -> str:
    noisy, clean = of(runs, "noisy", "no watch"), of(runs, "clean", "no watch")
    names = ("gold", "outside", "phrase", "repeats", "length", "pays for length")
    lines = [[name, rate([_spoke(noisy[s], name) for s in over]), rate([_spoke(clean[s], name) for s in controls])]
             for name in names]  # fmt: skip
    return table(("sign", "runs that over-optimise", "controls"), lines)


def _spoke(run: Run, sign: str) -> bool:
    return any(sign in look["signs"] for look in run["looks"])


def verdict(runs: Sequence[Run], over: Sequence[int], controls: Sequence[int], e: dict[str, Any]) -> str:
    """Whether the bar is met: 95 % kept on average, at most 10 % of false alarms."""
    unwatched, watched = of(runs, "noisy", "no watch"), of(runs, "noisy", "stop_and_restore")
    shares = [kept(watched[s], unwatched[s]) for s in over]
    false = [_spoke(of(runs, "clean", "stop_and_restore")[s], "gold") for s in controls]
    exact_false = e["rules"][-1]["controls"]["alarm"]
    met = np.mean(shares) >= KEPT_BAR and np.mean(exact_false) <= 0.1 and np.mean(false) <= 0.1
    return (
        "Against the same bar: with `watch: stop_and_restore` and 64 labels an evaluation it is "
        f"{'met' if met else '**not** met'}: {share(shares)} kept in the trained worlds, "
        f"{share(e['rules'][-1]['over']['kept'])} in the exact ones; false alarms {rate(false)} and "
        f"{rate(exact_false)}. The peak is the largest of many measured means, so it leans high, and what is kept low."
    )


# ---------------------------------------------------------------------------------------------- picture
def picture(found: dict[str, Any]) -> Canvas:
    """Gold and reward of every unwatched run against the distance; dots where the watch's model is."""
    runs = found["trained"]
    canvas = Canvas("Real PPO runs: what the reward says, and what gold says", 376)
    sides = ((52, "noisy", "reward model from 150 noisy choices"), (476, "clean", "from 3,000 choices without error"))
    shown = {kind: list(of(runs, kind, "no watch").values()) for _, kind, _ in sides}
    every = [run for side in shown.values() for run in side]
    wide = max(math.sqrt(max(0.0, look["kl"])) for run in every for look in run["looks"]) * 1.05
    low = min(0.0, *(min(gains(run)) for run in every))
    high = max(*(max(gains(run)) for run in every), *(max(_won(run)) for run in every)) * 1.05
    for left, kind, title in sides:
        axes = Axes(canvas, (left, 54, left + 344, 300), (0, wide), (low, high), title=title,
                    x_label="\u221a(KL in nats per answer)")  # fmt: skip
        stopped = of(runs, kind, "stop_and_restore")
        for run in shown[kind]:
            xs = [math.sqrt(max(0.0, look["kl"])) for look in run["looks"]]
            axes.line(xs, _won(run), "b-line dash", width=1.2)
            axes.line(xs, gains(run), "a-line", width=1.8)
            if run["seed"] not in stopped:
                continue
            saved = next(k for k in stopped[run["seed"]]["looks"] if k["step"] == stopped[run["seed"]]["model_step"])
            axes.dots([math.sqrt(max(0.0, saved["kl"]))], [saved["truth"]], "c", radius=4.5)
    legend = (
        "lines: gold \u00b7 dashes: the reward's score \u00b7 dots: the model that stop_and_restore saves \u00b7 in "
        "standard deviations of the start"
    )
    canvas.text(52, 366, legend, "soft", size=12)
    return canvas


def _won(run: Run) -> list[float]:
    """The score, in its own standard deviations at the start."""
    scores = [look["score"] for look in run["looks"]]
    return [(score - scores[0]) / run["score_spread"] for score in scores]
