"""What a run's folder tells a comparison: what the run cost, and where its policy was on the way."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple

import numpy as np

from surefoot.evaluate.results import Cost, Point
from surefoot.evaluate.runs import Candidate, origin, origin_of
from surefoot.report.numbers import number
from surefoot.rewards import RewardMix
from surefoot.tracking import RunFolder
from surefoot.types import Completion, Prompt, Sampling

_SECONDS = ("time/step", "time/generate", "time/score")
_UNBIASED = ("kl", "k1", "k3", "full")
"""Estimators whose sum over an answer has the divergence as its mean."""


def cost_of(runs: Sequence[Candidate]) -> Cost:
    """The mean over a method's runs of what their steps say; None where they say nothing."""
    found = [_cost(run) for run in runs]
    columns = zip(*(astuple(cost) for cost in found), strict=True)
    return Cost(*(None if None in column else float(np.mean(column)) for column in columns))


def _cost(run: Candidate) -> Cost:
    steps = RunFolder(run.folder).read_metrics()
    times = [number(step.get(name)) for step in steps for name in _SECONDS]
    known = [seconds for seconds in times if math.isfinite(seconds)]
    seconds = sum(known) if known else None
    episodes = number(steps[-1].get("episode")) if steps else math.nan
    if not math.isfinite(episodes):
        return Cost(seconds=seconds)
    if "ppo_epochs" not in run.options:
        return Cost(0, 0, episodes, seconds)
    return Cost(episodes, len(run.options.get("reward") or ()) * episodes, 0, seconds)


def points_of(
    run: Candidate,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    start: tuple[str, str | None],
    scorers: Mapping[str, RewardMix],
) -> list[Point] | str:
    """The evaluations that a run recorded between its first and its last step, judged by `scorers`.

    Returns:
        Them, oldest first; or in words why they cannot stand beside what is measured here.
    """
    options = run.options
    if "ppo_epochs" not in options:
        return []
    folder = RunFolder(run.folder)
    own = {"temperature": sampling.temperature, "max_new_tokens": sampling.max_new_tokens,
           "stop_strings": sampling.stop_strings, "stop_token_ids": sampling.stop_token_ids}  # fmt: skip
    differing = [name for name, value in own.items() if options.get(name) != value]
    if differing:
        return f"they were answered with another {differing[0]}"
    if options.get("ref_model_name") or origin_of(options) != origin(*start):
        return "their KL is from another model"
    if options.get("kl_penalty") not in _UNBIASED:
        return f"their KL is the estimate {options.get('kl_penalty')!r}, whose mean is not the divergence"
    last = max((int(step["step"]) for step in folder.read_metrics()), default=0)
    steps = [e["step"] for e in folder.read_evaluations() if 0 < e["step"] < last]
    samples = {step: {s["prompt"]: s for s in folder.read_samples("eval", step)} for step in steps}
    if not all(prompt.text in found for found in samples.values() for prompt in prompts):
        return "they are of other prompts"
    return [
        _point(run.label, step, [samples[step][prompt.text] for prompt in prompts], prompts, scorers) for step in steps
    ]


def _point(
    label: str,
    step: int,
    samples: Sequence[Mapping[str, object]],
    prompts: Sequence[Prompt],
    scorers: Mapping[str, RewardMix],
) -> Point:
    said = [Completion(str(s["response"]), (), (), "stop" if s["finish_reason"] == "stop" else "length")
            for s in samples]  # fmt: skip
    values = {name: np.array(mix(list(prompts), said).scores) for name, mix in scorers.items()}
    values |= {name: np.array([number(s.get(name)) for s in samples]) for name in ("kl", "length")}
    return Point(f"{label}, step {step}", max(0.0, float(values["kl"].mean())), values)
