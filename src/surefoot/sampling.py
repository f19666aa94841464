"""Queries -> answers: drawn now, or asked for a step ahead, so that the engine draws while the step before is learned.

    step k:  its answers are there -> those of step k + 1 are asked for -> scores -> update
                                      the weights are handed over          the engine draws from what it was handed

What was asked for ahead comes from weights that are a step old when it is learned from, and gone: whoever saves a run
waits for the answers, and they are saved with it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surefoot.inputs import check_context, query_ids
from surefoot.ops.seeds import derive_seed
from surefoot.setup import sampling_of
from surefoot.types import Completion, EngineAhead, Sampling


@dataclass(frozen=True, slots=True)
class Ahead:
    """Answers that were asked for, whether they are there or not.

    Attributes:
        key: of the queries and of how they are answered.
        call: number of the call of `generate` that they are for, from which their seeds come.
        version: of the weights that draw them.
        wait: waits for them, as often as it is called; it gives None where the engine failed.
    """

    key: str
    call: int
    version: int
    wait: Callable[[], list[Completion] | None]

    def answers(self) -> list[Completion] | None:
        """The answers, which are waited for; None where they are to be drawn again."""
        found = self.wait()
        return None if found is None else [answer.drawn_from(self.version) for answer in found]

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain values; the answers are waited for."""
        found = self.wait()
        told = None if found is None else [answer.__getnewargs__() for answer in found]
        return {"key": self.key, "call": self.call, "version": self.version, "answers": told}


def ahead_of(state: Mapping[str, Any]) -> Ahead:
    """What `state_dict` was made of."""
    told = state["answers"]
    found = None if told is None else [Completion(*answer) for answer in told]
    return Ahead(state["key"], state["call"], state["version"], lambda: found)


def answers_to(trainer: Any, queries: Sequence[Any], copies: int, options: Mapping[str, Any]) -> list[Completion]:
    """What was asked for ahead, where these are its queries; else, or where it did not come, answers drawn now."""
    rows, how = _rows(trainer, queries, copies, options)
    asked = _taken(trainer, rows, how)
    call = _next_call(trainer) if asked is None else asked.call
    seeds = _seeds(trainer, call, len(rows))
    answers = None if asked is None else asked.answers()  # never left: the weights that draw them may be gone
    if answers is not None:
        return answers
    with trainer.models.whole_policy(), trainer.stop.may_be_left():
        drawn: list[Completion] = trainer.engine.generate(rows, seeds, how)
    return [answer.drawn_from(trainer.steps_done) for answer in drawn] if trainer.config.overlap else drawn


def ask_ahead(trainer: Any, queries: Sequence[Any], copies: int, options: Mapping[str, Any]) -> None:
    """Asks the engine for answers from the weights as they are now, and does not wait for them."""
    assert isinstance(trainer.engine, EngineAhead)
    rows, how = _rows(trainer, queries, copies, options)
    call = _next_call(trainer)
    seeds = _seeds(trainer, call, len(rows))
    with trainer.stop.may_be_left():
        wait = trainer.engine.begin(rows, seeds, how)
    trainer.ahead = Ahead(_key(rows, how), call, trainer.steps_done, wait)


def _rows(
    trainer: Any, queries: Sequence[Any], copies: int, options: Mapping[str, Any]
) -> tuple[list[list[int]], Sampling]:
    """Every query as often as it is answered, and how."""
    how = sampling_of(trainer.config, options)
    ids = query_ids(queries, trainer.tokenizer, trainer.vocab_size)
    check_context(ids, [how.max_new_tokens] * len(ids), trainer.context)
    return [row for row in ids for _ in range(copies)], how


def _taken(trainer: Any, rows: Sequence[Sequence[int]], how: Sampling) -> Ahead | None:
    asked: Ahead | None = trainer.ahead
    if asked is None or asked.key != _key(rows, how):
        return None
    trainer.ahead = None
    return asked


def _next_call(trainer: Any) -> int:
    call: int = trainer.progress.generations
    trainer.progress.generations += 1
    return call


def _seeds(trainer: Any, call: int, count: int) -> list[int]:
    """One for each answer, by its place among those of all processes."""
    first, _ = trainer.runtime.offset(count)
    return [derive_seed(trainer.config.seed, "sample", call, first + i) for i in range(count)]


def _key(rows: Sequence[Sequence[int]], how: Sampling) -> str:
    return hashlib.sha256(repr((rows, how)).encode()).hexdigest()
