"""Invariant 7: whitening and every logged mean are taken over the counted tokens, once over the whole batch."""

import numpy as np
import pytest
import torch
from golden import close
from oracle import ppo
from steps import Batch, both_families, make_trainer, plain_logits, plain_logprobs


@pytest.fixture(params=[1.0, 0.7], ids=["T=1", "T=0.7"])
def temperature(request):
    return request.param


def unmoved_step(make_model, temperature, **options):
    """A step with learning rate 0, so that every statistic speaks of models that are known."""
    batch = Batch()
    trainer = make_trainer(
        make_model(), make_model(seed=1), temperature=temperature, mini_batch_size=8,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0), **options,
    )  # fmt: skip
    return batch, trainer, trainer.step(batch.queries, batch.responses, batch.scores)


@both_families
def test_every_mean_is_over_counted_tokens_of_independent_passes(make_model, temperature):
    batch, _, stats = unmoved_step(make_model, temperature)
    policy, reference = make_model(), make_model(seed=1)
    rows = list(zip(batch.queries, batch.responses, strict=True))
    new = [plain_logprobs(policy, q, r, temperature) for q, r in rows]
    old = [plain_logprobs(reference, q, r, temperature) for q, r in rows]
    entropies = np.concatenate([ppo.entropy(plain_logits(policy, q, r), temperature) for q, r in rows])
    divergence = [a - b for a, b in zip(new, old, strict=True)]
    tokens = np.concatenate(divergence)
    per_sequence = np.array([row.sum() for row in divergence])
    scores = batch.scores.double().numpy()
    expected = {
        "objective/kl": per_sequence.mean(),
        "objective/kl_per_token": tokens.mean(),
        "objective/kl_k3": np.mean(np.exp(-tokens) - 1 + tokens),
        "objective/entropy": np.mean([-row.sum() for row in new]),
        "objective/scores": scores.mean(),
        "objective/rlhf_reward": scores.mean() - 0.1 * per_sequence.mean(),
        "ppo/mean_scores": scores.mean(),
        "ppo/std_scores": scores.std(ddof=1),
        "ppo/mean_non_score_reward": -0.1 * tokens.mean(),
        "ppo/policy/entropy": entropies.mean(),
        "ppo/policy/approxkl": 0.0,
        "ppo/policy/approxkl_k3": 0.0,
        "ppo/policy/policykl": 0.0,
        "ppo/policy/clipfrac": 0.0,
        "ppo/policy/advantages_mean": 0.0,
        "tokens/queries_len_mean": np.mean([len(q) for q in batch.queries]),
        "tokens/responses_len_mean": np.mean(batch.lengths),
        "tokens/responses_len_max": max(batch.lengths),
        "tokens/eos_rate": 0.5,
        "tokens/truncated_rate": 0.5,
    }
    assert {n: float(stats[n]) for n in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)
    close(stats["objective/kl_dist"], torch.tensor(per_sequence), 1e-4)


@both_families
def test_statistics_of_returns_and_values_are_over_counted_tokens(make_model, temperature):
    _, trainer, stats = unmoved_step(make_model, temperature)
    experience, mask = trainer.last_experience, trainer.last_experience.rollout.response_mask
    values, returns = experience.rollout.old_values.double().numpy(), experience.returns.double().numpy()
    error = ppo.masked_mean((values - returns) ** 2, mask)
    spread = ppo.masked_variance(returns, mask)
    expected = {
        "ppo/returns/mean": ppo.masked_mean(returns, mask),
        "ppo/returns/var": spread,
        "ppo/val/mean": ppo.masked_mean(values, mask),
        "ppo/val/var": ppo.masked_variance(values, mask),
        "ppo/val/vpred": ppo.masked_mean(values, mask),
        "ppo/val/error": error,
        "ppo/val/var_explained": 1 - error / spread,
        "ppo/loss/value": error / 2,
        "ppo/loss/policy": 0.0,
        "ppo/loss/total": 0.5 * error / 2,
    }
    assert {n: float(stats[n]) for n in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)


@both_families
def test_advantages_are_whitened_over_the_whole_batch_with_the_unbiased_variance(make_model, temperature):
    batch, trainer, _ = unmoved_step(make_model, temperature)
    experience = trainer.last_experience
    mask = experience.rollout.response_mask
    kept = experience.advantages[mask].double()
    assert len(kept) == sum(batch.lengths)
    close(kept.mean(), 0.0)
    close(kept.square().sum() / (len(kept) - 1), 1.0, 1e-5)
    assert not experience.advantages[~mask].any()
    raw = (experience.returns - experience.rollout.old_values).double()
    close(experience.advantages, torch.tensor(ppo.whiten(raw.numpy(), mask.numpy())), 1e-4)
