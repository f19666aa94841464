"""How this process shares the cores: no more threads than it may have cores, and threads that soon wait asleep.

OpenMP threads wait for each other by spinning, for milliseconds unless told otherwise. As soon as another program
wants a core, there is nearly always one thread spinning for another that is not running, and two threads become many
times slower than one. A spin of microseconds is as quick on a quiet machine and leaves the core to others after that.

OpenMP reads these variables when torch is loaded, so they are set before that or not at all. Whatever the user has
set stands. No torch in here.
"""

import logging
import math
import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

_LOG = logging.getLogger("surefoot")

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Where a user may have said how threads wait: in general, to GNU's OpenMP (torch on Linux), to LLVM's and Intel's."""

SHORT_SPIN: Mapping[str, str] = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""Our choice (docs/decisions/0007-threads-soon-asleep.md). GNU's OpenMP goes by the second, others by the first."""


def share_cores(environ: MutableMapping[str, str] = os.environ) -> None:
    """Says in `environ` how many threads torch is to use and how they wait; does nothing once torch is loaded.

    The count is left to torch unless a control group allows fewer cores, or LOCAL_WORLD_SIZE processes share them.
    """
    if "torch" in sys.modules:
        return
    if not any(name in environ for name in WAITING):
        environ.update(SHORT_SPIN)
    cores = usable_cores()
    mine = max(1, cores // int(environ.get("LOCAL_WORLD_SIZE", "1")))
    if "OMP_NUM_THREADS" not in environ and mine < _scheduled_cores():
        environ["OMP_NUM_THREADS"] = str(mine)


def waiting(environ: Mapping[str, str] = os.environ) -> str:
    """How threads wait for each other, in words; what set it is named."""
    found = {name: environ[name] for name in WAITING if name in environ}
    if not found:
        return "spinning, OpenMP's default"
    said = " ".join(f"{name}={value}" for name, value in found.items())
    return f"{'asleep after a short spin' if found == SHORT_SPIN else 'as set'} ({said})"


def departure(count: int, environ: Mapping[str, str] = os.environ) -> str:
    """What is not as we would choose it where torch runs `count` threads; empty where all is."""
    cores = usable_cores()
    if count >= cores and waiting(environ) == waiting(SHORT_SPIN):
        return ""
    set_by = f" (OMP_NUM_THREADS={environ['OMP_NUM_THREADS']})" if "OMP_NUM_THREADS" in environ else ""
    return f"{count} on {cores} cores{set_by}; they wait {waiting(environ)}"


def warn_of_spinning(count: int, environ: Mapping[str, str] = os.environ) -> None:
    """Warns where `count` threads spin on a machine that is busy already: it is too late to change that here."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if count > 1 and load > cores and not any(name in environ for name in WAITING):
        _LOG.warning(
            "%d threads wait for each other by spinning, and this machine is busy (load %.1f on %d cores): steps may "
            "take many times as long. Import surefoot before torch, or set OMP_WAIT_POLICY=PASSIVE.",
            count, load, cores,
        )  # fmt: skip


def usable_cores(groups: Path = Path("/sys/fs/cgroup"), memberships: Path = Path("/proc/self/cgroup")) -> int:
    """Cores this process may use: those it may be scheduled on, or fewer where a control group limits its time."""
    quotas = [_quota(folder) for folder in _cpu_groups(groups, memberships)]
    return min([_scheduled_cores(), *(max(1, math.ceil(quota)) for quota in quotas if quota is not None)])


def _scheduled_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_groups(groups: Path, memberships: Path) -> list[Path]:
    """Folders of the control groups that this process is in, with all above them; version 2 and version 1."""
    if not memberships.is_file():
        return []
    folders = []
    for line in memberships.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = groups / controllers if controllers else groups
        inner = root / path.lstrip("/")
        folders += [root, *(folder for folder in (inner, *inner.parents) if root in folder.parents)]
    return folders


def _quota(folder: Path) -> float | None:
    """Cores' worth of time that a control group may take; None where it sets no limit."""
    try:
        if (folder / "cpu.max").is_file():
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit, period = (folder / "cpu.cfs_quota_us").read_text(), (folder / "cpu.cfs_period_us").read_text()
    except OSError:
        return None
    return None if limit.strip() in ("max", "-1") else int(limit) / int(period)
