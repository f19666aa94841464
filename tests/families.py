"""Tiny models of many families of causal language models. `from families import FAMILIES, tiny_model`."""

import torch
import transformers
from tiny import VOCAB_SIZE

SIZES = {"vocab_size": VOCAB_SIZE, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
         "initializer_range": 0.2, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}  # fmt: skip
FAMILIES = {
    "Bloom": {"n_head": 4, "n_layer": 2},  # no positions, alibi instead
    "Cohere": {},  # scales its logits
    "Falcon": {},
    "Gemma2": {"head_dim": 8, "sliding_window": 16},  # caps its logits, slides its window in every second layer
    "Gemma3Text": {"head_dim": 8},
    "GPTNeoX": {},
    "Granite": {"logits_scaling": 3.0},
    "Lfm2": {},  # convolutions beside attention
    "Mistral": {"sliding_window": 8},  # slides its window in every layer
    "Mixtral": {"num_local_experts": 2},
    "Olmo2": {},
    "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 16},  # its head is narrower than its trunk
    "Phi3": {},
    "Qwen2": {},
    "Qwen3": {"head_dim": 8},
    "StableLm": {},
}


def tiny_model(family: str, **changes):
    """A model of 2 layers and width 32 with float32 weights drawn wide, in eval mode."""
    config = getattr(transformers, f"{family}Config")(**(SIZES | FAMILIES.get(family, {}) | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).float().eval()
