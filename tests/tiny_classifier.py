"""A tiny reward model of two families and rows for it."""

import tiny
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from surefoot.types import Completion, Prompt

TEXTS = ("a", "a longer answer than the others, by far", "middle one", "", "x y")


def classifier(kind="llama", **changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        common = {"vocab_size": tiny.VOCAB_SIZE, "num_labels": 1, "pad_token_id": tiny.PAD_ID,
                  "bos_token_id": tiny.BOS_ID, "eos_token_id": tiny.EOS_ID, "initializer_range": 0.2}  # fmt: skip
        if kind == "llama":
            sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                     "max_position_embeddings": 256}  # fmt: skip
            return LlamaForSequenceClassification(LlamaConfig(**(sizes | common | changes)))
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
        return GPT2ForSequenceClassification(GPT2Config(**(sizes | common | changes)))


def prompts(text="Q: ", n=5, chat=False):
    messages = ({"role": "user", "content": text},) if chat else ()
    return [Prompt(text, (1,), messages, index=i) for i in range(n)]


def said(*texts):
    return [Completion(t, (), (), "stop") for t in texts]
