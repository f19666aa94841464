"""The statistics of a step: the classic forty under their classic names, and ours beside them (docs/metrics.md)."""

import itertools
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from surefoot.ops.importance import effective_share
from surefoot.ops.kl import kl_estimate
from surefoot.ops.masking import masked_mean, masked_moments
from surefoot.runtime import Runtime
from surefoot.types import Experience, UpdateStats


class Laps:
    """Seconds of the stages of a step, one after the other."""

    def __init__(self) -> None:
        self._began = self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def mark(self, name: str) -> None:
        """Books the time since the last mark under `name`."""
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now

    def statistics(self, generate: float, tokens: int) -> dict[str, float]:
        """The seconds of each stage and of all, and how many response tokens a second that is.

        Args:
            generate: seconds that sampling took before.
            tokens: response tokens of the step.
        """
        total = self._last - self._began
        return {
            **self.seconds,
            "time/ppo/total": total,
            "time/step": total,
            "time/generate": generate,
            "time/tokens_per_second": tokens / (total + generate),
        }


@dataclass(frozen=True, slots=True)
class Prices:
    """What was in force during a step."""

    kl_coef: float
    target_kl: float
    learning_rate: float
    critic_learning_rate: float


def step_statistics(
    experience: Experience, scores: Tensor, update: UpdateStats, prices: Prices, runtime: Runtime, counted: Tensor
) -> dict[str, Any]:
    """Everything about a step but its times. Means are over all processes; arrays are of this process.

    `counted` is False on rows that were left out because something about them is not finite.
    """
    return (
        _objective(experience, scores, prices, runtime, counted)
        | _update(experience, update, prices, runtime)
        | _values(experience, update, runtime)
        | _sampler(experience, runtime)
        | _tokens(experience, runtime)
    )


def sequence_kl(experience_kl: Tensor, mask: Tensor) -> Tensor:
    """[B, R] -> [B]: divergence of each response from the reference, summed over its tokens."""
    return torch.where(mask, experience_kl, 0).sum(-1)


def _objective(
    experience: Experience, scores: Tensor, prices: Prices, runtime: Runtime, counted: Tensor
) -> dict[str, Any]:
    r = experience.rollout
    mask, total = r.response_mask, runtime.all_sum
    per_sequence = sequence_kl(r.kl, mask)
    row_scores = scores if scores.ndim == 1 else torch.where(mask, scores, 0).sum(-1)
    score_moments = masked_moments(row_scores, counted, total)
    kl = float(masked_mean(per_sequence, counted, total))
    surprise = torch.where(mask, -r.old_logprobs, 0).sum(-1)
    k3 = kl_estimate(r.old_logprobs, r.ref_logprobs, "k3")
    return {
        "objective/kl": kl,
        "objective/kl_dist": per_sequence.cpu().numpy(),
        "objective/kl_per_token": float(masked_mean(r.kl, mask, total)),
        "objective/kl_k3": float(masked_mean(k3, mask, total)),
        "objective/kl_coef": prices.kl_coef,
        "objective/target_kl": prices.target_kl,
        "objective/logprobs": r.old_logprobs.cpu().numpy(),
        "objective/ref_logprobs": r.ref_logprobs.cpu().numpy(),
        "objective/entropy": float(masked_mean(surprise, counted, total)),
        "objective/scores": float(score_moments.mean),
        "objective/rlhf_reward": float(score_moments.mean) - prices.kl_coef * kl,
        "ppo/mean_non_score_reward": float(masked_mean(-prices.kl_coef * r.kl, mask, total)),
        "ppo/mean_scores": float(score_moments.mean),
        "ppo/std_scores": float(score_moments.variance.sqrt()),
    }


def _update(experience: Experience, u: UpdateStats, prices: Prices, runtime: Runtime) -> dict[str, Any]:
    mask = experience.rollout.response_mask
    return {
        "ppo/learning_rate": prices.learning_rate,
        "ppo/critic_learning_rate": prices.critic_learning_rate,
        "ppo/loss/policy": u.policy_loss,
        "ppo/loss/value": u.value_loss,
        "ppo/loss/total": u.total_loss,
        "ppo/policy/entropy": u.entropy,
        "ppo/policy/approxkl": u.approx_kl_k2,
        "ppo/policy/approxkl_k3": u.approx_kl_k3,
        "ppo/policy/policykl": u.approx_kl_k1,
        "ppo/policy/clipfrac": u.clip_fraction,
        "ppo/policy/advantages": experience.advantages[mask].cpu().numpy(),
        "ppo/policy/advantages_mean": float(masked_mean(experience.advantages, mask, runtime.all_sum)),
        "ppo/policy/ratio": torch.tensor(u.ratios).numpy(),
        "ppo/policy/first_ratio": u.first_ratio,
        "ppo/policy/first_kl": u.first_kl,
        "ppo/policy/early_stopped": float(u.early_stopped),
        "ppo/policy/skipped_minibatches": u.skipped_minibatches,
        "ppo/optimizer_steps": u.optimizer_steps,
        "ppo/grad_norm": u.grad_norm,
    }


def _values(experience: Experience, u: UpdateStats, runtime: Runtime) -> dict[str, Any]:
    mask = experience.rollout.response_mask
    returns = masked_moments(experience.returns, mask, runtime.all_sum)
    values = masked_moments(experience.rollout.old_values, mask, runtime.all_sum)
    spread = float(returns.variance)
    explained = 1 - u.value_error / spread if spread > 0 else 0.0
    return {
        "ppo/returns/mean": float(returns.mean),
        "ppo/returns/var": spread,
        "ppo/val/vpred": u.value_mean,
        "ppo/val/error": u.value_error,
        "ppo/val/clipfrac": u.value_clip_fraction,
        "ppo/val/mean": float(values.mean),
        "ppo/val/var": float(values.variance),
        "ppo/val/var_explained": explained,
        "ppo/val/explained_variance": explained,
    }


def _sampler(experience: Experience, runtime: Runtime) -> dict[str, float]:
    e, r = experience, experience.rollout
    mask, total = r.response_mask, runtime.all_sum
    gaps = torch.where(mask, r.old_logprobs - r.sampler_logprobs, 0).abs()
    return {
        "sampler/logprob_gap": float(masked_mean(gaps, mask, total)),
        "sampler/logprob_gap_max": max(runtime.gather([float(gaps.max())])),
        "sampler/effective_share": float(effective_share(e.ratios, mask, total)),
        "sampler/weight": float(masked_mean(e.weights, mask, total)),
    }


def _tokens(experience: Experience, runtime: Runtime) -> dict[str, Any]:
    r = experience.rollout
    queries, responses = r.query_mask.sum(-1).float(), r.lengths.float()
    everyone = torch.ones_like(responses).bool()
    query_moments = masked_moments(queries, everyone, runtime.all_sum)
    response_moments = masked_moments(responses, everyone, runtime.all_sum)
    truncated = float(masked_mean(r.truncated.float(), everyone, runtime.all_sum))
    ids = [row[:n].tolist() for row, n in zip(r.response_ids, r.lengths.tolist(), strict=True)]
    return {
        "tokens/queries_len_mean": float(query_moments.mean),
        "tokens/queries_len_std": float(query_moments.variance.sqrt()),
        "tokens/queries_dist": queries.cpu().numpy(),
        "tokens/responses_len_mean": float(response_moments.mean),
        "tokens/responses_len_std": float(response_moments.variance.sqrt()),
        "tokens/responses_len_max": runtime.all_max(int(r.lengths.max())),
        "tokens/responses_dist": responses.cpu().numpy(),
        "tokens/eos_rate": 1 - truncated,
        "tokens/truncated_rate": truncated,
        "tokens/distinct_2": distinct_pairs(runtime.gather(ids)),
    }


def distinct_pairs(rows: Sequence[Sequence[int]]) -> float:
    """Share of different ones among all neighbouring token pairs; low when answers repeat themselves or each other."""
    pairs = Counter(pair for row in rows for pair in itertools.pairwise(row))
    return len(pairs) / max(1, sum(pairs.values()))


def reward_statistics(parts: Mapping[str, Sequence[float | None]], metrics: Mapping[str, float]) -> dict[str, float]:
    """Mean and spread of each reward over the answers it applies to, and whatever numbers it reported itself."""
    found = dict(metrics)
    for name, scores in parts.items():
        known = torch.tensor([s for s in scores if s is not None], dtype=torch.float64)
        if len(known):
            moments = masked_moments(known, torch.ones_like(known).bool())
            found |= {
                f"rewards/{name}/mean": float(moments.mean),
                f"rewards/{name}/std": float(moments.variance.sqrt()),
            }
    return found


def evaluation_metrics(samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of an evaluation from its answers: score, gold, divergence, entropy, length, ends, and means."""
    columns = {name: torch.tensor([float(s[name]) for s in samples]) for name in ("score", "kl", "length", "entropy")}
    has_score = columns["score"].isfinite()  # with on_fault=drop_sample an answer may have no score
    score = masked_moments(columns["score"], has_score)
    found = {
        "eval/score": float(score.mean) if has_score.any() else math.nan,
        "eval/score_std": float(score.variance.sqrt()),
        "eval/kl": float(columns["kl"].mean()),
        "eval/kl_per_token": float(columns["kl"].sum() / columns["length"].sum()),
        "eval/entropy": float((columns["entropy"] * columns["length"]).sum() / columns["length"].sum()),
        "eval/length": float(columns["length"].mean()),
        "eval/eos_rate": sum(s["finish_reason"] == "stop" for s in samples) / len(samples),
    }
    found |= _means("eval/rewards", [s["scores"] for s in samples])
    return found | _gold(samples) if "gold" in samples[0] else found


def _gold(samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the better scorers say: the mean of all, its spread, and each of several."""
    gold = torch.tensor([float(s["gold"]) for s in samples])
    known = gold.isfinite()
    moments = masked_moments(gold, known)
    found = {
        "eval/gold": float(moments.mean) if known.any() else math.nan,
        "eval/gold_std": float(moments.variance.sqrt()),
    }
    return found | _means("eval/gold", [s["golds"] for s in samples])


def _means(prefix: str, parts: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    found = {}
    for name in parts[0]:
        known = [part[name] for part in parts if part[name] is not None]
        if known:
            found[f"{prefix}/{name}"] = sum(known) / len(known)  # type: ignore[arg-type]
    return found
