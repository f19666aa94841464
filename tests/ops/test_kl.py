"""Divergence from the reference and the token rewards it is priced into."""

import math

import numpy as np
import pytest
import torch
from golden import case, close
from hypothesis import given
from hypothesis import strategies as st
from oracle import ppo
from ragged import POISONS, ragged

from surefoot import ops


@pytest.mark.parametrize(
    ("estimator", "name"), [("k1", "k1"), ("kl", "k1"), ("k2", "k2"), ("mse", "k2"), ("k3", "k3")]
)
def test_the_estimators_have_their_known_values(estimator, name):
    a11 = case("A11")
    close(ops.kl_estimate(a11["d"], torch.zeros(5), estimator), a11[name])


def test_the_absolute_estimate_drops_the_sign():
    close(ops.kl_estimate(torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -0.5]), "abs"), torch.tensor([0.5, 1.5]))


@given(st.floats(-8, 0), st.floats(-8, 0), st.sampled_from(["k1", "k2", "k3", "abs"]))
def test_the_estimators_equal_the_oracle(logprob, ref_logprob, estimator):
    new, ref = torch.tensor([[logprob], [ref_logprob]], dtype=torch.float64)
    actual = ops.kl_estimate(new, ref, estimator)
    close(actual.item(), ppo.kl_estimate(logprob, ref_logprob, estimator), 1e-9)


def test_an_unknown_estimator_is_refused_with_the_names_that_exist():
    with pytest.raises(ValueError, match=r"estimator='k4' must be one of k1.*k2.*k3.*abs"):
        ops.kl_estimate(torch.zeros(1), torch.zeros(1), "k4")


def _bandit():
    a12 = case("A12")
    return a12, a12["p"].log().requires_grad_(), a12["q"].log()


@pytest.mark.parametrize(("estimator", "mean"), [("k1", "E_k1"), ("k2", "E_k2"), ("k3", "E_k3")])
def test_the_estimators_have_their_known_expectation(estimator, mean):
    a12, logits, ref_logits = _bandit()
    close((a12["p"] * ops.kl_estimate(logits.detach(), ref_logits, estimator)).sum(), a12[mean])


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_as_a_loss_only_k2_has_the_gradient_of_the_divergence(estimator):
    a12, logits, ref_logits = _bandit()
    estimates = ops.kl_estimate(logits.log_softmax(-1), ref_logits.log_softmax(-1), estimator)
    (a12["p"] * estimates).sum().backward()  # the sampling distribution takes no part in the gradient
    close(logits.grad, a12[f"Egrad_{estimator}_as_loss"])


def test_the_full_divergence_and_its_gradient_are_exact():
    a12, logits, ref_logits = _bandit()
    exact = ops.full_kl(logits, ref_logits)
    close(exact.detach(), a12["KL"])
    exact.backward()
    close(logits.grad, a12["grad_true"])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_full_divergence_is_that_of_the_tempered_distributions(temperature):
    generator = torch.Generator().manual_seed(0)
    a, b = 3 * torch.randn(2, 3, 4, 9, generator=generator)
    expected = ppo.full_kl(a.numpy().astype(np.float64), b.numpy().astype(np.float64), temperature)
    close(ops.full_kl(a, b, temperature), torch.tensor(expected), 1e-5)


def test_tokens_that_both_models_rule_out_add_nothing():
    logits = torch.tensor([math.log(0.75), math.log(0.25), -math.inf], requires_grad=True)
    ref_logits = torch.tensor([math.log(0.5), math.log(0.5), -math.inf])
    exact = ops.full_kl(logits, ref_logits)
    exact.backward()
    close(exact.detach(), 0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert torch.isfinite(logits.grad).all()


# ------------------------------------------------------------------------------------------- token rewards
def test_every_token_pays_its_divergence_and_the_last_one_gets_the_score():
    a10 = case("A10")
    kl = ops.kl_estimate(a10["logp"], a10["ref"], "k1")
    rewards = ops.token_rewards(torch.tensor([2.0]), kl, a10["mask"], 0.1)
    close(rewards, a10["reward"])
    close(rewards.sum(), a10["total"])
    close(ops.masked_mean(kl, a10["mask"]) * 3, a10["seq_kl"])
    assert abs(float(rewards.sum()) - a10["bug_kl_over_pad_total"]) > 0.5


def test_the_score_lands_on_the_last_counted_token_and_nothing_on_an_empty_row():
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False], [True, False, True]])
    rewards = ops.token_rewards(torch.tensor([1.0, 2.0, 3.0, 4.5]), torch.zeros(4, 3), mask, 0.1)
    assert rewards.tolist() == [[0, 1, 0], [2, 0, 0], [0, 0, 0], [0, 0, 4.5]]


@given(ragged(columns=1))
def test_token_rewards_equal_the_oracle(batch):
    (kl,), mask = batch.columns, batch.mask
    expected = ppo.token_rewards(batch.scores, kl, mask.numpy(), 0.3)
    close(ops.token_rewards(batch.scores, kl, mask, 0.3), torch.tensor(expected), 1e-5)


@pytest.mark.parametrize("poison", POISONS)
@given(batch=ragged(columns=1))
def test_a_divergence_in_the_padding_is_free(poison, batch):
    (kl,), mask = batch.columns, batch.mask
    rewards = ops.token_rewards(batch.scores, torch.where(mask, kl, poison), mask, 0.3)
    assert torch.equal(rewards, ops.token_rewards(batch.scores, kl, mask, 0.3))
    assert torch.isfinite(rewards).all()
