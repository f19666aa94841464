"""Processes and devices: the only user of torch.distributed. On one process every method is trivial."""

import atexit
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from surefoot.peers import AbandonedError, PeerError, PeerLostError, Peers

_PATIENCE = "SUREFOOT_TIMEOUT"
"""Seconds that a process waits for the others in a collective; it is a hang when one does not come."""
_BROKEN = re.compile(r"connection (closed|reset)|broken pipe|timed? ?out|gloo|nccl|socket", re.IGNORECASE)
_peers: Peers | None = None  # of the process, as its group is


class Runtime:
    """This process's place among all of them. Started by `torchrun`, or alone."""

    def __init__(self) -> None:
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        if self.world_size > 1 and not dist.is_initialized():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(seconds=patience())
            )
            atexit.register(leave)  # a group that is still open when Python ends may abort the process
        self.rank = dist.get_rank() if self.world_size > 1 else 0
        self._peers = _watched(self.rank, self.world_size) if self.world_size > 1 else None

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def default_device(self) -> torch.device:
        """The accelerator of this process, or the CPU."""
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

    def all_sum(self, x: Tensor) -> Tensor:
        """The sum over all processes; the argument is left alone."""
        if self.world_size == 1:
            return x
        total = x.clone()
        with self.with_all():
            dist.all_reduce(total)
        return total

    def all_max(self, value: int) -> int:
        """The largest of one whole number a process."""
        return int(max(self.gather([value])))

    def all_true(self, flag: bool) -> bool:
        """Whether `flag` is True on every process."""
        if self.world_size == 1:
            return flag
        least = torch.tensor(float(flag))
        with self.with_all():
            dist.all_reduce(least, op=dist.ReduceOp.MIN)
        return bool(least)

    def gather(self, rows: Sequence[Any]) -> list[Any]:
        """Everybody's rows, in the order of the processes, on every process."""
        if self.world_size == 1:
            return list(rows)
        parts: list[Any] = [None] * self.world_size
        with self.with_all():
            dist.all_gather_object(parts, list(rows))
        return [row for part in parts for row in part]

    @contextmanager
    def together(self) -> Iterator[None]:
        """An error of one process in this block is everybody's at its end. No process waits for another inside it.

        Raises:
            PeerError: another process failed.
            AbandonedError: nobody failed, and a process wants to stop.
        """
        failure: BaseException | None = None
        try:
            yield
        except PeerLostError:  # nothing can be done together any more
            raise
        except (Exception, SystemExit, AbandonedError) as error:  # noqa: BLE001 - it is raised again below
            failure = error
        leaves = isinstance(failure, AbandonedError)
        said = str(failure) if leaves else f"process {self.rank} failed: {type(failure).__name__}: {failure}"
        try:
            everybody = self.gather([] if failure is None else [(leaves, said)])
        finally:
            if failure is not None and not leaves:
                raise failure
        failed = [said for left, said in everybody if not left]
        if failed:
            raise PeerError("; ".join(failed))
        if everybody:
            raise AbandonedError(everybody[0][1])

    @contextmanager
    def everybodys(self) -> Iterator[None]:
        """Whatever one process leaves this block by ends all of them, wherever they are."""
        try:
            yield
        except BaseException as error:
            if self._peers is not None:
                self._peers.tell(error)
            raise

    @contextmanager
    def lockstep(self) -> Iterator[None]:
        """Passes in which processes wait for each other: an error of one ends all, for there is no coming together.

        Raises:
            PeerLostError: an error in this block, of this process or of another.
        """
        try:
            with self.with_all():
                yield
        except PeerLostError:
            raise
        except BaseException as error:
            if self._peers is None:
                raise
            self._peers.tell(error)
            if not isinstance(error, Exception):
                raise
            raise PeerLostError(f"process {self.rank} failed: {type(error).__name__}: {error}") from error

    @contextmanager
    def with_all(self) -> Iterator[None]:
        """Something that all processes do together.

        Raises:
            PeerLostError: one of them is gone, or does not come.
        """
        try:
            yield
        except PeerLostError:
            raise
        except RuntimeError as error:
            if self._peers is None or not _BROKEN.search(str(error)):
                raise
            raise PeerLostError(self._peers.explain(error)) from error

    def offset(self, count: int) -> tuple[int, int]:
        """How many rows the processes before this one hold, and how many all hold together."""
        counts = self.gather([count])
        return sum(counts[: self.rank]), sum(counts)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Adds up gradients over all processes; one that has none contributes 0."""
        if self.world_size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if hasattr(parameter, "full_tensor"):  # in shares, whose gradients are sums already
                continue
            with self.with_all():
                dist.all_reduce(parameter.grad)

    def share(self, rows: Sequence[Any]) -> list[Any]:
        """This process's contiguous share of rows that every process knows."""
        bounds = [len(rows) * i // self.world_size for i in range(self.world_size + 1)]
        return list(rows[bounds[self.rank] : bounds[self.rank + 1]])

    def barrier(self) -> None:
        """Waits for all processes."""
        if self.world_size > 1:
            with self.with_all():
                dist.barrier()


def patience() -> float:
    """Seconds that a process waits for the others: half an hour, or what SUREFOOT_TIMEOUT says.

    Raises:
        ValueError: that is no positive number.
    """
    said = os.environ.get(_PATIENCE, "1800")
    seconds = float(said) if said.replace(".", "", 1).isdecimal() else 0.0
    if seconds <= 0:
        raise ValueError(f"{_PATIENCE}={said!r} must be a positive number of seconds")
    return seconds


def _watched(rank: int, world_size: int) -> Peers:
    global _peers  # noqa: PLW0603 - one watch for the process
    if _peers is None:
        _peers = Peers(dist.distributed_c10d._get_default_store(), rank, world_size)
        _peers.start()
    return _peers


def leave() -> None:
    """Says goodbye to the other processes; nothing is done together after that."""
    if _peers is not None:
        _peers.close()
    if dist.is_initialized():
        dist.destroy_process_group()


def free_memory_bytes(device: torch.device) -> int:
    """Memory that a pass may take on `device`: what the accelerator has free, or what the system could give."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with open("/proc/meminfo") as lines:
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return kib["MemAvailable"] * 1024


def resident_bytes() -> int:
    """Memory of the system that this process takes now."""
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_memory_gib(device: torch.device) -> float:
    """Highest memory use of this process so far, on its device."""
    return max(_earlier_peak_gib, peak_memory_since_restart_gib(device))


def peak_memory_since_restart_gib(device: torch.device) -> float:
    """Highest memory use since `restart_peak_memory`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def restart_peak_memory(device: torch.device) -> bool:
    """Begins a peak of its own, to tell stages apart; False where the system cannot."""
    global _earlier_peak_gib  # noqa: PLW0603 - the peak belongs to the process too
    _earlier_peak_gib = peak_memory_gib(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        with open("/proc/self/clear_refs", "w") as peaks:
            peaks.write("5")
    except OSError:
        return False
    return True


_earlier_peak_gib = 0.0


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
