"""A file as written for OpenRLHF."""

import torch


def reward_func(queries, prompts, labels, **kwargs):
    rewards = torch.tensor([float(len(q) - len(p)) for q, p in zip(queries, prompts, strict=True)])
    hits = torch.tensor([float(q.endswith(a)) for q, a in zip(queries, labels, strict=True)])
    return {"rewards": rewards, "scores": rewards / 10, "extra_logs": {"hits": hits}}
