"""Advantages and returns over the counted tokens."""

import numpy as np
import pytest
import torch
from golden import case, close
from hypothesis import given
from hypothesis import strategies as st
from oracle import ppo
from ragged import POISONS, ragged

from surefoot import ops


@pytest.mark.parametrize(("lam", "name"), [(0.95, "095"), (0.0, "0"), (1.0, "1")])
def test_three_tokens_worked_out_by_hand(lam, name):
    a5 = case("A5")
    advantages, returns = ops.gae(a5["r"], a5["v"], torch.ones(1, 3).bool(), 1.0, lam)
    close(advantages, a5[f"adv_{name}"])
    close(returns, a5[f"ret_{name}"])


def test_the_critics_garbage_on_a_pad_does_not_leak():
    a6 = case("A6")
    advantages, returns = ops.gae(a6["r"], a6["v"], a6["mask"])
    close(advantages, a6["adv"])
    close(returns, a6["ret"])


def test_a_ragged_batch_gives_every_row_what_it_would_have_alone():
    a7 = case("A7")
    advantages, returns = ops.gae(a7["r"], a7["v"], a7["mask"])
    close(advantages, a7["adv"])
    close(returns, a7["ret"])
    close(ops.gae(a7["r"][:1, :3], a7["v"][:1, :3], torch.ones(1, 3).bool())[0], a7["row0"])
    close(ops.gae(a7["r"][1:, :2], a7["v"][1:, :2], torch.ones(1, 2).bool())[0], a7["row1"])


def test_the_score_reaches_the_tokens_before_the_end_by_powers_of_lambda_from_the_end_itself():
    a9 = case("A9")
    mask = torch.ones(1, 3).bool()
    rewards = ops.token_rewards(torch.tensor([1.0]), torch.zeros(1, 3), mask, 0.1)
    close(ops.gae(rewards, torch.zeros(1, 3), mask)[0], a9["adv_score_at_eos"])


@pytest.mark.parametrize("length", [10, 53, 100, 500])
def test_the_first_token_sees_a_terminal_reward_through_lambda_to_the_length_minus_one(length):
    rewards = torch.zeros(1, length)
    rewards[0, -1] = 1
    advantages, _ = ops.gae(rewards, torch.zeros(1, length), torch.ones(1, length).bool())
    close(advantages[0, 0], case("A26")[f"L{length}"])


def test_policy_and_critic_may_look_ahead_with_different_lambdas():
    a25 = case("A25")
    rewards, values = torch.tensor([[0.0, 0.0, 0.0, 1.0]]), torch.tensor([[0.4, 0.1, 0.6, 0.2]])
    mask = torch.ones(1, 4).bool()
    close(ops.gae(rewards, values, mask, lam=0.95)[0], a25["adv_policy"])
    close(ops.gae(rewards, values, mask, lam=1.0)[1], a25["ret_critic"])
    close(ops.gae(rewards, values, mask, lam=0.95)[1], a25["bug_ret_from_policy_lambda"])


def test_a_length_adaptive_lambda_stays_between_zero_and_one():
    a24 = case("A24")
    lengths = [1, 10, 20, 40, 100, 1000]
    lam = ops.length_adaptive_lam(torch.tensor(lengths), alpha=0.05)
    close(lam, torch.tensor([a24["clamped"][str(n)] for n in lengths]))
    close(1 / (1 - lam[4]), a24["geometric_sum_l100"], 1e-5)
    assert torch.isfinite(ops.length_adaptive_lam(torch.tensor([0]), alpha=0.05)).all()


def test_masked_tokens_are_skipped_over_not_walked_through():
    rewards, values = torch.tensor([[0.0, 99.0, 1.0]]), torch.tensor([[0.5, -7.0, 0.25]])
    advantages, returns = ops.gae(rewards, values, torch.tensor([[True, False, True]]), gamma=0.5, lam=0.5)
    # last token: 1 - .25 = .75; first: .5 * .25 - .5 + .5 * .5 * .75 = -.1875, one discount and not two
    close(advantages, torch.tensor([[-0.1875, 0.0, 0.75]]))
    close(returns, torch.tensor([[0.3125, 0.0, 1.0]]))


def test_a_truncated_row_continues_with_the_value_of_its_last_state():
    rewards, values, mask = torch.zeros(2, 2), torch.zeros(2, 2), torch.tensor([[True, True], [True, False]])
    advantages, returns = ops.gae(rewards, values, mask, gamma=0.5, lam=0.5, last_values=torch.tensor([2.0, 4.0]))
    # row 0: delta of the last token .5 * 2 = 1, of the first 0, so .25 of it; row 1: .5 * 4 on its only token
    close(advantages, torch.tensor([[0.25, 1.0], [2.0, 0.0]]))
    close(returns, advantages)


def test_a_critic_that_knows_the_score_leaves_no_advantage():
    rewards = torch.tensor([[0.0, 0.0, 3.0]])
    advantages, _ = ops.gae(rewards, torch.full((1, 3), 3.0), torch.ones(1, 3).bool(), 1.0, 0.9)
    close(advantages, torch.zeros(1, 3))


unit = st.floats(0, 1)


@given(ragged(columns=2), unit, unit, st.booleans())
def test_gae_equals_the_oracle_on_ragged_batches_with_holes(batch, gamma, lam, bootstrapped):
    (rewards, values), mask = batch.columns, batch.mask
    last = batch.last if bootstrapped else None
    advantages, returns = ops.gae(rewards, values, mask, gamma, lam, last)
    expected = ppo.gae(rewards.numpy(), values.numpy(), mask.numpy(), gamma, lam, last)
    close(advantages, torch.tensor(expected[0]), 1e-5)
    close(torch.where(mask, returns, 0), torch.tensor(expected[1]), 1e-5)


@given(ragged(columns=2), unit)
def test_with_lambda_one_the_return_is_the_discounted_sum_of_rewards(batch, gamma):
    (rewards, values), mask = batch.columns, batch.mask
    _, returns = ops.gae(rewards, values, mask, gamma, 1.0)
    for i, row in enumerate(mask):
        places = row.nonzero().squeeze(1).tolist()
        for n, t in enumerate(places):
            tail = sum(gamma**k * float(rewards[i, u]) for k, u in enumerate(places[n:]))
            close(returns[i, t], tail, 1e-5)


@given(ragged(columns=2))
def test_every_row_may_have_its_own_lambda(batch):
    (rewards, values), mask = batch.columns, batch.mask
    lam = batch.scores.sigmoid()
    advantages, _ = ops.gae(rewards, values, mask, 0.9, lam)
    expected, _ = ppo.gae(rewards.numpy(), values.numpy(), mask.numpy(), 0.9, lam.numpy().astype(np.float64))
    close(advantages, torch.tensor(expected), 1e-5)


@pytest.mark.parametrize("poison", POISONS)
@given(batch=ragged(columns=2))
def test_what_stands_in_the_padding_changes_no_advantage(poison, batch):
    (rewards, values), mask = batch.columns, batch.mask
    expected = ops.gae(rewards, values, mask, 0.9, 0.8)
    poisoned = ops.gae(torch.where(mask, rewards, poison), torch.where(mask, values, poison), mask, 0.9, 0.8)
    for actual, wanted in zip(poisoned, expected, strict=True):
        assert torch.equal(actual, wanted)
        assert not actual[~mask].any()


@given(ragged(columns=2))
def test_row_order_and_wider_padding_change_no_advantage(batch):
    (rewards, values), mask = batch.columns, batch.mask
    advantages, returns = ops.gae(rewards, values, mask, 0.9, 0.8)
    reverse = torch.arange(len(mask)).flip(0)
    turned = ops.gae(rewards[reverse], values[reverse], mask[reverse], 0.9, 0.8)
    assert torch.equal(turned[0], advantages[reverse])
    wide = [
        torch.nn.functional.pad(x, (0, 4), value=9 if x.is_floating_point() else 0) for x in (rewards, values, mask)
    ]
    assert torch.equal(ops.gae(*wide, 0.9, 0.8)[1][:, : mask.shape[1]], returns)
