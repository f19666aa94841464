"""One of two processes, started by test_failures.py: the second one gets into trouble. Arguments: trouble, folder."""

import faulthandler
import os
import signal
import sys
import time
from pathlib import Path

import torch
from tiny import tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer, cli

trouble, folder = sys.argv[1].removesuffix(", in shares"), Path(sys.argv[2])
in_shares = sys.argv[1] != trouble
torch.set_num_threads(1)
is_second = os.environ["RANK"] == "1"


def strike():
    """What happens to the second process; the time is written down."""
    (folder / "struck").write_text(str(time.time()))
    if trouble.startswith("raise"):
        raise RuntimeError("no grader on this machine")
    if trouble == "leaves":
        sys.exit(7)
    if trouble == "dies":
        os._exit(3)
    if trouble == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == "frozen":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(1000)  # "hangs"


def reward(completions, trainer_state, **_):
    if is_second and trouble in ("raises in the reward", "leaves", "killed") and trainer_state.global_step == 1:
        strike()
    return [float(len(c)) for c in completions]


config = PPOConfig(batch_size=8, mini_batch_size=4, ppo_epochs=1, max_new_tokens=4, steps=3, eval_prompts=0,
                   learning_rate=1e-4, output_dir=str(folder / "run"), shard=in_shares)  # fmt: skip
trainer = PPOTrainer(
    config, tiny_llama(), None, tiny_tokenizer(), reward=reward, dataset=[f"p {i}" for i in range(24)]
)
if is_second and trouble in ("raises in the update", "hangs", "dies", "frozen"):
    next(p for p in trainer.policy.parameters() if p.requires_grad).register_hook(
        lambda gradient: strike() if trainer.steps_done == 1 else gradient
    )
if is_second and trouble == "raises in sampling":
    sample = trainer.engine.generate
    trainer.engine.generate = lambda *a: strike() if trainer.steps_done == 1 else sample(*a)

if is_second and trouble == "raises in scoring":
    read = trainer.models.logits
    trainer.models.logits = lambda states: strike() if trainer.steps_done == 1 else read(states)

faulthandler.enable()
if trouble == "raises by hand":  # a program of the user's own, which catches nothing
    queries = trainer.runtime.share([f"p {i}" for i in range(8)])
    answers = trainer.generate(queries)
    if is_second:
        strike()
    trainer.step(queries, answers, [1.0] * len(queries))
cli.COMMANDS["train"] = lambda arguments: trainer.train() is None
sys.exit(cli.main(["train"]))
