"""What the stages of `surefoot rlhf` share, and the options of its own stage `rate`. No torch in here."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from surefoot.options import Options, Range, strict_options


@strict_options
@dataclass(frozen=True, kw_only=True)
class PipelineOptions(Options):
    """The options outside of the sections. Those that are None leave each stage its own default."""

    COMMAND: ClassVar[str] = "rlhf"
    SECTIONS: ClassVar[Mapping[str, str]] = {
        "model_name": "Models",
        "prompts": "Data",
        "max_new_tokens": "Answers",
        "output_dir": "Run",
    }
    RANGES: ClassVar[Mapping[str, Range]] = {
        "lora_r": (0, 4096, False),
        "lora_alpha": (0, 65_536, True),
        "max_new_tokens": (1, 1e9, False),
        "max_prompt_tokens": (1, 1e9, False),
        "temperature": (0, 100, True),
        "seed": (0, 2**63 - 1, False),
    }

    model_name: str | None = None
    """Where it begins: the base of the SFT stage, or a model that had its SFT. A folder or a hub name."""
    adapter_name: str | None = None
    """A LoRA adapter on model_name that it begins with."""
    lora_r: int | None = None
    """Rank of the LoRA adapters: one of the SFT, on which the policies go on, and one of the reward model. 0: none."""
    lora_alpha: int | None = None
    """LoRA scaling numerator."""
    critic_from_reward: bool = False
    """PPO's critic is a model of its own that starts as the reward model; without LoRA only."""
    precision: Literal["auto", "float32", "bfloat16"] | None = None
    """Arithmetic of the passes."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass."""
    chat_template: str | None = None
    """A Jinja file that replaces the tokenizer's chat template, in every stage."""

    prompts: str | None = None
    """Prompts that PPO trains on and that pairs are drawn for."""
    held_out_prompts: str | None = None
    """Prompts that no stage trains on: for PPO's evaluations and for the comparison."""
    preferences: str | None = None
    """Pairs for the reward model and DPO: rows with chosen and rejected. None: the stage `rate` makes them."""
    prompt_column: str | None = None
    """Column that holds the prompt. None: detected."""
    prompt_template: str | None = None
    """Format of plain-text prompts, with {prompt} and any other column in braces."""
    gold: tuple[str, ...] = ()
    """Scorers of the comparison and of PPO's evaluations, in the forms of PPO's `reward`; nothing trains on them."""

    max_new_tokens: int | None = None
    """Longest answer in tokens."""
    max_prompt_tokens: int | None = None
    """Longest prompt in tokens."""
    temperature: float | None = None
    """Sampling temperature."""

    output_dir: str = "runs/rlhf"
    """Folder of it all; every stage has one of its own in it."""
    seed: int = 0
    """Seed of every stage that is run once."""
    seeds: tuple[int, ...] = ()
    """PPO and DPO are run once for each of these, into ppo-seed0, ppo-seed1, ... Empty: once, with `seed`."""
    reward_per_seed: bool = False
    """With seeds: train a reward model for each of them too, from the same pairs."""
    log_with: str | None = None
    """A tracker beside the runs' own files."""

    def refusals(self) -> Collection[tuple[bool, str]]:
        """Combinations that contradict themselves."""
        return (
            (len(set(self.seeds)) < len(self.seeds), f"seeds={self.seeds} names a seed twice"),
            (any(seed < 0 for seed in self.seeds), f"seeds={self.seeds} must be 0 or greater"),
            (self.reward_per_seed and not self.seeds, "reward_per_seed needs seeds: name them, or leave it out"),
            (
                self.critic_from_reward and bool(self.lora_r),
                "critic_from_reward needs a whole reward model, and with lora_r it is an adapter: leave one out",
            ),
        )


@strict_options
@dataclass(frozen=True, kw_only=True)
class RateOptions(Options):
    """The options of the stage `rate`: pairs of answers, and a scorer that chooses as a noisy person would."""

    COMMAND: ClassVar[str] = "rlhf"
    SECTIONS: ClassVar[Mapping[str, str]] = {
        "model_name": "Models",
        "dataset": "Prompts",
        "max_new_tokens": "Answers",
        "rater": "Rater",
        "output_dir": "Run",
    }
    RANGES: ClassVar[Mapping[str, Range]] = {
        "max_new_tokens": (1, 1e9, False),
        "max_prompt_tokens": (1, 1e9, False),
        "temperature": (0, 100, True),
        "pairs_per_prompt": (1, 1e6, False),
        "rater_noise": (0, 1e9, False),
        "seed": (0, 2**63 - 1, False),
    }

    model_name: str | None = None
    """Whose answers are paired. Set by the pipeline."""
    adapter_name: str | None = None
    """The adapter on it. Set by the pipeline."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the passes."""
    chat_template: str | None = None
    """A Jinja file that replaces the tokenizer's chat template."""
    dataset: str | None = None
    """The prompts. Set by the pipeline."""
    prompt_column: str | None = None
    """Column that holds the prompt. None: detected."""
    prompt_template: str | None = None
    """Format of plain-text prompts, with {prompt} and any other column in braces."""
    max_prompt_tokens: int | None = None
    """Longest prompt in tokens; longer ones are left out. None: what the model's context leaves."""
    max_new_tokens: int = 128
    """Longest answer in tokens."""
    temperature: float = 1.0
    """Sampling temperature."""
    stop_strings: tuple[str, ...] = ()
    """An answer ends at the token that completes any of these."""
    pairs_per_prompt: int = 1
    """Pairs drawn for each prompt; every pair has two new answers."""
    rater: tuple[str, ...] = ()
    """Who chooses: a scorer in the forms of PPO's `reward`; of several the sum counts."""
    rater_noise: float = 1.0
    """The better answer is chosen with probability 1 / (1 + exp(-difference / rater_noise)). 0: always."""
    output_dir: str | None = None
    """Where preferences.jsonl goes. Set by the pipeline."""
    seed: int = 0
    """Seed of the answers and of the choices."""
