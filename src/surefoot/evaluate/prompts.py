"""The prompts that all models answer: held out by every run, in no run's training data as far as that is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from surefoot.evaluate.options import CompareOptions
from surefoot.evaluate.runs import Candidate
from surefoot.prompts import load_prompts
from surefoot.setup import load_data
from surefoot.types import Prompt


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The prompts, numbered by their rows, and what is to be said about them."""

    prompts: tuple[Prompt, ...]
    lines: tuple[str, ...]


def held_out(
    options: CompareOptions, candidates: Sequence[Candidate], tokenizer: Any, max_new_tokens: int, context: int | None
) -> HeldOut:
    """The prompts of the option dataset, or else those that all runs held out.

    Raises:
        ValueError: there are none, none in common, or a run was trained on one of them.
    """
    if options.dataset is not None:
        found, lines = _given(options, tokenizer, max_new_tokens, context)
    else:
        found, lines = _in_common(candidates, tokenizer, context)
    distinct = list({prompt.text: prompt for prompt in reversed(found)}.values())[::-1]
    if len(distinct) < len(found):
        lines.append(f"repeated  {len(found) - len(distinct)} prompts whose text came before: left out")
    lines += _check_untrained(distinct, candidates, tokenizer, context)
    kept = distinct[: options.eval_prompts]
    if len(kept) < 2:
        raise ValueError(f"{len(kept)} prompt is left to compare on: an interval needs at least two, better a hundred")
    return HeldOut(tuple(replace(p, index=i) for i, p in enumerate(kept)), tuple(lines))


def _given(
    options: CompareOptions, tokenizer: Any, max_new_tokens: int, context: int | None
) -> tuple[list[Prompt], list[str]]:
    room = None if context is None else context - max_new_tokens
    if room is not None and room < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} leaves no room for a prompt in a context of {context}")
    limits = [n for n in (options.max_prompt_tokens, room) if n is not None]
    loaded = load_prompts(
        options.dataset,
        tokenizer,
        prompt_column=options.prompt_column,
        prompt_template=options.prompt_template,
        max_prompt_tokens=min(limits) if limits else None,
        chat_template=options.chat_template,
    )
    return list(loaded.prompts), loaded.report.text().splitlines()


def _in_common(candidates: Sequence[Candidate], tokenizer: Any, context: int | None) -> tuple[list[Prompt], list[str]]:
    """The evaluation prompts of every run that has some."""
    own = {}
    for run in candidates:
        config = run.config()
        if config is not None and config.dataset is not None:
            own[str(run.folder)] = load_data(config, config.dataset, config.eval_dataset, tokenizer, context)[1]
    if not any(own.values()):
        raise ValueError("dataset is missing: none of the runs held out prompts of its own (eval_prompts)")
    shared = set.intersection(*({prompt.text for prompt in prompts} for prompts in own.values() if prompts))
    first = next(prompts for prompts in own.values() if prompts)
    if not shared:
        raise ValueError(
            f"dataset is missing: the {len(own)} runs have no held-out prompt in common (each seed holds out others, "
            "unless eval_dataset names them): give prompts that none was trained on"
        )
    kept = [prompt for prompt in first if prompt.text in shared]
    return kept, [f"prompts   {len(kept)} that {'all runs' if len(own) > 1 else 'the run'} held out for evaluation"]


def _check_untrained(
    prompts: Sequence[Prompt], candidates: Sequence[Candidate], tokenizer: Any, context: int | None
) -> list[str]:
    """Refuses prompts that a run was trained on; in words, which runs that could be checked of."""
    texts = [p.text for p in prompts]
    seen: dict[tuple[Any, ...], set[str] | None] = {}
    unknown = []
    for run in candidates:
        data = _training_data(run)
        try:
            trained = seen.setdefault(data, _training_texts(run, tokenizer, context) if data[0] else None)
        except (ValueError, OSError) as error:
            unknown.append(f"{run.folder} ({error})")
            continue
        if trained is None:
            unknown.append(f"{run.folder} (it does not say what it was trained on)")
        elif both := [text for text in texts if text in trained]:
            raise ValueError(
                f"dataset: {run.folder} was trained on {len(both)} of the {len(texts)} prompts, for instance "
                f"{both[0][:60]!r}: compare on prompts that no run has seen"
            )
    checked = len(candidates) - len(unknown)
    lines = [f"held out  none of them is in the training prompts of {checked} of {len(candidates)} runs"]
    return lines + [f"unchecked {words.splitlines()[0]}" for words in unknown]


def _training_data(run: Candidate) -> tuple[Any, ...]:
    names = ("dataset", "eval_dataset", "eval_prompts", "eval_rows", "prompt_column", "prompt_template", "seed",
             "max_new_tokens", "max_prompt_tokens", "overlong_prompts", "chat_template")  # fmt: skip
    return tuple(run.options.get(name) for name in names)


def _training_texts(run: Candidate, tokenizer: Any, context: int | None) -> set[str]:
    """The prompts that a run was trained on, as its policy read them."""
    config, options = run.config(), run.options
    if config is not None:
        return {p.text for p in load_data(config, config.dataset, config.eval_dataset, tokenizer, context)[0]}
    how: Mapping[str, Any] = {name: options.get(name) for name in ("prompt_column", "prompt_template")}
    return {p.text for p in load_prompts(str(options["dataset"]), tokenizer, **how).prompts}
