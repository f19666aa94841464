"""Two runs on one folder: the second is refused, and a lock dies with its process."""

import os
import signal
import time

import pytest
from tiny import tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.callbacks import Callback
from surefoot.lock import FolderLock


@pytest.fixture
def lock():
    """Makes locks and lets go of them in the end."""
    made = []

    def make(folder):
        made.append(FolderLock(folder))
        return made[-1]

    yield make
    for each in made:
        each.release()


def test_the_second_is_refused_and_told_who_holds_it(tmp_path, lock):
    first, second = lock(tmp_path / "run"), lock(tmp_path / "run")
    first.acquire()
    first.acquire()
    with pytest.raises(ValueError, match=rf"run' is in use by process {os.getpid()} on .*two runs cannot write"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()
    second.release()
    assert (tmp_path / "run" / ".lock").read_text() == ""


def test_a_killed_holder_leaves_no_lock_behind(tmp_path, lock):
    child = os.fork()
    if child == 0:
        held = FolderLock(tmp_path)
        held.acquire()
        time.sleep(60)
        os._exit(0)
    deadline = time.monotonic() + 30
    while not (tmp_path / ".lock").exists() or not (tmp_path / ".lock").read_text():
        assert time.monotonic() < deadline
    with pytest.raises(ValueError, match=f"in use by process {child} on "):
        lock(tmp_path).acquire()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    lock(tmp_path).acquire()


def test_a_file_system_without_locks_is_warned_of_and_used(tmp_path, monkeypatch, caplog, lock):
    def unsupported(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    lock(tmp_path).acquire()
    assert "without locks" in caplog.text


def trainer(folder, callbacks=()):
    config = PPOConfig(batch_size=4, mini_batch_size=4, ppo_epochs=1, max_new_tokens=3, steps=1, eval_prompts=0,
                       output_dir=str(folder))  # fmt: skip
    return PPOTrainer(config, tiny_llama(), None, tiny_tokenizer(), reward=lambda text: float(len(text)),
                      dataset=["a b", "c d", "e f", "g h"], callbacks=callbacks)  # fmt: skip


def test_a_trainer_holds_its_folder_while_it_trains_and_lets_go_after(tmp_path, lock):
    class Rival(Callback):
        def on_step(self, trainer, stats, samples):
            with pytest.raises(ValueError, match="in use by"):
                lock(tmp_path).acquire()
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        trainer(tmp_path, [Rival()]).train()
    lock(tmp_path).acquire()


def test_a_trainer_does_not_begin_in_a_folder_that_another_holds(tmp_path, lock):
    held = lock(tmp_path)
    held.acquire()
    with pytest.raises(ValueError, match="in use by"):
        trainer(tmp_path).train()
    assert not (tmp_path / "config.yaml").exists()
