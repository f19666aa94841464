"""A checkpoint on disk: a folder that is whole or not there, every byte of it checksummed, and no pickle in it.

    checkpoints/step_000100/
      tensors.safetensors   weights and moments
      state.json            numbers
      manifest.json         size and SHA-256 of the two, what the checkpoint is of, and a seal of its own

Where weights lie in shares on several processes, each writes its own: tensors-00001-of-00002.safetensors and so on. A
name that several of these have is cut along its first dimension, in their order.

A folder is written under a hidden name beside its place, flushed to the disk and renamed. Whatever happens in
between, a folder with a checkpoint's name is whole; one that a disk damaged later is found out by its checksums.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT = 3
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
UNFINISHED = ".unfinished-"
"""Begins the hidden name of a folder that is being written."""


class CheckpointError(ValueError):
    """A folder that is no whole checkpoint; the message names the file and what is wrong with it."""


# ------------------------------------------------------------------------------------------ writing
def write_checkpoint(
    path: str | Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Writes a checkpoint folder. Until it is complete and on the disk it does not have its name.

    Args:
        path: the folder to be.
        tensors: what goes into tensors.safetensors.
        state: plain numbers, texts, lists and mappings.
        about: what the manifest says of it: step, score, world_size, ...

    Raises:
        FileExistsError: there is something at `path` already.
        OSError: it could not be written, for instance because the disk is full. Nothing is left behind.
    """
    text = json.dumps(state, indent=1, allow_nan=False)
    size = sum(t.numel() * t.element_size() for t in tensors.values()) + len(text)
    unfinished = begin(path, size)
    with unfinished_on_failure(unfinished, path, size):
        finish(unfinished, path, {TENSORS: put(unfinished, TENSORS, tensors)}, text, about)


def begin(path: str | Path, size: int) -> Path:
    """A hidden folder beside the place of a checkpoint to be, of about `size` bytes.

    Raises:
        FileExistsError: there is something at `path` already.
        OSError: there is no room for it.
    """
    path = Path(path)
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path} exists already; a checkpoint is never written over another")
    _make_folder(path.parent)
    _check_room(path, size)
    return Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}{path.name}-", dir=path.parent))


def put(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Writes tensors into an unfinished checkpoint; what the manifest says of the file."""
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, folder / name)
    return _entry(folder / name)


def finish(folder: Path, path: str | Path, files: Mapping[str, Any], state: str, about: Mapping[str, Any]) -> None:
    """Adds the state and the manifest to an unfinished checkpoint, and gives it its name.

    Args:
        folder: the unfinished one.
        path: its name to be.
        files: what `put` said of each file in it.
        state: as JSON.
        about: what the manifest says of the whole.
    """
    path = Path(path)
    (folder / STATE).write_text(state, encoding="utf-8")
    content = {**files, STATE: _entry(folder / STATE)}
    (folder / MANIFEST).write_bytes(_sealed({"format": FORMAT, **about, "files": content}))
    _flush(folder / MANIFEST)
    _flush(folder)
    folder.rename(path)
    _flush(path.parent)


@contextmanager
def unfinished_on_failure(folder: Path, path: str | Path, size: int) -> Iterator[None]:
    """Nothing is left of an unfinished checkpoint where this block fails; a full disk is said to be one."""
    try:
        yield
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, Exception) and _means_full(error):
            raise _full(Path(path), size) from error
        raise


def part_name(number: int, of: int) -> str:
    """The file with the share of process `number`, from 0."""
    return f"tensors-{number + 1:05d}-of-{of:05d}.safetensors"


def _entry(file: Path) -> dict[str, Any]:
    """What the manifest says of a file, which is on the disk then."""
    entry = {"bytes": file.stat().st_size, "sha256": _sha256(file)}
    _flush(file)
    return entry


def _make_folder(folder: Path) -> None:
    missing = next((p for p in (folder, *folder.parents) if p.exists()), folder)
    folder.mkdir(parents=True, exist_ok=True)
    if missing != folder:
        _flush(missing)


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot flush folders
            raise
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sealed(body: Mapping[str, Any]) -> bytes:
    """The manifest with a hash over everything else in it."""
    seal = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**body, "seal": seal}, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


# ------------------------------------------------------------------------------------------ full disks
def _check_room(path: Path, size: int) -> None:
    if shutil.disk_usage(path.parent).free < size * 1.1:
        raise _full(path, size)


def _means_full(error: Exception) -> bool:
    """Whether an error of Python or of safetensors speaks of a full disk, a quota or a limit on the size of files."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "errno", None) in codes or any(f"os error {code})" in str(error) for code in codes)


def _full(path: Path, size: int) -> OSError:
    free = shutil.disk_usage(path.parent).free
    return OSError(
        errno.ENOSPC,
        f"the disk is full, or a limit on its use is reached: {path.name} needs {_mib(size)} and {_mib(free)} are "
        "free. The older checkpoints are as they were. Free some space, then go on with the same command",
        str(path.parent),
    )


def _mib(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"


# ------------------------------------------------------------------------------------------ reading
def read_checkpoint(path: str | Path) -> tuple[Mapping[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Tensors (as a whole), state and manifest of a checkpoint folder, after every byte was checked.

    Raises:
        CheckpointError: it is no checkpoint, of another format, or not as it was written.
    """
    path = Path(path)
    manifest = verify(path)
    parts = [load_file(path / name) for name in sorted(set(manifest["files"]) - {STATE})]
    tensors = parts[0] if len(parts) == 1 else _Joined(parts)
    return tensors, json.loads((path / STATE).read_text(encoding="utf-8")), manifest


class _Joined(Mapping[str, Tensor]):
    """The tensors of several files; one that is cut is put together when it is asked for."""

    def __init__(self, parts: Sequence[Mapping[str, Tensor]]) -> None:
        self._parts = parts

    def __getitem__(self, name: str) -> Tensor:
        found = [part[name] for part in self._parts if name in part]
        if not found:
            raise KeyError(name)
        return found[0] if len(found) == 1 else torch.cat(found)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for part in self._parts for name in part))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def verify(path: str | Path) -> dict[str, Any]:
    """Checks every byte of a checkpoint and returns its manifest.

    Raises:
        CheckpointError: naming the file, and what is wrong with it.
    """
    path = Path(path)
    manifest = read_manifest(path)
    for name, entry in manifest["files"].items():
        _check_size(path, name, entry["bytes"])
        if _sha256(path / name) != entry["sha256"]:
            raise CheckpointError(f"{path / name} is damaged: its checksum differs from the one in {MANIFEST}")
    return manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are all there, with the right sizes; their bytes are not read.

    Raises:
        CheckpointError: naming the file, and what is wrong with it.
    """
    file = path / MANIFEST
    if file.is_symlink() or not file.is_file():
        raise CheckpointError(f"{path} is no whole checkpoint: {MANIFEST} is missing")
    content = file.read_bytes()
    try:
        manifest = json.loads(content)
        del manifest["seal"]
        intact = _sealed(manifest) == content
    except (ValueError, TypeError, KeyError, RecursionError):
        intact = False
    if not intact:
        raise CheckpointError(f"{file} is damaged: its seal does not fit what it says")
    if manifest["format"] != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {manifest['format']!r}; this version reads {FORMAT}")
    for name, entry in manifest["files"].items():
        _check_size(path, name, entry["bytes"])
    extra = sorted({p.name for p in path.iterdir() if not p.name.startswith(".")} - {MANIFEST, *manifest["files"]})
    if extra:
        raise CheckpointError(f"{path / extra[0]} does not belong to the checkpoint: take it away")
    return dict(manifest)


def _check_size(path: Path, name: str, size: int) -> None:
    file = path / name
    if file.is_symlink() or not file.is_file():
        raise CheckpointError(f"{path} is no whole checkpoint: {name} is missing")
    if file.stat().st_size != size:
        raise CheckpointError(f"{file} is damaged: {file.stat().st_size} bytes instead of {size}")
