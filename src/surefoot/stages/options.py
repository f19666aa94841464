"""The options of `surefoot sft`, `surefoot reward` and `surefoot dpo`. No torch in here.

The names are those of `PPOConfig` wherever the thing is the same. Any other option of TRL's own config is given by its
own name and handed on; only then is TRL imported, to know the name and its type.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from surefoot.options import Options, Range, check_type, strict_options, unknown_option
from surefoot.stages.names import RETIRED, SYNONYMS

_COUNT: Range = (1, 1e9, False)

RANGES: Mapping[str, Range] = {
    "lora_r": (0, 65536, False),
    "lora_alpha": (0, 1e6, True),
    "eval_rows": (0, 1e9, False),
    "max_tokens": (2, 1e9, False),
    "batch_size": _COUNT,
    "mini_batch_size": _COUNT,
    "learning_rate": (0, 10, True),
    "warmup_steps": (0, 1e9, False),
    "max_grad_norm": (0, 1e9, True),
    "epochs": (0, 1e6, True),
    "steps": (1, 1e12, False),
    "eval_every": (1, 1e12, False),
    "save_every": (0, 1e12, False),
    "keep_checkpoints": (1, 1e9, False),
    "seed": (0, 2**32 - 1, False),
}

SECTIONS: Mapping[str, str] = {
    "model_name": "Models",
    "dataset": "Data",
    "batch_size": "Batches",
    "learning_rate": "Optimiser",
    "epochs": "Run",
    "trl": "Options of TRL's own config, by their names there",
}

T = TypeVar("T", bound="StageOptions")


@dataclass(frozen=True, kw_only=True)
class StageOptions(Options):
    """What all stages beside PPO have in common.

    Attributes:
        TRL_CONFIG: the class of TRL whose options are handed on.
        LEARNING_RATE: where learning_rate is None, for all weights; an adapter bears ten times as much.
        EVAL_ROWS: where eval_rows is None and eval_dataset too.

    Raises:
        TypeError: an unknown or retired option name (the message names its successor).
        ValueError: a value outside its range, or two options that contradict each other.
    """

    SECTIONS: ClassVar[Mapping[str, str]] = SECTIONS
    RANGES: ClassVar[Mapping[str, Range]] = RANGES
    RETIRED: ClassVar[Mapping[str, str]] = RETIRED
    PASSED: ClassVar[str | None] = "trl"
    TRL_CONFIG: ClassVar[str]
    LEARNING_RATE: ClassVar[float]
    EVAL_ROWS: ClassVar[int] = 0

    # ------------------------------------------------------------------------------------------ Models
    model_name: str | None = None
    """The model to train: a folder or a hub name."""
    lora_r: int = 0
    """Rank of a new LoRA adapter on the model. 0 trains all weights."""
    lora_alpha: int = 32
    """LoRA scaling numerator: the adapter's output is multiplied by lora_alpha / lora_r."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the passes; master weights stay float32. auto: bfloat16 autocast on a GPU, float32 on a CPU."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third more time for much less memory."""
    chat_template: str | None = None
    """A Jinja file that replaces the tokenizer's chat template."""

    # ------------------------------------------------------------------------------------------ Data
    dataset: str | None = None
    """Rows to learn from: a .jsonl, .json, .csv or .parquet file, or a hub name (name:split)."""
    eval_dataset: str | None = None
    """Rows of the evaluations, in any of the same forms. None: eval_rows rows held out of dataset."""
    eval_rows: int | None = None
    """Rows held out of dataset for evaluations; all rows of a prompt stay on one side. 0 or None: none."""
    prompt_column: str | None = None
    """Column that holds the prompt. None: detected, and the detection is printed."""
    max_tokens: int | None = None
    """Longest row in tokens, prompt and answer together. None: 1024, or the model's context where that is shorter."""

    # ------------------------------------------------------------------------------------------ Batches
    batch_size: int = 32
    """Rows of an optimizer step."""
    mini_batch_size: int = 8
    """Rows of one forward and backward pass."""

    # ------------------------------------------------------------------------------------------ Optimiser
    learning_rate: float | None = None
    """Highest learning rate (AdamW)."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Course of the learning rate over the run; linear and cosine end at 0."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    max_grad_norm: float | None = 1.0
    """Gradients are scaled to this norm at every optimizer step. None: not clipped."""

    # ------------------------------------------------------------------------------------------ Run
    epochs: float | None = None
    """Passes through the rows after which the run ends. None: 1, unless steps says when it ends."""
    steps: int | None = None
    """Optimizer steps after which the run ends."""
    eval_every: int = 50
    """Steps between evaluations; one is made at the end, and before the first step where that tells anything."""
    save_every: int = 50
    """Steps between checkpoints: what a kill may cost (a signal saves). 0: only at the end."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept."""
    output_dir: str | None = None
    """Folder of the run. None: runs/<model>-<stage>-<time>."""
    log_with: str | None = None
    """A tracker beside the run's own files: tensorboard, wandb, trackio, or any other that accelerate knows."""
    seed: int = 0
    """Seed of new weights, of the rows' order and of the choice of held-out rows."""

    trl: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.trl.items():
            kind = self.kind_of(name)
            if kind is None or name in self.kinds():
                raise TypeError(unknown_option(name, self.kinds(), type(self)))
            check_type(name, value, kind)
        super().__post_init__()

    @classmethod
    def kind_of(cls, name: str) -> Any:
        """The type of an option; a name that is none of ours is looked up in TRL's config."""
        ours = SYNONYMS.get(name, name)
        if ours in cls.kinds():
            return cls.kinds()[ours]
        if name in cls.RETIRED or name == cls.PASSED or not name.isidentifier():
            return None
        from surefoot.stages.passed import trl_kinds

        return trl_kinds(cls.TRL_CONFIG).get(name)

    @classmethod
    def passed_names(cls) -> Collection[str]:
        """TRL's own options."""
        from surefoot.stages.passed import trl_kinds

        return [name for name in trl_kinds(cls.TRL_CONFIG) if name not in cls.RETIRED]

    @classmethod
    def named_here(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options under the names of the fields, those of TRL in the field `trl`.

        Raises:
            ValueError: the same thing is given under two names.
        """
        here: dict[str, Any] = {}
        passed: dict[str, Any] = {name: _as_text(value) for name, value in options.get("trl", {}).items()}
        for name, value in options.items():
            ours = SYNONYMS.get(name, name)
            if ours in cls.kinds():
                if ours in here:
                    raise ValueError(
                        f"{ours} is given twice, once as {_other_name(ours, options)}: keep one of the two"
                    )
                here[ours] = value
            elif name != cls.PASSED and cls.kind_of(name) is not None:
                passed[name] = _as_text(value)
            elif name != cls.PASSED:
                here[name] = value  # unknown: it is refused with the others
        return here | {"trl": passed}

    def refusals(self) -> Collection[tuple[bool, str]]:
        """Combinations that contradict themselves."""
        return (
            (
                self.batch_size % self.mini_batch_size != 0,
                f"batch_size={self.batch_size} is not a multiple of mini_batch_size={self.mini_batch_size}: a step is "
                "made of whole passes",
            ),
            (
                self.epochs is not None and self.steps is not None,
                f"epochs={self.epochs} and steps={self.steps} both say when the run ends: give one of the two",
            ),
            (
                self.eval_dataset is not None and bool(self.eval_rows),
                f"eval_rows={self.eval_rows} holds rows out of dataset, but eval_dataset brings them: give one of the "
                "two (eval_rows=0)",
            ),
        )

    def resolved(self: T) -> T:
        """The same with what depends on other options written out."""
        rate = self.learning_rate
        if rate is None:
            rate = self.LEARNING_RATE * (10 if self.trains_adapter else 1)
        epochs = 1.0 if self.epochs is None and self.steps is None else self.epochs
        held_out = self.EVAL_ROWS if self.eval_rows is None and self.eval_dataset is None else self.eval_rows or 0
        return self.replace(learning_rate=rate, epochs=epochs, eval_rows=held_out)

    @property
    def trains_adapter(self) -> bool:
        """Whether an adapter is trained, and the model under it is not."""
        return self.lora_r > 0

    @property
    def passes_per_step(self) -> int:
        """Passes whose gradients make one optimizer step."""
        return self.batch_size // self.mini_batch_size


def _other_name(ours: str, options: Mapping[str, Any]) -> str:
    return next(name for name in options if name != ours and SYNONYMS.get(name) == ours)


def _as_text(value: Any) -> Any:
    """An option of TRL as a settings file can hold it: a mapping is JSON, which TRL reads, a list is a tuple."""
    if isinstance(value, Mapping):
        return json.dumps(value)
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class _FromAdapter(StageOptions):
    """Stages that may go on with an adapter that is there."""

    adapter_name: str | None = None
    """A LoRA adapter (folder or hub name) of model_name that is trained further."""

    def refusals(self) -> Collection[tuple[bool, str]]:
        """Combinations that contradict themselves."""
        return (
            *super().refusals(),
            (
                self.lora_r > 0 and self.adapter_name is not None,
                "lora_r makes a new adapter and adapter_name goes on with one: give one of the two",
            ),
        )

    @property
    def trains_adapter(self) -> bool:
        """Whether an adapter is trained, and the model under it is not."""
        return self.lora_r > 0 or self.adapter_name is not None


@strict_options
@dataclass(frozen=True, kw_only=True)
class SFTOptions(_FromAdapter):
    """The options of `surefoot sft`: a language model learns texts, answers to prompts, or conversations."""

    COMMAND: ClassVar[str] = "sft"
    SECTIONS: ClassVar[Mapping[str, str]] = {**SECTIONS, "adapter_name": "Supervised fine-tuning"}
    TRL_CONFIG: ClassVar[str] = "SFTConfig"
    LEARNING_RATE: ClassVar[float] = 2e-5

    learning_rate: float | None = None
    """Highest learning rate (AdamW). None: 2e-5, and 2e-4 where an adapter is trained."""
    text_column: str | None = None
    """Column with whole texts or conversations. None: detected, and the detection is printed."""
    completion_column: str | None = None
    """Column with the answer to the prompt. None: detected, and the detection is printed."""


@strict_options
@dataclass(frozen=True, kw_only=True)
class RewardOptions(StageOptions):
    """The options of `surefoot reward`: a classifier with one output learns which of two answers is preferred."""

    COMMAND: ClassVar[str] = "reward"
    SECTIONS: ClassVar[Mapping[str, str]] = {**SECTIONS, "ratings": "Preferences"}
    TRL_CONFIG: ClassVar[str] = "RewardConfig"
    LEARNING_RATE: ClassVar[float] = 1e-5
    EVAL_ROWS: ClassVar[int] = 128

    model_name: str | None = None
    """Where the reward model begins: a language model, best the SFT model, or a classifier with one output."""
    lora_r: int = 0
    """Rank of a LoRA adapter; its folder holds the head too. 0 trains all weights."""
    eval_rows: int | None = None
    """Pairs held out, by which the model is judged. None: 128, of ratings a fifth, 0 beside eval_dataset."""
    batch_size: int = 64
    """Pairs of an optimizer step."""
    mini_batch_size: int = 8
    """Pairs of one forward and backward pass."""
    learning_rate: float | None = None
    """Highest learning rate (AdamW). None: 1e-5, and 1e-4 where an adapter is trained."""
    ratings: tuple[str, ...] = ()
    """Runs that people rated (`surefoot rate`): what they preferred is learnt, instead of dataset."""
    chosen_column: str | None = None
    """Column with the better answer. None: detected, and the detection is printed."""
    rejected_column: str | None = None
    """Column with the worse answer. None: detected, and the detection is printed."""
    second_scorer: tuple[str, ...] = ()
    """Judges the held-out pairs beside it, in the forms of PPO's `reward`: the card tells how often both agree."""
    centre_on: str | None = None
    """Rows with answers of the SFT model, or pairs of them; the mean score of up to 512 becomes 0. None: it stays."""

    def refusals(self) -> Collection[tuple[bool, str]]:
        """Combinations that contradict themselves."""
        columns = [n for n in ("prompt_column", "chosen_column", "rejected_column") if getattr(self, n) is not None]
        return (
            *super().refusals(),
            (
                bool(self.ratings) and self.dataset is not None,
                "ratings and dataset both say what to learn from: give one of the two",
            ),
            (
                bool(self.ratings) and self.eval_dataset is None and bool(columns),
                f"{', '.join(columns)}: ratings have no columns to name, leave it out",
            ),
            (
                bool(self.second_scorer) and self.eval_rows == 0 and self.eval_dataset is None,
                "second_scorer judges held-out pairs and eval_rows=0 holds none out: raise it, or give eval_dataset",
            ),
        )

    def resolved(self) -> "RewardOptions":
        """The same with what depends on other options written out; what a fifth of ratings is, their votes say."""
        found = super().resolved()
        counted_later = self.ratings and self.eval_rows is None and self.eval_dataset is None
        return found.replace(eval_rows=None) if counted_later else found


@strict_options
@dataclass(frozen=True, kw_only=True)
class DPOOptions(_FromAdapter):
    """The options of `surefoot dpo`: a language model learns from pairs; its reference is itself as it was."""

    COMMAND: ClassVar[str] = "dpo"
    SECTIONS: ClassVar[Mapping[str, str]] = {**SECTIONS, "adapter_name": "Preferences"}
    TRL_CONFIG: ClassVar[str] = "DPOConfig"
    LEARNING_RATE: ClassVar[float] = 1e-6

    model_name: str | None = None
    """The model to train, best the SFT model: a folder or a hub name. The reference is the same model as it was."""
    adapter_name: str | None = None
    """A LoRA adapter (folder or hub name) of model_name that is trained further; the reference is it as it was."""
    batch_size: int = 32
    """Pairs of an optimizer step."""
    mini_batch_size: int = 4
    """Pairs of one forward and backward pass."""
    learning_rate: float | None = None
    """Highest learning rate (AdamW). None: 1e-6, and 1e-5 where an adapter is trained."""
    beta: float = 0.1
    """Price of moving away from the reference: the larger, the nearer the model stays."""
    chosen_column: str | None = None
    """Column with the better answer. None: detected, and the detection is printed."""
    rejected_column: str | None = None
    """Column with the worse answer. None: detected, and the detection is printed."""

    RANGES: ClassVar[Mapping[str, Range]] = {**RANGES, "beta": (0, 1e6, True)}


STAGES: Mapping[str, type[StageOptions]] = {cls.COMMAND: cls for cls in (SFTOptions, RewardOptions, DPOOptions)}
"""Command -> its class of options."""
