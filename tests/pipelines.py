"""Settings of pipelines for tests: `file_of` makes what `read_sections` makes, out of plain values."""

import json

import tiny

from surefoot.sections import Sections
from surefoot.settings import Setting

WHOLE = {
    "model_name": "base",
    "prompts": "prompts.jsonl",
    "held_out_prompts": "held_out.jsonl",
    "gold": ["judge.py:gold"],
    "output_dir": "out",
    "sft": {"dataset": "texts.jsonl"},
    "rate": {"rater": "judge.py:rater"},
    "reward": {},
    "ppo": {},
    "dpo": {},
    "compare": {},
}


def file_of(values):
    """Options and, where a value is a dict, sections."""
    top = {name: Setting(value, f"rlhf.yaml:{i}") for i, (name, value) in enumerate(values.items(), 1)}
    origins = {name: top.pop(name).origin for name, value in values.items() if isinstance(value, dict)}
    sections = {
        name: {option: Setting(value, f"{origin} {option}") for option, value in values[name].items()}
        for name, origin in origins.items()
    }
    return Sections(top, sections, origins)


def whole(**changes):
    """The whole pipeline with some options or sections changed; None takes one out."""
    return file_of({name: value for name, value in (WHOLE | changes).items() if value is not None})


TOP = """\
model_name: base
prompts: prompts.jsonl
held_out_prompts: held_out.jsonl
gold: judge.py:vowels
output_dir: out
max_new_tokens: 8
"""
"""Settings above the sections, for the files that `write_files` makes."""

JUDGE = """\
def vowels(completions, **columns):
    return [float(sum(c in "aeiou" for c in text)) for text in completions]


def shortness(completions, **columns):
    return [-float(len(text)) for text in completions]
"""


def write_files(folder):
    """A base with its tokenizer, texts, prompts and scorers, all tiny."""
    tiny.tiny_llama().save_pretrained(folder / "base")
    tiny.tiny_tokenizer().save_pretrained(folder / "base")
    (folder / "judge.py").write_text(JUDGE)
    words = ("sea", "tree", "moon", "stone", "bird", "rain", "house", "road")
    rows = [f"The {a} and the {b}" for a in words for b in words if a != b]
    lines(folder / "texts.jsonl", [{"prompt": row, "completion": " are old."} for row in rows[:32]])
    lines(folder / "prompts.jsonl", [{"prompt": row} for row in rows[:32]])
    lines(folder / "held_out.jsonl", [{"prompt": row} for row in rows[32:48]])
    pair = {"chosen": " sing.", "rejected": " fall down."}
    lines(folder / "pairs.jsonl", [{"prompt": row} | pair for row in rows[:32]])


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
