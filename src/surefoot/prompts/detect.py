"""Rows -> where the prompt of each row is, found from the names and the values of their columns."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surefoot.prompts.read import Row, one_line
from surefoot.types import Message

TEXT_COLUMNS = ("prompt", "query", "question", "instruction", "problem", "input", "text")
"""Names, in any case, under which a column of text is taken for the prompt."""

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}
"""Roles of ShareGPT conversations -> roles of chat templates."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a row asks: a text, a conversation or ids; exactly one of them holds something, none in an empty row."""

    text: str = ""
    messages: tuple[Message, ...] = ()
    ids: tuple[int, ...] = ()


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
    kinds = {name: _column_kind(rows, name) for name in rows[0].values}
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
    if _is_alpaca(kinds):
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
            f"prompt_column={column!r} is not among the columns {_list(kinds)}"
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
    if column == "instruction" and _is_alpaca(kinds):
        return Format("Alpaca rows: the instruction and, under it, its input", "instruction, input", _take_alpaca)
    return _one_column(kinds, column)


def _one_column(kinds: Mapping[str, str], column: str) -> Format:
    if kinds[column] == "messages":
        return _conversation(kinds, column)
    if kinds[column] == "ids":
        return Format(f"token ids in {column!r}", column, lambda values: _take_ids(_cell(values, column)), (column,))
    words = f"plain text in {column!r}"
    if _pair_kind(kinds):
        words = f"preference rows with an explicit prompt, plain text in {column!r}"
    return Format(words, column, lambda values: _take_text(_cell(values, column), column), (column,))


def _conversation(kinds: Mapping[str, str], column: str) -> Format:
    if column.lower() != "prompt":
        words = f"conversations in {column!r}, each without its last assistant turn"
        return Format(words, column, lambda values: _take_messages(_cell(values, column), column, opened=False))
    words = f"conversations in {column!r}"
    if "reward_model" in kinds:
        words = f"verl rows: {words}"
    elif _pair_kind(kinds):
        words = f"preference rows with an explicit prompt, {words}"
    return Format(words, column, lambda values: _take_messages(_cell(values, column), column, opened=True), (column,))


def _is_alpaca(kinds: Mapping[str, str]) -> bool:
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


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, names))


# ---------------------------------------------------------------------------------------------- what a cell holds


def _column_kind(rows: Sequence[Row], column: str) -> str:
    """The kind of the column's first value that says anything."""
    for row in rows:
        value = _plain(row.values.get(column))
        if value is not None and value != []:
            return _kind(value)
    return "nothing"


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, list) and all(isinstance(v, Mapping) for v in value):
        talk = all(("role" in v and "content" in v) or ("from" in v and "value" in v) for v in value)
        return "messages" if talk else "a list of objects"
    if isinstance(value, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        return "ids"
    return {bool: "true or false", int: "a number", float: "a number", list: "a list"}.get(type(value), "an object")


def _plain(value: Any) -> Any:
    """Tensors, arrays and tuples as lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _cell(values: Mapping[str, Any], column: str) -> Any:
    if column not in values:
        raise ValueError(f"no column {column!r}; this row has {_list(values)}")
    return _plain(values[column])


def _take_text(value: Any, column: str) -> Content:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{column!r} must be a text, found {one_line(value)}")
    return Content(text=value or "")


def _take_ids(value: Any) -> Content:
    if value is not None and value != [] and _kind(value) != "ids":
        raise ValueError(f"token ids must be a list of whole numbers, found {one_line(value)}")
    return Content(ids=tuple(value or ()))


def _take_alpaca(values: Mapping[str, Any]) -> Content:
    instruction = _take_text(_cell(values, "instruction"), "instruction").text
    given = _take_text(values.get("input"), "input").text
    return Content(text=f"{instruction}\n\n{given}" if given.strip() else instruction)


def _take_messages(value: Any, column: str, *, opened: bool) -> Content:
    """A conversation. Where it is not `opened` for an answer already, the answer at its end is taken off."""
    messages = _messages(value, column)
    return Content(messages=messages if opened else _without_answer(messages))


def _without_answer(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    last = len(messages)
    while last and messages[last - 1]["role"] == "assistant":
        last -= 1
    return messages[:last]


def _messages(value: Any, column: str) -> tuple[Message, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"{column!r} must be a list of messages {{role, content}}, found {one_line(value)}")
    return tuple(_message(message, f"message {i + 1} of {column!r}") for i, message in enumerate(value))


def _message(message: Any, place: str) -> Message:
    if not isinstance(message, Mapping):
        raise ValueError(f"{place} must be an object {{role, content}}, found {one_line(message)}")
    if "from" in message and "value" in message and "role" not in message:
        if message["from"] not in _ROLES:
            raise ValueError(f"{place} is from {one_line(message['from'])}; known are {', '.join(_ROLES)}")
        message = {"role": _ROLES[message["from"]], "content": message["value"]}
    if not isinstance(message.get("role"), str) or "content" not in message:
        raise ValueError(f"{place} needs a role and a content, found {one_line(dict(message))}")
    content = message["content"]
    if not isinstance(content, str | list) and not (content is None and message.get("tool_calls")):
        raise ValueError(f"{place} must have a text as its content, found {one_line(content)}")
    # Tables fill up the keys that other rows have with None; templates ask whether a key is there.
    return {key: part for key, part in message.items() if part is not None or key == "content"}


# ---------------------------------------------------------------------------------------------- preference pairs


def _take_common_messages(values: Mapping[str, Any]) -> Content:
    pair = [_messages(_cell(values, column), column) for column in ("chosen", "rejected")]
    return Content(messages=_without_answer(pair[0][: _common(*pair)]))


def _take_common_text(values: Mapping[str, Any]) -> Content:
    chosen, rejected = (_take_text(_cell(values, column), column).text for column in ("chosen", "rejected"))
    common = chosen[: _common(chosen, rejected)]
    if _HUMAN in chosen and _ASSISTANT in common:  # the answers may begin alike: the prompt ends before them
        return Content(text=common[: common.rindex(_ASSISTANT) + len(_ASSISTANT)])
    if chosen == rejected:
        return Content()  # nothing tells where the prompt ends
    return Content(text=_whole_words(common, chosen, rejected).removesuffix(" "))


def _whole_words(common: str, chosen: str, rejected: str) -> str:
    """The common beginning without the word that it cuts in two ("The" and "That" both begin with "Th")."""
    following = chosen[len(common) : len(common) + 1] + rejected[len(common) : len(common) + 1]
    end = len(common)
    if any(c.isalnum() for c in following):
        while end and common[end - 1].isalnum():
            end -= 1
    return common[:end]


def _common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many items two sequences begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
