"""Tells run folder, tracker and callbacks what happens in `train`, and asks the callbacks whether to go on."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from surefoot import kept
from surefoot.callbacks import Callback, Evaluation, SampleRecord, TrainResult
from surefoot.config import PPOConfig
from surefoot.kept import Saved
from surefoot.progress import Progress
from surefoot.prompts.pieces import token_texts
from surefoot.rewards.mix import MixedScores
from surefoot.runtime import Runtime
from surefoot.statistics import sequence_kl
from surefoot.tracking import RunFolder, Tracker, make_tracker
from surefoot.types import Completion, Prompt, Rollout, StepStats
from surefoot.watch.run import best_of

_LOG = logging.getLogger("surefoot")

EVALUATED_BY_TOKEN, TRAINED_BY_TOKEN, LONGEST_BY_TOKEN = 16, 4, 256
"""Of an evaluation and of a step the first so many answers are kept token by token, up to so many tokens."""
_TOKENS = "tokens"


@runtime_checkable
class Recorded(Protocol):
    """What the recorder needs of a trainer."""

    config: PPOConfig
    runtime: Runtime
    progress: Progress
    tokenizer: Any
    last_experience: Any

    def save(self, path: str | Path) -> None:
        """Writes a checkpoint."""
        ...

    def save_model(self, path: str | Path) -> None:
        """Writes the trained models."""
        ...


class Recorder:
    """One run being recorded. The main process writes; callbacks are asked on every process."""

    def __init__(self, trainer: Recorded, callbacks: Sequence[Callback]) -> None:
        self._trainer = trainer
        self._callbacks = callbacks
        self._folder: RunFolder | None = None
        self._tracker: Tracker | None = None

    def start(self, folder: RunFolder | None, *, goes_on: bool) -> None:
        """Makes the run folder and the tracker, and tells the callbacks.

        Args:
            folder: where the run is written down.
            goes_on: whether it holds this run's earlier steps.
        """
        self._folder = folder
        with self._trainer.runtime.together():
            if folder is not None and self._trainer.runtime.is_main:
                self._open(folder, goes_on)
        for callback in self._callbacks:
            callback.on_start(self._trainer)

    def _open(self, folder: RunFolder, goes_on: bool) -> None:
        """Puts the folder into the state of the step that the run goes on from; nothing that is later stays in use."""
        c, progress = self._trainer.config, self._trainer.progress
        folder.claim()
        folder.start(c, resume=goes_on)
        kept.tidy(folder.checkpoints)
        if goes_on:
            dropped = folder.truncate_after(progress.steps, {e.step for e in progress.evaluations})
            if dropped:
                _LOG.warning(
                    "%d steps past step %d are made again; their lines were taken out", dropped, progress.steps
                )
            for path in kept.set_aside(folder.checkpoints, progress.steps):
                _LOG.warning("a checkpoint past step %d was put aside as %s", progress.steps, path.name)
        self._tracker = make_tracker(c.log_with, folder.path.name, folder.path)

    def step(self, stats: StepStats, samples: Sequence[SampleRecord]) -> str | None:
        """Records a step; a reason to stop where a callback asks for it."""
        everybody = self._trainer.runtime.gather(_with_advantages(samples, self._trainer.last_experience.advantages))
        if self._writes is not None:
            self._writes.log_step(stats, self._spelled(everybody, TRAINED_BY_TOKEN), with_samples=True)
        _forget_tokens(everybody)
        if self._tracker is not None:
            self._tracker.log(stats.scalars(), self._trainer.progress.steps)
        asked = [callback.on_step(self._trainer, stats, everybody) for callback in self._callbacks]
        return "callback: asked to stop after a step" if any(asked) else None

    def evaluation(self, found: Evaluation) -> str | None:
        """Records an evaluation; a reason to stop where a callback asks for it."""
        if self._writes is not None:
            samples = self._spelled(found.samples, EVALUATED_BY_TOKEN)
            self._writes.log_evaluation(found.step, found.episode, found.metrics, samples, found.alarms)
        _forget_tokens(found.samples)
        if self._tracker is not None:
            self._tracker.log(found.metrics, found.step)
        asked = [callback.on_evaluation(self._trainer, found) for callback in self._callbacks]
        return "callback: asked to stop after an evaluation" if any(asked) else None

    def checkpoint(self) -> None:
        """Writes a checkpoint of this moment into the run folder, unless it is there, and drops those it replaces."""
        if self._folder is None:
            return
        runtime, places = self._trainer.runtime, []
        with runtime.together():
            if runtime.is_main:
                places = [self._place_to_save(self._folder.checkpoints)]
        path = runtime.gather(places)[0]
        if path is None:
            return
        with runtime.together():
            if runtime.is_main:
                self._folder.flush()
        self._trainer.save(path)
        with runtime.together():
            if runtime.is_main:
                kept.retain(self._folder.checkpoints, self._trainer.config.keep_checkpoints)

    def _place_to_save(self, folder: Path) -> Path | None:
        """Where this moment's checkpoint is to be; None where it is there.

        A signal during an evaluation leaves one of the moment before it. That is written again once it was made.
        """
        progress = self._trainer.progress
        if progress.steps not in kept.steps_in(folder):
            return kept.place(folder, progress.steps)
        lacks = any(saved.step == progress.steps and not saved.evaluated for saved in kept.whole_ones(folder))
        return kept.place_again(folder, progress.steps) if lacks and progress.evaluated() else None

    def best_checkpoint(self) -> Saved | None:
        """The best one in the run folder that is as it was written, the same on every process."""
        if self._folder is None:
            return None
        seen, runtime = [], self._trainer.runtime
        with runtime.together():
            if runtime.is_main:
                seen = [kept.best_valid(self._folder.checkpoints, _LOG.warning)]
        found: Saved | None = runtime.gather(seen)[0]
        return found

    def rescue(self) -> None:
        """Writes a checkpoint because the run is about to fail; if that fails too, the first error matters more."""
        if self._folder is None or not self._trainer.progress.steps:
            return
        try:
            self.checkpoint()
        except (OSError, RuntimeError) as error:
            _LOG.error("step %d could not be saved either: %s", self._trainer.progress.steps, error)
            return
        if self._trainer.runtime.is_main:
            _LOG.warning("everything up to step %d is saved in %s", self._trainer.progress.steps, self._folder.path)

    def end(self, reason: str, evaluations: Sequence[Evaluation], model_step: int) -> TrainResult:
        """Writes the models, which are those of `model_step`, closes everything, and tells the callbacks."""
        trainer, path = self._trainer, None if self._folder is None else self._folder.path
        if path is not None:
            trainer.save_model(path / "model")
        if self._writes is not None:
            self._writes.finish(reason, {"model_step": model_step, **_gold_in(evaluations)})
        if self._tracker is not None:
            self._tracker.finish()
        steps, episodes = trainer.progress.steps, trainer.progress.episodes
        result = TrainResult(
            reason, steps, episodes, tuple(evaluations), path, model_step if path is not None else None
        )
        for callback in self._callbacks:
            callback.on_end(trainer, result)
        return result

    def close(self) -> None:
        """Lets go of the folder."""
        if self._folder is not None:
            self._folder.lock.release()

    def _spelled(self, samples: Sequence[SampleRecord], most: int) -> list[SampleRecord]:
        """The samples with the texts of their tokens in the place of ids; from the `most`th on without tokens."""
        told: list[SampleRecord] = []
        for place, sample in enumerate(samples):
            tokens = sample.get(_TOKENS)
            told.append({name: value for name, value in sample.items() if name != _TOKENS})
            if tokens is not None and place < most:
                numbers = {name: values for name, values in tokens.items() if name != "ids"}
                told[-1][_TOKENS] = {"texts": token_texts(self._trainer.tokenizer, tokens["ids"]), **numbers}
        return told

    @property
    def _writes(self) -> Any:
        return self._folder if self._trainer.runtime.is_main else None


def _gold_in(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Gold at the first, the best and the last evaluation that has it."""
    known = [e for e in evaluations if e.gold is not None]
    if not known:
        return {}
    best = best_of(known)
    told = {
        name: {"step": e.step, "gold": e.gold}
        for name, e in (("first", known[0]), ("best", best), ("last", known[-1]))
    }
    return {"gold": told}


def sample_records(
    step: int,
    prompts: Sequence[Prompt],
    answers: Sequence[Completion],
    scored: MixedScores,
    rollout: Rollout,
    gold: MixedScores | None = None,
) -> list[SampleRecord]:
    """Every answer in words, with its scores, its divergence from the reference in nats, and its length in tokens.

    A conversation is kept as one beside the text that the policy read. `entropy` is the policy's, in nats a token.
    `version` is that of the weights that drew every token, where versions are counted.
    """
    mask = rollout.response_mask
    divergence = sequence_kl(rollout.kl, mask).tolist()
    entropies = (torch.where(mask, rollout.entropies, 0).sum(-1) / mask.sum(-1).clamp(min=1)).tolist()
    return [
        {
            "step": step,
            "prompt": prompt.text,
            "response": str(answer),
            "score": scored.scores[i],
            "scores": {name: values[i] for name, values in scored.parts.items()},
            "kl": divergence[i],
            "entropy": entropies[i],
            "length": len(answer.token_ids),
            "finish_reason": answer.finish_reason,
            "row": prompt.index,
            **({} if answer.version is None else {"version": answer.version}),
            **({} if gold is None else {"gold": gold.scores[i], "golds": {n: v[i] for n, v in gold.parts.items()}}),
        }
        | ({"messages": [dict(message) for message in prompt.messages]} if prompt.messages else {})
        | (_token_numbers(answer, rollout.kl[i]) if i < EVALUATED_BY_TOKEN else {})
        for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]


def _token_numbers(answer: Completion, kl: Tensor) -> dict[str, Any]:
    """An answer's tokens and the divergence at each, in nats."""
    ids = list(answer.token_ids[:LONGEST_BY_TOKEN])
    return {_TOKENS: {"ids": ids, "kl": _rounded(kl[: len(ids)])}}


def _with_advantages(samples: Sequence[SampleRecord], advantages: Tensor) -> Sequence[SampleRecord]:
    """The samples, which are the rows that were learnt from, with the advantage of each token that is kept."""
    for sample, row in zip(samples[:TRAINED_BY_TOKEN], advantages[:TRAINED_BY_TOKEN], strict=False):
        sample[_TOKENS]["advantage"] = _rounded(row[: len(sample[_TOKENS]["ids"])])
    return samples


def _forget_tokens(samples: Sequence[SampleRecord]) -> None:
    """They are on the disk; neither checkpoints nor callbacks need them."""
    for sample in samples:
        sample.pop(_TOKENS, None)


def _rounded(values: Tensor) -> list[float | None]:
    return [round(value, 4) if math.isfinite(value) else None for value in values.tolist()]
