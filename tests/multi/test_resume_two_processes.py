"""Two processes that are killed and started again end as two that never were; and one can take over from two."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stopped_runs import SCALED, differences, left_by, make, newest

from surefoot.snapshot import generator_states, restore_generators

SCRIPT = Path(__file__).with_name("stopped_ranks.py")


def start(folder, kill_after=0):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = f"{SCRIPT.parents[1]}:{environment.get('PYTHONPATH', '')}"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, str(SCRIPT), str(folder), str(kill_after)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def rows(folder):
    """Rows of the prompts of each step, in order."""
    files = sorted((folder / "samples").glob("step_*.jsonl"))
    return [[json.loads(line)["row"] for line in file.read_text().splitlines()] for file in files]


@pytest.mark.slow
@pytest.mark.multi
def test_two_processes_go_on_bit_for_bit_and_one_takes_over_with_the_same_prompts(tmp_path):
    whole, stopped, taken = tmp_path / "whole", tmp_path / "stopped", tmp_path / "taken"
    done = start(whole)
    assert done.returncode == 0, done.stderr[-3000:]
    assert start(stopped, 3).returncode != 0
    shutil.copytree(stopped, taken)
    done = start(stopped)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = left_by(whole)
    assert differences(expected, left_by(stopped)) == []
    assert len(expected["state"]["generators"]) == 2
    assert expected["state"]["generators"][0] != expected["state"]["generators"][1]

    before = json.dumps(generator_states())
    trainer = make(taken, **SCALED)
    with pytest.raises(ValueError, match="the checkpoint is of 2 processes, this run has 1"):
        trainer.restore(newest(taken))
    trainer.restore(newest(taken), allow_topology_change=True)
    trainer.train()
    restore_generators(json.loads(before))
    assert rows(taken) == rows(whole)
    counters = {k: v for k, v in left_by(taken)["state"]["parts"]["progress"].items() if k != "evaluations"}
    assert counters == {k: expected["state"]["parts"]["progress"][k] for k in counters}
