"""Rollout and scores to experience: cases with known numbers, and each option of the estimate."""

import dataclasses

import pytest
import torch
from golden import case, close
from hypothesis import given
from oracle import ppo
from ragged import Ragged, ragged

from surefoot.estimate import estimate
from surefoot.types import Rollout


def rollout_of(kl, values, mask, *, truncated=None, last_values=None):
    """A rollout of which only what an estimate reads is filled in."""
    rows, width = mask.shape
    zeros, ids = torch.zeros(rows, width), torch.zeros(rows, width, dtype=torch.long)
    return Rollout(
        query_ids=ids, query_mask=torch.ones_like(mask), response_ids=ids, response_mask=mask,
        lengths=mask.sum(-1), truncated=torch.zeros(rows).bool() if truncated is None else truncated,
        old_logprobs=zeros, ref_logprobs=zeros, kl=kl, entropies=zeros, old_values=values,
        last_values=torch.zeros(rows) if last_values is None else last_values, sampler_logprobs=zeros,
    )  # fmt: skip


RAW = {"kl_coef": 0.0, "whiten_advantages": False}


def test_score_and_divergence_make_the_token_rewards():
    a10 = case("A10")
    rollout = rollout_of(a10["logp"] - a10["ref"], torch.zeros(1, 4), a10["mask"])
    experience = estimate(rollout, torch.tensor([2.0]), kl_coef=0.1, gamma=1.0, lam=1.0, whiten_advantages=False)
    close(experience.rewards, a10["reward"])
    close(experience.returns[0, 0], a10["total"])
    assert experience.rollout is rollout


def test_scores_a_token_are_rewards_a_token():
    mask = torch.tensor([[True, True, True], [True, False, True]])
    scores = torch.tensor([[1.0, 2.0, 3.0], [4.0, 99.0, 5.0]])
    experience = estimate(rollout_of(torch.ones(2, 3), torch.zeros(2, 3), mask), scores, kl_coef=0.5)
    close(experience.rewards, torch.tensor([[0.5, 1.5, 2.5], [3.5, 0.0, 4.5]]))


def test_the_score_at_the_last_token_reaches_back_by_lambda():
    a9 = case("A9")
    rollout = rollout_of(torch.zeros(1, 3), torch.zeros(1, 3), torch.ones(1, 3).bool())
    experience = estimate(rollout, torch.tensor([1.0]), **RAW)
    close(experience.advantages, a9["adv_score_at_eos"])
    assert (experience.advantages - a9["adv_score_one_later"]).abs().max() > 0.04


def test_the_critic_may_have_a_lambda_of_its_own():
    a25 = case("A25")
    rollout = rollout_of(torch.zeros(1, 4), torch.tensor([[0.4, 0.1, 0.6, 0.2]]), torch.ones(1, 4).bool())
    experience = estimate(rollout, torch.tensor([1.0]), lam=0.95, lam_critic=1.0, **RAW)
    close(experience.advantages, a25["adv_policy"])
    close(experience.returns, a25["ret_critic"])
    close(estimate(rollout, torch.tensor([1.0]), lam=0.95, **RAW).returns, a25["bug_ret_from_policy_lambda"])


def test_a_length_adaptive_lambda_counts_the_trained_tokens_of_each_row():
    # alpha = 1: a row of one token has lambda 0, of two 1/2, of four 3/4
    mask = torch.tensor([[True, False, False, False], [True, False, True, False], [True, True, True, True]])
    rollout = rollout_of(torch.zeros(3, 4), torch.zeros(3, 4), mask)
    experience = estimate(rollout, torch.ones(3), lam_length_alpha=1.0, lam_critic=1.0, **RAW)
    close(experience.advantages, torch.tensor([[1.0, 0, 0, 0], [0.5, 0, 1, 0], [0.421875, 0.5625, 0.75, 1]]))
    close(experience.returns, mask.float())


def test_only_truncated_rows_are_continued_with_the_critic():
    mask = torch.ones(2, 1).bool()
    rollout = rollout_of(
        torch.zeros(2, 1), torch.zeros(2, 1), mask,
        truncated=torch.tensor([True, False]), last_values=torch.tensor([2.0, 2.0]),
    )  # fmt: skip
    scores = torch.tensor([1.0, 1.0])
    close(estimate(rollout, scores, gamma=0.5, bootstrap_truncated=True, **RAW).returns, torch.tensor([[2.0], [1.0]]))
    close(estimate(rollout, scores, gamma=0.5, **RAW).returns, torch.ones(2, 1))


def test_whitened_rewards_have_variance_one_and_keep_their_mean():
    a15 = case("A15")
    rollout = rollout_of(torch.zeros(2, 4), torch.zeros(2, 4), a15["mask"])
    experience = estimate(rollout, a15["x"], kl_coef=0.0, whiten_rewards=True)
    close(experience.rewards, torch.where(a15["mask"], a15["bessel"] + 3, 0))


def test_advantages_are_whitened_and_returns_are_not():
    mask = torch.ones(1, 5).bool()
    rollout = rollout_of(torch.zeros(1, 5), torch.zeros(1, 5), mask)
    experience = estimate(rollout, torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]]), kl_coef=0.0, lam=0.0)
    # lambda 0 and a critic of 0: the advantages are the rewards, with mean 3 and unbiased variance 2.5
    close(experience.advantages, torch.tensor([[-2.0, -1, 0, 1, 2]]) / 2.5**0.5)
    close(experience.returns, torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]]))


@given(ragged(columns=2))
def test_the_whole_estimate_equals_the_oracle(batch: Ragged):
    (kl, values), mask = batch.columns, batch.mask
    experience = estimate(rollout_of(kl, values, mask), batch.scores, kl_coef=0.2, gamma=0.9, lam=0.8)
    rewards = ppo.token_rewards(batch.scores, kl, mask.numpy(), 0.2)
    advantages, returns = ppo.gae(rewards, values.numpy(), mask.numpy(), 0.9, 0.8)
    close(experience.rewards, torch.tensor(rewards), 1e-5)
    close(experience.returns, torch.tensor(returns), 1e-5)
    if ppo.masked_variance(advantages, mask) > 1e-3:
        close(experience.advantages, torch.tensor(ppo.whiten(advantages, mask.numpy())), 1e-4)


@given(ragged(columns=2))
def test_nothing_in_the_padding_reaches_the_experience(batch: Ragged):
    (kl, values), mask = batch.columns, batch.mask
    clean = rollout_of(kl, values, mask)
    nan = float("nan")
    dirty = dataclasses.replace(clean, kl=torch.where(mask, kl, nan), old_values=torch.where(mask, values, nan))
    for options in ({}, {"whiten_rewards": True, "lam_critic": 1.0}, {"lam_length_alpha": 0.5}):
        first = estimate(clean, batch.scores, kl_coef=0.2, **options)
        second = estimate(dirty, batch.scores, kl_coef=0.2, **options)
        for name in ("rewards", "advantages", "returns"):
            assert torch.equal(getattr(first, name), getattr(second, name))
            assert torch.isfinite(getattr(second, name)).all()
            assert not getattr(second, name)[~mask].any()


def test_whitening_is_global_where_several_processes_add_up_their_sums():
    whole = rollout_of(torch.zeros(4, 1), torch.zeros(4, 1), torch.ones(4, 1).bool())
    scores = torch.tensor([1.0, 2.0, 4.0, 9.0])
    expected = estimate(whole, scores, kl_coef=0.0).advantages
    halves = [rollout_of(torch.zeros(2, 1), torch.zeros(2, 1), torch.ones(2, 1).bool()) for _ in range(2)]
    totals = iter([torch.tensor(4.0), torch.tensor(16.0), (scores - 4).square().sum()])
    first = estimate(halves[0], scores[:2], kl_coef=0.0, all_sum=lambda _: next(totals)).advantages
    close(first, expected[:2])


@pytest.mark.parametrize("whiten", [True, False])
def test_a_batch_in_which_nothing_counts_gives_zeros(whiten):
    rollout = rollout_of(torch.ones(2, 3), torch.ones(2, 3), torch.zeros(2, 3).bool())
    experience = estimate(rollout, torch.ones(2), kl_coef=0.1, whiten_rewards=whiten, whiten_advantages=whiten)
    for x in (experience.rewards, experience.advantages, experience.returns):
        assert not x.any()
