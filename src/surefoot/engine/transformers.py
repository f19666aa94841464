"""The default engine: answers drawn by the policy itself, one token at a time for a whole batch.

Draws by inverting the cumulative distribution with one uniform number a token from a generator of the row's own, so
that an answer depends on its seed and nothing else in the batch, and nothing global is touched. Rows that have ended
leave the batch and its cache.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.types import Completion, FinishReason, Sampling


@dataclass
class _Row:
    """One answer in the making."""

    index: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: FinishReason | None = None


class TransformersEngine:
    """Samples from `model` in place; what was trained last is what answers.

    Args:
        model: any causal language model of transformers, LoRA adapters included.
        tokenizer: turns sampled ids into text.
        eos_ids: ids that end an answer.
        autocast: makes the context of the arithmetic.
        max_tokens: bound on rows x (longest query + answer) of one batch.
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

    @torch.no_grad()
    def generate(self, queries: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """One answer for each query, in their order; see `Engine`."""
        answers: list[Completion | None] = [None] * len(queries)
        by_length = sorted(range(len(queries)), key=lambda i: -len(queries[i]))
        while by_length:
            longest = len(queries[by_length[0]]) + sampling.max_new_tokens
            rows = max(1, self._max_tokens // longest)
            batch, by_length = by_length[:rows], by_length[rows:]
            with self._autocast():
                done = self._sample([queries[i] for i in batch], [seeds[i] for i in batch], sampling)
            for i, row in zip(batch, done, strict=True):
                text = self._tokenizer.decode(row.ids, skip_special_tokens=True)
                answers[i] = Completion(text, row.ids, row.logprobs, row.finish or "length")
        return [a for a in answers if a is not None]

    def _sample(self, queries: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[_Row]:
        device = next(self._model.parameters()).device
        uniforms = torch.stack([_uniforms(seed, sampling.max_new_tokens) for seed in seeds]).to(device)
        ends = self._eos_ids | set(sampling.stop_token_ids)
        rows = [_Row(i) for i in range(len(queries))]
        active = list(rows)
        ids, mask = _left_pad(queries, device)
        cache: Any = None
        for step in range(sampling.max_new_tokens):
            logits, cache = self._forward(ids, mask, cache)
            chosen, logprobs = _draw(logits, uniforms[[row.index for row in active], step], sampling)
            for row, token, logprob in zip(active, chosen.tolist(), logprobs.tolist(), strict=True):
                row.ids.append(token)
                row.logprobs.append(logprob)
                if token in ends or self._completes_stop_string(row.ids, sampling.stop_strings):
                    row.finish = "stop"
            going = [i for i, row in enumerate(active) if row.finish is None]
            if not going or step + 1 == sampling.max_new_tokens:
                break
            if len(going) < len(active):
                keep = torch.tensor(going, device=device)
                cache.batch_select_indices(keep)
                chosen, mask, active = chosen[keep], mask[keep], [active[i] for i in going]
            ids = chosen[:, None]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        return rows

    def _forward(self, ids: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits of the next token, and the cache with `ids` in it."""
        optional = {
            "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :],
            "logits_to_keep": 1,
        }
        inputs = {name: value for name, value in optional.items() if name in self._accepts}
        out = self._model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **inputs)
        filled = getattr(out, "past_key_values", None)
        if filled is None:
            raise ValueError(
                f"{type(self._model).__name__} keeps no key-value cache, which generate() needs; sample answers in "
                "another way and give their ids to step()"
            )
        return out.logits[:, -1].float(), filled

    def _completes_stop_string(self, ids: list[int], stops: tuple[str, ...]) -> bool:
        if not stops:
            return False
        # A token carries at least a byte, so the last tokens that could spell the longest stop are enough to look at.
        window = ids[-(max(len(s.encode()) for s in stops) + 4) :]
        text = self._tokenizer.decode(window, skip_special_tokens=True)
        return any(stop in text for stop in stops)


def _uniforms(seed: int, count: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def _left_pad(queries: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(len(q) for q in queries)
    ids = torch.tensor([[0] * (width - len(q)) + list(q) for q in queries], device=device)
    mask = torch.tensor([[0] * (width - len(q)) + [1] * len(q) for q in queries], device=device)
    return ids, mask


def _draw(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Token ids and their log-probabilities under the distribution they are drawn from."""
    logits = _filtered(logits / sampling.temperature, sampling)
    normaliser = logits.logsumexp(-1)
    if sampling.greedy:
        chosen = logits.argmax(-1)
    else:
        cumulative = (logits - normaliser[:, None]).exp().cumsum(-1)
        threshold = (uniforms * cumulative[:, -1])[:, None]
        chosen = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
    logprobs = logits.gather(-1, chosen[:, None]).squeeze(-1) - normaliser
    if not bool(torch.isfinite(logprobs).all()):
        raise FloatingPointError(
            "the policy's next-token distribution is not finite: its weights hold NaN or infinity. "
            "Go back to the last checkpoint and lower learning_rate"
        )
    return chosen, logprobs


def _filtered(logits: Tensor, sampling: Sampling) -> Tensor:
    """Cuts the distribution to its `top_k` tokens and to those that make up `top_p` of its mass."""
    if sampling.top_k > 0:
        least = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        mass = ordered.softmax(-1)
        outside = mass.cumsum(-1) - mass >= sampling.top_p
        beyond = torch.zeros_like(outside).scatter(-1, order, outside)
        logits = logits.masked_fill(beyond, -torch.inf)
    return logits
