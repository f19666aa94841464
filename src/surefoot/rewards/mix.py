"""Several rewards as one: weighted, put together, each logged under its name."""

import inspect
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, cast

from surefoot.phases import REWARD, stage
from surefoot.rewards.address import is_address
from surefoot.rewards.ensemble import ENSEMBLES, together
from surefoot.rewards.failure import LARGEST, RewardError, check_scores
from surefoot.rewards.function import FunctionReward
from surefoot.rewards.locate import is_file_spec
from surefoot.rewards.remote import RemoteReward
from surefoot.types import Prompt, Reward, RewardOutput

_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+$")


@dataclass(frozen=True, slots=True)
class MixedScores:
    """What all rewards together say about a batch.

    Attributes:
        scores: of each answer, put together from what the rewards said.
        parts: name of each reward -> what it said, before weighting.
        metrics: under the names they are logged by: rewards/<name>/mean, /std, /none_rate, /<its own>.
    """

    scores: list[float]
    parts: dict[str, list[float | None]]
    metrics: dict[str, float]


class RewardMix:
    """Rewards times their weights, put together. One that says None for an answer is left out of that answer's score.

    Args:
        rewards: each a `surefoot.types.Reward`. Equal names get a number behind them.
        weights: one a reward. Empty: every weight is 1.
        ensemble: sum, or as `surefoot.rewards.ensemble.together` says: mean, min, uncertainty.
        uncertainty_coef: of the last.

    Attributes:
        rewards: name -> reward, in the order given.
        weights: one a reward.
    """

    def __init__(
        self,
        rewards: Sequence[Reward],
        weights: Sequence[float] = (),
        *,
        ensemble: str = "sum",
        uncertainty_coef: float = 0.0,
    ) -> None:
        if not rewards:
            raise ValueError("no reward given: name a function, a reward model, or several")
        if len(weights) not in (0, len(rewards)):
            raise ValueError(f"{len(rewards)} rewards but {len(weights)} weights: give one weight for each, or none")
        if not all(math.isfinite(weight) for weight in weights):
            raise ValueError(f"weights={tuple(weights)} must be finite numbers")
        if ensemble not in ENSEMBLES:
            raise ValueError(f"ensemble={ensemble!r} is none of {', '.join(ENSEMBLES)}")
        self.rewards: Mapping[str, Reward] = dict(zip(_unique([r.name for r in rewards]), rewards, strict=True))
        self.weights = tuple(map(float, weights)) or (1.0,) * len(rewards)
        self._ensemble, self._uncertainty_coef = ensemble, uncertainty_coef
        self._finite = True

    @stage(REWARD)
    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> MixedScores:
        """Scores `completions[i]` as the answer to `prompts[i]`.

        Raises:
            RewardError: a reward failed, or none of them has a score for some answer.
        """
        outputs = {name: reward(prompts, completions) for name, reward in self.rewards.items()}  # type: ignore[arg-type]
        return self.combine(outputs, prompts, completions)

    def combine(
        self, outputs: Mapping[str, RewardOutput], prompts: Sequence[Prompt], completions: Sequence[str]
    ) -> MixedScores:
        """What the rewards said, put together and checked."""
        parts: dict[str, list[float | None]] = {}
        metrics: dict[str, float] = {}
        for name, output in outputs.items():
            if not isinstance(output, RewardOutput):
                raise RewardError(name, f"returned {type(output).__name__} where a RewardOutput is needed")
            parts[name] = check_scores(name, output.scores, prompts, completions, finite=self._finite)
            metrics |= _spread(f"rewards/{name}", parts[name])
            metrics |= {f"rewards/{name}/{key}": float(value) for key, value in output.metrics.items()}
        known = {name: [_none_if_not_finite(score) for score in scores] for name, scores in parts.items()}
        return MixedScores(self._scores(parts, prompts, completions), known, metrics)

    def leave_out_what_is_not_finite(self) -> None:
        """From now on NaN, infinity and answers without any score are no errors: such an answer's score is NaN."""
        self._finite = False
        for reward in self.rewards.values():
            if hasattr(reward, "must_be_finite"):
                reward.must_be_finite = False

    def set_step(self, step: int) -> None:
        """Tells functions that ask for `trainer_state` how many steps were made."""
        for reward in self.rewards.values():
            if isinstance(reward, FunctionReward):
                reward.trainer_state.global_step = step

    def _scores(
        self, parts: Mapping[str, Sequence[float | None]], prompts: Sequence[Prompt], completions: Sequence[str]
    ) -> list[float]:
        names, scores = ", ".join(parts), []
        for row, prompt, completion in zip(zip(*parts.values(), strict=True), prompts, completions, strict=True):
            given = [w * score for w, score in zip(self.weights, row, strict=True) if score is not None]
            score = together(given, self._ensemble, self._uncertainty_coef) if given else math.nan
            if self._finite and not given:
                raise RewardError(
                    names, "returned None, and no reward has a score for this answer", prompt, completion
                )
            if self._finite and not abs(score) <= LARGEST:
                what = "weighted sum" if self._ensemble == "sum" else f"{self._ensemble} of the weighted rewards"
                raise RewardError(names, f"the {what} {score:g} does not fit float32", prompt, completion)
            scores.append(score if abs(score) <= LARGEST else math.nan)
        return scores


def make_reward(
    spec: Any,
    weights: Sequence[float] = (),
    *,
    special_tokens: Sequence[str] = (),
    policy: Any = None,
    ensemble: str = "sum",
    uncertainty_coef: float = 0.0,
) -> RewardMix:
    """One `RewardMix` out of a text, a function, a model, a `Reward`, or a list of these.

    Args:
        spec: "module:name", "pkg.module.name", "file.py:name", "file.py", a reward model's folder or hub name
            "org/name", a service "protocol+http://host:port/path" (see `RemoteReward`); or the function, model or
            reward itself.
        weights: one a reward. Empty: every weight is 1.
        special_tokens: texts of the policy's special tokens; they are taken off both ends of plain prompts.
        policy: the trained model; a reward that is a folder with an adapter of its frozen base shares that base.
        ensemble: how several become one, see `RewardMix`.
        uncertainty_coef: of the ensemble of that name.
    """
    if isinstance(spec, RewardMix):
        if len(weights):
            raise ValueError("a RewardMix has its weights already: leave reward_weights out")
        if ensemble != "sum":
            raise ValueError("a RewardMix says itself how rewards become one: leave reward_ensemble out")
        return spec
    specs = list(spec) if isinstance(spec, list | tuple) else [spec]
    if len(specs) == 1 and ensemble != "sum":
        raise ValueError(f"reward_ensemble={ensemble!r} needs several rewards, and there is one: leave it out")
    rewards = [_one(s, special_tokens, policy) for s in specs]
    return RewardMix(rewards, weights, ensemble=ensemble, uncertainty_coef=uncertainty_coef)


def _one(spec: Any, special_tokens: Sequence[str], policy: Any) -> Reward:
    if isinstance(spec, str | PathLike):
        return _named(fspath(spec), special_tokens, policy)
    if _is_reward(spec):
        return cast(Reward, spec)
    if hasattr(spec, "forward") and hasattr(spec, "parameters"):
        if not hasattr(spec, "config"):
            raise ValueError(
                f"reward {type(spec).__name__} is a module without a config: call it in a Python function"
            )
        return _model(spec, special_tokens)
    if not callable(spec):
        raise TypeError(f"reward={spec!r} is neither a text, a function, a model nor a list of these")
    return FunctionReward(cast(Callable[..., Any], spec), special_tokens=special_tokens)


def _named(spec: str, special_tokens: Sequence[str], policy: Any) -> Reward:
    if is_address(spec):
        return RemoteReward(spec, special_tokens=special_tokens)
    folder = Path(spec).expanduser()
    if folder.is_dir():
        if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
            from surefoot.rewards.sharing import adapter_reward  # it needs transformers

            return adapter_reward(str(folder), policy, special_tokens)
        if not (folder / "config.json").is_file():
            raise ValueError(f"reward={spec!r} is a folder without config.json, so not a reward model")
        return _model(str(folder), special_tokens)
    if is_file_spec(spec) or ":" in spec:
        return FunctionReward(spec, special_tokens=special_tokens)
    if spec.startswith((".", "~", "/")):
        raise ValueError(f"reward={spec!r}: there is no such folder or Python file (looked in {Path.cwd()})")
    return (
        _model(spec, special_tokens) if _HUB_NAME.match(spec) else FunctionReward(spec, special_tokens=special_tokens)
    )


def _model(model: Any, special_tokens: Sequence[str]) -> Reward:
    from surefoot.rewards.model import ModelReward  # transformers takes seconds; functions do without it

    return ModelReward(model, special_tokens=special_tokens)


def _is_reward(spec: Any) -> bool:
    """Whether `spec` follows our own protocol: a name, and a call with exactly (prompts, completions)."""
    if isinstance(spec, type) or inspect.isroutine(spec) or not callable(spec):
        return False
    if not isinstance(getattr(spec, "name", None), str):
        return False
    return list(inspect.signature(spec).parameters) == ["prompts", "completions"]


def _unique(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in found:
            candidate, number = f"{name}_{number}", number + 1
        found.append(candidate)
    return found


def _none_if_not_finite(score: float | None) -> float | None:
    return score if score is not None and math.isfinite(score) else None


def _spread(prefix: str, scores: Sequence[float | None]) -> dict[str, float]:
    given = [score for score in scores if score is not None and math.isfinite(score)]
    found = {} if len(given) == len(scores) else {f"{prefix}/none_rate": 1 - len(given) / len(scores)}
    if given:
        found |= {f"{prefix}/mean": statistics.fmean(given), f"{prefix}/std": statistics.pstdev(given)}
    return found
