"""One step on many families of causal language models: no pass needs to know which one it is."""

import pytest
import torch
from families import FAMILIES, tiny_model
from tiny import tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_step_is_right_from_its_first_ratio_on(family):
    config = PPOConfig(learning_rate=1e-3, batch_size=6, mini_batch_size=3, ppo_epochs=2, max_new_tokens=10)
    trainer = PPOTrainer(config, tiny_model(family), None, tiny_tokenizer(pad="eos"))
    queries = ["ab", "abcdefghijk lmno", "x"] * 2
    answers = trainer.generate(queries)
    stats = trainer.step(queries, answers, [float(len(a)) for a in answers])
    assert stats["ppo/policy/first_ratio"] == pytest.approx(1, abs=1e-5)
    assert stats["objective/kl"] == 0
    assert stats["ppo/grad_norm"] > 0
    rollout = trainer.last_experience.rollout
    assert torch.allclose(rollout.sampler_logprobs, rollout.old_logprobs, atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_model_without_a_key_value_cache_is_refused_in_words():
    trainer = PPOTrainer(PPOConfig(), tiny_model("Mamba"), None, tiny_tokenizer(pad="eos"))
    with pytest.raises(ValueError, match="MambaForCausalLM keeps no key-value cache"):
        trainer.generate(["ab"])
