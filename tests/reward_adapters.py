"""Folders of a tiny base and of reward models that are LoRA adapters of it."""

import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification

MAKERS = {"llama": tiny.tiny_llama, "gpt2": tiny.tiny_gpt2}


def save_base(folder, kind="llama", pad="own", **changes):
    """A language model with its tokenizer; gives the folder's name."""
    pad_id = {"own": tiny.PAD_ID, "eos": tiny.EOS_ID, "none": None}[pad]
    MAKERS[kind](pad_token_id=pad_id, **changes).save_pretrained(folder)
    tiny.tiny_tokenizer(pad=pad).save_pretrained(folder)
    return str(folder)


def save_adapter(folder, base, tokenizer=None, seed=5, labels=1, **lora):
    """An adapter whose every weight is drawn, as one that was trained is; gives the folder's name."""
    options = {"r": 4, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "SEQ_CLS",
               "init_lora_weights": False}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
        model.score.weight.data.normal_()
        model = get_peft_model(model, LoraConfig(**(options | lora)))
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return str(folder)


def alone(folder, base, rows):
    """The oracle: a model of its own by transformers and peft, one row at a time, without padding."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model = PeftModel.from_pretrained(model, folder).eval()
    with torch.no_grad():
        return [model(input_ids=torch.tensor([row])).logits.item() for row in rows]
