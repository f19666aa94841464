"""Whether a change leaves the numbers alone: `python -m benchmarks.neutral [REVISION]` (make bench-neutral BASE=...).

Five steps of a tiny model run on the source of REVISION (default HEAD, taken out into a temporary folder) and on the
working tree, with one thread, for a critic head, a value model and LoRA; what is compared, bit for bit, are the ids
that were sampled, the losses, and a checksum of all weights. Exit status 0: identical. 1: not; the largest relative
difference of the losses is printed, so that rounding can be told from a change of meaning.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.launch import ROOT, environment

STEPS = 5
CASES: dict[str, dict[str, Any]] = {
    "critic head": {"critic": "head"},
    "value model": {"critic": "model"},
    "lora": {"critic": "head", "lora_r": 4},
}
LOSSES = ("ppo/loss/policy", "ppo/loss/value", "ppo/policy/entropy", "objective/kl", "ppo/grad_norm")


def fingerprint(options: dict[str, Any]) -> dict[str, Any]:
    """Ids, losses and weights of a fixed run: prompts, rewards, seeds and thread count are part of it."""
    import torch

    from benchmarks.workloads import WORKLOADS, checksum, make_policy, make_prompts, make_tokenizer
    from surefoot import PPOConfig, PPOTrainer

    torch.set_num_threads(1)
    w = WORKLOADS["toy"]
    config = PPOConfig(
        batch_size=w.rows, mini_batch_size=w.minibatch_rows, ppo_epochs=2, max_new_tokens=w.response[1],
        learning_rate=1e-3, precision="float32", **options,
    )  # fmt: skip
    trainer = PPOTrainer(config, make_policy(w), tokenizer=make_tokenizer(w))
    queries = [torch.tensor(row) for row in make_prompts(w).ids]
    drawn, losses = hashlib.sha256(), []
    for _ in range(STEPS):
        responses = trainer.generate(queries)
        drawn.update(repr([r.tolist() for r in responses]).encode())
        stats = trainer.step(queries, responses, [float(r.sum() % 7) for r in responses])
        losses.append([float(stats[name]) for name in LOSSES])
    weights = [checksum(trainer.policy), checksum(trainer.critic)]
    return {"ids": drawn.hexdigest()[:16], "losses": losses, "weights": weights}


def run(source: Path) -> dict[str, dict[str, Any]]:
    """The fingerprints of every case with the product in `source`, in a process of their own."""
    env = environment(threads=1) | {"PYTHONPATH": os.pathsep.join([str(source), str(ROOT)])}
    command = [sys.executable, "-m", "benchmarks.neutral", "--child"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the run on {source} failed:\n{done.stderr[-3000:]}")
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    if not Path(found["source"]["path"]).is_relative_to(source.resolve()):
        raise SystemExit(f"{found['source']['path']} was measured instead of {source}")
    return {name: found[name] for name in CASES}


def run_revision(revision: str) -> dict[str, dict[str, Any]]:
    """The fingerprints of a commit, whose source is taken out into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", revision, "src"], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        return run(Path(folder) / "src")


def difference(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """What differs between two fingerprints in words; None where nothing does."""
    if before == after:
        return None
    parts = [name for name in ("ids", "losses", "weights") if before[name] != after[name]]
    largest = max(
        abs(x - y) / max(abs(x), abs(y), 1e-30) if x != y else 0.0
        for row, other in zip(before["losses"], after["losses"], strict=True)
        for x, y in zip(row, other, strict=True)
    )
    return f"{', '.join(parts)} differ; the losses by up to {largest:.1e} of themselves"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neutral", description=__doc__)
    parser.add_argument("revision", nargs="?", default="HEAD")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        import surefoot

        found = {name: fingerprint(options) for name, options in CASES.items()}
        print(json.dumps(found | {"source": {"path": str(Path(surefoot.__file__).resolve())}}))
        return 0
    before, after = run_revision(args.revision), run(ROOT / "src")
    differences = {name: difference(before[name], after[name]) for name in CASES}
    for name, words in differences.items():
        print(f"{name}: {words or f'identical, bit for bit, over {STEPS} steps'}")
    return int(any(differences.values()))


if __name__ == "__main__":
    sys.exit(main())
