"""A reward model that was trained as an adapter: a folder of peft, which names the base that it belongs on.

What centres its scores stands beside it in `reward.json`, {"score_shift": a number}: of its adapter_config.json peft
takes no key that it does not know. A whole reward model has it in its config.json.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification

from surefoot.display import brief
from surefoot.loading import has_tokenizer
from surefoot.networks import score_shift

_PREFIX = "base_model.model."  # of peft's names, before those of the model
_HEADS = ("score.weight", "classifier.weight", "classifier.out_proj.weight")
_NOTE = "reward.json"


def is_adapter(folder: str | Path) -> bool:
    """Whether `folder` holds an adapter and no model of its own."""
    path = Path(folder).expanduser()
    return (path / "adapter_config.json").is_file() and not (path / "config.json").is_file()


@dataclass(frozen=True, slots=True)
class RewardAdapter:
    """What such a folder holds.

    Attributes:
        folder: where it is. base: name or folder of the model it belongs on.
        config: peft's. lora: the adapter's weights, by the names in the model; head: those of the model's head.
        model_config: the base's, as a classifier with as many outputs as the head has and the adapter's `score_shift`.
    """

    folder: str
    base: str
    config: Any
    lora: dict[str, Tensor]
    head: dict[str, Tensor]
    model_config: Any


def read_adapter(folder: str) -> RewardAdapter:
    """Reads an adapter's folder, and of its base the config alone.

    Raises:
        ValueError: it is no adapter of a classifier, has no head, or its base is not there.
    """
    from surefoot.lora import PeftConfig, load_peft_weights

    config = PeftConfig.from_pretrained(folder)
    if config.task_type != "SEQ_CLS":
        raise ValueError(
            f"reward={folder!r} is an adapter with task_type {config.task_type or 'None'}, a reward model's has "
            "SEQ_CLS: give an adapter that was trained on AutoModelForSequenceClassification"
        )
    base = str(config.base_model_name_or_path or "")
    try:
        model_config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"reward={folder!r} is an adapter of {base!r}, which does not load: correct base_model_name_or_path in "
            f"its adapter_config.json ({error})"
        ) from error
    saved = {name.removeprefix(_PREFIX): t for name, t in load_peft_weights(folder, device="cpu").items()}
    lora = {name: t for name, t in saved.items() if ".lora_" in name}
    head = {name: t for name, t in saved.items() if name not in lora}
    outputs = [len(head[name]) for name in _HEADS if name in head]
    if not outputs:
        raise ValueError(
            f"reward={folder!r} is an adapter without a head ({', '.join(_HEADS)}), so its scores would be random: "
            "save it from the model with which it was trained"
        )
    model_config.num_labels = outputs[0]
    model_config.score_shift = _shift_beside(Path(folder).expanduser())  # never that of a base that was centred itself
    return RewardAdapter(folder, base, config, lora, head, model_config)


def on_own_base(adapter: RewardAdapter) -> Any:
    """The whole classifier, with a base that nothing else uses.

    Raises:
        ValueError: neither base nor adapter has weights for some part of it.
    """
    from surefoot.lora import PeftModel

    model, info = AutoModelForSequenceClassification.from_pretrained(
        adapter.base, config=adapter.model_config, dtype="auto", output_loading_info=True, trust_remote_code=False
    )
    missing = sorted(set(info["missing_keys"]) - set(adapter.head))
    if missing:
        raise ValueError(
            f"reward={adapter.folder!r}: neither the adapter nor its base {adapter.base!r} has weights for "
            f"{', '.join(missing)}: they would be random, and so would its scores"
        )
    return PeftModel.from_pretrained(model, adapter.folder)


def write_score_shift(folder: str | Path, shift: float) -> None:
    """Notes what is taken off the scores of the reward model in `folder`, a whole model or an adapter.

    Raises:
        ValueError: the shift is no finite number, or there is no reward model.
    """
    path = Path(folder).expanduser()
    if not math.isfinite(shift):
        raise ValueError(f"shift={shift}: scores are centred by a finite number")
    if is_adapter(path):
        noted, file = {}, path / _NOTE
    elif (path / "config.json").is_file():
        file = path / "config.json"
        noted = json.loads(file.read_text(encoding="utf-8"))
    else:
        raise ValueError(f"{str(folder)!r} holds neither a model (config.json) nor an adapter (adapter_config.json)")
    file.write_text(
        json.dumps(noted | {"score_shift": float(shift)}, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def _shift_beside(folder: Path) -> float:
    file = folder / _NOTE
    if not file.is_file():
        return 0.0
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{str(file)!r} line {error.lineno} is not JSON: {error.msg}; correct or remove it"
        ) from error
    if not isinstance(noted, dict) or "score_shift" not in noted:
        raise ValueError(f'{str(file)!r} must hold {{"score_shift": a number}}, found {brief(noted)}')
    return score_shift(SimpleNamespace(**noted), str(file))


def tokenizer_source(folder: str) -> str:
    """Where the tokenizer of a reward model is: for an adapter without one at its base."""
    if not is_adapter(folder) or has_tokenizer(folder):
        return folder
    from surefoot.lora import PeftConfig

    return str(PeftConfig.from_pretrained(folder).base_model_name_or_path)
