"""Supervised fine-tuning: a language model learns texts, answers to prompts, or conversations."""

from typing import Any

from surefoot.stages.data import load_data
from surefoot.stages.models import load_language_model, longest_row
from surefoot.stages.options import SFTOptions
from surefoot.stages.run import Loaded, Stage, run_stage
from surefoot.stages.trl import adapter_config, make_trainer


def load_sft(options: SFTOptions) -> Loaded:
    """Model, tokenizer and rows, checked.

    Raises:
        ValueError: something is missing, does not load, or does not fit together.
    """
    model, tokenizer = load_language_model(options)
    longest = longest_row(options, model)
    return Loaded(model, tokenizer, load_data(options, tokenizer, longest), longest)


def sft_trainer(options: SFTOptions, loaded: Loaded, **how: Any) -> Any:
    """TRL's trainer for it; of rows with a prompt only the answer is learnt."""
    return make_trainer(
        options.replace(max_tokens=loaded.max_tokens),
        loaded.model,
        loaded.tokenizer,
        loaded.data.train.rows,
        loaded.data.held_out.rows,
        peft_config=adapter_config(options, "CAUSAL_LM"),
        **how,
    )


SFT = Stage("sft", load_sft, sft_trainer)


def run_sft(options: SFTOptions, *, quiet: bool = False, fresh: bool = False, allow_changes: bool = False) -> int:
    """`surefoot sft` from its options to its exit code."""
    return run_stage(SFT, options, quiet=quiet, fresh=fresh, allow_changes=allow_changes)
