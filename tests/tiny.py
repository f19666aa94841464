"""Tiny models and tokenizers, built in code so that no test needs a network. `from tiny import tiny_llama`.

One vocabulary for all: four special tokens, two chat tokens and the 256 bytes. Any text becomes one token a byte.
"""

from typing import Any, Literal

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<|pad|>", "<|bos|>", "<|eos|>", "<|unk|>", "<|im_start|>", "<|im_end|>")
PAD_ID, BOS_ID, EOS_ID, UNK_ID, IM_START_ID, IM_END_ID = range(6)
VOCAB_SIZE = 6 + 256
CHAT_TEMPLATE = (
    "{{ bos_token if bos_token else '' }}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML, with the BOS that many templates write themselves."""


def byte_id(character: str) -> int:
    """The id of an ASCII character."""
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that ByteLevel shows as themselves
    order += [b for b in range(256) if b not in order]
    return 6 + order.index(ord(character))


def tiny_tokenizer(
    *,
    pad: Literal["own", "eos", "none"] = "own",
    bos: bool = False,
    adds_eos: bool = False,
    chat: bool = False,
    side: Literal["left", "right"] = "right",
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer.

    `pad`: a token of its own, the EOS, or none at all. `bos`: a BOS is put before every text. `adds_eos`: an EOS is
    put behind it. `chat`: with the ChatML template above. `side`: padding side.
    """
    shown = [chr(b) for b in (*range(33, 127), *range(161, 173), *range(174, 256))]
    shown += [chr(256 + i) for i in range(256 - len(shown))]
    vocab = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *shown))}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<|unk|>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    if bos or adds_eos:
        template = ["<|bos|>"] * bos + ["$A"] + ["<|eos|>"] * adds_eos
        core.post_processor = processors.TemplateProcessing(
            single=" ".join(template), special_tokens=[("<|bos|>", BOS_ID), ("<|eos|>", EOS_ID)]
        )
    names: dict[str, Any] = {"eos_token": "<|eos|>", "unk_token": "<|unk|>"}
    if bos:
        names["bos_token"] = "<|bos|>"
    if pad != "none":
        names["pad_token"] = "<|pad|>" if pad == "own" else "<|eos|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, padding_side=side, **names)
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A Llama of 2 layers and width 32 over the tokenizer above: float32, in eval mode, weights a function of seed.

    Weights are drawn ten times wider than usual, so that its distributions are visibly uneven.
    """
    sizes: dict[str, Any] = {"vocab_size": VOCAB_SIZE, "hidden_size": 32, "intermediate_size": 64,
                             "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                             "max_position_embeddings": 256, "initializer_range": 0.2, "pad_token_id": PAD_ID,
                             "bos_token_id": BOS_ID, "eos_token_id": EOS_ID}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**(sizes | changes))).float().eval()


def tiny_gpt2(seed: int = 0, **changes: Any) -> GPT2LMHeadModel:
    """A GPT-2 of 2 layers and width 32 (dropout 0.1, absolute positions, tied embeddings); else as `tiny_llama`."""
    sizes: dict[str, Any] = {"vocab_size": VOCAB_SIZE, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256,
                             "initializer_range": 0.2, "pad_token_id": PAD_ID, "bos_token_id": BOS_ID,
                             "eos_token_id": EOS_ID}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(GPT2Config(**(sizes | changes))).float().eval()
