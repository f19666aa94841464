"""What a run keeps of its answers token by token, and what it keeps of conversations."""

import json
import re

import pytest
import tiny

from surefoot import PPOConfig, PPOTrainer
from surefoot.callbacks import Callback
from surefoot.recorder import EVALUATED_BY_TOKEN, TRAINED_BY_TOKEN


class Listener(Callback):
    """Keeps what callbacks are told, and the advantages that each step learnt from."""

    def __init__(self):
        self.told, self.advantages = [], []

    def on_step(self, trainer, stats, samples):
        self.told += samples
        self.advantages.append(trainer.last_experience.advantages.tolist())

    def on_evaluation(self, trainer, evaluation):
        self.told += evaluation.samples


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps on conversations, and who listened."""
    folder, listener = tmp_path_factory.mktemp("recorder") / "run", Listener()
    config = PPOConfig(batch_size=8, mini_batch_size=8, ppo_epochs=1, steps=2, max_new_tokens=6, eval_every=1,
                       eval_prompts=20, learning_rate=1e-3, output_dir=str(folder))  # fmt: skip
    asked = [{"prompt": [{"role": "user", "content": f"say {n}"}]} for n in range(40)]
    trainer = PPOTrainer(config, tiny.tiny_llama(), tokenizer=tiny.tiny_tokenizer(chat=True), dataset=asked,
                         reward=lambda text: float(len(text)), callbacks=[listener])  # fmt: skip
    trainer.train()
    return folder, trainer, listener


def samples_of(run, name):
    return [json.loads(line) for line in (run[0] / "samples" / f"{name}.jsonl").read_text().splitlines()]


def test_the_kl_of_the_tokens_adds_up_to_that_of_the_answer(run):
    samples = samples_of(run, "eval_000002")
    kept = [sample for sample in samples if "tokens" in sample]
    assert len(kept) == EVALUATED_BY_TOKEN < len(samples)
    for sample in kept:
        tokens = sample["tokens"]
        assert sorted(tokens) == ["kl", "texts"]
        assert len(tokens["texts"]) == len(tokens["kl"]) == sample["length"]
        assert sum(tokens["kl"]) == pytest.approx(sample["kl"], abs=1e-3)
        said = re.sub(r"<\|\w+\|>|\ufffd", "", "".join(tokens["texts"]))
        assert said == sample["response"].replace("\ufffd", "")
    assert any(sample["kl"] > 0.01 for sample in kept)


def test_the_advantages_are_those_that_the_step_learnt_from(run):
    _, _, listener = run
    for step in (1, 2):
        kept = [sample for sample in samples_of(run, f"step_00000{step}") if "tokens" in sample]
        assert len(kept) == TRAINED_BY_TOKEN
        for sample, row in zip(kept, listener.advantages[step - 1], strict=False):
            assert sample["tokens"]["advantage"] == pytest.approx(row[: sample["length"]], abs=1e-4)


def test_neither_callbacks_nor_checkpoints_carry_tokens(run):
    folder, trainer, listener = run
    assert len(listener.told) == 3 * 20 + 2 * 8
    assert not any("tokens" in sample for sample in listener.told)
    assert not any("tokens" in sample for e in trainer.progress.evaluations for sample in e.samples)
    assert all('"tokens"' not in path.read_text() for path in folder.glob("checkpoints/*/state.json"))


def test_a_conversation_is_kept_as_one(run):
    sample = samples_of(run, "eval_000000")[0]
    assert sample["messages"][0]["role"] == "user"
    assert sample["messages"][0]["content"] in sample["prompt"]
