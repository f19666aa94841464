"""Folders of tiny models and files of rows for the stages beside PPO."""

import json

import tiny
import torch
from peft import LoraConfig, get_peft_model

WORDS = ("ash", "bay", "cod", "dew", "elm", "fog", "gum", "hay", "ivy", "jay", "kit", "log")
ANSWERS = [{"prompt": f"say {word}:", "completion": f" {word * (1 + i % 3)}"} for i, word in enumerate(WORDS)]
PAIRS = [
    {"prompt": f"say {word}:", "chosen": f" good{'!' * (i % 3)}", "rejected": f" bad {word}"[: 5 + i % 3]}
    for i, word in enumerate(WORDS)
]


def save_base(folder, seed=0, **changes):
    """A language model with its tokenizer; gives the folder's name."""
    tiny.tiny_llama(seed, **changes).save_pretrained(folder)
    tiny.tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def save_sft_adapter(folder, base, seed=3):
    """An adapter on `base` whose every weight is drawn, as one that was trained is; gives the folder's name."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base)
        config = LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM",
                            init_lora_weights=False)  # fmt: skip
        get_peft_model(model, config).save_pretrained(folder)
    return str(folder)


def write_rows(path, rows):
    """Rows as JSON lines; gives the file's name."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def metrics(folder):
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def evaluations(folder):
    """The lines of evaluations.jsonl."""
    return [json.loads(line) for line in (folder / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()]


def byte_ids(text):
    """The ids of a text under the tiny tokenizer, by its one rule: a token a byte."""
    return [tiny.byte_id(c) for c in text]


def answer_logprob(model, prompt, answer):
    """Sum of log-probabilities of an answer and the end behind it, one row alone, without padding."""
    ids = [*byte_ids(prompt + answer), tiny.EOS_ID]
    with torch.no_grad():
        logprobs = model(input_ids=torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
    start = len(prompt) - 1
    return sum(float(logprobs[t, ids[t + 1]]) for t in range(start, len(ids) - 1)), len(ids) - 1 - start
