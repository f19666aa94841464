"""The model card: what it says, of which stages, that it is valid for a hub, and that foreign text stays text."""

import hashlib
import json
from pathlib import Path

import pytest
from made_run import make_run
from ruamel.yaml import YAML

from surefoot.config import PPOConfig
from surefoot.evaluate.card import facts_of, write_card
from surefoot.settings import to_yaml


@pytest.fixture
def run(tmp_path):
    folder = make_run(tmp_path / "first", steps=20)
    (folder / "model").mkdir()
    return folder


def front_matter(card):
    return YAML(typ="safe").load(card.split("---\n")[1])


def test_the_card_says_base_data_reward_score_kl_and_how_to_reproduce(run):
    card = write_card(run).read_text()
    evaluations = [json.loads(line)["metrics"] for line in (run / "evaluations.jsonl").read_text().splitlines()]
    for name in ("eval/score", "eval/kl"):
        assert f"| {evaluations[0][name]:.4g} | {evaluations[-1][name]:.4g} |" in card
    assert (
        "| PPO | `some-lab/Small-135M` | dataset `openings.jsonl`; reward `feelings.py:score, brevity:score` |" in card
    )
    assert "surefoot ppo run.yaml --steps 20 --hub-token REDACTED" in card
    assert hashlib.sha256((run / "config.yaml").read_bytes()).hexdigest() in card
    assert "learning_rate: 2e-6\n" in card
    assert "Win rate: not measured." in card
    assert "hf upload" in card


def test_the_front_matter_is_what_a_hub_reads(run):
    found = front_matter(write_card(run).read_text())
    assert found["base_model"] == "some-lab/Small-135M"
    assert found["library_name"] == "transformers"
    assert found["pipeline_tag"] == "text-generation"
    assert {"surefoot", "ppo"} <= set(found["tags"])
    assert "datasets" not in found  # openings.jsonl is a file of this machine
    (run / "model/adapter_config.json").write_text("{}")
    assert front_matter(write_card(run).read_text())["library_name"] == "peft"


def stage(folder, **options):
    (folder / "model").mkdir(parents=True)
    (folder / "config.yaml").write_text("".join(f"{name}: {value}\n" for name, value in options.items()))


def test_the_stages_are_followed_back_to_the_base(tmp_path):
    stage(tmp_path / "sft", model_name="some-lab/base", dataset="some-lab/texts:train", epochs=1)
    stage(tmp_path / "dpo", model_name=tmp_path / "sft/model", dataset="pairs.jsonl", beta=0.1)
    facts = facts_of(tmp_path / "dpo")
    assert [(s.kind, s.start) for s in facts.stages] == [("SFT", "some-lab/base"), ("DPO", "sft")]
    found = front_matter(write_card(tmp_path / "dpo").read_text())
    assert (found["base_model"], found["datasets"]) == ("some-lab/base", ["some-lab/texts"])
    assert str(tmp_path) not in write_card(tmp_path / "dpo").read_text()


def test_a_reward_model_is_a_classifier(tmp_path):
    stage(tmp_path / "reward", model_name="some-lab/base", dataset="pairs.jsonl", centre_on="prompts.jsonl")
    card = write_card(tmp_path / "reward").read_text()
    assert front_matter(card)["pipeline_tag"] == "text-classification"
    assert "AutoModelForSequenceClassification" in card


def test_foreign_text_stays_text(run):
    hostile = PPOConfig(model_name="x`<script>|\n# Free", prompt_template="```\n{prompt}", reward=("a|b:c",))
    (run / "config.yaml").write_text(to_yaml(hostile))
    card = write_card(run).read_text()
    assert "\n# Free" not in card
    assert card.count("\n````yaml") == 1  # a longer fence than the text has
    assert front_matter(card)["pipeline_tag"] == "text-generation"


def test_a_run_without_a_model_has_no_card(tmp_path):
    with pytest.raises(ValueError, match=r"has no model/ to write a card for"):
        write_card(make_run(Path(tmp_path / "run"), steps=2, every=1))


def test_a_reward_model_tells_what_was_found_out_on_held_out_pairs(tmp_path):
    stage(tmp_path / "reward", model_name="some-lab/base", dataset="pairs.jsonl", centre_on="prompts.jsonl")
    found = {"accuracy": {"value": 0.7, "low": 0.61, "high": 0.78}, "pairs": 110, "length_rule": "longer",
             "length_accuracy": 0.55, "warnings": ["its scores follow length"]}  # fmt: skip
    (tmp_path / "reward/reward-card.json").write_text(json.dumps(found))
    card = write_card(tmp_path / "reward").read_text()
    assert "Right in 70.0% \\[61.0%, 78.0%\\] of 110 held-out pairs" in card
    assert "preferring the longer answer is right in 55.0%" in card
    assert "- its scores follow length" in card
    assert "Win rate" not in card
