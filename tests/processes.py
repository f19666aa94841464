"""Several processes of one run, for tests. `from processes import start, outputs`."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path


def start(script, arguments, *, processes=2, **environment):
    """The processes of a run, as a launcher would start them, each in a group of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}",
              "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
              "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)} | environment  # fmt: skip
    return [
        subprocess.Popen([sys.executable, str(script), *map(str, arguments)],
                         env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, start_new_session=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in range(processes)
    ]  # fmt: skip


def outputs(running, timeout=120):
    """What each process wrote; none is left behind."""
    try:
        return [process.communicate(timeout=timeout)[0] for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
