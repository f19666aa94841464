"""Models and tokenizers of the stages: loaded, checked against each other, and saved so that anybody can load them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from surefoot.loading import context_length, load_adapter, load_policy, load_tokenizer
from surefoot.ops.seeds import derive_seed
from surefoot.rewards.adapter import is_adapter
from surefoot.runtime import Runtime
from surefoot.stages.options import StageOptions

LONGEST = 1024
"""Tokens of a row where nobody says otherwise."""


def load_language_model(options: StageOptions) -> tuple[Any, Any]:
    """The language model that a stage trains, with the adapter that it goes on with, and its tokenizer.

    Raises:
        ValueError: it does not load, is an adapter without its base, or has another vocabulary than its tokenizer.
    """
    name = _name(options)
    model: Any = load_policy(name, device=Runtime().default_device())
    tokenizer = _tokenizer(options, model)
    adapter = getattr(options, "adapter_name", None)
    if adapter is None:
        return model, tokenizer
    _check_adapter(adapter)
    return load_adapter(model, adapter), tokenizer


def load_classifier(options: StageOptions) -> tuple[Any, Any]:
    """A classifier with one output and its tokenizer: a reward model, or a language model under a new head.

    Raises:
        ValueError: it does not load, has another number of outputs, or weights beside the head are missing.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    name = _name(options)
    tokenizer = load_tokenizer(name, options.chat_template)
    config = _loaded(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=False))
    classifier = any("SequenceClassification" in kind for kind in config.architectures or [])
    if classifier and config.num_labels != 1:
        raise ValueError(
            f"model_name={name!r} is a classifier with num_labels={config.num_labels}, a reward model has 1: give a "
            "language model, or a reward model to go on with"
        )
    config.num_labels, config.score_shift = 1, 0.0  # where it had its zero is no longer so once it learns
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(options.seed, "reward head"))
        model, info = _loaded(name, lambda: _without_notices(
            lambda: AutoModelForSequenceClassification.from_pretrained(
                name, config=config, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
        ))  # fmt: skip
    missing = sorted(key for key in info["missing_keys"] if classifier or not key.startswith(_HEADS))
    if missing:
        raise ValueError(f"model_name={name!r} has no weights for {', '.join(missing)}: they would be random")
    _check_vocabulary(model, tokenizer)
    return model.to(Runtime().default_device()), tokenizer


_HEADS = ("score.", "classifier.")


def longest_row(options: StageOptions, model: Any) -> int:
    """The longest row in tokens.

    Raises:
        ValueError: more are asked for than the model's context has.
    """
    context = context_length(model)
    if options.max_tokens is None:
        return LONGEST if context is None else min(LONGEST, context)
    if context is not None and options.max_tokens > context:
        raise ValueError(f"max_tokens={options.max_tokens} is more than the {context} tokens of the model's context")
    return options.max_tokens


def save_model(model: Any, tokenizer: Any, base: str, path: Path) -> None:
    """Writes a trained model, or its adapter, with its tokenizer, for plain transformers or peft to load.

    Args:
        model: what was trained.
        tokenizer: its own.
        base: what it began as; an adapter names it, a folder by its whole path.
        path: the folder.
    """
    if hasattr(model, "peft_config"):
        folder = Path(base).expanduser()
        model.peft_config["default"].base_model_name_or_path = str(folder.resolve()) if folder.is_dir() else base
        model.save_pretrained(path, selected_adapters=["default"])
    else:
        model.save_pretrained(path)
    tokenizer.save_pretrained(path)


# ---------------------------------------------------------------------------------------------- checks
def _name(options: StageOptions) -> str:
    if options.model_name is None:
        raise ValueError("model_name is missing: name the model to begin with")
    if is_adapter(options.model_name):
        goes_on = "adapter_name" in options.kinds()
        raise ValueError(
            f"model_name={options.model_name!r} is an adapter: give its base as model_name"
            + (", and this folder as adapter_name" if goes_on else "")
        )
    return options.model_name


def _tokenizer(options: StageOptions, model: Any) -> Any:
    tokenizer = load_tokenizer(str(options.model_name), options.chat_template)
    _check_vocabulary(model, tokenizer)
    return tokenizer


def _check_vocabulary(model: Any, tokenizer: Any) -> None:
    size = int(model.get_input_embeddings().weight.shape[0])
    if len(tokenizer) > size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens but the model only {size}: they do not belong together, or "
            "the model's embeddings were not resized"
        )
    if tokenizer.eos_token is None:
        raise ValueError("the tokenizer has no end-of-sequence token, so the model could not learn where to end")


def _check_adapter(name: str) -> None:
    if Path(name).expanduser().is_dir() and not is_adapter(name):
        raise ValueError(f"adapter_name={name!r} is no adapter: a whole model is given as model_name")


def _loaded(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, ValueError) as error:
        raise ValueError(f"model_name={name!r}: the model does not load: {error}") from error


def _without_notices(load: Callable[[], Any]) -> Any:
    """A new head is new weights, which transformers reports; which are new is checked by us."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return load()
    finally:
        logging.set_verbosity(before)
