"""Queries + responses -> Rollout: what the frozen policy, reference and critic say about every token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from surefoot.models import ActorCritic
from surefoot.ops.batching import microbatches, pieces
from surefoot.ops.kl import full_kl, kl_estimate
from surefoot.ops.logprobs import logprobs_and_entropies, token_logprobs
from surefoot.ops.masking import length_mask
from surefoot.rows import Fresh, Rows, join_rows
from surefoot.types import Rollout

SCORING_TOKENS = 4096  # of one pass without a graph: enough for full speed, little memory
SCORING_TOKENS_ON_GPU = 16_384


def scoring_tokens(device: torch.device) -> int:
    """Tokens of one pass without a graph."""
    return SCORING_TOKENS_ON_GPU if device.type == "cuda" else SCORING_TOKENS


@dataclass(frozen=True, slots=True)
class Response:
    """One response in ids, as the boundary hands it over.

    Attributes:
        ids: its tokens, the ending one included.
        mask: which of them are trained on.
        logprobs: the sampler's, or empty for a text that was not sampled here.
        truncated: cut off before an end.
    """

    ids: Sequence[int]
    mask: Sequence[bool]
    logprobs: Sequence[float]
    truncated: bool


@torch.no_grad()
def collect(
    models: ActorCritic,
    queries: Sequence[Sequence[int]],
    responses: Sequence[Response],
    *,
    temperature: float = 1.0,
    kl_penalty: str = "kl",
    max_tokens: int | None = None,
    keep: Sequence[int] = (),
) -> tuple[Rollout, Fresh | None]:
    """One pass of policy (with critic) and reference over every response; rows keep their order.

    `max_tokens` bounds a single pass (None: enough for full speed) and changes nothing else. The rows of `keep` go
    through the policy together, in a pass that is kept, so that an update which begins with them need not repeat it.
    """
    device = models.device
    if max_tokens is None:
        max_tokens = scoring_tokens(device)
    query_ids, query_mask = _pad([list(q) for q in queries], device, left=True)
    response_ids, _ = _pad([list(r.ids) for r in responses], device)
    lengths = torch.tensor([len(r.ids) for r in responses], device=device)
    trained, _ = _pad([[int(m) for m in r.mask] for r in responses], device)

    shape = response_ids.shape
    logprobs, ref_logprobs, entropies, kl, values = (torch.zeros(shape, device=device) for _ in range(5))
    last_values = torch.zeros(shape[0], device=device)
    totals = [len(q) + len(r.ids) for q, r in zip(queries, responses, strict=True)]
    others = [i for i in range(len(totals)) if i not in set(keep)]
    groups = [[others[i] for i in part] for part in microbatches([totals[i] for i in others], max_tokens=max_tokens)]
    fresh = None
    groups += [min(groups, key=len)] * models.idle_passes(len(groups)) if groups else []  # the same numbers once more
    for group in [list(keep), *groups] if keep else groups:
        rows = join_rows(query_ids[group], query_mask[group], response_ids[group], lengths[group])
        kept = bool(keep) and fresh is None
        with torch.set_grad_enabled(kept), models.training():
            states = models.states(rows)
        if kept:
            fresh = Fresh(group, rows, states)
        present = length_mask(lengths[group], shape[1])
        seen = _read(models, rows, states.detach(), temperature, kl_penalty)
        for whole, part in zip((logprobs, entropies, ref_logprobs, kl, values), seen, strict=False):
            whole[group] = torch.zeros_like(present, dtype=part.dtype).masked_scatter(present, part)
        last_values[group] = seen.last_values
    models.put_away()

    sampled, known = _pad_floats([list(r.logprobs) for r in responses], shape, device)
    rollout = Rollout(
        query_ids=query_ids,
        query_mask=query_mask,
        response_ids=response_ids,
        response_mask=trained.bool() & length_mask(lengths, shape[1]),
        lengths=lengths,
        truncated=torch.tensor([r.truncated for r in responses], device=device),
        old_logprobs=logprobs,
        ref_logprobs=ref_logprobs,
        kl=kl,
        entropies=entropies,
        old_values=values,
        last_values=last_values,
        sampler_logprobs=torch.where(known, sampled, logprobs),
    )
    return rollout, fresh


class _Seen(NamedTuple):
    """What a pass says about each response token, row by row, and about each row's end."""

    logprobs: Tensor
    entropies: Tensor
    ref_logprobs: Tensor
    kl: Tensor
    values: Tensor
    last_values: Tensor


def _read(models: ActorCritic, rows: Rows, states: Tensor, temperature: float, kl_penalty: str) -> _Seen:
    """Policy, reference and critic on the rows of one pass, `states` being the policy's."""
    with models.critic_pass():
        critic = states if models.shares_trunk else models.critic_states(rows)
    reference = models.reference_states(rows)[rows.predicted_at]
    policy = states[rows.predicted_at]
    parts: list[tuple[Tensor, ...]] = []
    for piece in pieces(len(policy), models.states_per_piece):
        ids = rows.response_ids[piece]
        logits, ref_logits = models.logits(policy[piece]), models.reference_logits(reference[piece])
        logprobs, entropies = logprobs_and_entropies(logits, ids, temperature)
        ref_logprobs = token_logprobs(ref_logits, ids, temperature)
        if kl_penalty == "full":
            kl = full_kl(logits, ref_logits, temperature)
        else:
            kl = kl_estimate(logprobs, ref_logprobs, kl_penalty)
        parts.append((logprobs, entropies, ref_logprobs, kl))
    logprobs, entropies, ref_logprobs, kl = (torch.cat(column) for column in zip(*parts, strict=True))
    values, last_values = models.values(critic[rows.predicted_at]), models.values(critic[rows.ends])
    return _Seen(logprobs, entropies, ref_logprobs, kl, values, last_values)


def _pad(rows: list[list[int]], device: torch.device, *, left: bool = False) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, place] = torch.tensor(row, dtype=torch.long)
        mask[i, place] = True
    return ids.to(device), mask.to(device)


def _pad_floats(rows: list[list[float]], shape: torch.Size, device: torch.device) -> tuple[Tensor, Tensor]:
    numbers, known = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    for i, row in enumerate(rows):
        numbers[i, : len(row)] = torch.tensor(row)
        known[i, : len(row)] = True
    return numbers.to(device), known.to(device)
