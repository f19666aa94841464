"""Experience -> gradient steps -> UpdateStats: several epochs of clipped minibatches."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from surefoot.faults import Fault, StepFaults
from surefoot.minibatches import Part, Passes, Tokens, local_rows, orders_of_rows
from surefoot.models import ActorCritic
from surefoot.ops.batching import microbatches, pieces
from surefoot.ops.kl import kl_estimate
from surefoot.ops.logprobs import logprobs_and_entropies
from surefoot.ops.loss import policy_loss, value_loss
from surefoot.ops.masking import length_mask
from surefoot.phases import UPDATE, stage
from surefoot.rows import Fresh, join_rows
from surefoot.runtime import Runtime
from surefoot.sharding import own_part, whole
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
    faults: StepFaults,
    fresh: Fresh | None = None,
) -> UpdateStats:
    """Several epochs of minibatches, each in a fresh order, until they are done or the policy has moved far enough.

    No optimizer steps where loss or gradient are not finite on any process; `faults` says what is done then. `fresh`
    is a pass over the rows of the first minibatch by the policy as it is now, which then is not repeated.
    """
    job = _Update(models, optimizer, experience, losses, passes, runtime, faults, fresh)
    offset, total = runtime.offset(len(experience.rewards))
    orders = orders_of_rows(total, seed)
    stopped = False
    with models.training():
        for _ in range(0 if faults.skips_all else passes.epochs):
            for epoch in range(passes.critic_epochs):
                order = next(orders)
                for start in range(0, total, passes.rows_per_step):
                    rows = local_rows(order[start : start + passes.rows_per_step], offset, len(experience.rewards))
                    if epoch > 0 or passes.critic_only:
                        job.critic_minibatch(rows)
                    elif not job.minibatch(rows):
                        stopped = True
                        break
                if stopped:
                    return job.stats(early_stopped=True)
    return job.stats(early_stopped=False)


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
        faults: StepFaults,
        fresh: Fresh | None,
    ) -> None:
        self.models, self.optimizer, self.experience = models, optimizer, experience
        self.losses, self.passes, self.runtime, self.faults, self.fresh = losses, passes, runtime, faults, fresh
        self.policy_parameters = models.policy_parameters()
        self.critic_parameters = models.critic_parameters()
        self.sums: dict[str, float] = defaultdict(float)
        self.first: dict[str, float] = {}
        self.ratios: list[float] = []
        self.optimizer_steps = 0
        self.skipped = 0
        self.begun = 0

    # ------------------------------------------------------------------------------------- minibatches
    def minibatch(self, rows: list[int]) -> bool:
        """Gradients of policy and critic on `rows`, then an optimizer step. False: the policy has moved too far."""
        self.begun += 1
        return self._minibatch(rows)

    def _minibatch(self, rows: list[int]) -> bool:
        rows, tokens = self._counted(rows)
        if tokens == 0:
            self.skipped += 1
            return True
        means = self._backward(rows, tokens, policy=True)
        if not self.faults.agreed_finite(means.values()):
            return self._repeated_without_faults(Fault("the loss", rows, self.begun, means), self._minibatch)
        self.first = self.first or means
        if self.passes.early_stop_kl is not None and means["kl_k3"] > self.passes.early_stop_kl:
            self.optimizer.zero_grad(set_to_none=True)
            return False
        if self.passes.ratio_threshold is not None and means["ratio"] > self.passes.ratio_threshold:
            self.optimizer.zero_grad(set_to_none=True)
            self.skipped += 1
        else:
            norms = self._clip([*self.policy_parameters, *self.critic_parameters])
            if not self.faults.agreed_finite(norms.values()):
                fault = Fault("the gradient", rows, self.begun, means | norms)
                return self._repeated_without_faults(fault, self._minibatch)
            self._step(norms)
        self._record(means)
        return True

    def critic_minibatch(self, rows: list[int]) -> None:
        """Gradients of the critic alone on `rows`, then an optimizer step that leaves the policy where it is."""
        self.begun += 1
        self._critic_minibatch(rows)

    def _critic_minibatch(self, rows: list[int]) -> bool:
        rows, tokens = self._counted(rows)
        if tokens == 0:
            self.skipped += 1
            return True
        means = self._backward(rows, tokens, policy=False)
        for parameter in self.policy_parameters:  # 0 where it lies in shares: it is to have none
            parameter.grad = None
        norms = self._clip(self.critic_parameters)
        if not self.faults.agreed_finite([*means.values(), *norms.values()]):
            fault = Fault("the critic's loss or gradient", rows, self.begun, means | norms)
            return self._repeated_without_faults(fault, self._critic_minibatch)
        if self.passes.critic_only:
            self._record(means)
        self._step(norms)
        return True

    # ------------------------------------------------------------------------------------- faults
    def _repeated_without_faults(self, fault: Fault, again: Callable[[list[int]], bool]) -> bool:
        """The minibatch once more without the rows to blame, or not at all; nothing of it is left in the gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.faults.drops_rows and self.faults.drop_blamed(fault, self._to_blame(list(fault.rows))):
            return again(list(fault.rows))
        self.faults.skip(fault)
        return True

    def _to_blame(self, rows: list[int]) -> list[int]:
        """Those of this process's rows that give a loss or gradient that is not finite when they are alone.

        Where a gradient is at once everybody's, the rows of all processes have their turns.
        """
        if not self.models.in_shares:
            return [row for row in rows if not self._finite_alone([row])]
        first, total = self.runtime.offset(len(rows))
        blamed = []
        for turn in range(total):
            mine = rows[turn - first : turn - first + 1] if turn >= first else []
            if not self.runtime.all_true(self._finite_alone(mine)):
                blamed += mine
        return blamed

    def _finite_alone(self, rows: list[int]) -> bool:
        sums: dict[str, Tensor] = {}
        for part in self._cut(rows):
            if not self.passes.critic_only:
                self._policy_backward(part, 1.0, sums)
            if not self.models.shares_trunk or self.passes.critic_only:
                self._critic_backward(part, 1.0, sums)
        self.models.collect_gradients()
        gradients = [
            own_part(p.grad) for p in (*self.policy_parameters, *self.critic_parameters) if p.grad is not None
        ]
        norms = torch.stack([*(x.double() for x in sums.values()), *(g.double().norm() for g in gradients)])
        self.optimizer.zero_grad(set_to_none=True)
        return bool(norms.isfinite().all())

    # ------------------------------------------------------------------------------------- gradients
    def _backward(self, rows: list[int], tokens: float, *, policy: bool) -> dict[str, float]:
        """Adds up the gradients of a minibatch over its passes; means of what was seen, over all processes."""
        sums: dict[str, Tensor] = {}
        for part in self._cut(rows):
            if policy:
                self._policy_backward(part, tokens, sums)
            if not policy or not self.models.shares_trunk:
                self._critic_backward(part, tokens, sums)
        self.models.collect_gradients()
        return self._means(sums, tokens)

    def _policy_backward(self, part: Part, tokens: float, sums: dict[str, Tensor]) -> None:
        """Adds the gradient of the policy's loss, and of the critic's where one pass gives both.

        States meet the vocabulary some at a time, each piece going backward at once; one backward pass of the trunk
        then takes the gradients of all of them.
        """
        states = self.models.states(part.rows) if part.states is None else part.states
        if part.idle:
            return _backward_for_nothing(states)
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
        return None

    def _policy_loss(self, states: Tensor, seen: Tokens, sums: dict[str, Tensor]) -> Tensor:
        c = self.losses
        logprobs, entropies = logprobs_and_entropies(self.models.logits(states), seen.ids, c.temperature)
        loss, diagnostics = policy_loss(
            logprobs, seen.old_logprobs, seen.advantages, seen.mask, c.clip_low, c.clip_high, c.dual_clip, seen.weights
        )
        entropy = torch.where(seen.mask, entropies, 0).sum()
        _add(sums, policy_loss=loss, entropy=entropy, **diagnostics._asdict())
        if c.entropy_coef:
            loss = loss - c.entropy_coef * entropy
        if c.kl_coef:
            k2 = kl_estimate(logprobs, seen.ref_logprobs, "k2")
            loss = loss + c.kl_coef * torch.where(seen.mask, k2, 0).sum()
        return loss

    def _critic_backward(self, part: Part, tokens: float, sums: dict[str, Tensor]) -> None:
        """Adds the gradient of a pass of the critic alone."""
        with self.models.critic_pass():
            states = self.models.critic_states(part.rows)
            if part.idle:
                return _backward_for_nothing(states)
            loss = self._value_loss(states[part.rows.predicted_at], part.tokens, sums)
            (self.losses.vf_coef * loss / tokens).backward()
            return None

    def _value_loss(self, states: Tensor, seen: Tokens, sums: dict[str, Tensor]) -> Tensor:
        values = self.models.values(states)
        loss, d = value_loss(values, seen.old_values, seen.returns, seen.mask, self.losses.clip_value)
        _add(sums, value_loss=loss, value_clipped=d.clipped, value_error=d.squared_error, value=d.values)
        return loss

    # ------------------------------------------------------------------------------------- helpers
    def _counted(self, rows: list[int]) -> tuple[list[int], float]:
        """The rows to learn from, and the one denominator: their counted tokens, over all passes and processes."""
        rows = [row for row in rows if row not in self.faults.left_out]
        return rows, float(self.runtime.all_sum(self.experience.rollout.response_mask[rows].sum().float()))

    def _cut(self, rows: list[int]) -> Iterator[Part]:
        fresh, self.fresh = self.fresh, None
        if fresh is not None and set(fresh.group) == set(rows):
            yield Part(fresh.rows, self._tokens(fresh.group), fresh.states)
            return
        r = self.experience.rollout
        totals = (r.query_mask.sum(-1) + r.lengths).tolist()
        limits = {"max_rows": self.passes.max_rows, "max_tokens": self.passes.max_tokens}
        groups = [[rows[i] for i in part] for part in microbatches([totals[row] for row in rows], **limits)]
        idle = self.models.idle_passes(len(groups))
        shortest = [totals.index(min(totals))]
        for group, is_idle in [*((group, False) for group in groups), *[(shortest, True)] * idle]:
            part = join_rows(r.query_ids[group], r.query_mask[group], r.response_ids[group], r.lengths[group])
            yield Part(part, self._tokens(group), idle=is_idle)

    def _tokens(self, group: list[int]) -> Tokens:
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
            e.weights,
        )
        return Tokens(*(column[group][present] for column in columns))

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

    def _clip(self, parameters: list[nn.Parameter]) -> dict[str, float]:
        """Adds up gradients over all processes and clips them; their norms before.

        A critic with a trunk of its own has a gradient norm of its own.
        """
        self.runtime.sum_gradients(parameters)
        limit = math.inf if self.passes.max_grad_norm is None else self.passes.max_grad_norm
        own = set() if self.models.shares_trunk else {id(p) for p in self.critic_parameters}
        norms = {}
        for name, part in (("grad_norm", [p for p in parameters if id(p) not in own]),
                           ("critic_grad_norm", [p for p in parameters if id(p) in own])):  # fmt: skip
            if part:
                norms[name] = whole(nn.utils.clip_grad_norm_(part, limit))
        return dict(zip(norms, torch.stack([norm.float() for norm in norms.values()]).tolist(), strict=True))

    def _step(self, norms: dict[str, float]) -> None:
        if "grad_norm" in norms:  # not a step of a separate critic alone
            self.sums["grad_norm"] += norms["grad_norm"]
            self.sums["norms"] += 1
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_steps += 1
        self.faults.good_update()

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


def _backward_for_nothing(states: Tensor) -> None:
    """A backward pass whose gradients are 0."""
    if states.requires_grad:
        states.backward(torch.zeros_like(states))


def _add(sums: dict[str, Tensor], **more: Tensor) -> None:
    for name, x in more.items():
        sums[name] = sums[name] + x.detach() if name in sums else x.detach()
