"""Engines and queries for tests of sampling. `from sampling import engine, queries`."""

import contextlib

import torch
from tiny import tiny_tokenizer

from surefoot.engine.transformers import TransformersEngine

ENDS = tuple(range(2, 262, 9))  # many, so that answers end at different times
LENGTHS = (5, 30, 1, 12, 5, 21, 30, 8)


def queries(lengths=LENGTHS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 262, (n,), generator=generator).tolist() for n in lengths]


def engine(model, ends=ENDS, **options):
    return TransformersEngine(
        model, tiny_tokenizer(), ends, **({"autocast": contextlib.nullcontext, "max_tokens": 65_536} | options)
    )
