"""Our options -> TRL's configs and trainers, which report to us alone. Only here is TRL imported."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from surefoot.lora import LoraConfig  # before TRL imports peft

# isort: split
import torch
import transformers
import trl
from datasets import Dataset, disable_progress_bars
from transformers import PrinterCallback, TrainerCallback

from surefoot.display import brief
from surefoot.setup import use_bfloat16
from surefoot.short_attention import QuickAttention
from surefoot.stages.options import StageOptions
from surefoot.stages.order import ByLength, row_tokens

_RECOMPUTES = ("activation_checkpointing", "gradient_checkpointing")
"""What transformers calls it, and what it called it before."""
_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


class _Ours:
    """In what our trainers differ from TRL's: silent, quick where rows are short, rows by length for pairs too."""

    args: Any
    train_dataset: Any

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """The pass and the way back, as TRL has them.

        Activations that are made again on the way back are made without a mode, so none must be on the way there.
        """
        recomputes = any(getattr(self.args, name, False) for name in _RECOMPUTES)
        with nullcontext() if recomputes else QuickAttention():
            return super().training_step(*args, **kwargs)  # type: ignore[misc]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """The order of learning."""
        rows = self.train_dataset if train_dataset is None else train_dataset
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return self._by_length(rows, batch_size) or super()._get_train_sampler(rows)  # type: ignore[misc]

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        """The order of an evaluation."""
        by_length = self._by_length(eval_dataset, self.args.eval_batch_size)
        return by_length or super()._get_eval_sampler(eval_dataset)  # type: ignore[misc]

    def _by_length(self, rows: Any, batch_size: int) -> ByLength | None:
        """Ours where `train_sampling_strategy: group_by_length` asks for it: TRL keeps no lengths of pairs."""
        if self.args.train_sampling_strategy != "group_by_length" or self.args.length_column_name in rows.column_names:
            return None
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return ByLength([row_tokens(row) for row in rows], batch_size, seed)

    def _send_telemetry(self) -> None:
        """Nothing phones home."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """A run's card is written from the run's files, not by the trainer."""


def _ours(name: str) -> Any:
    """A trainer of TRL with what is ours."""
    return type(name, (_Ours, getattr(trl, name)), {})


_TRAINERS = {"sft": _ours("SFTTrainer"), "reward": _ours("RewardTrainer"), "dpo": _ours("DPOTrainer")}


def config_class(name: str) -> Any:
    """One of TRL's configs: SFTConfig, RewardConfig, DPOConfig."""
    return getattr(trl, name)


def make_trainer(
    options: StageOptions,
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    held_out: Sequence[dict[str, Any]],
    *,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
    goes_on: bool = False,
    **more: Any,
) -> Any:
    """A trainer of TRL for a stage, which logs to the callbacks and to nobody else.

    Args:
        options: resolved, with max_tokens.
        model: what is trained.
        tokenizer: its own.
        rows: what is learnt, as TRL reads it.
        held_out: what is evaluated; empty: nothing is.
        folder: where its checkpoints go.
        callbacks: who is told.
        goes_on: it will go on from a checkpoint, so that there is no evaluation before the first step.
        more: further arguments of the trainer.

    Raises:
        ValueError: TRL refuses an option or a row.
    """
    silence()
    config = _config(options, next(model.parameters()).device, folder, evaluates=bool(held_out), goes_on=goes_on)
    trainer = _TRAINERS[options.COMMAND](
        model=model,
        args=config,
        train_dataset=Dataset.from_list(list(rows)),
        eval_dataset=Dataset.from_list(list(held_out)) if held_out else None,
        processing_class=tokenizer,
        callbacks=list(callbacks),
        **more,
    )
    trainer.remove_callback(PrinterCallback)
    if not len(trainer.train_dataset):
        raise ValueError(f"dataset: no row is left that fits in max_tokens={options.max_tokens}: raise it")
    return trainer


def model_of(trainer: Any) -> Any:
    """The trained model without the rounding in which the trainer wraps its passes: as whoever loads it has it."""
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)


def silence() -> None:
    """Bars of the libraries would draw over our own lines; what they tell beside warnings is in our files."""
    disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.WARNING)
    for module in ("sft_trainer", "dpo_trainer"):
        logging.getLogger(f"trl.trainer.{module}").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Not of what `checks` has counted and shown: it would come again, without a number, in the middle of the run."""
    return "The tokenized prompt is not a prefix" not in record.getMessage()


def _config(options: StageOptions, device: torch.device, folder: Path, *, evaluates: bool, goes_on: bool) -> Any:
    """TRL's config: ours in its names, and above them what was passed to it."""
    kind = config_class(options.TRL_CONFIG)
    known = {field.name for field in dataclasses.fields(kind)}
    recompute = next(name for name in _RECOMPUTES if name in known)
    ours: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": options.mini_batch_size,
        "per_device_eval_batch_size": options.mini_batch_size,
        "gradient_accumulation_steps": options.passes_per_step,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": _SCHEDULES[options.lr_schedule],
        "warmup_steps": options.warmup_steps,
        "max_grad_norm": options.max_grad_norm or 0.0,
        "num_train_epochs": options.epochs or 1.0,
        "max_steps": options.steps or -1,
        "max_length": options.max_tokens,
        "seed": options.seed,
        "bf16": use_bfloat16(options.precision, device),
        "use_cpu": device.type == "cpu",
        recompute: options.gradient_checkpointing,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": options.eval_every,
        "eval_on_start": evaluates and not goes_on and options.COMMAND != "dpo",  # it begins as its own reference
        "save_strategy": "steps",
        "save_steps": options.save_every or 10**9,  # the last step saves in any case
        "save_total_limit": options.keep_checkpoints,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would write down the average of the losses before
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": device.type == "cuda",
    }
    if "beta" in options.kinds():
        ours["beta"] = getattr(options, "beta")  # noqa: B009 - of some options alone
    passed = {name: _as_trl_has_it(name, value) for name, value in options.trl.items()}
    config = kind(**(ours | passed))
    config._n_gpu = min(config.n_gpu, 1)  # one process, one device: TRL refuses DataParallel
    return config


def _as_trl_has_it(name: str, value: Any) -> Any:
    """A list as a list, and a mapping, which is JSON in a settings file, as a mapping."""
    if isinstance(value, tuple):
        return list(value)
    if not (isinstance(value, str) and value.startswith("{")):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}={brief(value)} is not JSON: {error}") from None


def adapter_config(options: StageOptions, task: str) -> Any:
    """A new LoRA adapter on every linear layer, without dropout; None where none is asked for."""
    if options.lora_r == 0:
        return None
    return LoraConfig(
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        target_modules="all-linear",
        lora_dropout=0.0,
        task_type=task,
    )
