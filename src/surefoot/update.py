"""Experience -> gradient steps -> UpdateStats: several epochs of clipped minibatches."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from surefoot.models import ActorCritic
from surefoot.ops.batching import microbatches, pieces
from surefoot.ops.kl import kl_estimate
from surefoot.ops.logprobs import logprobs_and_entropies
from surefoot.ops.loss import policy_loss, value_loss
from surefoot.ops.masking import length_mask
from surefoot.rows import Fresh, Rows, join_rows
from surefoot.runtime import Runtime
from surefoot.stages import UPDATE, stage
from surefoot.types import Experience, UpdateStats


@dataclass(frozen=True, slots=True)
class Losses:
    """The numbers of the loss. `kl_coef` prices k2 in the loss; it is 0 where the price is in the reward."""

    temperature: float = 1.0
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    clip_value: float | None = 0.2
    vf_coef: float = 0.1
    entropy_coef: float = 0.0
    kl_coef: float = 0.0


@dataclass(frozen=True, slots=True)
class Passes:
    """How an update goes through its batch.

    Attributes:
        rows_per_step: responses of one optimizer step, over all processes.
        max_rows, max_tokens: bounds on a single forward and backward pass.
        critic_only: leave the policy as it is (critic warm-up).
        early_stop_kl, ratio_threshold, max_grad_norm: limits; None switches one off.
    """

    epochs: int
    rows_per_step: int
    critic_epochs: int = 1
    max_rows: int | None = None
    max_tokens: int | None = None
    critic_only: bool = False
    early_stop_kl: float | None = None
    ratio_threshold: float | None = None
    max_grad_norm: float | None = None


@stage(UPDATE)
def update(
    models: ActorCritic,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    losses: Losses,
    passes: Passes,
    *,
    seed: int,
    runtime: Runtime,
    fresh: Fresh | None = None,
) -> UpdateStats:
    """Several epochs of minibatches, each in a fresh order, until they are done or the policy has moved far enough.

    `fresh` is a pass over the rows of the first minibatch by the policy as it is now, which then is not repeated.
    """
    job = _Update(models, optimizer, experience, losses, passes, runtime, fresh)
    offset, total = runtime.offset(len(experience.rewards))
    orders = _orders(total, seed)
    stopped = False
    with models.training():
        for _ in range(passes.epochs):
            for epoch in range(passes.critic_epochs):
                order = next(orders)
                for start in range(0, total, passes.rows_per_step):
                    rows = _local(order[start : start + passes.rows_per_step], offset, len(experience.rewards))
                    if epoch > 0 or passes.critic_only:
                        job.critic_minibatch(rows)
                    elif not job.minibatch(rows):
                        stopped = True
                        break
                if stopped:
                    return job.stats(early_stopped=True)
    return job.stats(early_stopped=False)


def first_minibatch(totals: Sequence[int], passes: Passes, *, seed: int, runtime: Runtime) -> list[int]:
    """The rows that `update` begins with, where they fit into a single pass of the policy; else none.

    `totals` are the tokens of each row of this process.
    """
    offset, total = runtime.offset(len(totals))
    rows = _local(next(_orders(total, seed))[: passes.rows_per_step], offset, len(totals))
    cut = microbatches([totals[i] for i in rows], max_rows=passes.max_rows, max_tokens=passes.max_tokens)
    return rows if len(cut) == 1 and not passes.critic_only else []


def _orders(total: int, seed: int) -> Iterator[list[int]]:
    """The order of the rows of all processes in one epoch after another."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randperm(total, generator=generator).tolist()


def _local(rows: Sequence[int], offset: int, count: int) -> list[int]:
    """Which of some rows of all processes are this process's, numbered from its first."""
    return [i - offset for i in rows if offset <= i < offset + count]


class _Tokens(NamedTuple):
    """What an update needs to know about each response token of a pass, row by row."""

    ids: Tensor
    mask: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor

    def at(self, piece: slice) -> "_Tokens":
        return _Tokens(*(column[piece] for column in self))


class _Part(NamedTuple):
    """The rows of one pass; `states` are the policy's where they are known already."""

    rows: Rows
    tokens: _Tokens
    states: Tensor | None


class _Update:
    """One update in progress: its parts, and sums for its statistics."""

    def __init__(
        self,
        models: ActorCritic,
        optimizer: torch.optim.Optimizer,
        experience: Experience,
        losses: Losses,
        passes: Passes,
        runtime: Runtime,
        fresh: Fresh | None,
    ) -> None:
        self.models, self.optimizer, self.experience = models, optimizer, experience
        self.losses, self.passes, self.runtime, self.fresh = losses, passes, runtime, fresh
        self.policy_parameters = models.policy_parameters()
        self.critic_parameters = models.critic_parameters()
        self.sums: dict[str, float] = defaultdict(float)
        self.first: dict[str, float] = {}
        self.ratios: list[float] = []
        self.optimizer_steps = 0
        self.skipped = 0

    # ------------------------------------------------------------------------------------- minibatches
    def minibatch(self, rows: list[int]) -> bool:
        """Gradients of policy and critic on `rows`, then an optimizer step. False: the policy has moved too far."""
        tokens = self._count(rows)
        if tokens == 0:
            self.skipped += 1
            return True
        sums: dict[str, Tensor] = {}
        for part in self._cut(rows):
            self._policy_backward(part, tokens, sums)
            if not self.models.shares_trunk:
                self._critic_backward(part, tokens, sums)
        means = self._means(sums, tokens)
        self.first = self.first or means
        if self.passes.early_stop_kl is not None and means["kl_k3"] > self.passes.early_stop_kl:
            self.optimizer.zero_grad(set_to_none=True)
            return False
        self._record(means)
        if self.passes.ratio_threshold is not None and means["ratio"] > self.passes.ratio_threshold:
            self.optimizer.zero_grad(set_to_none=True)
            self.skipped += 1
        else:
            self._step([*self.policy_parameters, *self.critic_parameters])
        return True

    def critic_minibatch(self, rows: list[int]) -> None:
        """Gradients of the critic alone on `rows`, then an optimizer step that leaves the policy where it is."""
        tokens = self._count(rows)
        if tokens == 0:
            self.skipped += 1
            return
        sums: dict[str, Tensor] = {}
        for part in self._cut(rows):
            self._critic_backward(part, tokens, sums)
        means = self._means(sums, tokens)
        if self.passes.critic_only:
            self._record(means)
        self._step(self.critic_parameters)

    def _policy_backward(self, part: _Part, tokens: float, sums: dict[str, Tensor]) -> None:
        """Adds the gradient of the policy's loss, and of the critic's where one pass gives both.

        States meet the vocabulary some at a time, each piece going backward at once; one backward pass of the trunk
        then takes the gradients of all of them.
        """
        states = self.models.states(part.rows) if part.states is None else part.states
        states = states[part.rows.predicted_at]
        gradients = torch.empty_like(states)
        for piece in pieces(len(states), self.models.states_per_piece):
            leaf = states[piece].detach().requires_grad_()
            loss = self._policy_loss(leaf, part.tokens.at(piece), sums)
            if self.models.shares_trunk:
                loss = loss + self.losses.vf_coef * self._value_loss(leaf, part.tokens.at(piece), sums)
            (loss / tokens).backward()
            assert leaf.grad is not None
            gradients[piece] = leaf.grad
        if states.requires_grad:
            states.backward(gradients)

    def _policy_loss(self, states: Tensor, seen: _Tokens, sums: dict[str, Tensor]) -> Tensor:
        c = self.losses
        logprobs, entropies = logprobs_and_entropies(self.models.logits(states), seen.ids, c.temperature)
        loss, diagnostics = policy_loss(
            logprobs, seen.old_logprobs, seen.advantages, seen.mask, c.clip_low, c.clip_high, c.dual_clip
        )
        entropy = torch.where(seen.mask, entropies, 0).sum()
        _add(sums, policy_loss=loss, entropy=entropy, **diagnostics._asdict())
        if c.entropy_coef:
            loss = loss - c.entropy_coef * entropy
        if c.kl_coef:
            k2 = kl_estimate(logprobs, seen.ref_logprobs, "k2")
            loss = loss + c.kl_coef * torch.where(seen.mask, k2, 0).sum()
        return loss

    def _critic_backward(self, part: _Part, tokens: float, sums: dict[str, Tensor]) -> None:
        """Adds the gradient of a pass of the critic alone."""
        with self.models.critic_pass():
            states = self.models.critic_states(part.rows)[part.rows.predicted_at]
            loss = self._value_loss(states, part.tokens, sums)
            (self.losses.vf_coef * loss / tokens).backward()

    def _value_loss(self, states: Tensor, seen: _Tokens, sums: dict[str, Tensor]) -> Tensor:
        values = self.models.values(states)
        loss, d = value_loss(values, seen.old_values, seen.returns, seen.mask, self.losses.clip_value)
        _add(sums, value_loss=loss, value_clipped=d.clipped, value_error=d.squared_error, value=d.values)
        return loss

    # ------------------------------------------------------------------------------------- helpers
    def _count(self, rows: list[int]) -> float:
        """Counted tokens of the whole minibatch, over all its passes and all processes: the one denominator."""
        return float(self.runtime.all_sum(self.experience.rollout.response_mask[rows].sum().float()))

    def _cut(self, rows: list[int]) -> Iterator[_Part]:
        fresh, self.fresh = self.fresh, None
        if fresh is not None and set(fresh.group) == set(rows):
            yield _Part(fresh.rows, self._tokens(fresh.group), fresh.states)
            return
        r = self.experience.rollout
        totals = (r.query_mask.sum(-1) + r.lengths)[rows].tolist()
        for positions in microbatches(totals, max_rows=self.passes.max_rows, max_tokens=self.passes.max_tokens):
            group = [rows[i] for i in positions]
            part = join_rows(r.query_ids[group], r.query_mask[group], r.response_ids[group], r.lengths[group])
            yield _Part(part, self._tokens(group), None)

    def _tokens(self, group: list[int]) -> _Tokens:
        e, r = self.experience, self.experience.rollout
        present = length_mask(r.lengths[group], r.response_ids.shape[1])
        columns = (
            r.response_ids,
            r.response_mask,
            r.old_logprobs,
            r.ref_logprobs,
            r.old_values,
            e.advantages,
            e.returns,
        )
        return _Tokens(*(column[group][present] for column in columns))

    def _means(self, sums: dict[str, Tensor], tokens: float) -> dict[str, float]:
        local = torch.stack([sums[name].double() for name in _NAMES if name in sums]) if sums else torch.zeros(0)
        if self.runtime.world_size > 1:  # a process without rows has no sums of its own
            local = torch.stack([sums.get(name, torch.zeros(())).double().cpu() for name in _NAMES])
            sums = dict.fromkeys(_NAMES, local[0])
        totals = self.runtime.all_sum(local).tolist()
        names = [name for name in _NAMES if name in sums]
        return dict.fromkeys(_NAMES, 0.0) | {name: x / tokens for name, x in zip(names, totals, strict=True)}

    def _record(self, means: dict[str, float]) -> None:
        self.sums["minibatches"] += 1
        self.ratios.append(means["ratio"])
        for name, mean in means.items():
            self.sums[name] += mean

    def _step(self, parameters: list[nn.Parameter]) -> None:
        """Clips and steps. A critic with a trunk of its own has a gradient norm of its own."""
        self.runtime.sum_gradients(parameters)
        limit = math.inf if self.passes.max_grad_norm is None else self.passes.max_grad_norm
        own = set() if self.models.shares_trunk else {id(p) for p in self.critic_parameters}
        norm = nn.utils.clip_grad_norm_([p for p in parameters if id(p) not in own], limit)
        if own:
            nn.utils.clip_grad_norm_([p for p in parameters if id(p) in own], limit)
        if len(own) < len(parameters):  # not a step of a separate critic alone
            self.sums["grad_norm"] += float(norm)
            self.sums["norms"] += 1
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_steps += 1

    def stats(self, *, early_stopped: bool) -> UpdateStats:
        """Means over the minibatches that counted; an update stopped at once reports its first minibatch."""
        count = self.sums["minibatches"]
        empty = dict.fromkeys(_NAMES, 0.0)
        means = {name: self.sums[name] / count for name in _NAMES} if count else empty | self.first
        c = self.losses
        first = self.first or means
        return UpdateStats(
            policy_loss=means["policy_loss"],
            value_loss=means["value_loss"],
            total_loss=means["policy_loss"] + c.vf_coef * means["value_loss"] - c.entropy_coef * means["entropy"],
            approx_kl_k1=means["kl_k1"],
            approx_kl_k2=means["kl_k2"],
            approx_kl_k3=means["kl_k3"],
            clip_fraction=means["clipped"],
            value_clip_fraction=means["value_clipped"],
            ratio=means["ratio"],
            first_ratio=first["ratio"],
            first_kl=first["kl_k3"],
            grad_norm=self.sums["grad_norm"] / max(1, self.sums["norms"]),
            entropy=means["entropy"],
            value_mean=means["value"],
            value_error=means["value_error"],
            optimizer_steps=self.optimizer_steps,
            skipped_minibatches=self.skipped,
            early_stopped=early_stopped,
            ratios=tuple(self.ratios),
        )


_NAMES = (
    "policy_loss",
    "value_loss",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "clipped",
    "ratio",
    "entropy",
    "value_clipped",
    "value_error",
    "value",
)


def _add(sums: dict[str, Tensor], **more: Tensor) -> None:
    for name, x in more.items():
        sums[name] = sums[name] + x.detach() if name in sums else x.detach()
