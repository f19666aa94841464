"""The numbers behind the options: what is recommended at which size, what is known to work, what is possible."""

import math
from collections.abc import Mapping

# Up to billions of parameters: learning_rate, cliprange, ppo_epochs, init_kl_coef, target_kl.
BY_SIZE: tuple[tuple[float, tuple[float, ...]], ...] = (
    (0.5, (2e-6, 0.2, 4, 0.2, 0.1)),
    (2.0, (1.5e-6, 0.2, 4, 0.15, 0.1)),
    (10.0, (1e-6, 0.2, 2, 0.1, 0.1)),
    (math.inf, (5e-7, 0.1, 1, 0.1, 0.05)),
)

BANDS = (  # option, lowest and highest value that is known to work, what happens outside
    ("cliprange", 0.05, 0.4, "smaller barely moves the policy, larger lets a single batch undo the last ones"),
    ("ppo_epochs", 1, 10, "further epochs learn from answers that the policy would no longer give"),
    (
        "target_kl",
        0.005,
        0.5,
        "0.05-0.2 nats per token is usual; more and the text leaves the language of the SFT model",
    ),
    ("init_kl_coef", 0.0, 2.0, "at such a price the policy hardly leaves the reference"),
    ("lam", 0.8, 1.0, "below that the first tokens of an answer hardly hear of its score"),
    ("gamma", 0.9, 1.0, "answers are short; discounting hides the score from their beginning"),
    ("temperature", 0.3, 1.5, "colder sampling stops exploring, hotter sampling scores noise"),
)

RANGES: Mapping[str, tuple[float, float, bool]] = {  # option -> lowest, highest, whether the lowest is excluded
    "lora_r": (0, 65536, False),
    "lora_alpha": (0, 1e6, True),
    "eval_prompts": (0, 1e9, False),
    "max_prompt_tokens": (1, 1e9, False),
    "num_generations": (1, 1e6, False),
    "max_new_tokens": (1, 1e9, False),
    "temperature": (0, 100, True),
    "importance_cap": (0, 1e6, True),
    "missing_eos_penalty": (0, 1e9, False),
    "score_clip": (0, math.inf, True),
    "init_kl_coef": (0, 1e6, False),
    "target_kl": (0, 1e6, True),
    "final_target_kl": (0, 1e6, True),
    "final_kl_coef": (0, 1e6, False),
    "horizon": (0, 1e15, True),
    "early_stop_kl": (0, 1e6, True),
    "kl_ceiling": (0, 1e6, True),
    "batch_size": (1, 1e9, False),
    "mini_batch_size": (1, 1e9, False),
    "gradient_accumulation_steps": (1, 1e9, False),
    "max_tokens_per_microbatch": (1, 1e12, False),
    "ppo_epochs": (1, 1000, False),
    "cliprange": (0, 1, True),
    "cliprange_high": (0, 1e6, True),
    "dual_clip": (0, 1e6, True),
    "cliprange_value": (0, 1e9, True),
    "vf_coef": (0, 1e6, False),
    "entropy_coef": (-1e6, 1e6, False),
    "ratio_threshold": (1, 1e9, True),
    "critic_warmup_steps": (0, 1e9, False),
    "critic_epochs": (1, 1000, False),
    "gamma": (0, 1, False),
    "lam": (0, 1, False),
    "lam_critic": (0, 1, False),
    "lam_length_alpha": (0, 1e6, True),
    "learning_rate": (0, 10, False),
    "critic_learning_rate": (0, 10, False),
    "warmup_steps": (0, 1e9, False),
    "max_grad_norm": (0, 1e9, True),
    "max_skipped_updates": (0, 1e9, False),
    "total_episodes": (1, 1e15, False),
    "steps": (1, 1e12, False),
    "eval_every": (1, 1e12, False),
    "target_reward_evals": (1, 1e6, False),
    "target_reward": (-1e300, 1e300, False),
    "patience": (1, 1e9, False),
    "save_every": (0, 1e12, False),
    "keep_checkpoints": (2, 1e9, False),
    "seed": (0, 2**63 - 1, False),
}
