"""Kills a process that saves checkpoints, again and again at random moments, and looks at what is left each time.

`python kill_saves.py FOLDER KILLS SEED` prints one JSON object: kills, saves that were reported done, folders that a
kill left half written, and `bad`: every state that must not be. The saving child is forked, so that a kill costs
milliseconds and not the import of torch.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from surefoot.checkpoint import CheckpointError, read_checkpoint
from surefoot.checkpoint import write_checkpoint as write
from surefoot.kept import newest_valid, place, place_again, retain, steps_in, tidy


def content(step: int) -> dict[str, torch.Tensor]:
    return {f"weight.{i}": torch.full((64, 96), float(step + i)) for i in range(8)}


def save_forever(folder: Path, first: int, report: int) -> None:
    for step in range(first, first + 100_000):
        for again in range(1 + (step % 3 == 0)):  # every third is written again, as after an evaluation
            path = (place_again if again else place)(folder, step)
            state, about = {"step": step, "again": again}, {"step": step, "score": float(step % 7)}
            write(path, content(step), state, about)
            os.write(report, b"%d %d\n" % (step, again))
            retain(folder, 2)


def bad_states(folder: Path, reported: tuple[int, int]) -> list[str]:
    """What must never be seen after a kill, in words."""
    found, newest = [], (0, 0)
    for step, path in steps_in(folder).items():
        try:
            tensors, state, _ = read_checkpoint(path)
        except CheckpointError as error:
            found.append(str(error))
            continue
        same = all(torch.equal(tensor, tensors[name]) for name, tensor in content(step).items())
        if state["step"] != step or not same:
            found.append(f"{path.name} holds another step")
        newest = (step, state["again"])
    if newest < reported:
        found.append(f"step, again {reported} was reported saved, but the newest checkpoint is {newest}")
    if steps_in(folder) and newest_valid(folder, found.append) is None:
        found.append("no valid checkpoint is left")
    return found


def one_kill(folder: Path, generator: random.Random) -> tuple[int, tuple[int, int]]:
    """Starts saving where the last child ended, kills it, and returns how many saves it reported and the last one."""
    first = max(steps_in(folder), default=0) + 1
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        try:
            save_forever(folder, first, writes)
        finally:
            os._exit(9)
    os.close(writes)
    time.sleep(generator.uniform(0.0, 0.12))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the saving process failed by itself"
    with os.fdopen(reads) as lines:
        reported = [tuple(map(int, line.split())) for line in lines]
    return len(reported), max(reported, default=(first - 1, 0))


def main() -> None:
    folder, kills, generator = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    torch.set_num_threads(1)
    saves, leftovers, bad = 0, 0, []
    for _ in range(kills):
        count, last = one_kill(folder, generator)
        saves += count
        bad += bad_states(folder, last)
        leftovers += sum(1 for p in folder.iterdir() if p.name.startswith(".")) if folder.exists() else 0
        tidy(folder)
        bad += [f"{p.name} was not tidied away" for p in folder.glob(".*")]
    found = {"kills": kills, "saves": saves, "half_written": leftovers, "bad": bad}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
