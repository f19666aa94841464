"""Names and folders -> models and tokenizers. Code that lies beside a model is never run.

`trust_remote_code=False` stands in every call: left out, transformers asks whoever sits at the terminal.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json",
                    "vocab.txt")  # fmt: skip


def has_tokenizer(folder: str | Path) -> bool:
    """Whether there is a tokenizer in a folder."""
    return any((Path(folder).expanduser() / file).is_file() for file in _TOKENIZER_FILES)


def load_tokenizer(name: str, chat_template: str | None = None) -> Any:
    """The tokenizer of a model, optionally with another chat template (a Jinja file)."""
    from transformers import AutoTokenizer

    folder = Path(name).expanduser()
    if folder.is_dir() and not has_tokenizer(folder):
        raise ValueError(
            f"model_name={name!r} is a folder without a tokenizer ({' or '.join(_TOKENIZER_FILES[:2])}): save it "
            f"there with tokenizer.save_pretrained({name!r})"
        )
    with _loaded("model_name", name, "the tokenizer of "):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    if chat_template is not None:
        path = Path(chat_template)
        if not path.is_file():
            raise ValueError(f"chat_template={chat_template!r} is not a file")
        tokenizer.chat_template = path.read_text(encoding="utf-8")
    return tokenizer


def load_policy(
    name: str, *, device: torch.device, dtype: torch.dtype = torch.float32, option: str = "model_name"
) -> nn.Module:
    """A causal language model from a folder or the hub, in `dtype` on `device`; `option` is what named it."""
    from transformers import AutoModelForCausalLM

    check_folder(option, name)
    with _loaded(option, name):
        model: nn.Module = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, trust_remote_code=False)
    return model.to(device)


def load_adapter(base: nn.Module, name: str) -> nn.Module:
    """`base` with a trained LoRA adapter on it, ready to be trained further."""
    from surefoot.lora import PeftModel

    with _loaded("adapter_name", name):
        model: nn.Module = PeftModel.from_pretrained(base, name, is_trainable=True)
    return model


def load_value_model(name: str, *, device: torch.device) -> nn.Module:
    """A model for the critic: a sequence classifier with one output (a reward model), or any language model."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    check_folder("value_model_name", name)
    with _loaded("value_model_name", name):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        classifier = any("SequenceClassification" in a for a in (config.architectures or []))
        kind = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
        model: nn.Module = kind.from_pretrained(name, dtype=torch.float32, trust_remote_code=False)
    return model.to(device)


def device_of(model: Any) -> torch.device:
    """Where a model's weights are; the CPU for what is no model."""
    return next(model.parameters()).device if isinstance(model, torch.nn.Module) else torch.device("cpu")


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends a sequence, as generation config, model config and tokenizer name them."""
    found: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        ids = getattr(source, "eos_token_id", None)
        found |= set(ids) if isinstance(ids, list | tuple) else set() if ids is None else {int(ids)}
    return frozenset(found)


def shared_context(policy: Any, reference: Any, critic: Any) -> int | None:
    """Longest row that policy, reference and critic take, each of which reads whole rows."""
    models = (policy, reference, getattr(critic, "trunk", policy))
    return min((length for model in models if (length := context_length(model)) is not None), default=None)


def context_length(model: Any) -> int | None:
    """Longest row the model takes, or None where its config does not say."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    length = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return int(length) if length else None


@contextmanager
def _loaded(option: str, name: str, what: str = "") -> Iterator[None]:
    """What transformers and the hub say about a model that does not load, led by the option that named it."""
    try:
        yield
    except (OSError, ValueError) as error:
        where = (
            "in that folder" if Path(name).expanduser().is_dir() else "neither a folder here nor loaded from the hub"
        )
        raise ValueError(f"{option}={name!r}: {what}the model does not load ({where}): {error}") from error


def check_folder(option: str, name: str) -> None:
    """Refuses a folder without a model in it, and a place that is none.

    Raises:
        ValueError: `option` and what is wrong with its `name`.
    """
    path = Path(name).expanduser()
    if path.is_dir() and not (path / "config.json").is_file() and not (path / "adapter_config.json").is_file():
        raise ValueError(f"{option}={name!r} is a folder without config.json: it holds no model")
    if not path.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ValueError(f"{option}={name!r}: no such folder")
