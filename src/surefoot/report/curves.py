"""Which statistics a report draws, and how."""

import math
from collections.abc import Sequence

from surefoot.ranks import spearman
from surefoot.report.notes import entropies
from surefoot.report.numbers import Run, number, score_interval
from surefoot.report.svg import Series, chart

_WIDE = (440, 260)
_SHARE = (-0.02, 1.02)


def main_charts(run: Run) -> list[str]:
    """Score, gold where there is any, and KL: what was gained and what it cost."""
    return [c for c in (_score(run), _gold(run), _kl(run)) if c]


def _score(run: Run) -> str:
    train, evaluated = _score_of_steps(run), run.at_evaluations("eval/score")
    lines = [Series("training batches", run.episodes, train, "a faint" if evaluated else "a")]
    if evaluated:
        xs = [float(e["episode"]) for e in run.evaluations]
        intervals = [score_interval(e) for e in run.evaluations]
        lines.append(Series("evaluation, 95 % interval over prompts", xs, evaluated, "a points", intervals))
    return chart("Score", lines, size=_WIDE)


def _gold(run: Run) -> str:
    gold = run.at_evaluations("eval/gold")
    if not any(map(math.isfinite, gold)):
        return ""
    xs = [float(e["episode"]) for e in run.evaluations]
    intervals = [score_interval(e, "eval/gold") for e in run.evaluations]
    return chart(
        "Gold",
        [Series("", xs, gold, "b points", intervals)],
        unit="by what nothing is trained on",
        note="Where it falls while the score rises, the answers get better scored and not better.",
        size=_WIDE,
    )


def _score_of_steps(run: Run) -> list[float]:
    ours = run.series("objective/scores")
    return ours if any(map(math.isfinite, ours)) else run.series("ppo/mean_scores")


def _kl(run: Run) -> str:
    x = run.episodes
    lines = [
        Series("target", x, run.series("objective/target_kl"), "b dash"),
        Series("KL from the reference", x, run.series("objective/kl_per_token"), "a"),
    ]
    return chart("KL from the reference", lines, unit="nats per token", size=_WIDE)


def detail_charts(run: Run) -> list[str]:
    """The health of the run, one small picture a quantity."""
    x, one = run.episodes, run.series

    def line(name: str, statistic: str, kind: str = "a") -> Series:
        return Series(name, x, one(statistic), kind)

    explained = "ppo/val/explained_variance"
    explained = explained if any(map(math.isfinite, one(explained))) else "ppo/val/var_explained"
    lowest = min((v for v in one(explained) if math.isfinite(v)), default=0.0)
    ends = [line("ended", "tokens/eos_rate"), line("cut off", "tokens/truncated_rate", "b dash")]
    figures = [
        chart("KL price", [line("", "objective/kl_coef")], unit="reward per nat"),
        chart("Entropy", [Series("", x, entropies(run))], unit="nats per token"),
        chart("Answer length", [line("", "tokens/responses_len_mean")], unit="tokens, mean"),
        chart("How answers end", ends, unit="share of answers", span=_SHARE),
        chart("Clipped tokens", [line("", "ppo/policy/clipfrac")], unit="share of tokens"),
        chart("Update size", [line("", "ppo/policy/approxkl")], unit="approximate KL, nats"),
        chart("Explained variance", [line("", explained)], unit="1 perfect, 0 a constant",
              span=(min(lowest * 1.06, -0.05), 1.05)),
        chart("Policy loss", [line("", "ppo/loss/policy")], unit="per token"),
        chart("Value loss", [line("", "ppo/loss/value")], unit="per token"),
    ]  # fmt: skip
    return [figure for figure in figures if figure]


def frontier(run: Run) -> str:
    """Score against the distance it took: the square root of the KL, along which over-optimisation shows."""
    kl, score = run.at_evaluations("eval/kl"), run.at_evaluations("eval/score")
    x = [math.sqrt(max(k, 0.0)) if math.isfinite(k) else math.nan for k in kl]
    if sum(math.isfinite(a + b) for a, b in zip(x, score, strict=True)) < 2:
        return ""
    labels = [""] * len(x)
    labels[0], labels[-1] = (f"step {run.evaluations[i]['step']}" for i in (0, -1))
    return chart(
        "What a score costs",
        [Series("", x, score, "a points", labels=labels)],
        x_label="distance from the reference: √(KL in nats per answer)",
        unit="evaluation score",
        note="A curve that bends down is a policy that leaves its reference for less and less.",
        size=_WIDE,
    )


def reward_and_gold(run: Run) -> str:
    """Both against the distance, each in standard deviations of its first evaluation."""
    if len(run.evaluations) < 2 or not math.isfinite(run.at_evaluations("eval/gold")[0]):
        return ""
    kl = run.at_evaluations("eval/kl")
    x = [math.sqrt(max(k, 0.0)) if math.isfinite(k) else math.nan for k in kl]
    lines = [
        Series("score", x, _from_first(run, "eval/score"), "a points"),
        Series("gold", x, _from_first(run, "eval/gold"), "b points"),
    ]
    return chart(
        "Score and gold",
        lines,
        x_label="distance from the reference: √(KL in nats per answer)",
        unit="standard deviations won since the first evaluation",
        note="Where the two part, the reward is paid for what the better scorer does not see.",
        size=_WIDE,
    )


def _from_first(run: Run, metric: str) -> list[float]:
    values, spread = run.at_evaluations(metric), run.at_evaluations(f"{metric}_std")[0]
    return [(value - values[0]) / spread if spread else math.nan for value in values]


def length_scatter(run: Run) -> str:
    """Score against length of the last samples: does the reward pay by the word?"""
    points = [(number(s.get("length")), number(s.get("score"))) for s in run.last_samples]
    known = [(x, y) for x, y in points if math.isfinite(x + y)]
    if len(known) < 3:
        return ""
    xs, ys = [x for x, _ in known], [y for _, y in known]
    rho = spearman(xs, ys)
    said = "not defined: one of the two never changes" if math.isnan(rho) else f"{rho:+.2f}".replace("-", "\u2212")
    return chart(
        "Score and length",
        [Series("", xs, ys, "c points only")],
        x_label="length, tokens",
        unit="score of each answer",
        note=f"Spearman rank correlation {said}; {len(known)} answers of {run.last_samples_from}.",
        size=_WIDE,
    )


def sections(run: Run) -> Sequence[tuple[str, str, list[str]]]:
    """Title, style class and figures of each group."""
    return (
        ("Score and KL", "wide", main_charts(run)),
        ("Trade-offs", "wide", [c for c in (frontier(run), reward_and_gold(run), length_scatter(run)) if c]),
        ("Health", "small", detail_charts(run)),
    )
