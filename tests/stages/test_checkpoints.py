"""Checkpoints of TRL's trainers: only those that were stamped whole, and still are, are gone on with."""

import pytest

from surefoot.stages.checkpoints import STAMP, is_whole, newest_whole, stamp, step_of


def made(folder, step):
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "ref").mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    (checkpoint / "ref" / "adapter_model.safetensors").write_bytes(b"more")
    return checkpoint


def test_the_newest_stamped_checkpoint_is_the_highest_step_not_the_last_name(tmp_path):
    for step in (8, 9, 10):
        stamp(made(tmp_path, step))
    assert newest_whole(tmp_path, pytest.fail) == tmp_path / "checkpoint-10"


@pytest.mark.parametrize("harm", ["no stamp", "half a stamp", "a file is shorter", "a file is gone"])
def test_a_checkpoint_that_is_not_whole_is_told_and_not_used(tmp_path, harm):
    stamp(made(tmp_path, 2))
    newer = made(tmp_path, 4)
    stamp(newer)
    assert is_whole(newer)
    if harm == "no stamp":
        (newer / STAMP).unlink()
    elif harm == "half a stamp":
        (newer / STAMP).write_text('{"model.safete')
    elif harm == "a file is shorter":
        (newer / "model.safetensors").write_bytes(b"weig")
    else:
        (newer / "ref" / "adapter_model.safetensors").unlink()
    said = []
    assert newest_whole(tmp_path, said.append) == tmp_path / "checkpoint-2"
    assert len(said) == 1
    assert "checkpoint-4 is not whole" in said[0]


def test_an_empty_folder_has_none(tmp_path):
    assert newest_whole(tmp_path, pytest.fail) is None
    assert step_of(tmp_path / "checkpoint-tmp") == -1
