"""What a report says in numbers: read from the run folder, computed with NumPy, without a word of HTML."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from surefoot.config import PPOConfig
from surefoot.records import RunRecords
from surefoot.settings import read_file

Sample = Mapping[str, Any]
Interval = tuple[float, float]
WINDOW = 20
"""Steps that count as "the last steps" in the notes."""


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that a run folder holds.

    Attributes:
        metrics: one record a step. evaluations: step, episode, metrics, alarms and "samples", oldest first.
        model_step: of which step the saved model is; None where that is not recorded.
        last_samples: of the last evaluation or, without one, of the last step that kept any.
        last_samples_from: where those are from, in words; "" where there are none.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    metrics: Sequence[Mapping[str, Any]] = ()
    evaluations: Sequence[Mapping[str, Any]] = ()
    last_samples: Sequence[Sample] = ()
    last_samples_from: str = ""
    model_step: int | None = None

    @property
    def after(self) -> Mapping[str, Any]:
        """The evaluation of the model that was saved: the last one, unless the watch brought an earlier model back."""
        return next((e for e in reversed(self.evaluations) if e["step"] == self.model_step), self.evaluations[-1])

    @property
    def model(self) -> str:
        """The policy's name, without the folders before it."""
        return str(self.config.get("model_name") or "policy").replace("\\", "/").rstrip("/").rpartition("/")[2]

    @property
    def episodes(self) -> list[float]:
        """Of each step: answers seen so far; steps where those were not recorded."""
        return [float(m.get("episode", m["step"])) for m in self.metrics]

    def series(self, name: str) -> list[float]:
        """A statistic at every step, NaN where it is missing."""
        return [number(m.get(name)) for m in self.metrics]

    def at_evaluations(self, name: str) -> list[float]:
        """A metric at every evaluation, NaN where it is missing."""
        return [number(e["metrics"].get(name)) for e in self.evaluations]


def read_run(run_dir: str | Path) -> Run:
    """Reads a run folder.

    Raises:
        ValueError: the folder holds no run.
    """
    folder = RunRecords(run_dir)
    config, env, result = (folder.path / name for name in ("config.yaml", "environment.json", "result.json"))
    metrics, evaluations = folder.read_metrics(), folder.read_evaluations()
    if not (metrics or evaluations or config.exists()):
        raise ValueError(f"{str(run_dir)!r} holds no run: give a folder with a metrics.jsonl in it")
    evaluations = [e | {"samples": folder.read_samples("eval", e["step"])} for e in evaluations]
    kept = folder.sample_steps("step")
    last, where = (folder.read_samples("step", kept[-1]), f"training step {kept[-1]}") if kept else ([], "")
    if evaluations and evaluations[-1]["samples"]:
        last, where = evaluations[-1]["samples"], f"the evaluation after step {evaluations[-1]['step']}"
    return Run(
        name=folder.path.resolve().name,
        config={name: setting.value for name, setting in read_file(config).items()} if config.exists() else {},
        environment=_object(env),
        reason=_object(result).get("reason"),
        metrics=metrics,
        evaluations=evaluations,
        last_samples=last,
        last_samples_from=where if last else "",
        model_step=_object(result).get("model_step"),
    )


def _object(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes())) if path.exists() else {}


def number(value: Any) -> float:
    """A recorded value as a float; NaN for everything that is no number."""
    return float(value) if isinstance(value, int | float) else math.nan


# ---------------------------------------------------------------------------------------------- statistics
def bootstrap_interval(values: Sequence[float], *, draws: int = 10_000, seed: int = 0) -> Interval | None:
    """95 % percentile interval of the mean when the values are drawn again; None of fewer than two values."""
    x = np.asarray(values, dtype=float)
    if len(x) < 2 or not np.isfinite(x).all():
        return None
    generator = np.random.default_rng(seed)
    means = np.concatenate([x[generator.integers(len(x), size=(100, len(x)))].mean(1) for _ in range(draws // 100)])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def by_prompt(samples: Sequence[Sample], value: Callable[[Sample], Any]) -> dict[Any, float]:
    """Prompt -> mean of a value over the prompt's samples; prompts whose value is not a number are left out."""
    groups: dict[Any, list[float]] = {}
    for place, sample in enumerate(samples):
        groups.setdefault(sample.get("row", place), []).append(number(value(sample)))
    means = {row: sum(v) / len(v) for row, v in groups.items()}
    return {row: mean for row, mean in means.items() if math.isfinite(mean)}


def score_interval(evaluation: Mapping[str, Any], name: str = "eval/score") -> Interval | None:
    """Interval of an evaluation's score, or gold, over its prompts."""
    return _interval(evaluation, name, _OF_SAMPLE[name])


def _interval(evaluation: Mapping[str, Any], name: str, value: Callable[[Sample], Any]) -> Interval | None:
    means = list(by_prompt(evaluation["samples"], value).values())
    if not means or not _same(sum(means) / len(means), number(evaluation["metrics"].get(name))):
        return None  # the samples on record are not all that the metric was computed from
    return bootstrap_interval(means)


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6)


# ---------------------------------------------------------------------------------------------- before and after
@dataclass(frozen=True, slots=True)
class Row:
    """One line of the before -> after table; each interval is 95 % over prompts, None where it cannot be had."""

    label: str
    unit: str
    before: float
    after: float
    before_interval: Interval | None
    after_interval: Interval | None
    change_interval: Interval | None

    @property
    def change(self) -> float:
        """After less before."""
        return self.after - self.before


_OF_SAMPLE: Mapping[str, Callable[[Sample], Any]] = {
    "eval/score": lambda s: s.get("score"),
    "eval/gold": lambda s: s.get("gold"),
    "eval/kl": lambda s: s.get("kl"),
    "eval/length": lambda s: s.get("length"),
    "eval/eos_rate": lambda s: float(s.get("finish_reason") == "stop"),
}
_LABELS = {
    "eval/score": ("Score", ""),
    "eval/gold": ("Gold", "better scorer, not trained on"),
    "eval/kl": ("KL from the reference", "nats per answer"),
    "eval/kl_per_token": ("KL from the reference", "nats per token"),
    "eval/length": ("Length", "tokens"),
    "eval/eos_rate": ("Answers that end", "share"),
}


def before_after(run: Run) -> list[Row]:
    """First evaluation and that of the saved model: what every run has, then the parts of reward and gold."""
    if not run.evaluations:
        return []
    first, last = run.evaluations[0], run.after
    parts = [name for name in last["metrics"] if name.startswith("eval/rewards/")]
    golds = [name for name in last["metrics"] if name.startswith("eval/gold/")]
    parts += golds if len(golds) > 1 else []
    names = [name for name in _LABELS if name in last["metrics"]] + sorted(parts)
    return [_row(first, last, name) for name in names]


def _row(first: Mapping[str, Any], last: Mapping[str, Any], name: str) -> Row:
    kind, _, part = name.removeprefix("eval/").partition("/")
    label, unit = _LABELS.get(name, (f"{'Gold' if kind == 'gold' else 'Reward'} part: {part}", ""))
    where = "golds" if kind == "gold" else "scores"
    value = _OF_SAMPLE.get(name, lambda s: (s.get(where) or {}).get(part.removesuffix("/mean")))
    before, after = _interval(first, name, value), _interval(last, name, value)
    change = None
    if before and after and first is not last:
        old, new = by_prompt(first["samples"], value), by_prompt(last["samples"], value)
        change = bootstrap_interval([new[row] - old[row] for row in new if row in old])
    old_mean, new_mean = (number(e["metrics"].get(name)) for e in (first, last))
    return Row(label, unit, old_mean, new_mean, before, after, change)


def pairs(run: Run) -> list[tuple[Sample, Sample]]:
    """Samples of the first evaluation and that of the saved model on the same prompt, in the prompts' order."""
    if len(run.evaluations) < 2:
        return []
    first: dict[Any, list[Sample]] = {}
    for sample in run.evaluations[0]["samples"]:
        first.setdefault(sample.get("row"), []).append(sample)
    last = sorted(run.after["samples"], key=lambda s: (s.get("row") is None, s.get("row") or 0))
    return [(first[sample.get("row")].pop(0), sample) for sample in last if first.get(sample.get("row"))]


# ---------------------------------------------------------------------------------------------- configuration
def changed_options(config: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Options that are not at their default, in the order of PPOConfig: name, value, default."""
    default = PPOConfig()
    known = [f.name for f in fields(PPOConfig)]
    found = []
    for name in [*(n for n in known if n in config), *(n for n in config if n not in known)]:
        value, usual = config[name], getattr(default, name, None)
        value = tuple(value) if isinstance(value, list) else value
        if value != usual or name not in known:
            found.append((name, value, usual))
    return found
