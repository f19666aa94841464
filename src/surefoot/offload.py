"""Frozen models that leave the device while nobody asks them, and come back as they were.

From a GPU weights move to pinned memory of the host and are copied back. On a CPU they move into a file that is mapped
into memory: the system reads a page when it is looked at, and forgets it when it is told to.
"""

import contextlib
import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Offloaded:
    """The weights of frozen models, away until `present`.

    Args:
        models: none of whose parameters take gradients; they are away from now on.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        tensors = {id(t): t for m in models for t in (*m.parameters(), *m.buffers())}
        self._tensors = list(tensors.values())
        on_host = all(t.device.type == "cpu" for t in self._tensors)
        self._store: _Mapped | _Pinned = _Mapped(self._tensors) if on_host else _Pinned(self._tensors)

    @contextlib.contextmanager
    def present(self) -> Iterator[None]:
        """While active, the models can be run."""
        self._store.fetch()
        try:
            yield
        finally:
            self._store.release()


class _Mapped:
    """Weights in a file without a name, which goes with the process."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        page = mmap.PAGESIZE
        places, end = [], 0
        for tensor in tensors:
            places.append(end)
            end += -(-tensor.nbytes // page) * page
        self._map: mmap.mmap | None = None
        if not end:
            return
        with tempfile.TemporaryFile(prefix="surefoot-") as file:
            file.truncate(end)
            self._map = mmap.mmap(file.fileno(), end)
        whole = torch.frombuffer(self._map, dtype=torch.uint8)
        for tensor, place in zip(tensors, places, strict=True):
            bytes_ = whole[place : place + tensor.nbytes]
            mapped = bytes_.view(tensor.dtype).view(tensor.shape)
            mapped.copy_(tensor.detach())
            tensor.data = mapped
        self._map.flush()
        self.release()

    def fetch(self) -> None:
        """The system reads what is looked at."""

    def release(self) -> None:
        """Nothing of the file stays in this process."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)


class _Pinned:
    """Weights of a device in memory of the host from which it copies fast."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = [(t, t.device, self._to_host(t)) for t in tensors]
        self.release()

    def fetch(self) -> None:
        """Copies the weights to their devices."""
        for tensor, device, kept in self._tensors:
            tensor.data = kept.to(device, non_blocking=True)

    def release(self) -> None:
        """Frees their memory on the devices: the copies on the host are the weights that are."""
        for tensor, _, kept in self._tensors:
            tensor.data = kept

    @staticmethod
    def _to_host(tensor: Tensor) -> Tensor:
        kept = torch.empty_like(tensor, device="cpu", pin_memory=True)
        return kept.copy_(tensor.detach())


def frozen_models(reference: nn.Module | None, rewards: Iterable[Any]) -> list[nn.Module]:
    """Which models can leave: the reference where it has weights of its own, and reward models that are all frozen."""
    models = [] if reference is None else [reference]
    models += [r.model for r in rewards if isinstance(getattr(r, "model", None), nn.Module)]
    return [m for m in models if not any(p.requires_grad for p in m.parameters())]
