"""Invariant 1: before anything was trained, new and old policy are the same, and so are policy and reference."""

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from steps import Batch, both_families, make_trainer

from surefoot import PPOConfig, PPOTrainer

HARD = {"temperature": 0.7, "mini_batch_size": 3, "ppo_epochs": 2}


def with_dropout(make_model):
    if make_model is tiny.tiny_gpt2:
        return make_model(resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5).train()
    return make_model(attention_dropout=0.5).train()


def sft_adapter(make_model):
    """A policy that starts from an adapter which already does something, with dropout in it."""
    modules = ["c_attn", "c_fc"] if make_model is tiny.tiny_gpt2 else ["q_proj", "up_proj"]
    torch.manual_seed(5)
    config = LoraConfig(
        r=2, lora_dropout=0.5, init_lora_weights=False, target_modules=modules, task_type="CAUSAL_LM",
        fan_in_fan_out=make_model is tiny.tiny_gpt2,
    )  # fmt: skip
    return get_peft_model(with_dropout(make_model), config)


def assert_untouched(stats):
    assert stats["ppo/policy/first_ratio"] == pytest.approx(1, abs=1e-6)
    assert stats["ppo/policy/first_kl"] == pytest.approx(0, abs=1e-7)
    assert abs(stats["objective/kl_dist"]).max() == 0


@both_families
@pytest.mark.parametrize("start", [with_dropout, sft_adapter])
def test_the_first_ratio_is_one_and_the_first_divergence_zero(make_model, start):
    batch = Batch()
    trainer = make_trainer(start(make_model), **HARD)
    assert_untouched(trainer.step(batch.queries, batch.responses, batch.scores))


@both_families
def test_with_a_fresh_adapter_the_reference_is_the_base(make_model):
    batch = Batch()
    trainer = make_trainer(with_dropout(make_model), lora_r=2, **HARD)
    assert_untouched(trainer.step(batch.queries, batch.responses, batch.scores))


@both_families
@pytest.mark.parametrize("start", [with_dropout, sft_adapter])
def test_after_the_first_update_the_policy_has_left_the_reference(make_model, start):
    batch = Batch()
    trainer = make_trainer(start(make_model), **HARD)
    first = trainer.step(batch.queries, batch.responses, batch.scores)
    second = trainer.step(batch.queries, batch.responses, batch.scores)
    assert first["ppo/policy/approxkl"] > 1e-6  # minibatches after the first one have moved on
    assert abs(second["objective/kl_dist"]).max() > 1e-4
    assert second["ppo/policy/first_ratio"] == pytest.approx(1, abs=1e-6)
    assert second["ppo/policy/first_kl"] == pytest.approx(0, abs=1e-7)


@both_families
def test_a_reference_of_its_own_is_measured_from_the_start(make_model):
    batch = Batch()
    trainer = make_trainer(make_model(seed=0), make_model(seed=1), **HARD)
    stats = trainer.step(batch.queries, batch.responses, batch.scores)
    assert abs(stats["objective/kl_dist"]).min() > 1e-3
    assert stats["ppo/policy/first_ratio"] == pytest.approx(1, abs=1e-6)


@both_families
def test_a_fresh_value_head_prices_nothing(make_model):
    trainer = PPOTrainer(PPOConfig(batch_size=8, mini_batch_size=8), make_model(), tokenizer=tiny.tiny_tokenizer())
    batch = Batch()
    trainer.step(batch.queries, batch.responses, batch.scores)
    assert not trainer.last_experience.rollout.old_values.any()
    assert trainer.critic.weight.any()  # and has begun to
