"""The checkpoints of whole runs: what they are made of, which are kept, what happens when they cannot be written."""

import json
import re
from pathlib import Path

import pytest
from tiny import tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.checkpoint import verify
from surefoot.kept import steps_in

TEXTS = [f"prompt number {i}" for i in range(12)]


def trainer(folder, *, reward=lambda text: float(len(text)), callbacks=(), **changes):
    options = {"batch_size": 4, "mini_batch_size": 4, "ppo_epochs": 1, "max_new_tokens": 4, "steps": 3, "seed": 3,
               "eval_prompts": 2, "eval_every": 1, "save_every": 1, "output_dir": str(folder)}  # fmt: skip
    return PPOTrainer(PPOConfig(**(options | changes)), tiny_llama(), None, tiny_tokenizer(), reward=reward,
                      dataset=TEXTS, callbacks=callbacks)  # fmt: skip


PICKLE = re.compile(rb"\x80[\x00-\x05]")
ZIP = b"PK\x03\x04"


def test_no_file_of_a_run_is_a_pickle_or_an_archive(tmp_path):
    """Every protocol of pickle from 2 on begins with 0x80 and its number; torch's own format is a zip archive."""
    trainer(tmp_path, lora_r=2, critic="adapter", use_score_scaling=True).train()
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) > 15
    for file in files:
        head = file.read_bytes()[:4]
        assert not PICKLE.match(head), file
        assert head != ZIP, file
        assert file.suffix in (".json", ".jsonl", ".safetensors", ".yaml", ".md", "", ".jinja"), file


def test_the_newest_and_the_best_remain_and_tell_their_scores(tmp_path):
    """Scores that are made up, by the number of the evaluation: step 2 is the best of six."""
    scores = iter([0.0, 1.0, 9.0, 2.0, 3.0, 4.0, 5.0])

    def reward(prompts, completions, trainer_state=None, **columns):
        return [next(scores)] * 2 if len(completions) == 2 else [0.5] * len(completions)

    trainer(tmp_path, reward=reward, steps=6).train()
    kept = {step: verify(path)["score"] for step, path in steps_in(tmp_path / "checkpoints").items()}
    assert kept == {2: 9.0, 5: 4.0, 6: 5.0}


def test_a_disk_that_fills_up_stops_the_run_with_its_last_checkpoint_whole(tmp_path, monkeypatch):
    from surefoot import checkpoint

    write = checkpoint.save_file

    def full(tensors, path):
        if "step_000003" in str(path):
            Path(path).write_bytes(b"half")
            raise RuntimeError(
                'I/O error: Custom { kind: StorageFull, error: "No space left on device (os error 28)" }'
            )
        write(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="the disk is full, or a limit on its use is reached: step_000003 needs"):
        trainer(tmp_path, keep_checkpoints=3).train()
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step_000001", "step_000002"]
    for path in steps_in(tmp_path / "checkpoints").values():
        verify(path)


def test_a_file_in_the_place_of_the_folder_is_told_before_anything_is_trained(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ValueError, match="is a file: choose a folder"):
        trainer(tmp_path / "run").train()
    assert (tmp_path / "run").read_text() == "mine"


def test_the_manifest_names_step_and_processes(tmp_path):
    trainer(tmp_path, steps=1).train()
    manifest = json.loads((tmp_path / "checkpoints" / "step_000001" / "manifest.json").read_text())
    assert (manifest["step"], manifest["world_size"]) == (1, 1)
