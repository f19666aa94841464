"""One of two processes, started by test_shards.py: the steps of `shared_steps`, plain and in shares; argument: folder.

Writes the numbers of each kind, models, checkpoints, and what became of runs that went on from a checkpoint.
"""

import json
import sys
from pathlib import Path

import torch
from shared_steps import KINDS, make, run, step, weights

folder = Path(sys.argv[1])
torch.set_num_threads(1)
said = {}
for number, kind in enumerate(KINDS):
    for shard in (False, True):
        trainer, found = run(kind, shard=shard)
        if trainer.runtime.is_main:
            torch.save(found, folder / f"{number}-{shard}.pt")
        if shard:
            trainer.save_model(folder / f"{number}" / "model")
            held = sum(getattr(p, "_local_tensor", p).numel() for p in trainer.policy.parameters())
            said[kind] = {"held": held, "all": sum(p.numel() for p in trainer.policy.parameters())}

kind = "all weights"
for name, before, after in (("same", True, True), ("cut", False, True), ("joined", True, False)):
    trainer, queries = make(kind, shard=before)
    step(trainer, queries)
    trainer.save(folder / name)
    wanted = step(trainer, queries)
    other, queries = make(kind, shard=after)
    other.restore(folder / name)
    got = step(other, queries)
    pairs = [(wanted[n], got[n]) for n in wanted] + list(
        zip(weights(trainer).values(), weights(other).values(), strict=True)
    )
    said[name] = max(float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max()) for a, b in pairs)
(folder / f"rank{trainer.runtime.rank}.json").write_text(json.dumps(said))
