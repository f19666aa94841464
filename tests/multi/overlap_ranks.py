"""One of two processes that draw a step ahead: `overlap_ranks.py FOLDER STOP_AFTER`; goes on with a run in FOLDER.

In a run from its start the engine of the second process gives no answers to its first request ahead.
"""

import json
import os
import sys
from pathlib import Path

import eager
import pytest
import torch
from stopped_runs import Stop, make, newest, seed_everything

from surefoot.callbacks import Callback

folder, stop_after = Path(sys.argv[1]), int(sys.argv[2])
rank = int(os.environ["RANK"])
torch.set_num_threads(1)


class Look(Callback):
    def __init__(self):
        self.steps = []

    def on_step(self, trainer, stats, samples):
        self.steps.append([stats["sampler/staleness"], [sample["version"] for sample in samples]])


found, look = newest(folder), Look()
with pytest.MonkeyPatch.context() as patch:
    eager.use(patch, fails=(1,) if rank == 1 and found is None else ())
    seed_everything((1 if found is None else 99) + rank)
    trainer = make(folder, steps=4, save_every=0, callbacks=[look, Stop(stop_after)], **eager.OVERLAP)
    if found is not None:
        trainer.restore(found)
    trainer.train()
total = sum(float(p.double().sum()) for p in trainer.policy.parameters())
Path(f"{folder}_{stop_after}_{rank}.json").write_text(json.dumps({"steps": look.steps, "weights": total}))
