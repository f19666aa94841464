"""Two processes on gloo give what one process gives: gradients, whitening, statistics, KL coefficient and weights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("two_ranks.py")


@pytest.mark.multi
@pytest.mark.parametrize("rows", [pytest.param(8, marks=pytest.mark.slow), 3])
def test_the_result_does_not_depend_on_the_number_of_processes(tmp_path, rows):
    path = f"{SCRIPT.parents[1]}:{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    launch = {
        1: [sys.executable],
        2: [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    }
    found = {}
    for processes, command in launch.items():
        out = tmp_path / f"{processes}.safetensors"
        whole = [*command, str(SCRIPT), str(out), str(rows)]
        done = subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        found[processes] = load_file(out)
    assert found[1].keys() == found[2].keys()
    for name, tensor in found[1].items():
        tolerance = 1e-5 if name.startswith("stats.") else 2e-6
        assert torch.allclose(tensor, found[2][name], atol=tolerance, rtol=1e-5), name
