"""Rows of like length together: the order of one epoch and of the next, and the stages that learn in it."""

import pytest
from stage_folders import ANSWERS, PAIRS, metrics, save_base, write_rows

from surefoot.cli import main
from surefoot.stages.order import ByLength, row_tokens

TOKENS = [7, 3, 9, 1, 5, 8, 2, 6, 4, 11, 10, 12]


def test_an_epoch_has_every_row_once_and_the_longest_in_its_first_batch():
    order = list(ByLength(TOKENS, 3, seed=0))
    assert sorted(order) == list(range(12))
    assert TOKENS[order[0]] == 12


def test_batches_of_rows_drawn_from_many_lengths_carry_little_padding():
    tokens = [1 + (37 * i) % 64 for i in range(640)]  # every length from 1 to 64, ten times
    order = list(ByLength(tokens, 8, seed=3))
    batches = [[tokens[i] for i in order[first : first + 8]] for first in range(0, 640, 8)]
    padded = sum(8 * max(batch) for batch in batches)
    assert padded < 1.1 * sum(tokens)  # eight of 64 lengths at random: the longest is 57 where the mean is 32.5


def test_an_epoch_is_the_same_whenever_it_is_asked_for_and_other_than_the_next():
    order = ByLength(TOKENS, 3, seed=0)
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    again = ByLength(TOKENS, 3, seed=0)
    again.set_epoch(1)
    assert list(again) == second != first
    assert list(ByLength(TOKENS, 3, seed=1)) != first


@pytest.mark.parametrize(
    ("row", "tokens"),
    [
        ({"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, 3),
        ({"chosen_ids": [5, 6], "rejected_ids": [5, 6, 7, 8]}, 4),
        ({"prompt_ids": [5, 6, 7], "chosen_ids": [8, 9], "rejected_ids": [8]}, 5),
    ],
)
def test_a_pair_is_as_long_as_its_longer_answer_with_the_prompt(row, tokens):
    assert row_tokens(row) == tokens


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("stage", ["sft", "reward", "dpo"])
def test_a_stage_learns_in_this_order_and_goes_on_in_it_in_the_middle_of_the_second_epoch(base, tmp_path, stage):
    rows = write_rows(tmp_path / "rows.jsonl", ANSWERS if stage == "sft" else PAIRS)

    def run(folder, strategy="group_by_length"):
        given = {"model-name": base, "dataset": rows, "output-dir": folder, "batch-size": 4, "mini-batch-size": 4,
                 "steps": 5, "save-every": 4, "eval-rows": 3, "lora-r": 2, "learning-rate": 1e-2,
                 "train-sampling-strategy": strategy}  # fmt: skip
        return main([stage, *(text for name, value in given.items() for text in (f"--{name}", str(value)))])

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(whole) == run(cut) == run(tmp_path / "random", "random") == 0
    file = "model/adapter_model.safetensors"
    for name in ("result.json", file, "checkpoints/checkpoint-5/complete.json"):
        (cut / name).unlink()
    assert run(cut) == 0
    assert (whole / file).read_bytes() == (cut / file).read_bytes()
    assert (whole / file).read_bytes() != (tmp_path / "random" / file).read_bytes()
    assert [line["step"] for line in metrics(cut)] == [1, 2, 3, 4, 5]
