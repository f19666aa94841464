"""Writes the table of docs/scaling.md: what models of four sizes take on each GPU, alone and in shares.

    python -m tools.memory_table

The reckoning is that of `surefoot plan`, of models in shapes alone; nothing is loaded and no GPU is needed. Passes are
rehearsed with a CPU's kernels in bfloat16; pieces of logits and scoring passes are as large as on a GPU.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from surefoot.assemble import lora_config
from surefoot.config import PPOConfig
from surefoot.memory import GIB, Need, Work, peak
from surefoot.models import states_per_piece
from surefoot.needs import Shapes, need_of, work_of
from surefoot.rehearsal import on_meta, with_adapter
from surefoot.rollout import SCORING_TOKENS_ON_GPU

PAGE = Path("docs/scaling.md")
BEGIN, END = "<!-- table by tools/memory_table.py -->\n", "<!-- end of the table -->\n"
PROMPT = 512
OPTIONS = {"batch_size": 128, "mini_batch_size": 32, "max_tokens_per_microbatch": 4096, "max_new_tokens": 512,
           "eval_prompts": 0, "gradient_checkpointing": True, "precision": "bfloat16"}  # fmt: skip
SHAPES = {
    "0.5B": Qwen2Config(hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
                        intermediate_size=4864, vocab_size=151936, tie_word_embeddings=True),
    "1.5B": Qwen2Config(hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
                        intermediate_size=8960, vocab_size=151936, tie_word_embeddings=True),
    "8B": LlamaConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
                      intermediate_size=14336, vocab_size=128256, max_position_embeddings=8192),
    "70B": LlamaConfig(hidden_size=8192, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8,
                       intermediate_size=28672, vocab_size=128256, max_position_embeddings=8192),
}  # fmt: skip
PROCESSES = (1, 8, 64)


def need(size: str, *, lora_r: int) -> Need:
    """What a run of one process takes, with every pass rehearsed."""
    c = PPOConfig(**OPTIONS, lora_r=lora_r)
    adapter = lora_config(lora_r, c.lora_alpha) if lora_r else None
    policy, reference = (
        on_meta(lambda: AutoModelForCausalLM.from_config(SHAPES[size], dtype=torch.float32)) for _ in range(2)
    )
    shapes = Shapes(with_adapter(policy, adapter), reference=None if lora_r else reference)
    found = need_of(c, shapes, work(1), device=torch.device("cpu"), bfloat16=True)
    pieces = states_per_piece(found.output.vocabulary, torch.device("cuda"))
    return dataclasses.replace(found, output=dataclasses.replace(found.output, states_per_piece=pieces), holes=0)


def work(processes: int) -> Work:
    """A step's arithmetic on one of so many processes."""
    c, limit = PPOConfig(**OPTIONS), int(OPTIONS["max_tokens_per_microbatch"])
    return work_of(c, [PROMPT], limit, padded=True, processes=processes, scoring=SCORING_TOKENS_ON_GPU)


def lines() -> Iterator[str]:
    """The table, GiB on each GPU and the stage that takes the most."""
    yield "| model | trained | " + " | ".join(f"{n} GPU{'s' * (n > 1)}" for n in PROCESSES) + " |"
    yield "| --- | --- | " + " | ".join("---:" for _ in PROCESSES) + " |"
    for size in SHAPES:
        for lora_r, what in ((0, "all weights"), (16, "LoRA, r = 16")):
            alone = need(size, lora_r=lora_r)
            stages = [peak(dataclasses.replace(alone, shares=n, work=work(n))) for n in PROCESSES]
            cells = (f"{stage.total / GIB:.0f} ({stage.name})" for stage in stages)
            yield f"| {size} | {what} | {' | '.join(cells)} |"


def main() -> None:
    """Puts the table into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + "\n".join(lines()) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
