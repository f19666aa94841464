"""Queries + responses -> Rollout: what the frozen policy, reference and critic say about every token."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from surefoot.models import ActorCritic, Rows, join_rows
from surefoot.ops.batching import microbatches
from surefoot.ops.kl import full_kl, kl_estimate
from surefoot.ops.masking import length_mask
from surefoot.types import Rollout


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
    max_rows: int | None = None,
    max_tokens: int | None = None,
) -> Rollout:
    """One pass of policy (with critic) and reference over every response; rows keep their order.

    `max_rows` and `max_tokens` bound a single pass and change nothing else.
    """
    device = models.device
    query_ids, query_mask = _pad([list(q) for q in queries], device, left=True)
    response_ids, _ = _pad([list(r.ids) for r in responses], device)
    lengths = torch.tensor([len(r.ids) for r in responses], device=device)
    trained, _ = _pad([[int(m) for m in r.mask] for r in responses], device)

    shape = response_ids.shape
    logprobs, ref_logprobs, entropies, kl = (torch.zeros(shape, device=device) for _ in range(4))
    values = torch.zeros(shape[0], shape[1] + 1, device=device)
    totals = [len(q) + len(r.ids) for q, r in zip(queries, responses, strict=True)]
    for group in microbatches(totals, max_rows=max_rows, max_tokens=max_tokens):
        rows = join_rows(query_ids[group], query_mask[group], response_ids[group], lengths[group])
        width = rows.present.shape[1]
        outputs = models.evaluate(rows, temperature)
        logprobs[group, :width], entropies[group, :width] = outputs.logprobs, outputs.entropies
        with models.critic_pass():
            values[group, : width + 1] = outputs.values if models.shares_trunk else models.values(rows)
        ref_logprobs[group, :width], kl[group, :width] = _divergence(
            models, rows, outputs.logprobs, temperature, kl_penalty
        )

    sampled, known = _pad_floats([list(r.logprobs) for r in responses], shape, device)
    return Rollout(
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
        old_values=torch.where(length_mask(lengths, shape[1]), values[:, :-1], 0),
        last_values=values.gather(1, lengths[:, None]).squeeze(1),
        sampler_logprobs=torch.where(known, sampled, logprobs),
    )


def _divergence(
    models: ActorCritic, rows: Rows, logprobs: Tensor, temperature: float, kl_penalty: str
) -> tuple[Tensor, Tensor]:
    """Reference log-probabilities and the chosen estimate of the divergence, per token."""
    ref_logprobs = models.reference_logprobs(rows, temperature)
    if kl_penalty != "full":
        return ref_logprobs, kl_estimate(logprobs, ref_logprobs, kl_penalty)
    exact = full_kl(models.policy_logits(rows), models.reference_logits(rows), temperature)
    return ref_logprobs, torch.zeros_like(logprobs).masked_scatter(rows.present, exact)


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
