"""The main job on real input: `surefoot demo`, and its two-minute version on a toy made on the spot."""

import os

__all__ = ["run_demo"]


def run_demo(quick: bool = False, seed: int = 0, output_dir: str | None = None) -> int:
    """Improves a language model by PPO and shows what changed.

    Args:
        quick: a toy model that is trained on the spot; needs no further package.
        seed: of every random number; another seed gives other numbers.
        output_dir: folder of the run. None: a new one under `runs`.

    Returns:
        The exit status: 0 when the run came to its end, 1 when something that it needs is missing.
    """
    # OpenMP threads that spin at barriers stop each other where another program wants a core too. It is read when
    # torch is loaded, which is why this comes first.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from surefoot.demo.run import run

    return run(quick, seed, output_dir)
