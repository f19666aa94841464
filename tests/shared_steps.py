"""Two PPO steps of tiny models, and every number that they leave. `from shared_steps import KINDS, run`.

The numbers must be the same for one process, for two, and for two that hold shares of the weights.
"""

from tiny import tiny_gpt2, tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.sharding import whole

KINDS = {
    "all weights": {},
    "tied weights, activations recomputed, passes of one row": {
        "model": tiny_gpt2, "gradient_checkpointing": True, "mini_batch_size": 1, "gradient_accumulation_steps": 4,
    },
    "LoRA, critic an adapter, three prompts": {"rows": 3, "lora_r": 4, "critic": "adapter"},
    "critic a model, three prompts, a minibatch a row": {
        "rows": 3, "critic": "model", "mini_batch_size": 1, "critic_epochs": 2,
    },
    "LoRA, the critic learns first": {"lora_r": 4, "critic_warmup_steps": 1},
}  # fmt: skip
"""Name -> what differs from the options below: number of rows, model, options."""


def make(kind, *, shard=False, folder=None):
    changes = dict(KINDS[kind])
    rows, model = changes.pop("rows", 8), changes.pop("model", tiny_llama)
    options = {"learning_rate": 1e-4, "batch_size": 8, "mini_batch_size": 4, "ppo_epochs": 2, "max_new_tokens": 9,
               "seed": 3, "whiten_rewards": True, "use_score_scaling": True, "kl_controller": "adaptive",
               "horizon": 50.0, "shard": shard, "output_dir": folder}  # fmt: skip
    trainer = PPOTrainer(PPOConfig(**(options | changes)), model(), None, tiny_tokenizer(pad="eos"))
    queries = trainer.runtime.share([f"{'long ' * (i % 3)}prompt {i}" for i in range(rows)])
    return trainer, queries


def step(trainer, queries):
    """A step, its statistics, and the gradient that the optimizer first stepped on."""
    seen = {}

    def look(optimizer, *_):
        for name, p in trainer.models.trainable().items():
            if not seen.get("done") and p.grad is not None:
                seen[f"gradient.{name}"] = whole(p.grad).clone()
        seen["done"] = True

    hook = trainer.optimizer.register_step_pre_hook(look)
    answers = trainer.generate(queries)
    stats = trainer.step(queries, answers, [float(len(str(a))) for a in answers])
    hook.remove()
    del seen["done"]
    numbers = {k: v for k, v in stats.scalars().items() if not k.startswith(("time/", "memory/"))}
    return seen | {f"stats.{name}": float(value) for name, value in numbers.items()}


def weights(trainer):
    """Everything that is trained, whole; called on every process."""
    return {name: whole(p.detach()).clone() for name, p in trainer.models.trainable().items()}


def run(kind, *, shard=False):
    """The trainer after two steps, and all their numbers."""
    trainer, queries = make(kind, shard=shard)
    found = {f"{i}.{name}": x for i in (1, 2) for name, x in step(trainer, queries).items()}
    found |= {f"weights.{name}": x for name, x in weights(trainer).items()}
    return trainer, found | {"kl_coef": trainer.kl_controller.value}
