"""One picture of a run, for a README or a talk: score, KL and what the one cost of the other."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from surefoot.report.numbers import Run, read_run, score_interval

INK, SOFT, RULE = "#1c2127", "#5d6772", "#e3e5e8"
BLUE, RUST, GREEN, VIOLET, WINE = "#1f6fb5", "#b4540a", "#0f7b6c", "#7a4fb5", "#a3325f"
_STYLE: Any = {
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 24,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "surefoot",
}

ABOVE: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "ncols": 2, "borderaxespad": 0.2, "handlelength": 1.5}


def write_picture(run_dir: str | Path, path: str | Path) -> Path:
    """Draws a run's overview into a .png or .svg file; the same run gives the same file.

    Raises:
        ValueError: the folder holds no run, or the file's name ends otherwise.
    """
    with drawing(path, (11, 3.6)) as figure:
        run = read_run(run_dir)
        axes = figure.subplots(1, 3)
        _score(axes[0], run)
        _kl(axes[1], run)
        _frontier(axes[2], run)
    return Path(path)


@contextmanager
def drawing(path: str | Path, size: tuple[float, float]) -> Iterator[Any]:
    """A matplotlib figure in our style, `size` inches wide and high; it is saved when the block ends.

    Raises:
        ValueError: the file's name ends neither in .png nor in .svg.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"path={str(path)!r} must end in .png or .svg")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        yield figure
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {"Software": None}
        figure.savefig(path, dpi=160, metadata=metadata)


def _score(axes: Any, run: Run) -> None:
    axes.set(title="Score", xlabel="answers seen")
    evaluated = run.at_evaluations("eval/score")
    axes.plot(run.episodes, run.series("ppo/mean_scores"), color=BLUE, alpha=0.35 if evaluated else 1, lw=1.2,
              label="training batches")  # fmt: skip
    if evaluated:
        xs = [e["episode"] for e in run.evaluations]
        for x, interval in zip(xs, map(score_interval, run.evaluations), strict=True):
            if interval:
                axes.vlines(x, *interval, color=BLUE, alpha=0.25, lw=4)
        axes.plot(xs, evaluated, color=BLUE, marker="o", ms=4.5, lw=1.8, label="evaluation, 95 %")
    axes.legend(**ABOVE)


def _kl(axes: Any, run: Run) -> None:
    axes.set(title="KL from the reference", xlabel="answers seen", ylabel="nats per token")
    target = run.series("objective/target_kl")
    if any(map(math.isfinite, target)):
        axes.plot(run.episodes, target, color=RUST, ls=(0, (4, 3)), lw=1.5, label="target")
    axes.plot(run.episodes, run.series("objective/kl_per_token"), color=BLUE, lw=1.8, label="policy")
    axes.legend(**ABOVE)


def _frontier(axes: Any, run: Run) -> None:
    axes.set(title="What a score costs", xlabel="√(KL in nats per answer)", ylabel="evaluation score")
    kl = [math.sqrt(max(k, 0.0)) if math.isfinite(k) else math.nan for k in run.at_evaluations("eval/kl")]
    score = run.at_evaluations("eval/score")
    if not kl:
        axes.text(0.5, 0.5, "no evaluations", transform=axes.transAxes, ha="center", color=SOFT)
        return
    axes.margins(y=0.14)
    axes.plot(kl, score, color=BLUE, marker="o", ms=4.5, lw=1.8)
    for index in {0, len(kl) - 1}:
        right = kl[index] > (min(kl) + max(kl)) / 2
        up = score[index] > score[index - 1 if index else min(1, len(score) - 1)]
        side = {
            "ha": "right" if right else "left",
            "bbox": {"fc": "white", "ec": "none", "pad": 1},
            "xytext": (3 if right else -3, 7 if up else -15),
        }
        step = f"step {run.evaluations[index]['step']}"
        axes.annotate(step, (kl[index], score[index]), textcoords="offset points", color=INK, fontsize=9, **side)
