"""`surefoot` as torchrun starts it, with a reward slow enough to be met by a signal; one process hears it late."""

import os
import sys
import time
from pathlib import Path

import torch
from tiny import tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.interrupt import StopRequest

folder = Path(sys.argv[1])
torch.set_num_threads(1)


def reward(completions, trainer_state, **_):
    if trainer_state.global_step == 2 and not (folder / "met").exists():
        (folder / f"ready{os.environ['RANK']}").touch()
        time.sleep(30 if os.environ["RANK"] == "1" else 0)  # the first one waits for the second, in a collective
    return [float(len(c)) for c in completions]


stop = StopRequest(lambda text: sys.stderr.write(text + "\n"))
config = PPOConfig(batch_size=8, mini_batch_size=4, ppo_epochs=1, max_new_tokens=4, steps=4, eval_prompts=0,
                   learning_rate=1e-4, output_dir=str(folder / "run"))  # fmt: skip
trainer = PPOTrainer(config, tiny_llama(), None, tiny_tokenizer(), reward=reward, callbacks=[stop],
                     dataset=[f"p {i}" for i in range(32)])  # fmt: skip
if len(sys.argv) > 2:
    trainer.restore(sys.argv[2])
with stop.listening(folder):
    result = trainer.train()
(folder / f"reason{trainer.runtime.rank}").write_text(result.reason)
sys.exit(stop.exit_code)
