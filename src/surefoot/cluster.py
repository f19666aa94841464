"""`surefoot ppo --ray N`: the same command in N workers of a Ray cluster; the only user of Ray (the extra `ray`).

Ray Train finds places for the workers, makes them one group, and starts all of them again when one dies. What a run
is lies in its folder, which every worker sees: a group that is started again goes on from the newest checkpoint there,
and ends as it would have. Ray's own checkpoints are not used.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from surefoot.runtime import Runtime, leave, patience
from surefoot.terminal import EXIT_FAILED, EXIT_OK, complain

MAX_FAILURES = 10
"""How often the workers are started again."""

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # a watchdog of Ray says this every second where there is no dashboard
    "RAY_DEDUP_LOGS_SKIP_REGEX": "Failed to query Ray Train Controller actor state",
}
"""For Ray, where nobody has set them otherwise; it reads them when it is imported."""

Command = Callable[[Sequence[str]], int]


def run_on_ray(workers: int, command: Command, arguments: Sequence[str], output_dir: Path) -> int:
    """Runs a command in workers that find each other; its exit code.

    Args:
        workers: how many.
        command: `surefoot.cli.main`, which is run in each.
        arguments: the command line; it names `output_dir`, and the same call goes on with what is there.
        output_dir: the run's folder, which all workers see. Ray notes its own affairs beside it, in <name>.ray.

    Raises:
        ValueError: Ray is not installed, or the cluster is too small.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise ValueError(f"--ray needs Ray, which is not here ({error}): pip install 'surefoot[ray]'") from error
    on_gpus = _connect(workers)
    folder = output_dir.absolute()
    trainer = TorchTrainer(
        _work,
        train_loop_config={"command": command, "arguments": list(arguments), "folder": os.getcwd()},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=on_gpus),
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout_s=int(patience())),
        run_config=RunConfig(
            name=time.strftime("%Y%m%d-%H%M%S"),  # Ray goes on by itself with what has the same name
            storage_path=str(folder.with_name(f"{folder.name}.ray")),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        complain(f"error: the workers were started again {MAX_FAILURES} times, and failed once more: {error}")
        return EXIT_FAILED
    return EXIT_OK


def _connect(workers: int) -> bool:
    """Joins the cluster at RAY_ADDRESS, or begins one on this machine; whether the workers are to have a GPU each.

    Raises:
        ValueError: the cluster has no room for so many, and Ray would wait for it without end.
    """
    import ray

    if not ray.is_initialized():
        own: dict[str, Any] = {
            "num_cpus": max(workers, os.cpu_count() or 1),
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
        ray.init(**({} if os.environ.get("RAY_ADDRESS") else own))
    there = ray.cluster_resources()
    if there.get("CPU", 0) < workers:
        raise ValueError(f"--ray {workers}: the cluster has {there.get('CPU', 0):g} cores, and a worker takes one")
    return bool(there.get("GPU", 0) >= workers)


def _work(given: Mapping[str, Any]) -> None:
    """What each worker does: the command, where its names of files mean what they meant there.

    Raises:
        RuntimeError: it failed, so that Ray starts all of them again.
    """
    os.chdir(given["folder"])
    runtime = Runtime()
    code = given["command"](given["arguments"])
    with runtime.everybodys():
        if code != EXIT_OK:
            raise RuntimeError(f"worker {runtime.rank} ended with exit code {code}; its own words are above")
    leave()  # Ray keeps the process for a while
