"""Gives the same `surefoot ppo` command again and again, kills it at random moments, and lets it end at last.

`python kill_runs.py FOLDER KILLS SEED` prints one JSON object: kills, how often the run had a checkpoint when it was
killed, and `bad`: every state that must not be. The run is a forked child, so that a start costs no import of torch.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
import transformers  # noqa: F401 - imported once, for all children

import surefoot.trainer
from surefoot.checkpoint import CheckpointError, newest_valid, steps_in, verify
from surefoot.cli import main as surefoot


def start() -> int:
    """The run in a child of its own; its process id."""
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        os._exit(surefoot(["ppo", "--config", "run.yaml", "--quiet"]))
    return child


def bad_states(folder: Path) -> list[str]:
    found = []
    for path in steps_in(folder).values():
        try:
            verify(path)
        except CheckpointError as error:
            found.append(str(error))
    if steps_in(folder) and newest_valid(folder, found.append) is None:
        found.append("no valid checkpoint is left")
    return found


def main() -> None:
    kills, generator = int(sys.argv[2]), random.Random(int(sys.argv[3]))
    os.chdir(sys.argv[1])
    torch.set_num_threads(1)
    done, ended, saved, bad = 0, 0, 0, []
    longest = 2.0
    while done < kills:
        began = time.monotonic()
        child = start()
        time.sleep(generator.uniform(0.0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):  # it had ended before: the next ones are of a new run
            if os.waitstatus_to_exitcode(status) != 0:
                bad.append(f"a run failed with exit code {os.waitstatus_to_exitcode(status)}")
            ended, longest = ended + 1, max(0.5, 0.9 * (time.monotonic() - began))
            shutil.rmtree("run")
            continue
        done += 1
        saved += bool(steps_in(Path("run/checkpoints")))
        bad += bad_states(Path("run/checkpoints"))
    _, status = os.waitpid(start(), 0)
    if os.waitstatus_to_exitcode(status) != 0:
        bad.append(f"the last start failed with exit code {os.waitstatus_to_exitcode(status)}")
    found = {"kills": done, "with_a_checkpoint": saved, "ended": ended, "bad": bad}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
