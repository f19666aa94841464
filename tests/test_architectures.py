"""One step on many families of causal language models: no pass needs to know which one it is."""

import pytest
import torch
import transformers
from tiny import VOCAB_SIZE, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer

SIZES = {"vocab_size": VOCAB_SIZE, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
         "initializer_range": 0.2, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}  # fmt: skip
FAMILIES = {
    "Bloom": {"n_head": 4, "n_layer": 2},  # no positions, alibi instead
    "Cohere": {},  # scales its logits
    "Falcon": {},
    "Gemma2": {"head_dim": 8, "sliding_window": 16},  # caps its logits, slides its window
    "Gemma3Text": {"head_dim": 8},
    "GPTNeoX": {},
    "Granite": {"logits_scaling": 3.0},
    "Lfm2": {},  # convolutions beside attention
    "Mistral": {},
    "Mixtral": {"num_local_experts": 2},
    "Olmo2": {},
    "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 16},  # its head is narrower than its trunk
    "Phi3": {},
    "Qwen2": {},
    "Qwen3": {"head_dim": 8},
    "StableLm": {},
}


def tiny_model(family: str):
    config = getattr(transformers, f"{family}Config")(**(SIZES | FAMILIES.get(family, {})))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).float()


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
