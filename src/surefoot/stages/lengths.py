"""Rows as the trainers tokenise them: the text of each row with its special tokens, and how many tokens that is."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from surefoot.prompts.encode import decode
from surefoot.stages.rows import ANSWERS, Rows

_BATCH = 1000


def row_tokens(rows: Rows, tokenizer: PreTrainedTokenizerBase, *, ends: bool = True) -> list[int]:
    """Tokens of each row, special tokens included; of a preference those of its longer answer with the prompt.

    `ends`: plain texts get an end token behind them, as in SFT and DPO; a reward model reads them as they stand.
    """
    if not rows.rows:
        return []
    forms = [[len(ids) for ids in _encoded(rows, tokenizer, name, ends)] for name in _forms(rows.rows[0])]
    return [max(lengths) for lengths in zip(*forms, strict=True)]


def answer_tokens(rows: Rows, tokenizer: PreTrainedTokenizerBase, name: str) -> list[int]:
    """Tokens of what each answer in `name` (completion, chosen or rejected) says, without special tokens."""
    texts = [said(row[name]) for row in rows.rows]
    return [len(ids) for ids in _ids(tokenizer, texts, special=False)]


def merging(rows: Rows, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Which rows begin with other tokens than their prompt alone: something merged where the answer begins."""
    if not rows.rows or "prompt" not in rows.rows[0]:
        return []
    asked = [row["prompt"] for row in rows.rows]
    if all(isinstance(prompt, str) for prompt in asked):
        alone = _ids(tokenizer, asked, special=True)
    else:
        chats = [_chat(tokenizer, p, w, ask=True) for p, w in zip(asked, rows.places, strict=True)]
        alone = _ids(tokenizer, chats, special=False)
    forms = [_encoded(rows, tokenizer, name, ends=False) for name in _forms(rows.rows[0])]
    prompts = [ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids for ids in alone]  # some add an end anywhere
    wholes = list(zip(*forms, strict=True))
    return [i for i, ids in enumerate(prompts) if any(whole[: len(ids)] != ids for whole in wholes[i])]


def rendered(rows: Rows, tokenizer: PreTrainedTokenizerBase, *, ends: bool = True) -> list[str]:
    """Each row as the model reads it, special tokens visible; of a preference with the chosen answer."""
    if not rows.rows:
        return []
    return [decode(tokenizer, ids) for ids in _encoded(rows, tokenizer, _forms(rows.rows[0])[0], ends)]


def said(part: Any) -> str:
    """A text, or the contents of messages one after the other."""
    if isinstance(part, str):
        return part
    contents = (message["content"] for message in part)
    return "\n".join(c if isinstance(c, str) else str(c or "") for c in contents)


def _forms(row: Mapping[str, Any]) -> list[str]:
    """The parts of a row that end a sequence."""
    return [name for name in row if name in ANSWERS] or list(row)


def _encoded(rows: Rows, tokenizer: PreTrainedTokenizerBase, name: str, ends: bool) -> list[list[int]]:
    parts = [(row["prompt"] if "prompt" in row else row[name][:0]) + row[name] for row in rows.rows]
    if all(isinstance(part, str) for part in parts):
        found = _ids(tokenizer, parts, special=True)
        return [_ended(ids, tokenizer.eos_token_id) for ids in found] if ends else found
    texts = [_chat(tokenizer, part, place) for part, place in zip(parts, rows.places, strict=True)]
    return _ids(tokenizer, texts, special=False)  # the template has written every special token


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, special: bool) -> list[list[int]]:
    found: list[list[int]] = []
    for i in range(0, len(texts), _BATCH):
        some = list(texts[i : i + _BATCH])
        encoding = tokenizer(some, add_special_tokens=special, return_attention_mask=False, verbose=False)
        found += [list(ids) for ids in encoding["input_ids"]]
    return found


def _ended(ids: list[int], end: int | None) -> list[int]:
    """With an end behind it, if there is one and it is not there yet."""
    return ids if end is None or ids[-1:] == [end] else [*ids, end]


def _chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], place: str, *, ask: bool = False
) -> str:
    if tokenizer.chat_template is None:
        raise ValueError(
            "the rows are conversations, but the tokenizer has no chat template: give chat_template (a Jinja file), "
            "start from a chat model, or give plain texts"
        )
    try:
        said = [dict(message) for message in messages]
        return str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=ask))
    except (TemplateError, TypeError) as error:
        raise ValueError(f"{place}: the chat template refuses this conversation: {error}") from error
