"""Two processes see the same alarms as one, raise the same price, end at the same step with the same model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from surefoot.checkpoint import read_checkpoint
from surefoot.kept import place

SCRIPT = Path(__file__).with_name("watched_ranks.py")


def run(folder, watch, processes):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = f"{SCRIPT.parents[1]}:{environment.get('PYTHONPATH', '')}"
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [*launch, str(SCRIPT), str(folder), watch]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def lines(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.multi
@pytest.mark.parametrize("watch", ["raise_kl", "stop_and_restore"])
def test_two_processes_do_as_one_does(tmp_path, watch):
    one, two = tmp_path / "one", tmp_path / "two"
    run(one, watch, 1)
    run(two, watch, 2)
    told = [[e.get("alarms") for e in lines(folder, "evaluations.jsonl")] for folder in (one, two)]
    assert told[0] == told[1]
    assert any(told[0])
    prices = [[m["objective/kl_coef"] for m in lines(folder, "metrics.jsonl")] for folder in (one, two)]
    assert prices[0] == prices[1]
    assert prices[0] == ([0.1, 0.1, 0.2, 0.4] if watch == "raise_kl" else [0.1, 0.1])
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, two)]
    assert results[0]["model_step"] == results[1]["model_step"] == (4 if watch == "raise_kl" else 1)
    newest = [read_checkpoint(place(folder / "checkpoints", len(prices[0])))[1] for folder in (one, two)]
    assert newest[0]["parts"]["references"] == newest[1]["parts"]["references"]
    models = [load_file(folder / "model" / "model.safetensors") for folder in (one, two)]
    assert all((models[0][name] - models[1][name]).abs().max() < 1e-4 for name in models[0])
