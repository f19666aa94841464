"""The sampler: what a token costs, of the model of the workload "small", and beside the model's own work."""

import dataclasses

import pytest

from benchmarks.ours import Ours
from benchmarks.workloads import WORKLOADS

NEW_TOKENS = 16


@pytest.mark.parametrize("rows", [1, 32])
@pytest.mark.parametrize("name", ["small", "ragged"])
def test_first_tokens_of_every_answer(benchmark, name, rows):
    side = Ours(dataclasses.replace(WORKLOADS[name], rows=rows, minibatches=1), "ours")
    benchmark(side.trainer.generate, side.prompts, max_new_tokens=NEW_TOKENS)


def test_answers_of_a_model_that_costs_nothing(benchmark):
    side = Ours(WORKLOADS["toy"], "ours")
    benchmark(side.trainer.generate, side.prompts)
