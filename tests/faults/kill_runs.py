"""Gives the same `surefoot ppo` command again and again, signals it at random moments, and lets it end at last.

`python kill_runs.py FOLDER RESUMES SEED SIGNAL...` prints one JSON object: starts that went on from a checkpoint
(`resumes`), signals by name that ended a start (`kills`), starts that ended with the code of a signal (`saved`), and
`bad`: every state that must not be. A run that ends before it is signalled is moved to `ended1`, `ended2`, ..., and
the next start begins a new one. The run is a forked child of a process that has imported what a run needs, so that
a start costs no imports.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: F401 - once, for all children

import surefoot.interrupt
import surefoot.live
import surefoot.profiling
import surefoot.report
import surefoot.trainer
from surefoot.checkpoint import CheckpointError, verify
from surefoot.cli import main as surefoot
from surefoot.kept import newest_valid, steps_in

CHECKPOINTS = Path("run/checkpoints")
SAYS_SAVED = {signal.SIGINT: 130, signal.SIGTERM: 143}


def start() -> int:
    """The run in a child of its own; its process id."""
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have made it deaf
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
            os._exit(surefoot(["ppo", "--config", "run.yaml", "--quiet"]))
        except KeyboardInterrupt:  # before the command could hear it
            os._exit(130)
        finally:
            os._exit(70)
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


def bad_end(status: int, number: signal.Signals) -> str | None:
    """What is wrong with how a start ended: by the signal, saved and with the signal's code, or at the run's end."""
    code = os.waitstatus_to_exitcode(status)
    if code == 143 and not steps_in(CHECKPOINTS):
        return "143 says that it was saved, but there is no checkpoint"
    return None if code in (0, -number, SAYS_SAVED.get(number)) else f"exit code {code} after {number.name}"


def main() -> None:
    wanted, generator = int(sys.argv[2]), random.Random(int(sys.argv[3]))
    numbers = [signal.Signals[name] for name in sys.argv[4:]]
    os.chdir(sys.argv[1])
    torch.set_num_threads(1)
    kills: Counter[str] = Counter()
    resumes, saved, ended, bad, longest = 0, 0, 0, [], 2.0
    while resumes < wanted:
        began, before = time.monotonic(), max(steps_in(CHECKPOINTS), default=None)
        child, number = start(), generator.choice(numbers)
        time.sleep(generator.uniform(0.0, longest))
        os.kill(child, number)
        _, status = os.waitpid(child, 0)
        resumes += before is not None
        bad += filter(None, [bad_end(status, number)])
        if status == 0:
            ended, longest = ended + 1, max(0.5, 0.9 * (time.monotonic() - began))
            Path("run").rename(f"ended{ended}")
            continue
        kills[number.name] += 1
        saved += os.waitstatus_to_exitcode(status) > 0
        bad += bad_states(CHECKPOINTS)
        if max(steps_in(CHECKPOINTS), default=None) == before:  # a busy machine: let the next one get further
            longest *= 1.2
    _, status = os.waitpid(start(), 0)
    if status != 0:
        bad.append(f"the last start failed with exit code {os.waitstatus_to_exitcode(status)}")
    found = {"resumes": resumes, "kills": kills, "saved": saved, "ended": ended, "bad": bad}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
