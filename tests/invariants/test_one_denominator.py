"""Invariant 3: how a minibatch is cut into passes never changes its gradient."""

import pytest
import tiny
import torch
from steps import Batch, assert_same_weights, both_families, largest_change, make_trainer, weights

CUTS = {
    "one pass of 8": {"mini_batch_size": 8},
    "4 + 4": {"mini_batch_size": 4, "gradient_accumulation_steps": 2},
    "3 + 3 + 2": {"mini_batch_size": 3, "gradient_accumulation_steps": 3, "batch_size": 9},
    "eight of one": {"mini_batch_size": 1, "gradient_accumulation_steps": 8},
    "packed by 24 tokens": {"mini_batch_size": 8, "max_tokens_per_microbatch": 24},
    "packed by 60 tokens": {"mini_batch_size": 4, "gradient_accumulation_steps": 2, "max_tokens_per_microbatch": 60},
    "packed by free memory": {"mini_batch_size": 8, "max_tokens_per_microbatch": "auto"},
}


def step(make_model, **options):
    batch = Batch()
    trainer = make_trainer(make_model(seed=0), make_model(seed=1), ppo_epochs=2, entropy_coef=0.01, **options)
    start = weights(trainer)
    stats = trainer.step(batch.queries, batch.responses, batch.scores)
    assert stats["ppo/optimizer_steps"] == 2
    return start, weights(trainer), stats


@both_families
@pytest.mark.parametrize("cut", [name for name in CUTS if name != "one pass of 8"])
def test_every_cut_of_the_minibatch_gives_the_same_weights_and_losses(make_model, cut):
    start, whole, expected = step(make_model, **CUTS["one pass of 8"])
    _, parts, stats = step(make_model, **CUTS[cut])
    assert largest_change(start, whole) > 1e-3
    assert_same_weights(parts, whole, 2e-6)
    for name in ("ppo/loss/policy", "ppo/loss/value", "ppo/policy/entropy", "ppo/policy/ratio", "ppo/grad_norm"):
        assert stats[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("critic", [{"critic": "model"}, {"critic": "adapter", "lora_r": 2}], ids=["model", "adapter"])
def test_a_critic_of_its_own_has_the_same_denominator(critic):
    start, whole, _ = step(tiny.tiny_llama, **CUTS["one pass of 8"], **critic)
    _, parts, _ = step(tiny.tiny_llama, **CUTS["packed by 24 tokens"], **critic)
    assert largest_change(start, whole) > 1e-3
    assert_same_weights(parts, whole, 2e-6)


def test_the_gradient_is_that_of_the_token_mean_and_not_of_a_mean_of_means():
    batch = Batch(rows=2)  # 6 tokens and 1 token
    trainer = make_trainer(tiny.tiny_llama(), batch_size=2, mini_batch_size=1, gradient_accumulation_steps=2,
                           vf_coef=0.0, whiten_advantages=False, init_kl_coef=0.0)  # fmt: skip
    before = weights(trainer)
    trainer.step(batch.queries, batch.responses, batch.scores)
    advantages = trainer.last_experience.advantages

    policy, loss = tiny.tiny_llama(), 0.0
    for query, response, row in zip(batch.queries, batch.responses, advantages, strict=True):
        logits = policy(torch.cat([query, response])[None]).logits[0, len(query) - 1 : -1]
        logprobs = logits.log_softmax(-1).gather(-1, response[:, None]).squeeze(-1)
        loss = loss - (row[: len(response)] * (logprobs - logprobs.detach()).exp()).sum() / 7
    loss.backward()
    expected = {n: before[n] - 0.05 * p.grad for n, p in policy.named_parameters()}
    after = weights(trainer)
    assert_same_weights({n: after[n] for n in expected}, expected)
