"""Curves of several runs in one picture each; of a single run, the pictures of its report."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from surefoot.evaluate.ratings.proportions import Estimate
from surefoot.ranks import spearman
from surefoot.report.curves import sections
from surefoot.report.notes import entropies
from surefoot.report.numbers import Run, number, pairs, score_interval
from surefoot.report.svg import Series, chart

LOOKS = ("a", "b", "c", "d dash", "e dash", "f dash")
"""Colour and stroke of each run: colours alone would not tell six apart for everybody."""
_WIDE = (440, 260)
_SHARE = (-0.02, 1.02)


@dataclass(frozen=True, slots=True)
class _Quantity:
    title: str
    unit: str
    of: Callable[[Run], Sequence[float]]
    span: tuple[float, float] | None = None


def _first(*names: str) -> Callable[[Run], Sequence[float]]:
    """The first of these statistics that a run recorded."""

    def read(run: Run) -> Sequence[float]:
        series = [run.series(name) for name in names]
        return next((ys for ys in series if any(map(math.isfinite, ys))), series[0])

    return read


_KL_OF_ANSWERS = _Quantity("KL from the reference", "nats per answer", _first("objective/kl"))
_QUANTITIES = (
    _Quantity("Score of training batches", "", _first("objective/scores", "ppo/mean_scores")),
    _Quantity("KL from the reference", "nats per token", _first("objective/kl_per_token")),
    _KL_OF_ANSWERS,
    _Quantity("Entropy", "nats per token", entropies),
    _Quantity("Answer length", "tokens, mean", _first("tokens/responses_len_mean")),
    _Quantity("Answers that end", "share, EOS rate", _first("tokens/eos_rate"), _SHARE),
    _Quantity("Clipped tokens", "share of tokens", _first("ppo/policy/clipfrac")),
    _Quantity(
        "Explained variance", "1 perfect, 0 a constant", _first("ppo/val/explained_variance", "ppo/val/var_explained")
    ),
)


def figures(runs: Mapping[str, Run], people: str) -> list[tuple[str, str, list[str]]]:
    """Title, style class and pictures of each group; the picture of what people said stands beside the score's."""
    if len(runs) == 1:
        more: Sequence[list[str]] = ([people], [_before_and_after(runs)], [_curve(_KL_OF_ANSWERS, runs)])
        of_report = zip(sections(next(iter(runs.values()))), more, strict=True)
        return _filled([(title, kind, found + beside) for (title, kind, found), beside in of_report])
    wide = [_evaluations(runs), _gold(runs), _frontier(runs), people, _before_and_after(runs), _lengths(runs)]
    small = [_curve(quantity, runs) for quantity in _QUANTITIES]
    return _filled([("Score and what it costs", "wide", wide), ("Step by step", "small", small)])


def _filled(groups: Sequence[tuple[str, str, list[str]]]) -> list[tuple[str, str, list[str]]]:
    return [(title, kind, [f for f in found if f]) for title, kind, found in groups if any(found)]


def _curve(quantity: _Quantity, runs: Mapping[str, Run]) -> str:
    lines = [Series(name, run.episodes, quantity.of(run), look) for (name, run), look in _looks(runs)]
    return chart(quantity.title, lines, unit=quantity.unit, span=quantity.span)


def _evaluations(runs: Mapping[str, Run]) -> str:
    lines = [
        Series(
            name, [float(e["episode"]) for e in run.evaluations], run.at_evaluations("eval/score"), f"{look} points",
            [score_interval(e) for e in run.evaluations],
        )
        for (name, run), look in _looks(runs)
    ]  # fmt: skip
    return chart("Evaluation score, 95 % interval over prompts", lines, size=_WIDE)


def _frontier(runs: Mapping[str, Run]) -> str:
    lines = [
        Series(name, [math.sqrt(max(k, 0.0)) if math.isfinite(k) else math.nan for k in run.at_evaluations("eval/kl")],
               run.at_evaluations("eval/score"), f"{look} points")
        for (name, run), look in _looks(runs)
    ]  # fmt: skip
    return chart(
        "What a score costs", lines, unit="evaluation score", size=_WIDE,
        x_label="distance from the reference: √(KL in nats per answer)",
        note="The higher curve gets more for the same distance; one that bends down gets less and less.",
    )  # fmt: skip


def _gold(runs: Mapping[str, Run]) -> str:
    """What scorers say that nothing is trained on, where a run asked some."""
    lines = [
        Series(name, [float(e["episode"]) for e in run.evaluations], run.at_evaluations("eval/gold"), f"{look} points")
        for (name, run), look in _looks(runs)
    ]
    return chart(
        "Gold: scorers that nothing is trained on", lines, size=_WIDE, note="Does it rise where the score rises?"
    )


def _before_and_after(runs: Mapping[str, Run]) -> str:
    """Each prompt's score at the last evaluation against that at the first."""
    lines = []
    for (name, run), look in _looks(runs):
        both = [(number(a.get("score")), number(b.get("score"))) for a, b in pairs(run)]
        lines.append(Series(name, [x for x, _ in both], [y for _, y in both], f"{_colour(look)} points only"))
    known = [value for line in lines for point in line.known for value in point]
    if not known:
        return ""
    ends = [min(known), max(known)]
    level = Series("no change", ends, ends, "c faint dash")
    return chart(
        "Scores before and after", [level, *lines], unit="score now", size=_WIDE,
        x_label="score before the first step", note="A point is a prompt; above the line its answer is scored higher.",
    )  # fmt: skip


def _lengths(runs: Mapping[str, Run]) -> str:
    """Score against length of the last answers: does the reward pay by the word?"""
    lines, said = [], []
    for (name, run), look in _looks(runs):
        both = [(number(s.get("length")), number(s.get("score"))) for s in run.last_samples]
        known = [(x, y) for x, y in both if math.isfinite(x + y)]
        lines.append(Series(name, [x for x, _ in known], [y for _, y in known], f"{_colour(look)} points only"))
        rho = spearman([x for x, _ in known], [y for _, y in known])
        if math.isfinite(rho):
            said.append(f"{name} {rho:+.2f}".replace("-", "\u2212"))
    return chart(
        "Score and length", lines, x_label="length, tokens", unit="score of each answer", size=_WIDE,
        note=f"Spearman rank correlation: {', '.join(said) or 'not defined'}.",
    )  # fmt: skip


def _colour(look: str) -> str:
    """A look without its stroke, for points."""
    return look.partition(" ")[0]


def _looks(runs: Mapping[str, Run]) -> list[tuple[tuple[str, Run], str]]:
    return list(zip(runs.items(), LOOKS, strict=False))


def people(runs: Mapping[str, Run], rated: Mapping[str, Mapping[int, Estimate]]) -> str:
    """What people preferred, checkpoint by checkpoint; "" where no rating is done.

    Args:
        runs: name -> run.
        rated: run -> step -> how often the policy was preferred to the SFT model, of decided votes.
    """
    lines = []
    for (name, run), look in _looks(runs):
        episodes = {int(e["step"]): float(e["episode"]) for e in run.evaluations}
        known = [(step, share) for step, share in sorted(rated.get(name, {}).items()) if step in episodes]
        xs, ys = [episodes[step] for step, _ in known], [share.value for _, share in known]
        intervals = [(share.low, share.high) for _, share in known]
        lines.append(Series(name if len(runs) > 1 else "", xs, ys, f"{look} points", intervals))
    if not any(line.known for line in lines):
        return ""
    last = max(run.episodes[-1] if run.metrics else 0.0 for run in runs.values())
    half = Series(
        "no difference", [0.0, max(last, *(x for line in lines for x in line.xs))], [0.5, 0.5], "c faint dash"
    )
    return chart(
        "What people prefer", [half, *lines], unit="share of decided votes for the policy, 95 % interval", span=_SHARE,
        size=_WIDE, note="Does it rise where the score rises?",
    )  # fmt: skip
