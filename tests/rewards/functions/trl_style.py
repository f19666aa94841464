"""Functions as written for TRL's GRPO trainer."""

import re


def think_format(completions: list[list[dict[str, str]]], **kwargs) -> list[float]:
    return [1.0 if re.match(r"^<think>.*</think>", c[0]["content"]) else 0.0 for c in completions]


def accuracy(prompts, completions, solution, **kwargs):
    return [None if s is None else float(c == s) for c, s in zip(completions, solution, strict=True)]


async def ids_count(completion_ids, trainer_state, log_metric, log_extra, **kwargs):
    log_metric("longest", max(len(ids) for ids in completion_ids))
    log_extra("lengths", [len(ids) for ids in completion_ids])
    return [len(ids) + 100 * trainer_state.global_step for ids in completion_ids]
