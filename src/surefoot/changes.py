"""Which options may be others when a run goes on, and which would make another run of it. No torch in here.

Every option of `PPOConfig` is in one of the two tables; a new one belongs where its change leaves the promise that a
resumed run ends as if it had never stopped. What is in neither is treated as the second.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from surefoot.config import PPOConfig
from surefoot.redaction import hide_values

MAY_CHANGE: Mapping[str, str] = {
    "gradient_checkpointing": "time and memory; numbers may differ in their last digits",
    "max_tokens_per_microbatch": "time and memory; numbers may differ in their last digits",
    "offload_frozen": "time and memory",
    "vllm_python": "where the engine runs",
    "shard": "time and memory; numbers may differ in their last digits",
    "total_episodes": "when the run ends",
    "steps": "when the run ends",
    "kl_ceiling": "when the run ends",
    "target_reward": "when the run ends",
    "target_reward_evals": "when the run ends",
    "patience": "when the run ends",
    "watch": "what is done where gold falls",
    "on_fault": "what becomes of what is not finite",
    "max_skipped_updates": "when the run ends",
    "eval_every": "when the run is looked at",
    "save_every": "what is kept",
    "keep_checkpoints": "what is kept",
    "output_dir": "where it is kept",
    "log_with": "who is told",
}
"""Option -> what its change bears on."""

MAKES_ANOTHER_RUN = frozenset(
    {
        "model_name", "ref_model_name", "adapter_name", "lora_r", "lora_alpha", "critic", "value_model_name",
        "precision", "chat_template", "dataset", "eval_dataset", "eval_prompts", "prompt_column",
        "prompt_template", "max_prompt_tokens", "overlong_prompts", "num_generations", "max_new_tokens",
        "temperature", "stop_strings", "stop_token_ids", "engine", "importance_cap", "importance_level",
        "overlap",
        "reward", "reward_weights", "gold", "reward_ensemble", "uncertainty_coef", "reward_shaping",
        "length_penalty", "missing_eos_penalty",
        "overlong_filter", "use_score_scaling", "use_score_norm", "score_clip", "whiten_rewards",
        "init_kl_coef", "kl_penalty", "kl_placement", "kl_controller", "target_kl", "final_target_kl",
        "final_kl_coef", "horizon", "early_stop_kl", "batch_size", "mini_batch_size",
        "gradient_accumulation_steps", "ppo_epochs", "cliprange", "cliprange_high", "dual_clip",
        "cliprange_value", "vf_coef", "entropy_coef", "ratio_threshold", "critic_warmup_steps",
        "critic_epochs", "gamma", "lam", "lam_critic", "lam_length_alpha", "bootstrap_truncated",
        "whiten_advantages", "learning_rate", "critic_learning_rate", "lr_schedule", "warmup_steps",
        "max_grad_norm", "eight_bit_adam", "seed",
    }
)  # fmt: skip
"""Options whose change alters what is computed from here on, or what was computed so far."""

STOP_OPTIONS = ("steps", "total_episodes", "kl_ceiling", "target_reward", "target_reward_evals", "patience", "watch")
"""Options that decide when a run ends: one of them changed, and a run that had ended may go on."""

_LENGTH = ("steps", "total_episodes")


@dataclass(frozen=True, slots=True)
class Change:
    """An option that is another than it was."""

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.name}: {_shown(self.old)} -> {_shown(self.new)}"


def stored_options(config: PPOConfig) -> dict[str, Any]:
    """What is kept of the options: all of them; user names and passwords in addresses are not."""
    return {field.name: _clean(getattr(config, field.name)) for field in dataclasses.fields(config)}


def changes_between(stored: Mapping[str, Any], config: PPOConfig) -> list[Change]:
    """Every option that differs, in the order of the options. One that was not there yet had its default."""
    now, defaults = stored_options(config), {f.name: f.default for f in dataclasses.fields(config)}
    found = [Change(name, stored.get(name, defaults[name]), now[name]) for name in now]
    gone = [Change(name, stored[name], "no longer an option") for name in stored if name not in now]
    return [change for change in found if change.old != change.new] + gone


def makes_another_run(change: Change, config: PPOConfig) -> bool:
    """Whether a run with this change would compute something else.

    Its length counts where a schedule follows it, the watch where it moves the KL price.
    """
    if change.name in _LENGTH:
        return (
            config.lr_schedule != "constant"
            or config.kl_controller in ("linear", "cosine")
            or config.final_target_kl is not None
        )
    if change.name == "watch":
        return "raise_kl" in (change.old, change.new)
    return change.name not in MAY_CHANGE


def check_changes(stored: Mapping[str, Any], config: PPOConfig, *, allow: bool) -> list[str]:
    """The options that changed, each in words, for the user to read.

    Args:
        stored: what `stored_options` gave when the checkpoint was written.
        config: the options now.
        allow: whether changes are meant that make another run.

    Raises:
        ValueError: there are such changes, and they are not allowed; they are listed.
    """
    changes = changes_between(stored, config)
    refused = [change for change in changes if makes_another_run(change, config)]
    if refused and not allow:
        length = " (a schedule follows the run's length)" if {c.name for c in refused} <= set(_LENGTH) else ""
        raise ValueError(
            f"the run so far had other options: {'; '.join(map(str, refused))}{length}. With these it would be "
            "neither the old run nor a new one: take the old values, begin anew (--fresh), or, if that is meant, "
            "say --allow-changes (in Python: allow_changes=True)"
        )
    return [f"{change} ({_bears_on(change, refused)})" for change in changes]


def _bears_on(change: Change, refused: list[Change]) -> str:
    return "another run from here on, as allowed" if change in refused else MAY_CHANGE[change.name]


def _clean(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_clean, value))
    return hide_values(value) if isinstance(value, str) else value


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)
