"""Which options a run may be gone on with: one table for all of them."""

import dataclasses

import pytest

from surefoot.changes import (
    MAKES_ANOTHER_RUN,
    MAY_CHANGE,
    STOP_OPTIONS,
    changes_between,
    check_changes,
    stored_options,
)
from surefoot.config import PPOConfig

OPTIONS = {field.name for field in dataclasses.fields(PPOConfig)}


def test_every_option_is_in_exactly_one_of_the_two_tables():
    unclassified = OPTIONS - set(MAY_CHANGE) - MAKES_ANOTHER_RUN
    assert not unclassified, f"put {sorted(unclassified)} into MAY_CHANGE or MAKES_ANOTHER_RUN of changes.py"
    assert set(MAY_CHANGE) | MAKES_ANOTHER_RUN == OPTIONS
    assert not set(MAY_CHANGE) & MAKES_ANOTHER_RUN
    assert set(STOP_OPTIONS) <= set(MAY_CHANGE)


def test_what_may_change_is_said_with_what_it_bears_on():
    before = stored_options(PPOConfig(steps=10, save_every=0, output_dir="runs/x"))
    said = check_changes(before, PPOConfig(steps=20, save_every=5, output_dir="runs/y"), allow=False)
    assert said == [
        "steps: 10 -> 20 (when the run ends)",
        "save_every: 0 -> 5 (what is kept)",
        "output_dir: runs/x -> runs/y (where it is kept)",
    ]
    assert check_changes(before, PPOConfig(steps=10, save_every=0, output_dir="runs/x"), allow=False) == []


@pytest.mark.parametrize(
    "schedule",
    [
        {"lr_schedule": "linear"},
        {"lr_schedule": "cosine"},
        {"kl_controller": "linear", "final_kl_coef": 0.0},
        {"final_target_kl": 0.05},
    ],
)
@pytest.mark.parametrize("length", [{"steps": 20}, {"steps": 10, "total_episodes": 1}])
def test_a_length_that_a_schedule_follows_may_not_change(schedule, length):
    before = stored_options(PPOConfig(steps=10, **schedule))
    with pytest.raises(ValueError, match=r"-> \w+ \(a schedule follows the run's length\)"):
        check_changes(before, PPOConfig(**{"steps": 10, **schedule, **length}), allow=False)


def test_lists_nothing_and_numbers_are_shown_as_they_are_typed():
    before = stored_options(PPOConfig(stop_strings=("a", "b"), learning_rate=1e-6))
    shown = [str(c) for c in changes_between(before, PPOConfig(learning_rate=2.5e-6, dual_clip=3.0))]
    assert shown == ["stop_strings: [a, b] -> []", "dual_clip: none -> 3", "learning_rate: 1e-06 -> 2.5e-06"]


def test_an_option_that_is_newer_than_the_checkpoint_had_its_default_and_one_that_is_gone_is_told():
    before = stored_options(PPOConfig())
    del before["cliprange"]
    assert changes_between(before, PPOConfig()) == []
    assert [str(c) for c in changes_between(before, PPOConfig(cliprange=0.1))] == ["cliprange: 0.2 -> 0.1"]
    with pytest.raises(ValueError, match="magic: 3 -> no longer an option"):
        check_changes(before | {"magic": 3}, PPOConfig(), allow=False)


def test_a_password_in_an_address_is_neither_stored_nor_a_change():
    config = PPOConfig(reward=("openrlhf+http://me:hush@judge:5000/get_reward",))
    stored = stored_options(config)
    assert "hush" not in str(stored)
    assert changes_between(stored, config) == []
