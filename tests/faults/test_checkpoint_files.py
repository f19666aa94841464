"""A checkpoint is whole or it is not there, every byte is checksummed, and there is no pickle in it."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.checkpoint import CheckpointError, read_checkpoint, verify, write_checkpoint
from surefoot.kept import newest_valid, place, place_again, retain, set_aside, steps_in, tidy

KILLER = Path(__file__).with_name("kill_saves.py")
FILES = ("tensors.safetensors", "state.json", "manifest.json")


def save(folder: Path, step: int, score: float | None = None) -> Path:
    path = place(folder, step)
    tensors = {"weight": torch.full((3, 4), float(step)), "count": torch.tensor(step)}
    write_checkpoint(path, tensors, {"step": step, "text": "é\ud800"}, {"step": step, "score": score})
    return path


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ------------------------------------------------------------------------------------------ whole
def test_what_was_written_is_read_and_the_manifest_tells_sizes_and_checksums(tmp_path):
    path = save(tmp_path, 7, 0.5)
    tensors, state, manifest = read_checkpoint(path)
    assert torch.equal(tensors["weight"], torch.full((3, 4), 7.0))
    assert torch.equal(tensors["count"], torch.tensor(7))
    assert state == {"step": 7, "text": "é\ud800"}
    assert (manifest["format"], manifest["step"], manifest["score"]) == (3, 7, 0.5)
    for name in ("tensors.safetensors", "state.json"):
        content = (path / name).read_bytes()
        assert manifest["files"][name] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert left_in(path) == sorted(FILES)
    assert left_in(tmp_path) == ["step_000007"]


def test_a_checkpoint_is_never_written_over_another(tmp_path):
    path = save(tmp_path, 1)
    before = verify(path)
    with pytest.raises(FileExistsError, match="never written over"):
        save(tmp_path, 1)
    assert verify(path) == before


def test_everything_is_on_the_disk_before_the_folder_has_its_name(tmp_path, monkeypatch):
    """The order of flushes and the rename: three files, their folder, the rename, the folder above."""
    events = []
    rename = Path.rename

    def flushed(descriptor):
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "rename", lambda self, to: (events.append("rename"), rename(self, to))[1])
    save(tmp_path, 1)
    unfinished = next(name for name in events if name.startswith(".unfinished-step_000001-"))
    assert sorted(events[:3]) == sorted(FILES)
    assert events[3:] == [unfinished, "rename", tmp_path.name]


@pytest.mark.parametrize("moment", ["rename", "fsync", "write_bytes"])
def test_a_failure_at_any_moment_leaves_nothing_behind(tmp_path, monkeypatch, moment):
    save(tmp_path, 1)

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os if moment == "fsync" else Path, moment, fail)
    with pytest.raises(OSError, match="Input/output error"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert left_in(tmp_path) == ["step_000001"]


# ------------------------------------------------------------------------------------------ damaged
@pytest.mark.parametrize("name", FILES)
def test_a_flip_of_any_byte_is_found_and_the_file_named(tmp_path, name):
    path = save(tmp_path, 3)
    file = path / name
    content = file.read_bytes()
    assert len(content) < 2000
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        file.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=name):
            read_checkpoint(path)
    file.write_bytes(content)
    read_checkpoint(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["half", "nothing left", "one byte more", "removed", "a folder", "a link"])
def test_a_file_of_another_length_or_kind_is_found_and_named(tmp_path, name, damage):
    path = save(tmp_path, 3)
    file = path / name
    content = file.read_bytes()
    if damage in ("removed", "a folder", "a link"):
        file.unlink()
    if damage == "a folder":
        file.mkdir()
    elif damage == "a link":
        (tmp_path / "elsewhere").write_bytes(content)
        file.symlink_to(tmp_path / "elsewhere")
    elif damage != "removed":
        file.write_bytes({"half": content[: len(content) // 2], "nothing left": b""}.get(damage, content + b" "))
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(path)


def test_a_file_that_does_not_belong_is_named(tmp_path):
    path = save(tmp_path, 3)
    (path / "optimizer.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"optimizer\.pt does not belong"):
        read_checkpoint(path)


def test_files_of_two_checkpoints_do_not_mix(tmp_path):
    first, second = save(tmp_path, 1), save(tmp_path, 2)
    (second / "tensors.safetensors").write_bytes((first / "tensors.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"tensors\.safetensors is damaged: its checksum differs"):
        read_checkpoint(second)


def test_another_format_and_another_folder_are_told(tmp_path):
    path = save(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["seal"]
    body = manifest | {"format": 99}
    seal = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(body | {"seal": seal}, indent=1, sort_keys=True) + "\n")
    with pytest.raises(CheckpointError, match="has checkpoint format 99; this version reads 3"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing"):
        read_checkpoint(tmp_path / "nowhere")


def test_the_newest_valid_one_is_used_and_every_damaged_one_named(tmp_path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    (tmp_path / "step_000004" / "state.json").write_bytes(b"")
    (tmp_path / "step_000003" / "manifest.json").unlink()
    said = []
    assert newest_valid(tmp_path, said.append) == tmp_path / "step_000002"
    assert ["step_000004/state.json" in said[0], "step_000003" in said[1]] == [True, True]
    assert all(words.endswith("going back to step_000002") for words in said)


def test_only_damaged_ones_are_an_error_and_no_new_start(tmp_path):
    assert newest_valid(tmp_path, pytest.fail) is None
    assert newest_valid(tmp_path / "nowhere", pytest.fail) is None
    (save(tmp_path, 1) / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"state\.json is missing\. None of the 1 checkpoints"):
        newest_valid(tmp_path, pytest.fail)


def test_the_newest_is_the_largest_step_not_the_last_name(tmp_path):
    save(tmp_path, 999_999)
    save(tmp_path, 1_000_000)
    assert newest_valid(tmp_path, pytest.fail) == tmp_path / "step_1000000"


# ------------------------------------------------------------------------------------------ what is kept
@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from([None, 0.0, 0.5, 1.0, -2.0]), st.booleans()), min_size=1, max_size=8),
    st.integers(2, 3),
)
def test_the_newest_whole_ones_and_the_best_are_always_kept(tmp_path_factory, saves, keep):
    """Whatever the scores, and whichever of them a disk damages after they were written."""
    folder = tmp_path_factory.mktemp("kept")
    whole: dict[int, float | None] = {}
    for step, (score, damaged) in enumerate(saves, start=1):
        save(folder, step, score)
        whole[step] = score
        retain(folder, keep)
        newest = set(sorted(whole)[-keep:])
        best = max((s for s in whole if whole[s] is not None), key=lambda s: (whole[s], -s), default=step)
        assert set(steps_in(folder)) & set(whole) == newest | {best}
        whole = {s: whole[s] for s in newest | {best}}
        if damaged:
            (place(folder, step) / "state.json").write_bytes(b"")
            del whole[step]


def test_exactly_the_newest_two_and_the_first_best_remain(tmp_path):
    for step, score in enumerate([0.1, 0.9, 0.9, None, 0.3, None], start=1):
        save(tmp_path, step, score)
        retain(tmp_path, 2)
    assert list(steps_in(tmp_path)) == [2, 5, 6]


def test_keeping_leaves_alone_what_is_not_a_checkpoint(tmp_path):
    outside = tmp_path / "outside"
    save(outside, 1)
    folder = tmp_path / "run"
    (folder / "step_000001").mkdir(parents=True)
    (folder / "step_000001" / "thesis.txt").write_text("mine")
    (folder / "notes").mkdir()
    (folder / "step_000002").symlink_to(outside / "step_000001")
    for step in (3, 4, 5, 6):
        save(folder, step)
        retain(folder, 2)
    assert left_in(folder) == ["notes", "step_000001", "step_000002", "step_000005", "step_000006"]
    assert (folder / "step_000001" / "thesis.txt").read_text() == "mine"
    verify(outside / "step_000001")


def test_what_a_kill_left_is_tidied_away_and_nothing_else(tmp_path):
    save(tmp_path, 1)
    for name in (".unfinished-step_000002-abc", ".delete-step_000001", ".mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    tidy(tmp_path)
    tidy(tmp_path / "nowhere")
    assert left_in(tmp_path) == [".mine", "step_000001"]


def test_what_lies_past_the_step_that_a_run_goes_on_from_is_put_aside_and_kept(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert [p.name for p in set_aside(tmp_path, 2)] == ["aside_step_000003"]
    save(tmp_path, 3)
    assert [p.name for p in set_aside(tmp_path, 2)] == ["aside_step_000003_2"]
    assert list(steps_in(tmp_path)) == [1, 2]
    verify(tmp_path / "aside_step_000003")


@pytest.mark.parametrize("settle", [tidy, lambda folder: retain(folder, 2)])
@pytest.mark.parametrize("killed", ["before the other was gone", "before it had its name"])
def test_one_that_was_written_again_counts_at_once_and_takes_the_place_of_the_other(tmp_path, settle, killed):
    save(tmp_path, 1, 0.5)
    save(tmp_path, 2, None)
    save(tmp_path / "elsewhere", 2, 0.75).rename(place_again(tmp_path, 2))
    (tmp_path / "elsewhere").rmdir()
    if killed == "before it had its name":
        place(tmp_path, 2).rename(tmp_path / ".delete-step_000002")
    assert newest_valid(tmp_path, print) == steps_in(tmp_path)[2] == place_again(tmp_path, 2)
    settle(tmp_path)
    tidy(tmp_path)
    assert left_in(tmp_path) == ["step_000001", "step_000002"]
    assert verify(place(tmp_path, 2))["score"] == 0.75


# ------------------------------------------------------------------------------------------ kills
@pytest.mark.multi
@pytest.mark.parametrize(
    "kills", [20, pytest.param(120, marks=pytest.mark.slow), pytest.param(500, marks=pytest.mark.soak)]
)
def test_kills_at_random_moments_of_saving_leave_no_bad_checkpoint(tmp_path, kills, record_property):
    command = [sys.executable, str(KILLER), str(tmp_path / "checkpoints"), str(kills), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    record_property(
        "counts",
        f"{found['kills']} kills, {len(found['bad'])} bad checkpoints "
        f"({found['saves']} saves came to their end, {found['half_written']} were cut off)",
    )
    assert found["kills"] == kills
    assert found["bad"] == []
    assert found["half_written"] > kills // 10, "hardly a kill hit a save: the test tests little"


# ------------------------------------------------------------------------------------------ full and read-only disks
FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from surefoot.checkpoint import write_checkpoint
from surefoot.kept import newest_valid, place
folder, limited = Path(sys.argv[1]), int(sys.argv[2])
def save(step, size):
    write_checkpoint(place(folder, step), {"w": torch.zeros(size)}, {}, {"step": step, "score": None})
save(1, 10)
resource.setrlimit(resource.RLIMIT_FSIZE, (limited, limited))
try:
    save(2, 100_000)
except OSError as error:
    print(error)
print("newest", newest_valid(folder, print).name, sorted(p.name for p in folder.iterdir()))
"""


@pytest.mark.parametrize("limit", [100, 100_000])
def test_a_full_disk_is_told_with_numbers_and_the_older_checkpoint_stays(tmp_path, limit):
    """A limit on the size of files fails the write in the middle, as a full disk does; no root is needed for it."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), str(limit)], capture_output=True, text=True, check=True
    )
    assert "the disk is full, or a limit on its use is reached: step_000002 needs 0.4 MiB and" in done.stdout
    assert "The older checkpoints are as they were" in done.stdout
    assert "newest step_000001 ['step_000001']" in done.stdout


def test_a_disk_that_is_nearly_full_is_found_before_anything_is_written(tmp_path, monkeypatch):
    save(tmp_path, 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: os.terminal_size((0, 0)) and type("Usage", (), {"free": 50})())
    with pytest.raises(OSError, match=r"step_000002 needs 0\.0 MiB and 0\.0 MiB are free"):
        save(tmp_path, 2)
    assert left_in(tmp_path) == ["step_000001"]


READ_ONLY = """
import os, sys
from pathlib import Path
import torch
from surefoot.checkpoint import write_checkpoint
from surefoot.kept import place
folder = Path(sys.argv[1])
folder.mkdir()
os.chmod(folder, 0o555)
if os.geteuid() == 0:
    os.chmod(folder.parent, 0o755)
    os.seteuid(65534)  # root may write everywhere
try:
    write_checkpoint(place(folder / "checkpoints", 1), {"w": torch.zeros(2)}, {}, {"step": 1})
except OSError as error:
    print(type(error).__name__, error)
"""


def test_a_folder_without_permission_is_named(tmp_path):
    target = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", READ_ONLY, str(target)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("PermissionError")
    assert str(target) in done.stdout


# ------------------------------------------------------------------------------------------ pickle
class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return (open, (self.target, "w"))


@pytest.mark.parametrize("name", [*FILES, "optimizer.pt", "random_states_0.pkl"])
@pytest.mark.parametrize("form", ["pickle", "zip"])
def test_a_planted_pickle_is_refused_and_does_not_run(tmp_path, name, form):
    path = save(tmp_path / "checkpoints", 1)
    sentinel, planted = tmp_path / "executed", path / name
    if form == "pickle":
        planted.write_bytes(pickle.dumps(Bomb(str(sentinel))))
    else:
        with zipfile.ZipFile(planted, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Bomb(str(sentinel))))
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(path)
    assert not sentinel.exists()


def test_the_planted_pickle_would_have_run(tmp_path):
    pickle.loads(pickle.dumps(Bomb(str(tmp_path / "executed")))).close()  # noqa: S301 - that is the point
    assert (tmp_path / "executed").exists()
