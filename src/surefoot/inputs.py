"""The boundary of `generate` and `step`: text or ids, numbers of any kind -> typed input, or one clear error."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch

from surefoot.prompts.encode import encode_plain
from surefoot.rollout import Response
from surefoot.types import Completion, Prompt


def query_ids(queries: Sequence[Any], tokenizer: Any, vocab_size: int) -> list[list[int]]:
    """Token ids of texts, prompts or 1-D id tensors; texts are tokenised as every prompt is.

    Raises:
        ValueError: no query, an empty one, or ids that the model does not have.
    """
    if isinstance(queries, str) or len(queries) == 0:
        raise ValueError(f"queries must be a list of at least one text or 1-D id tensor, not {queries!r}")
    texts = [q for q in queries if isinstance(q, str)]
    encoded = iter(encode_plain(tokenizer, texts))
    found = [list(next(encoded)[1]) if isinstance(q, str) else _ids(q, f"queries[{i}]") for i, q in enumerate(queries)]
    for i, ids in enumerate(found):
        _check_ids(ids, f"queries[{i}]", vocab_size)
    return found


def responses_of(
    responses: Sequence[Any],
    masks: Sequence[Any] | None,
    tokenizer: Any,
    *,
    ends: Collection[int],
    stop_strings: tuple[str, ...],
    vocab_size: int,
) -> list[Response]:
    """Responses as ids with what is known about their sampling; a `Completion` is never tokenised again.

    Raises:
        ValueError: an empty response, unknown ids, or masks that do not fit.
    """
    if masks is not None and len(masks) != len(responses):
        raise ValueError(f"{len(responses)} responses but {len(masks)} response_masks: give one for each")
    found = []
    for i, response in enumerate(responses):
        name = f"responses[{i}]"
        if isinstance(response, str) and not isinstance(response, Completion):
            ids = list(tokenizer(response, add_special_tokens=False, verbose=False)["input_ids"])
        else:
            ids = list(response.token_ids) if isinstance(response, Completion) else _ids(response, name)
        _check_ids(ids, name, vocab_size)
        mask = [True] * len(ids) if masks is None else [bool(m) for m in masks[i]]
        if len(mask) != len(ids):
            raise ValueError(f"response_masks[{i}] has {len(mask)} entries, but {name} has {len(ids)} tokens")
        found.append(_response(response, ids, mask, ends, stop_strings))
    return found


def _response(
    response: Any, ids: list[int], mask: list[bool], ends: Collection[int], stop_strings: tuple[str, ...]
) -> Response:
    if isinstance(response, Completion):
        return Response(ids, mask, response.logprobs, response.finish_reason == "length")
    ended = ids[-1] in ends or (isinstance(response, str) and response.endswith(stop_strings or ("\0",)))
    return Response(ids, mask, (), not ended)


def check_counts(queries: Sequence[Any], responses: Sequence[Any], scores: Any) -> None:
    """Refuses lists of different lengths."""
    if isinstance(scores, str | int | float) or (hasattr(scores, "ndim") and scores.ndim == 0):
        raise ValueError(f"scores must be one number for each response, not {scores!r}")
    if not len(queries) == len(responses) == len(scores):
        raise ValueError(
            f"{len(queries)} queries, {len(responses)} responses and {len(scores)} scores: give one of each for every "
            "answer (with several answers to a prompt, repeat the prompt)"
        )


def check_context(queries: Sequence[Sequence[int]], lengths: Sequence[int], context: int | None) -> None:
    """Refuses rows that do not fit the model's context."""
    for i, (query, length) in enumerate(zip(queries, lengths, strict=True)):
        if context is not None and len(query) + length > context:
            raise ValueError(
                f"queries[{i}] has {len(query)} tokens and its answer up to {length}: together more than the model's "
                f"context of {context}; shorten the prompt or lower max_new_tokens"
            )


def scores_of(scores: Any, responses: Sequence[Response], *, finite: bool = True) -> torch.Tensor:
    """Scores as float32: [B], or [B, R] where each response brings one number a token.

    Takes floats, ints, a 1-D tensor or array, 0-d tensors, or 1-D tensors as long as their response. Where they need
    not be `finite`, None is one that is not, and so is what float32 cannot hold.

    Raises:
        ValueError: a 2-D tensor, a text, a number that is not finite; the row is named.
    """
    if getattr(scores, "ndim", 1) != 1:
        raise ValueError(
            f"scores has shape {tuple(scores.shape)}; give one number a response (scores.squeeze(1) of a column), or "
            "a list of 1-D tensors with one number a token"
        )
    known = [math.nan if score is None and not finite else score for score in scores]
    rows = [_numbers(score, i, len(responses[i].ids)) for i, score in enumerate(known)]
    for i, row in enumerate(rows if finite else []):
        bad = [x for x in row if not math.isfinite(x)]
        if bad:
            raise ValueError(f"scores[{i}] is {bad[0]}; a reward must be a finite number, so nothing was trained")
    if all(len(row) == 1 for row in rows):
        return torch.tensor([row[0] for row in rows], dtype=torch.float32)
    width = max(len(r.ids) for r in responses)
    if any(len(row) != len(r.ids) for row, r in zip(rows, responses, strict=True)):
        raise ValueError("some scores are one number a response and others one a token: give all in the same form")
    return torch.tensor([row + [0.0] * (width - len(row)) for row in rows], dtype=torch.float32)


def _numbers(score: Any, i: int, length: int) -> list[float]:
    if isinstance(score, str) or score is None:
        raise ValueError(f"scores[{i}] is {score!r}, which is not a number")
    values = torch.as_tensor(score).detach().float().cpu()
    if values.ndim > 1:
        raise ValueError(f"scores[{i}] has shape {tuple(values.shape)}; give a number, or one number a token")
    row: list[float] = values.reshape(-1).tolist()
    if len(row) not in (1, length):
        raise ValueError(
            f"scores[{i}] has {len(row)} numbers, but its response has {length} tokens: give 1 or {length}"
        )
    return row


def _ids(value: Any, name: str) -> list[int]:
    if isinstance(value, Prompt):
        return list(value.token_ids)
    tensor = torch.as_tensor(value)
    if tensor.ndim != 1 or tensor.is_floating_point():
        raise ValueError(
            f"{name} must be a text or a 1-D tensor of token ids, not {tensor.dtype} of {tuple(tensor.shape)}"
        )
    ids: list[int] = tensor.tolist()
    return ids


def _check_ids(ids: list[int], name: str, vocab_size: int) -> None:
    if not ids:
        raise ValueError(f"{name} is empty: it has no token to learn from; leave it out, or answer with the end token")
    bad = [i for i in ids if not 0 <= i < vocab_size]
    if bad:
        raise ValueError(
            f"{name} holds the token id {bad[0]}, but the model's vocabulary ends at {vocab_size - 1}: "
            "was it made with another tokenizer?"
        )
