"""What can be wrong with a pipeline that shows before anything is trained: files, models, tokenizers, scorers.

Hours may lie between the first stage and the last. What the last will need is looked at before the first begins.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from transformers import AutoConfig

from surefoot.display import brief
from surefoot.loading import check_folder, load_tokenizer
from surefoot.pipeline.options import PipelineOptions
from surefoot.pipeline.parts import Part
from surefoot.prompts import PromptSet, load_prompts
from surefoot.rewards.address import is_address
from surefoot.rewards.conventions import without_ends
from surefoot.rewards.locate import locate
from surefoot.stages.columns import Kind
from surefoot.stages.rows import load_rows, prompt_key

T = TypeVar("T")

_READS_IDS = ("ref_model_name", "value_model_name")
"""Options that name models which read the policy's token ids, not text."""
MOST = 20


def check_all(top: PipelineOptions, parts: Sequence[Part]) -> list[str]:
    """Looks at everything that no stage has to make first.

    Returns:
        What was found, in lines for the user to read.

    Raises:
        ValueError: all that is wrong.
    """
    made = [str(part.folder) for part in parts]
    found = _Found()
    tokenizer = found.of(lambda: _tokenizer_of_model("model_name", str(top.model_name), top.chat_template))
    prompts = {} if tokenizer is None else _prompts(top, tokenizer, found)
    found.of(lambda: _check_held_out(prompts, top.preferences, tokenizer))
    for part in parts:
        if tokenizer is not None:
            for option, name in _models_of(part, made):
                found.of(partial(_check_model, part, option, name, top, tokenizer), part.name)
        found.of(partial(_check_rows, part, made), part.name)
        for option, name in _scorers_of(part, made):
            found.of(partial(check_scorer, option, name), part.name)
    found.problems += _same_scorers(parts)
    if found.problems:
        raise ValueError("\n".join(found.problems[:MOST]))
    return [loaded.report.text() for loaded in prompts.values()] + _notes(parts)


class _Found:
    """Looks that go wrong are told together, each once."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def of(self, look: Callable[[], T], where: str = "") -> T | None:
        """What a look gives; None where it went wrong, which is noted."""
        try:
            return look()
        except (ValueError, OSError, ImportError) as error:
            text = f"{where}: {error}" if where else str(error)
            if str(error) not in "\n".join(self.problems):
                self.problems.append(text)
            return None


# ---------------------------------------------------------------------------------------------- rows
def _prompts(top: PipelineOptions, tokenizer: Any, found: _Found) -> dict[str, PromptSet]:
    """Option -> its prompts, read as the stages will read them."""

    def read(file: str) -> PromptSet:
        return load_prompts(
            file, tokenizer, prompt_column=top.prompt_column, prompt_template=top.prompt_template,
            max_prompt_tokens=top.max_prompt_tokens,
        )  # fmt: skip

    files = {"prompts": top.prompts, "held_out_prompts": top.held_out_prompts}
    loaded = {name: found.of(partial(read, file), name) for name, file in files.items() if file is not None}
    return {name: prompts for name, prompts in loaded.items() if prompts is not None}


def _check_held_out(loaded: Mapping[str, PromptSet], preferences: str | None, tokenizer: Any) -> None:
    """Refuses a prompt that is both learnt from and judged on."""
    if "held_out_prompts" not in loaded:
        return
    special = tokenizer.all_special_tokens
    asked = {
        name: {prompt_key({"prompt": list(p.messages) or without_ends(p.text, special)}) for p in prompts.prompts}
        for name, prompts in loaded.items()
    }
    if preferences is not None:
        asked["preferences"] = {prompt_key(row) for row in load_rows(preferences, kind="preference").rows}
    held_out = asked.pop("held_out_prompts")
    for name, learnt in asked.items():
        if both := sorted(held_out & learnt):
            raise ValueError(
                f"{len(both)} of the held_out_prompts are among the {name}, for instance {brief(both[0])}: a model "
                "would be judged on what it was trained on; take them out of one of the files"
            )


def _check_rows(part: Part, made: Sequence[str]) -> None:
    """The rows of SFT, reward model and DPO, read as the stage will."""
    if part.kind not in ("sft", "reward", "dpo"):
        return
    kind: Kind = "sft" if part.kind == "sft" else "preference"
    for file in (part.options.dataset, part.options.eval_dataset):
        if file is not None and not _inside(file, made):
            load_rows(file, kind=kind)


# ---------------------------------------------------------------------------------------------- models
def _models_of(part: Part, made: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Models that the user names for one stage: option and name."""
    for option in ("model_name", *_READS_IDS):
        name = getattr(part.options, option, None)
        if name is not None and not _inside(name, made):
            yield option, name


def _scorers_of(part: Part, made: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Scorers that the user names for a stage: option and name."""
    for option in ("reward", "rater", "gold", "proxy", "second_scorer"):
        for name in _names(getattr(part.options, option, None)):
            if not _inside(name, made):
                yield option, name


def _check_model(part: Part, option: str, name: str, top: PipelineOptions, tokenizer: Any) -> None:
    if name != top.model_name or option != "model_name":
        other = _tokenizer_of_model(option, name, None)
        if option in _READS_IDS and (difference := tokenizers_differ(tokenizer, other)):
            raise ValueError(
                f"{option}={name!r} has another tokenizer than the policy, {top.model_name!r} ({difference}): it "
                "reads the policy's token ids, so it must have the same (a reward model may have another: it is "
                "given text)"
            )
    if part.kind == "reward" and option == "model_name":
        check_one_label(option, name)


def _tokenizer_of_model(option: str, name: str, chat_template: str | None) -> Any:
    """The tokenizer of a model whose config loads too.

    Raises:
        ValueError: it is no model, or has no tokenizer.
    """
    check_folder(option, name)
    tokenizer = load_tokenizer(name, chat_template)
    _config(option, name)
    return tokenizer


def _config(option: str, name: str) -> Any:
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{option}={name!r}: no model loads from there: {error}") from error


def check_one_label(option: str, name: str) -> None:
    """Refuses a classifier with another number of outputs than one.

    Raises:
        ValueError: it has two labels, for instance.
    """
    config = _config(option, name)
    classifier = any("SequenceClassification" in architecture for architecture in config.architectures or ())
    if classifier and config.num_labels != 1:
        raise ValueError(
            f"{option}={name!r} is a classifier with num_labels={config.num_labels}, a reward model has 1: begin from "
            "a language model, or from a reward model"
        )


def tokenizers_differ(one: Any, other: Any) -> str:
    """In what two tokenizers differ, in words; empty where they give the same ids."""
    if len(one) != len(other):
        return f"{len(one):,} tokens against {len(other):,}"
    first, second = one.get_vocab(), other.get_vocab()
    if first != second:
        odd = next(token for token, index in first.items() if second.get(token) != index)
        return f"the token {odd!r} has the id {first[odd]} in one and {second.get(odd)} in the other"
    special = ("bos_token_id", "eos_token_id")
    return ", ".join(
        f"{name} is {getattr(one, name)} in one and {getattr(other, name)} in the other"
        for name in special
        if getattr(one, name) != getattr(other, name)
    )


# ---------------------------------------------------------------------------------------------- scorers
def check_scorer(option: str, name: str) -> None:
    """Refuses a scorer that will not be found, or a classifier with two labels; nothing is loaded but functions.

    Raises:
        ValueError: there is no such function, folder or model.
    """
    if is_address(name):
        return  # it is asked when it is needed: services come and go
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "adapter_config.json").is_file():
            check_folder(option, name)
            check_one_label(option, name)
    elif ":" in name or name.endswith(".py") or "/" not in name:
        locate(name)
    else:
        check_one_label(option, name)


def _same_scorers(parts: Sequence[Part]) -> list[str]:
    """A scorer that PPO maximises judges nothing."""
    gold = {name for part in parts if part.kind == "compare" for name in part.options.gold}
    trained = {name for part in parts if part.kind == "ppo" for name in part.options.reward}
    return [
        f"gold={name!r} is the reward that PPO is trained on, so it cannot say whether the model got better or only "
        "better scored: name another scorer"
        for name in sorted(gold & trained)
    ]


def _notes(parts: Sequence[Part]) -> list[str]:
    gold = {name for part in parts if part.kind == "compare" for name in part.options.gold}
    raters = {name for part in parts if part.kind == "rate" for name in part.options.rater}
    stops = any(part.kind == "ppo" and part.options.watch == "stop_and_restore" for part in parts)
    chosen = (
        "note      PPO's model is the best by gold on the held_out_prompts, on which the comparison judges it too: it "
        "leans in its favour"
    )
    return [
        f"note      gold scorer {name} also chose the pairs: reward model and DPO have seen its (noisy) choices"
        for name in sorted(gold & raters)
    ] + [chosen] * (stops and bool(gold))


def _names(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _inside(name: Any, made: Sequence[str]) -> bool:
    """Whether a place will be made by a stage."""
    return any(str(name).startswith(f"{folder}/") for folder in made)
