"""Rows -> where the prompt of each row is, found from the names and the values of their columns."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surefoot.prompts.cells import (
    Content,
    cell,
    column_kind,
    common_messages,
    common_text,
    listed,
    messages_of,
    take_alpaca,
    take_ids,
    take_messages,
    take_text,
)
from surefoot.prompts.read import Row

TEXT_COLUMNS = ("prompt", "query", "question", "instruction", "problem", "input", "text")
"""Names, in any case, under which a column of text is taken for the prompt."""


@dataclass(frozen=True, slots=True)
class Format:
    """How the prompt is taken from a row.

    Attributes:
        words: the format, for people.
        column: the column, or the columns, that hold the prompt.
        take: a row's values -> its prompt; a ValueError says what is wrong with the row.
        left_out: the columns that the reward functions do not get, because the prompt itself says the same.
    """

    words: str
    column: str
    take: Callable[[Mapping[str, Any]], Content]
    left_out: tuple[str, ...] = ()


def detect(rows: Sequence[Row], prompt_column: str | None) -> Format:
    """The format of the rows.

    Raises:
        ValueError: none or several columns could be the prompt; the message lists them and names `prompt_column`.
    """
    kinds = {name: column_kind(rows, name) for name in rows[0].values}
    if prompt_column is not None:
        return _chosen_format(kinds, prompt_column)
    prompt = next((name for name in kinds if name.lower() == "prompt"), None)
    if prompt is not None and kinds[prompt] == "messages":
        return _one_column(kinds, prompt)
    ids = [name for name in ("input_ids",) if kinds.get(name) == "ids"]
    talks = [name for name in ("messages", "conversations") if kinds.get(name) == "messages"]
    if _pair_kind(kinds) == "messages":
        talks.append("chosen")
    texts = [name for name, kind in kinds.items() if name.lower() in TEXT_COLUMNS and kind == "text"]
    if talks:
        found = talks + ids + texts
    elif ids:
        found = ids  # ids beside texts were made from them
    else:
        found = _best_texts(kinds, prompt, texts)
    if len(found) != 1:
        raise ValueError(_undecided(kinds, found))
    return _format_of(kinds, found[0])


# ---------------------------------------------------------------------------------------------- which column


def _best_texts(kinds: Mapping[str, str], prompt: str | None, texts: list[str]) -> list[str]:
    """Of columns without conversations and input_ids, those that could be the prompt."""
    if prompt is not None and kinds[prompt] in ("text", "ids"):
        return [prompt]
    if is_alpaca(kinds):
        return ["instruction", *(t for t in texts if t not in ("instruction", "input", "text"))]
    if not texts and _pair_kind(kinds) == "text":
        return ["chosen"]
    if not texts and len(kinds) == 1 and "text" in kinds.values():
        return list(kinds)
    return texts


def _chosen_format(kinds: Mapping[str, str], column: str) -> Format:
    if column not in kinds:
        near = difflib.get_close_matches(column, kinds, n=1)
        raise ValueError(
            f"prompt_column={column!r} is not among the columns {listed(kinds)}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    if kinds[column] not in ("text", "messages", "ids"):
        raise ValueError(
            f"prompt_column={column!r} holds {kinds[column]}: a prompt is a text, a list of messages "
            "{role, content} or a list of token ids"
        )
    if column in ("chosen", "rejected") and _pair_kind(kinds):
        return _format_of(kinds, "chosen")
    return _one_column(kinds, column)


def _format_of(kinds: Mapping[str, str], column: str) -> Format:
    if column == "chosen" and _pair_kind(kinds):
        words = "preference rows without a prompt: what chosen and rejected begin with alike"
        take = _take_common_messages if _pair_kind(kinds) == "messages" else _take_common_text
        return Format(words, "chosen, rejected", take)
    if column == "instruction" and is_alpaca(kinds):
        return Format("Alpaca rows: the instruction and, under it, its input", "instruction, input", take_alpaca)
    return _one_column(kinds, column)


def _one_column(kinds: Mapping[str, str], column: str) -> Format:
    if kinds[column] == "messages":
        return _conversation(kinds, column)
    if kinds[column] == "ids":
        return Format(f"token ids in {column!r}", column, lambda values: take_ids(cell(values, column)), (column,))
    words = f"plain text in {column!r}"
    if _pair_kind(kinds):
        words = f"preference rows with an explicit prompt, plain text in {column!r}"
    return Format(words, column, lambda values: take_text(cell(values, column), column), (column,))


def _conversation(kinds: Mapping[str, str], column: str) -> Format:
    if column.lower() != "prompt":
        words = f"conversations in {column!r}, each without its last assistant turn"
        return Format(words, column, lambda values: take_messages(cell(values, column), column, opened=False))
    words = f"conversations in {column!r}"
    if "reward_model" in kinds:
        words = f"verl rows: {words}"
    elif _pair_kind(kinds):
        words = f"preference rows with an explicit prompt, {words}"
    return Format(words, column, lambda values: take_messages(cell(values, column), column, opened=True), (column,))


def is_alpaca(kinds: Mapping[str, str]) -> bool:
    """Whether columns of these kinds are those of Alpaca: an instruction with its input or output."""
    return kinds.get("instruction") == "text" and ("input" in kinds or "output" in kinds)


def _pair_kind(kinds: Mapping[str, str]) -> str:
    """The kind of chosen and rejected, "text" or "messages", where both are of that kind, else an empty text."""
    chosen, rejected = kinds.get("chosen"), kinds.get("rejected")
    return chosen if chosen == rejected and chosen in ("text", "messages") else ""


def _undecided(kinds: Mapping[str, str], found: Sequence[str]) -> str:
    columns = ", ".join(f"{name!r} ({kind})" for name, kind in kinds.items())
    if found:
        return (
            f"several columns could be the prompt: {', '.join(map(repr, found))}. Say which with prompt_column, "
            f"for instance prompt_column={found[0]!r}. The columns are {columns}"
        )
    return (
        f"no column is recognised as the prompt among {columns}. Name it with prompt_column, or put several together "
        "with prompt_template"
    )


def _take_common_messages(values: Mapping[str, Any]) -> Content:
    chosen, rejected = (messages_of(cell(values, column), column) for column in ("chosen", "rejected"))
    return Content(messages=common_messages(chosen, rejected))


def _take_common_text(values: Mapping[str, Any]) -> Content:
    chosen, rejected = (take_text(cell(values, column), column).text for column in ("chosen", "rejected"))
    return Content(text=common_text(chosen, rejected))
