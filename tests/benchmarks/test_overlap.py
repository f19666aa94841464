"""The benchmark of overlap: what takes turns, what is timed, and the ratio."""

import types

from benchmarks import overlap
from surefoot.types import Completion


class Side:
    """Stands for a trainer with its prompts and its reward; `seen` is what it was asked for."""

    def __init__(self):
        self.seen, self.prompts = [], ["a", "b"]
        self.trainer = self
        self.config = types.SimpleNamespace(precision="float32")
        self.engine = types.SimpleNamespace(_child=None)

    def generate(self, prompts):
        self.seen.append("g")
        return [Completion("xyz", (1, 2, 3), (0.0,) * 3, "stop") for _ in prompts]

    def generate_ahead(self, prompts):
        self.seen.append("a")

    def reward(self, prompts, answers):
        return types.SimpleNamespace(scores=[0.0] * len(answers))

    def step(self, prompts, answers, scores):
        self.seen.append("s")


def test_rounds_take_turns_and_a_round_ahead_begins_and_ends_with_steps_that_are_not_timed():
    side = Side()
    found = overlap.measure(side, rounds=2, steps=2)
    one_round = "gs" * 2 + "gas" * 3 + "gs"
    assert "".join(side.seen) == 3 * one_round
    assert {name: len(seconds) for name, seconds in found["seconds"].items()} == {"waits": 4, "overlap": 4}
    assert found["tokens"] == {"waits": 6, "overlap": 6}


def test_the_ratio_is_that_of_the_medians():
    assert overlap.ratio({"seconds": {"waits": [3.0, 9.0, 4.0], "overlap": [2.0, 1.0, 2.5]}}) == 2.0
