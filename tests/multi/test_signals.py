"""Two processes under torchrun stop at the same step, whichever hears a signal first."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import outputs

SCRIPT = Path(__file__).with_name("signalled_ranks.py")


@pytest.mark.multi
@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_all_processes_leave_the_same_iteration_and_save_it_once(tmp_path, number, name):
    environment = os.environ | {"PYTHONPATH": f"{SCRIPT.parents[1]}:{os.environ.get('PYTHONPATH', '')}",
                                "OMP_NUM_THREADS": "1"}  # fmt: skip
    launcher = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT),
         str(tmp_path)],
        env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        until = time.time() + 100
        while not all((tmp_path / f"ready{rank}").exists() for rank in (0, 1)):
            assert time.time() < until
            assert launcher.poll() is None, launcher.communicate()[0]
            time.sleep(0.1)
        time.sleep(1)
        asked = time.time()
        os.killpg(launcher.pid, number)  # as a terminal does, and torchrun passes it on besides
        (text,) = outputs([launcher])
    finally:
        outputs([launcher])
    assert time.time() - asked < 20, text
    assert [(tmp_path / f"reason{rank}").read_text() for rank in (0, 1)] == [f"stopped: {name}"] * 2, text
    assert "stopped and saved after step 2" in text
    assert [p.name for p in (tmp_path / "run" / "checkpoints").glob("step_*")] == ["step_000002"]
