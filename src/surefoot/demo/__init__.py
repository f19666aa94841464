"""The main job on real input: `surefoot demo`, and its two-minute version on a toy made on the spot."""

from surefoot.threads import share_cores

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
    share_cores()  # before torch is loaded
    from surefoot.demo.run import run

    return run(quick, seed, output_dir)
