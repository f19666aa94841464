"""What TRL's RLOO makes of a pipeline's models is compared beside PPO as one more method."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from pipelines import TOP, write_files
from transformers import AutoModelForCausalLM

from surefoot.cli import main

PATH = Path(__file__).parents[2] / "examples" / "rloo_beside_ppo.py"
SETTINGS = (
    TOP
    + """\
sft: {dataset: texts.jsonl, steps: 2, batch_size: 8, eval_rows: 0}
rate: {rater: "judge.py:shortness"}
reward: {steps: 2, batch_size: 8, eval_rows: 4}
ppo: {steps: 2, batch_size: 8, mini_batch_size: 4, ppo_epochs: 1, eval_prompts: 8}
"""
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_rloo_of_trl_stands_beside_ppo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    (tmp_path / "rlhf.yaml").write_text(SETTINGS)
    assert main(["rlhf", "--config", "rlhf.yaml", "--quiet"]) == 0

    spec = importlib.util.spec_from_file_location("rloo_beside_ppo", PATH)
    rloo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rloo)
    args = rloo.Args("prompts.jsonl", steps=2, batch_size=8, mini_batch_size=4, max_new_tokens=8, learning_rate=1e-3)
    folder = rloo.train(Path("out"), args)
    before, after = (AutoModelForCausalLM.from_pretrained(f) for f in ("out/sft/model", folder))
    assert not torch.equal(before.lm_head.weight, after.lm_head.weight)

    methods = ["rloo=out/rloo", "ppo=out/ppo"]
    given = ["--dataset", "held_out.jsonl", "--gold", "judge.py:vowels", "--output-dir", "out/beside", "--quiet"]
    assert main(["compare", *methods, *given]) == 0
    found = json.loads(Path("out/beside/compare.json").read_text())
    beside = {method["name"]: method for method in found["methods"]}
    assert {"SFT", "ppo", "rloo"} <= set(beside)
    assert beside["rloo"]["means"]["kl"]["value"] > 0
