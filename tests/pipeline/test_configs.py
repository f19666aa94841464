"""The recipes in configs/: each is read by its command, and says where it was measured, or that it was not."""

from pathlib import Path

import pytest

from surefoot.config import PPOConfig
from surefoot.pipeline.command import read_all
from surefoot.pipeline.parts import parts_of
from surefoot.settings import load_settings

CONFIGS = Path(__file__).parents[2] / "configs"
WHOLE = ("demo", "demo-quick", "chat-lora")
PPO = ("sentiment", "summarize", "verifiable")


def test_every_recipe_is_tested():
    assert sorted(path.stem for path in CONFIGS.iterdir()) == sorted([*WHOLE, *PPO])


@pytest.mark.parametrize("name", WHOLE)
def test_recipes_of_the_whole_make_a_plan(name):
    _, parts = parts_of(read_all([str(CONFIGS / f"{name}.yaml")], {}))
    kinds = list(dict.fromkeys(part.kind for part in parts))
    assert kinds == [k for k in ("sft", "rate", "reward", "ppo", "dpo", "compare") if k != "rate" or "demo" in name]


@pytest.mark.parametrize("name", PPO)
def test_recipes_of_ppo_are_read(name):
    assert isinstance(load_settings([CONFIGS / f"{name}.yaml"]), PPOConfig)


def test_summaries_are_those_of_the_published_reproductions():
    c = load_settings([CONFIGS / "summarize.yaml"])
    assert (c.learning_rate, c.init_kl_coef, c.max_new_tokens, c.missing_eos_penalty) == (3e-6, 0.05, 53, 1.0)


@pytest.mark.parametrize("name", [*WHOLE, *PPO])
def test_every_recipe_says_where_it_was_measured_or_that_it_was_not(name):
    text = (CONFIGS / f"{name}.yaml").read_text()
    assert "Measured: " in text or "NOT MEASURED" in text
