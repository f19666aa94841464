"""Invariant 6: tokens that are not trained on (tool output) are skipped by GAE, and nothing is learned of them."""

import pytest
import torch
from golden import close
from oracle import ppo
from steps import Batch, both_families, largest_change, make_trainer, weights


def masks_of(batch):
    """Every response loses some tokens in its middle, one its last token, one all of them."""
    masks = [torch.arange(n) % 3 != 1 for n in batch.lengths]
    masks[2][-1] = False
    masks[5][:] = False
    return masks


@both_families
def test_advantages_and_returns_are_those_of_the_trained_tokens_alone(make_model):
    batch = Batch()
    trainer = make_trainer(make_model(), make_model(seed=1), whiten_advantages=False)
    trainer.step(batch.queries, batch.responses, batch.scores, masks_of(batch))
    experience = trainer.last_experience
    mask = torch.zeros_like(experience.rollout.response_mask)
    for i, row in enumerate(masks_of(batch)):
        mask[i, : len(row)] = row
    assert torch.equal(experience.rollout.response_mask, mask)

    kl, values = experience.rollout.kl.double().numpy(), experience.rollout.old_values.double().numpy()
    rewards = ppo.token_rewards(batch.scores, kl, mask.numpy(), 0.1)
    advantages, returns = ppo.gae(rewards, values, mask.numpy(), 0.95, 0.9)
    close(experience.rewards, torch.tensor(rewards), 1e-5)
    close(experience.advantages, torch.tensor(advantages), 1e-5)
    close(experience.returns, torch.tensor(returns), 1e-5)


@both_families
def test_what_the_models_say_about_tool_tokens_reaches_no_statistic(make_model):
    batch = Batch()
    trainer = make_trainer(make_model(), make_model(seed=1))
    stats = trainer.step(batch.queries, batch.responses, batch.scores, masks_of(batch))
    kl, mask = trainer.last_experience.rollout.kl, trainer.last_experience.rollout.response_mask
    assert stats["objective/kl_per_token"] == pytest.approx(ppo.masked_mean(kl, mask), rel=1e-5)
    assert len(stats["ppo/policy/advantages"]) == sum(int(m.sum()) for m in masks_of(batch))


@both_families
def test_tool_tokens_at_the_end_are_never_learned(make_model):
    """Two responses that differ only in masked tokens at their end leave the same weights behind."""
    batch, results = Batch(), []
    tail = torch.tensor([40, 41, 42])
    for extra in (tail, tail + 60):
        responses = [torch.cat([r, extra]) for r in batch.responses]
        masks = [torch.arange(len(r)) < len(r) - 3 for r in responses]
        trainer = make_trainer(make_model(), make_model(seed=1))
        start = weights(trainer)
        trainer.step(batch.queries, responses, batch.scores, masks)
        results.append(weights(trainer))
    assert largest_change(start, results[0]) > 1e-3
    assert largest_change(*results) < 1e-6
