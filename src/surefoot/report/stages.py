"""The report of a stage beside PPO, SFT, a reward model or DPO: its curves, and what is known of its model."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surefoot.report.numbers import Run, number
from surefoot.report.svg import Series, chart, shown

TITLES: Mapping[str, str] = {"sft": "Supervised fine-tuning", "reward": "Reward model", "dpo": "DPO"}
"""Stage, as its numbers begin, -> its name."""

_WIDE = (440, 260)
_SHARE = (-0.02, 1.02)
_CHARTS: Mapping[str, Sequence[tuple[str, str, str, tuple[float, float] | None]]] = {
    "sft": (
        ("Loss", "loss", "nats per token that is learnt", None),
        ("Token accuracy", "mean_token_accuracy", "share of tokens", _SHARE),
        ("Entropy", "entropy", "nats per token", None),
    ),
    "reward": (
        ("Loss", "loss", "0.693 is a guess", None),
        ("Accuracy", "accuracy", "share of pairs", _SHARE),
        ("Margin", "margin", "score of chosen less that of rejected", None),
        ("Mean score", "mean_reward", "", None),
    ),
    "dpo": (
        ("Loss", "loss", "0.693 is where it begins", None),
        ("Accuracy", "rewards/accuracies", "share of pairs", _SHARE),
        ("Margin", "rewards/margins", "gain of chosen less gain of rejected, times beta", None),
        ("Chosen answers", "rewards/chosen", "gain in log-probability, times beta", None),
        ("Rejected answers", "rewards/rejected", "gain in log-probability, times beta", None),
    ),
}
"""Title, number, unit and span of each curve; the first two are drawn wide."""
_CARD = "reward-card.json"


def stage_of(run: Run) -> str | None:
    """Which stage a run is of; None of PPO."""
    names = run.metrics[0] if run.metrics else {}
    return next((stage for stage in TITLES if any(name.startswith(f"{stage}/") for name in names)), None)


def stage_sections(run: Run, stage: str) -> list[tuple[str, str, list[str]]]:
    """Title, style class and figures of each group."""
    figures = [_curve(run, stage, *each) for each in _CHARTS[stage]]
    rows = run.episodes
    health = [
        chart("Learning rate", [Series("", rows, run.series(f"{stage}/learning_rate"))], x_label="rows learnt"),
        chart("Gradient norm", [Series("", rows, run.series(f"{stage}/grad_norm"))], x_label="rows learnt"),
    ]
    return [
        ("What was learnt", "wide", [f for f in figures[:2] if f]),
        ("Details", "small", [f for f in (*figures[2:], *health) if f]),
    ]


def _curve(run: Run, stage: str, title: str, name: str, unit: str, span: tuple[float, float] | None) -> str:
    held_out = run.at_evaluations(f"eval/{name}")
    lines = [
        Series("rows that are learnt", run.episodes, run.series(f"{stage}/{name}"), "a faint" if held_out else "a")
    ]
    if any(map(math.isfinite, held_out)):
        xs = [float(e["episode"]) for e in run.evaluations]
        lines.append(Series("held-out rows", xs, held_out, "a points"))
    return chart(title, lines, unit=unit, x_label="rows learnt", span=span, size=_WIDE)


def stage_table(run: Run, stage: str) -> str:
    """The held-out numbers before and after; what is missing is said."""
    if not run.evaluations:
        return "<h2>Before and after</h2><p class=soft>No rows were held out (eval_rows, eval_dataset).</p>"
    first, last = run.evaluations[0], run.evaluations[-1]
    head = "".join(f"<th>{text}</th>" for text in (f"Step {int(e['step'])}" for e in (first, last)))
    lines = "".join(
        f"<tr><td>{shown(title)}<small>{shown(unit)}</small></td>"
        + "".join(f"<td>{_said(e['metrics'].get(f'eval/{name}'))}</td>" for e in (first, last))
        + "</tr>"
        for title, name, unit, _ in _CHARTS[stage]
        if f"eval/{name}" in last["metrics"]
    )
    return (
        "<h2>Before and after, on held-out rows</h2><div class=scroll><table>"
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def reward_card(folder: Path) -> str:
    """What is known of a reward model after held-out pairs; "" where nothing is."""
    path = folder / _CARD
    if not path.is_file():
        return ""
    card = json.loads(path.read_text(encoding="utf-8"))
    facts = {
        "Right in": _interval(card["accuracy"]),
        "Pairs": f"{card['pairs']:,}",
        f"“The {card['length_rule']} answer is better”": f"{card['length_accuracy']:.1%}",
        "More than that": _points(card["beyond_length"]),
        "Sure of itself": f"{card['says']:.1%}",
    }
    if second := card.get("second"):
        facts[f"{second['scorer']} agrees in"] = _interval(second["raw"])
    if "score_shift" in card:
        facts["Taken off every score"] = f"{card['score_shift']:.4g}"
    said = "".join(f"<div><dt>{shown(name)}</dt><dd>{shown(fact)}</dd></div>" for name, fact in facts.items())
    notes = "".join(f"<li>{shown(sentence)}</li>" for sentence in card["warnings"])
    return (
        f"<h2>The reward model on pairs it did not learn</h2><dl class=facts>{said}</dl>"
        + (f"<ul class=notes>{notes}</ul>" if notes else "")
        + f"<div class='charts wide'>{_calibration(card['calibration'])}</div>"
    )


def _calibration(slices: Sequence[Mapping[str, Any]]) -> str:
    found = Series(
        "observed, 95 % interval",
        [number(s["says"]) for s in slices],
        [number(s["right"]["value"]) for s in slices],
        "a points",
        [(number(s["right"]["low"]), number(s["right"]["high"])) for s in slices],
    )
    return chart(
        "How sure and how right",
        [Series("well calibrated", [0.5, 1.0], [0.5, 1.0], "faint dash"), found],
        x_label="how sure the reward is of its preference",
        unit="share of pairs in which it is right",
        size=_WIDE,
    )


def _interval(share: Mapping[str, float]) -> str:
    return f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%})"


def _points(share: Mapping[str, float]) -> str:
    value, low, high = (f"{100 * share[name]:+.1f}".replace("-", "\u2212") for name in ("value", "low", "high"))
    return f"{value} points ({low} to {high})"


def _said(value: Any) -> str:
    found = number(value)
    return f"{found:.4g}".replace("-", "\u2212") if math.isfinite(found) else "\u2013"
