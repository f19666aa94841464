"""Starts one measured process at a time, ours or the peer's, each in the same environment, and reads its record."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PEER = ROOT / "benchmarks" / ".peer" / "bin" / "python"


WAITING: dict[str, dict[str, str]] = {
    "": {},
    "spinning": {"GOMP_SPINCOUNT": "300000"},
    "asleep": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"},
}
"""How threads are told to wait for each other. Left alone, ours chooses by itself, and everything else spins: GNU's
OpenMP turns 300000 times before it sleeps, so that "spinning" only keeps ours from choosing."""


def environment(threads: int) -> dict[str, str]:
    """What every process is given: a thread count, no wait policy, no network."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_", "MKL_", "MALLOC_", "GLIBC_"))
    }
    return kept | {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "PYTHONWARNINGS": "ignore",
    }


def launch(module: str, *options: str, env: dict[str, str], peer: bool = False) -> dict[str, Any]:
    """Runs `python -m benchmarks.<module>` to its end and returns the record it wrote.

    Raises:
        RuntimeError: it failed; the end of what it said is in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "record.json"
        python = str(PEER) if peer else sys.executable
        command = [python, "-m", f"benchmarks.{module}", *options, "--out", str(out)]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)  # noqa: PLW1510
        if done.returncode != 0 or not out.exists():
            raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stdout[-500:]}\n{done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(out.read_text())
        return found


@contextlib.contextmanager
def neighbour() -> Iterator[None]:
    """Keeps one core busy while it is active."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def commit() -> str:
    """The commit that is measured, with a plus sign where tracked files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
