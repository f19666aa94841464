"""DPO: a language model learns from pairs directly (Rafailov et al. 2023). Its reference is itself as it began."""

from typing import Any

from surefoot.models import frozen_copy
from surefoot.stages.data import load_data
from surefoot.stages.models import load_language_model, longest_row
from surefoot.stages.options import DPOOptions
from surefoot.stages.run import Loaded, Stage, run_stage
from surefoot.stages.trl import adapter_config, make_trainer


def load_dpo(options: DPOOptions) -> Loaded:
    """Model, tokenizer and pairs, checked.

    Raises:
        ValueError: something is missing, does not load, or does not fit together.
    """
    model, tokenizer = load_language_model(options)
    longest = longest_row(options, model)
    return Loaded(model, tokenizer, load_data(options, tokenizer, longest), longest)


def dpo_trainer(options: DPOOptions, loaded: Loaded, **how: Any) -> Any:
    """TRL's trainer for it.

    The reference is a frozen copy of the model; under a new adapter, the model without it; of an adapter that is
    trained further, a frozen copy of that adapter.
    """
    return make_trainer(
        options.replace(max_tokens=loaded.max_tokens),
        loaded.model,
        loaded.tokenizer,
        loaded.data.train.rows,
        loaded.data.held_out.rows,
        ref_model=None if options.trains_adapter else frozen_copy(loaded.model),
        peft_config=adapter_config(options, "CAUSAL_LM"),
        **how,
    )


DPO = Stage("dpo", load_dpo, dpo_trainer)


def run_dpo(options: DPOOptions, *, quiet: bool = False, fresh: bool = False, allow_changes: bool = False) -> int:
    """`surefoot dpo` from its options to its exit code."""
    return run_stage(DPO, options, quiet=quiet, fresh=fresh, allow_changes=allow_changes)
