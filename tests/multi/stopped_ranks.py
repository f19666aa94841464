"""Run by torchrun: a run of `stopped_runs`, gone on with where the folder holds one, killed after a step if asked.

`stopped_ranks.py FOLDER KILL_AFTER`; KILL_AFTER 0 lets it end.
"""

import os
import signal
import sys
import time

import torch
from stopped_runs import SCALED, Kill, make, newest, seed_everything

from surefoot.runtime import Runtime


class RealKill(Kill):
    def on_step(self, trainer, stats, samples):
        if trainer.steps_done == self.after:
            trainer.runtime.barrier()
            time.sleep(0.2 * trainer.runtime.rank)
            os.kill(os.getpid(), signal.SIGKILL)


folder, kill_after = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
found = newest(folder)
seed_everything((1 if found is None else 99) + Runtime().rank)
trainer = make(folder, callbacks=[RealKill(kill_after)] if kill_after else [], **SCALED)
if found is not None:
    trainer.restore(found)
trainer.train()
