"""One process of TRL 1.12.0, in its own environment: `benchmarks/.peer/bin/python -m benchmarks.peer_trl`.

Its settings are those under which it really does the workload's optimizer steps, and its best otherwise:

- `per_device_train_batch_size` is the whole batch and `gradient_accumulation_steps` 1: with more, accelerate holds
  steps back within a minibatch and TRL takes fewer of them than epochs x minibatches. A pass then has one minibatch.
- `stop_token="eos"`: without it TRL switches the end token off and every answer has full length.
- No sample tables, checkpoints or trackers; a constant learning rate; temperature 1 on both sides.
- `bf16` and `gradient_checkpointing` are off, as TRL ignores both with this transformers; with the setting
  "autocast" the variable that accelerate reads turns bfloat16 on for the update behind TRL's back.

The trainer's own functions are timed by wrapping them: `batch_generation` is sampling, `get_reward` of the reward
model is the reward, what comes before the first pass with gradients is scoring, and the rest up to the end of the
step is the update. Optimizer steps are counted at the optimizer.
"""

import os
import tempfile
from typing import Any

import torch

from benchmarks import machine
from benchmarks.side import Clock, deliver, now, option_parser, record
from benchmarks.workloads import (
    EOS,
    WORKLOADS,
    Workload,
    checksum,
    load_library,
    lora_config,
    make_classifier,
    make_policy,
    make_prompts,
    make_tokenizer,
)

SETTINGS = ("like", "autocast")


class Peer:
    """TRL's trainer with a clock in it: `iterate` runs one PPO iteration."""

    def __init__(self, w: Workload) -> None:
        import trl.experimental.ppo.ppo_trainer as module
        from datasets import Dataset
        from transformers import TrainerCallback

        self.module, self.workload = module, w
        self.config = make_config(w)
        policy = make_policy(w)
        self.weights = checksum(policy)
        self.found: list[dict[str, Any]] = []
        self.counts = {"optimizer_steps": 0, "prompt_tokens": 0, "response_tokens": 0}
        self._time_functions()
        ends = type("Ends", (TrainerCallback,), {"on_step_end": lambda *_, **__: self._end()})
        dtype = torch.bfloat16 if w.device == "cuda" else torch.float32
        self.reward_model = make_classifier(w, seed=3).to(dtype)
        self.trainer = module.PPOTrainer(
            args=self.config,
            processing_class=make_tokenizer(w),
            model=policy.to(dtype),
            ref_model=None,
            reward_model=self.reward_model,
            value_model=make_classifier(w, seed=2).to(dtype),
            train_dataset=Dataset.from_dict({"input_ids": make_prompts(w).ids}),
            eval_dataset=Dataset.from_dict({"input_ids": make_prompts(w).ids[:1]}),
            peft_config=lora_config(w),
            callbacks=[ends()],
        )
        inner = self.trainer.optimizer.optimizer
        inner.register_step_post_hook(lambda *_: self._count(optimizer_steps=1))

    def iterate(self, max_new_tokens: int | None = None, epochs: int | None = None) -> dict[str, Any]:
        """One iteration of `train`, with the seconds of each stage."""
        self.config.response_length = max_new_tokens or self.workload.response[1]
        self.config.num_ppo_epochs = epochs or self.workload.epochs
        self.counts = dict.fromkeys(self.counts, 0)
        self.trainer.train()
        return self.found.pop()

    def warm_up(self) -> None:
        """A short iteration: four tokens an answer, one epoch. It allocates what later ones reuse."""
        self.iterate(max_new_tokens=4, epochs=1)

    # ------------------------------------------------------------------------------------- the clock
    def _time_functions(self) -> None:
        module = self.module
        sample, score, run = module.batch_generation, module.get_reward, module.forward

        def batch_generation(model: Any, queries: Any, *args: Any) -> Any:
            self.clock, self.updating = Clock(), False
            answers, logits = sample(model, queries, *args)
            self.clock.mark("sampling")
            self._count_tokens(queries, answers[:, queries.shape[1] :], args[1])
            return answers, logits

        def get_reward(model: Any, *args: Any) -> Any:
            began = now()
            result = score(model, *args)
            if model is self.reward_model:
                self.clock.move(now() - began, "scoring", "reward")
            return result

        def forward(*args: Any) -> Any:
            if torch.is_grad_enabled() and not self.updating:
                self.clock.mark("scoring")
                self.updating = True
            return run(*args)

        module.batch_generation, module.get_reward, module.forward = batch_generation, get_reward, forward

    def _end(self) -> None:
        self.clock.mark("update")
        self.found.append(self.clock.result() | self.counts)

    def _count(self, **more: int) -> None:
        for name, number in more.items():
            self.counts[name] += number

    def _count_tokens(self, queries: Any, responses: Any, pad: int) -> None:
        ended = (responses == EOS).int().cumsum(1) - (responses == EOS).int()  # ends before each token
        self._count(prompt_tokens=int((queries != pad).sum()), response_tokens=int((ended == 0).sum()))


def make_config(w: Workload) -> Any:
    """TRL's options for a workload."""
    from trl.experimental.ppo import PPOConfig

    return PPOConfig(
        output_dir=tempfile.mkdtemp(prefix="peer-"),
        per_device_train_batch_size=w.rows,
        gradient_accumulation_steps=1,
        num_mini_batches=w.minibatches,
        num_ppo_epochs=w.epochs,
        total_episodes=w.rows,
        response_length=w.response[1],
        stop_token="eos",
        temperature=1.0,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        num_sample_generations=0,
        save_strategy="no",
        report_to="none",
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=w.device == "cpu",
        disable_tqdm=True,
        seed=0,
    )


def main() -> None:
    args = option_parser(SETTINGS).parse_args()
    if args.setting == "autocast":
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"
    import trl
    import trl.experimental.ppo.ppo_trainer  # heavy: belongs to what the interpreter needs

    w = WORKLOADS[args.workload]
    load_library()
    base = machine.resident_bytes() if w.device == "cpu" else 0
    side = Peer(w)
    side.warm_up()
    iterations = [side.iterate() for _ in range(args.iterations or w.iterations)]
    facts = {"base_bytes": base, "weights": side.weights, "trl": trl.__version__}
    deliver(record("trl", args, iterations, **facts), args.out)


if __name__ == "__main__":
    main()
