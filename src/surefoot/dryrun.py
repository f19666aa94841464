"""One batch, one step, and a checklist: what goes wrong in a run is mostly visible before it starts."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from surefoot.prompts import PromptOrder


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the checklist: what was looked at, what was found, and what to do (empty where all is well)."""

    name: str
    found: str
    ok: bool
    advice: str = ""


@dataclass(frozen=True, slots=True)
class DryRunReport:
    """The checklist of a dry run.

    Attributes:
        checks: what must hold. seconds: of each stage. peak_memory_gib: the most this process used.
        steps: planned for the whole run, None where nothing says so.
        advice: options that lie far outside what is known to work; they fail nothing.
        stats: the statistics of the step. samples: its answers, as pairs of prompt and response.
    """

    checks: tuple[Check, ...]
    seconds: Mapping[str, float]
    peak_memory_gib: float
    steps: int | None
    advice: tuple[str, ...]
    stats: Mapping[str, Any]
    samples: tuple[tuple[str, str], ...]

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    @property
    def run_seconds(self) -> float | None:
        """What the steps of the whole run would take, evaluations and saving not counted."""
        return None if self.steps is None else self.steps * sum(self.seconds.values())

    def text(self) -> str:
        """The checklist as plain lines."""
        wide = max(len(check.name) for check in self.checks)
        lines = []
        for check in self.checks:
            lines.append(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<{wide}}  {check.found}")
            lines += [] if check.ok else [f"      {check.advice}"]
        lines += [f"note  {sentence}" for sentence in self.advice]
        lines.append("time  " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items()))
        if self.run_seconds is not None:
            lines[-1] += f"; {self.steps} such steps take about {max(1, round(self.run_seconds / 60))} min"
        lines.append(f"room  {self.peak_memory_gib:.2f} GiB of memory at most")
        return "\n".join(lines)


def dry_run(trainer: Any) -> DryRunReport:
    """Answers one batch of prompts, scores the answers, makes one step, and checks the numbers.

    The trainer's weights are changed by that step; nothing is written.

    Raises:
        ValueError: prompts or rewards are missing, or a reward gave no usable score.
    """
    if trainer.reward is None or not trainer.prompts:
        raise ValueError("a dry run needs dataset and reward")
    c = trainer.config
    chosen = PromptOrder(len(trainer.prompts), c.seed).take(0, c.prompts_per_step)
    prompts = trainer.runtime.share([trainer.prompts[i] for i in chosen])
    repeated = [prompt for prompt in prompts for _ in range(c.num_generations)]
    marks = [time.perf_counter()]
    answers = trainer.generate(prompts, num_return_sequences=c.num_generations)
    marks.append(time.perf_counter())
    with trainer.asking_rewards():
        scores = trainer.reward(repeated, answers).scores
    marks.append(time.perf_counter())
    stats = trainer.step(repeated, answers, scores)
    marks.append(time.perf_counter())
    names = ("generate", "score", "step")
    return DryRunReport(
        checks=checklist(
            stats, rough=_is_rough(trainer), other_reference=c.ref_model_name not in (None, c.model_name)
        ),
        seconds={name: marks[i + 1] - marks[i] for i, name in enumerate(names)},
        peak_memory_gib=float(stats["memory/peak_gib"]),
        steps=trainer.total_steps,
        advice=tuple(c.advice(sum(p.numel() for p in trainer.policy.parameters()))),
        stats=stats,
        samples=tuple((p.text, str(a)) for p, a in list(zip(repeated, answers, strict=True))[:2]),
    )


def checklist(stats: Mapping[str, Any], *, rough: bool, other_reference: bool = False) -> tuple[Check, ...]:
    """What must hold at the first step.

    Args:
        stats: the step's statistics.
        rough: the passes ran in bfloat16, which has three digits.
        other_reference: the reference is another model than the policy, so their divergence is not 0.
    """
    return (
        _kl_check(stats, 2e-2 if rough else 1e-4, other_reference),
        _ratio_check(stats, 0.05 if rough else 0.001),
        _end_check(stats),
        _truncation_check(stats),
        _spread_check(stats),
        _gradient_check(stats),
    )


def _kl_check(stats: Mapping[str, Any], limit: float, other_reference: bool) -> Check:
    kl = max(abs(stats["objective/kl_per_token"]), abs(stats["objective/kl_k3"]))  # the first alone may cancel out
    found = f"{kl:.2g} nats per token"
    if other_reference:
        return Check("KL to the reference", f"{found} (the reference is another model)", math.isfinite(kl))
    advice = (
        "policy and reference differ before the first step: dropout, an adapter that only one of them has, or "
        "ref_model_name; leave ref_model_name out to make the reference a copy of the policy"
    )
    return _check("KL to the reference is 0", found, kl < limit, advice)


def _ratio_check(stats: Mapping[str, Any], limit: float) -> Check:
    ratio = stats["ppo/policy/first_ratio"]
    advice = (
        "the policy that learns is not the one that was measured a moment before: the model is not deterministic "
        "(dropout, routing of experts), or precision is too low; try precision: float32"
    )
    return _check("first ratio is 1", f"{ratio:.5f}", abs(ratio - 1) <= limit, advice)


def _end_check(stats: Mapping[str, Any]) -> Check:
    rate = stats["tokens/eos_rate"]
    advice = (
        "no answer ended by itself, so its end cannot be learned: raise max_new_tokens, use a model that was tuned to "
        "answer (and its chat template), or give stop_strings"
    )
    return _check("some answers end", f"{rate:.0%} end by themselves", rate > 0, advice)


def _truncation_check(stats: Mapping[str, Any]) -> Check:
    rate = stats["tokens/truncated_rate"]
    advice = (
        "most answers are cut off, and half an answer is judged: raise max_new_tokens, or set missing_eos_penalty "
        "or overlong_filter"
    )
    return _check("most answers are whole", f"{rate:.0%} are cut off", rate < 0.8, advice)


def _spread_check(stats: Mapping[str, Any]) -> Check:
    mean, spread = stats["objective/scores"], stats["ppo/std_scores"]
    advice = (
        "every answer has the same score, so there is nothing to learn: try the reward with `surefoot reward-test`, "
        "and look whether it fits these prompts"
    )
    return _check("scores differ", f"{mean:.3g} ± {spread:.3g}", math.isfinite(spread) and spread > 0, advice)


def _gradient_check(stats: Mapping[str, Any]) -> Check:
    norm, loss = stats["ppo/grad_norm"], stats["ppo/loss/total"]
    advice = "loss or gradient is not a number: look for huge scores, try precision: float32 and a lower learning_rate"
    return _check("gradients are finite", f"norm {norm:.3g}", math.isfinite(norm) and math.isfinite(loss), advice)


def _check(name: str, found: str, ok: bool, advice: str) -> Check:
    return Check(name, found, ok, "" if ok else advice)


def _is_rough(trainer: Any) -> bool:
    """Whether the passes run in fewer digits than float32."""
    parameter = next(iter(trainer.policy.parameters()))
    with trainer.models.arithmetic():
        return bool(torch.is_autocast_enabled(parameter.device.type)) or parameter.dtype != torch.float32
