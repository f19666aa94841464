"""SFT, pairs, reward model, PPO, DPO and comparison of a tiny model; plain transformers and peft load what is left."""

import json

import pytest
import torch
from peft import PeftModel
from pipelines import TOP, write_files
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from surefoot.cli import main

SETTINGS = (
    TOP
    + """\
sft:
  dataset: texts.jsonl
  batch_size: 8
  eval_rows: 8
  learning_rate: 1e-3
rate:
  rater: judge.py:shortness
  pairs_per_prompt: 2
reward:
  batch_size: 8
  eval_rows: 16
  learning_rate: 1e-3
  second_scorer: judge.py:vowels
ppo:
  steps: 2
  batch_size: 8
  mini_batch_size: 4
  ppo_epochs: 1
  learning_rate: 1e-4
  eval_prompts: 8
dpo:
  batch_size: 8
  learning_rate: 1e-4
compare:
  num_generations: 2
  best_of: 2
"""
)
NAMES = ("sft", "rate", "reward", "ppo", "dpo", "compare")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    (tmp_path / "rlhf.yaml").write_text(SETTINGS)
    return tmp_path


def ids(text="The sea and the bird"):
    return AutoTokenizer.from_pretrained("out/sft/model")(text, return_tensors="pt")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_one_command_runs_it_all_and_every_model_loads_without_surefoot(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")  # wide enough that a table's cells are not broken
    assert main(["rlhf", "--config", "rlhf.yaml", "--quiet"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for name in NAMES:
        assert json.loads((folder / "out" / name / "stage.json").read_text())["ended"] is True
    assert "ppo wins vowels" in out
    pairs = [json.loads(line) for line in (folder / "out/rate/preferences.jsonl").read_text().splitlines()]
    assert 32 < len(pairs) <= 64
    assert {"prompt", "chosen", "rejected", "probability", "rater"} <= set(pairs[0])

    with torch.no_grad():
        said = {name: AutoModelForCausalLM.from_pretrained(f"out/{name}/model")(**ids()).logits
                for name in ("sft", "ppo", "dpo")}  # fmt: skip
        reward = AutoModelForSequenceClassification.from_pretrained("out/reward/model")
        assert reward(**ids()).logits.shape == (1, 1)
    card = json.loads((folder / "out/reward/reward-card.json").read_text())
    assert card["second"]["scorer"] == "judge.py:vowels"
    assert card["second"]["raw"]["count"] + card["second"]["ties"] == card["pairs"]
    assert not torch.equal(said["ppo"], said["sft"])
    assert not torch.equal(said["dpo"], said["sft"])

    found = json.loads((folder / "out/compare/compare.json").read_text())
    assert {method["name"] for method in found["methods"]} == {"SFT", "ppo", "dpo", "best of/2"}

    assert main(["rlhf", "--config", "rlhf.yaml", "--quiet"]) == 0
    assert capsys.readouterr().out.count("done: skipped") == len(NAMES)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_with_lora_one_base_carries_every_adapter(folder):
    assert main(["rlhf", "--config", "rlhf.yaml", "--lora-r", "4", "--quiet"]) == 0
    base = AutoModelForCausalLM.from_pretrained("base")
    before = base(**ids()).logits
    for name in ("sft", "ppo", "dpo"):
        assert not (folder / f"out/{name}/model/config.json").exists()
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), f"out/{name}/model")
        assert not torch.equal(adapted(**ids()).logits, before)
    classifier = AutoModelForSequenceClassification.from_pretrained("base", num_labels=1)
    score = PeftModel.from_pretrained(classifier, "out/reward/model")(**ids()).logits
    assert score.shape == (1, 1)
