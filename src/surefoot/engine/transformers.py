"""The default engine: answers drawn by the policy itself, one token at a time for a whole batch.

Rows wait, longest query first, until the batch has room for them; a first pass reads their queries, each distinct one
once; from then on all rows of the batch grow by one token a step, and a row that has ended leaves the batch and its
cache. A row's random numbers come from a generator of its own, so that an answer depends on its query and its seed and
on nothing else in the batch, and nothing global is touched.
"""

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from surefoot.engine.cache import can_join, give_room, join, select, trim
from surefoot.engine.draw import NOT_FINITE, draw, uniforms
from surefoot.engine.ends import finish_of
from surefoot.engine.graph import FixedStep
from surefoot.engine.weights import ready_for_decoding
from surefoot.networks import same_numbers
from surefoot.types import Completion, FinishReason, Sampling

_LOG = logging.getLogger("surefoot")

_FIRST_PASS, _FIRST_PASS_ON_GPU = 512, 16_384
"""Tokens of one first pass, padding included: enough for full speed, and few enough that the rows are alike."""


@dataclass
class _Row:
    """One answer in the making."""

    query: tuple[int, ...]
    uniforms: list[float]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: FinishReason | None = None


@dataclass(frozen=True)
class _Batch:
    """Rows under way: all end on the last of `width` columns, row i has padding[i] columns of padding before it."""

    rows: list[_Row]
    padding: list[int]
    width: int
    cache: Cache
    logits: Tensor

    @property
    def going(self) -> list[int]:
        """Which rows have not ended."""
        return [i for i, row in enumerate(self.rows) if row.finish is None]

    def without_ended(self, at_least: int) -> "_Batch | None":
        """The rows that go on, the last ones in the places of those that have ended, on the columns they need.

        Fewer than `at_least` that have ended stay, at rest.
        """
        going = self.going
        if not going:
            return None
        if len(self.rows) - len(going) < at_least:
            return self
        movers = iter([i for i in going if i >= len(going)])
        kept = [i if self.rows[i].finish is None else next(movers) for i in range(len(going))]
        select(self.cache, kept, self.logits.device)
        unused = min(self.padding[i] for i in kept) if can_join(self.cache) else 0
        trim(self.cache, unused)
        padding = [self.padding[i] - unused for i in kept]
        return _Batch([self.rows[i] for i in kept], padding, self.width - unused, self.cache, self.logits[kept])


def _joined(batches: Sequence[_Batch]) -> _Batch:
    """The rows of all, on the columns of the widest."""
    if len(batches) == 1:
        return batches[0]
    width = max(batch.width for batch in batches)
    join(batches[0].cache, [batch.cache for batch in batches[1:]])
    return _Batch(
        rows=[row for batch in batches for row in batch.rows],
        padding=[n + width - batch.width for batch in batches for n in batch.padding],
        width=width,
        cache=batches[0].cache,
        logits=torch.cat([batch.logits for batch in batches]),
    )


class TransformersEngine:
    """Samples from `model` in place; what was trained last is what answers.

    Memory: keys and values of at most `max_tokens` tokens and padding (2 x layers x key heads x size of a head numbers
    a token) and of 32 columns of room a row, one layer of them twice; and a copy of the linear weights for the while.

    Args:
        model: any causal language model of transformers, LoRA adapters included.
        tokenizer: turns sampled ids into text.
        eos_ids: ids that end an answer.
        autocast: makes the context of the arithmetic.
        max_tokens: bound on rows x (longest query + answer) of the batch; the other rows wait.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        eos_ids: Iterable[int],
        *,
        autocast: Callable[[], AbstractContextManager[Any]],
        max_tokens: int = 65_536,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._eos_ids = frozenset(eos_ids)
        self._autocast = autocast
        self._max_tokens = max_tokens
        inner: Any = model
        inner = inner.get_base_model() if hasattr(model, "get_base_model") else inner
        self._accepts = set(inspect.signature(inner.forward).parameters)
        self._on_gpu = next(model.parameters()).device.type == "cuda"
        # A row that leaves makes a GPU record its step anew, while one at rest costs it next to nothing.
        self._at_rest = 0.25 if self._on_gpu else 0.0
        self._fixed: FixedStep | None = None
        self._fixes: bool | None = None if self._on_gpu and "position_ids" in self._accepts else False

    @torch.inference_mode()
    def generate(self, queries: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """One answer for each query, in their order; see `Engine`."""
        rows = [
            _Row(tuple(query), uniforms(seed, sampling.max_new_tokens))
            for query, seed in zip(queries, seeds, strict=True)
        ]
        with self._autocast(), ready_for_decoding(self._model):
            self._fixed = None
            self._sample(rows, sampling)
        return [
            Completion(
                self._tokenizer.decode(row.ids, skip_special_tokens=True),
                row.ids,
                row.logprobs,
                row.finish or "length",
            )
            for row in rows
        ]

    def _sample(self, rows: Sequence[_Row], sampling: Sampling) -> None:
        """Writes an answer into every row."""
        most = max(1, self._max_tokens // (max(len(row.query) for row in rows) + sampling.max_new_tokens))
        waiting = sorted(rows, key=lambda row: (-len(row.query), row.query))
        batch: _Batch | None = None
        while waiting or batch:
            batch = self._filled(batch, waiting, most)
            self._draw(batch, sampling)
            batch = batch.without_ended(at_least=max(1, int(self._at_rest * len(batch.rows))))
            if batch:
                batch = self._advanced(batch)

    def _filled(self, batch: _Batch | None, waiting: list[_Row], most: int) -> _Batch:
        """The batch with waiting rows in its free places, once a quarter is free: joining moves the whole cache."""
        parts = [batch] if batch else []
        free = most - len(batch.rows) if batch else most
        if 4 * free < most:
            free = 0
        while waiting and free and (not parts or can_join(parts[-1].cache)):
            tokens = _FIRST_PASS_ON_GPU if self._on_gpu else _FIRST_PASS
            parts.append(self._begin(_first_pass(waiting, free, tokens)))
            free -= len(parts[-1].rows)
        return _joined(parts)

    def _begin(self, rows: list[_Row]) -> _Batch:
        """The first pass over the queries of `rows`, each distinct one read once."""
        place = {query: i for i, query in enumerate(dict.fromkeys(row.query for row in rows))}
        width = max(len(query) for query in place)
        padding = [width - len(query) for query in place]
        ids = [[0] * (width - len(query)) + list(query) for query in place]
        logits, cache = self._forward(ids, padding, width, None)
        copies = [place[row.query] for row in rows]
        select(cache, copies, logits.device)
        give_room(cache)
        return _Batch(rows, [padding[i] for i in copies], width, cache, logits[copies])

    def _draw(self, batch: _Batch, sampling: Sampling) -> None:
        """The next token of every row that has not ended."""
        going = batch.going
        rows = [batch.rows[i] for i in going]
        logits = batch.logits if len(going) == len(batch.rows) else batch.logits[going]
        numbers = torch.tensor([row.uniforms[len(row.ids)] for row in rows], device=logits.device)
        chosen, logprobs = draw(logits, numbers, sampling)
        for row, token, logprob in zip(rows, chosen.tolist(), logprobs.tolist(), strict=True):
            if not math.isfinite(logprob):
                raise FloatingPointError(NOT_FINITE)
            row.ids.append(token)
            row.logprobs.append(logprob)
            row.finish = finish_of(row.ids, self._eos_ids, sampling, self._tokenizer)

    def _advanced(self, batch: _Batch) -> _Batch:
        """The batch after a pass over the newest token of every row."""
        newest = [row.ids[-1] for row in batch.rows]
        if self._fixed is not None and self._fixed.fits(batch.cache, len(newest)):
            return _Batch(batch.rows, batch.padding, batch.width + 1, batch.cache, self._fixed(newest))
        logits, cache = self._forward([[i] for i in newest], batch.padding, batch.width + 1, batch.cache)
        grown = _Batch(batch.rows, batch.padding, batch.width + 1, cache, logits)
        self._fixed = None if self._fixes is False else self._fix(grown, newest)
        return grown

    def _fix(self, batch: _Batch, newest: list[int]) -> FixedStep | None:
        """The step that was just made, for fixed places; None where the model cannot be run that way.

        Whether it can is tried once, against the step as it was.
        """
        try:
            step = FixedStep(self._model, batch.cache, batch.padding, batch.width)
            logits = step.again(newest)
            if self._fixes is None:
                half = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
                self._fixes = same_numbers(logits, batch.logits, half)
            if self._fixes and self._on_gpu:
                step.record()
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            _LOG.debug("%s decodes without a recorded step: %s", type(self._model).__name__, error)
            self._fixes = False
        return step if self._fixes else None

    def _forward(
        self, ids: list[list[int]], padding: list[int], width: int, cache: Cache | None
    ) -> tuple[Tensor, Cache]:
        """Logits of the next token, and the cache with `ids` in it; without padding the model needs no mask."""
        device = next(self._model.parameters()).device
        inputs: dict[str, Any] = {"logits_to_keep": 1}
        if any(padding):
            position = torch.arange(width, device=device) - torch.tensor(padding, device=device)[:, None]
            inputs["position_ids"] = position[:, -len(ids[0]) :].clamp(min=0)
            inputs["attention_mask"] = (position >= 0).long()
        out = self._model(
            input_ids=torch.tensor(ids, device=device),
            past_key_values=cache,
            use_cache=True,
            **{name: value for name, value in inputs.items() if name in self._accepts},
        )
        filled = getattr(out, "past_key_values", None)
        if not isinstance(filled, Cache):
            raise ValueError(
                f"{type(self._model).__name__} keeps no key-value cache, which generate() needs; sample answers in "
                "another way and give their ids to step()"
            )
        return out.logits[:, -1].float(), filled


def _first_pass(waiting: list[_Row], free: int, tokens: int) -> list[_Row]:
    """Takes as many rows from the front of `waiting` as are read together: at most `free`, of about one length."""
    queries: set[tuple[int, ...]] = set()
    count = 0
    for row in waiting[:free]:
        queries.add(row.query)
        if count and len(queries) * len(waiting[0].query) > tokens:
            break
        count += 1
    taken, waiting[:count] = waiting[:count], []
    return taken
