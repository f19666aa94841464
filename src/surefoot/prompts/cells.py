"""What a cell of a row holds: texts, ids, conversations in any spelling, and pairs that begin alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surefoot.prompts.read import Row, one_line
from surefoot.types import Message

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


def listed(names: Mapping[str, Any]) -> str:
    """Names in quotes, with commas."""
    return ", ".join(map(repr, names))


def column_kind(rows: Sequence[Row], column: str) -> str:
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


def cell(values: Mapping[str, Any], column: str) -> Any:
    """The row's value in a column, arrays and tuples as lists."""
    if column not in values:
        raise ValueError(f"no column {column!r}; this row has {listed(values)}")
    return _plain(values[column])


def take_text(value: Any, column: str) -> Content:
    """A text; null is an empty one."""
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{column!r} must be a text, found {one_line(value)}")
    return Content(text=value or "")


def take_ids(value: Any) -> Content:
    """Token ids; null is none."""
    if value is not None and value != [] and _kind(value) != "ids":
        raise ValueError(f"token ids must be a list of whole numbers, found {one_line(value)}")
    return Content(ids=tuple(value or ()))


def take_alpaca(values: Mapping[str, Any]) -> Content:
    """The instruction and, where there is one, its input below."""
    instruction = take_text(cell(values, "instruction"), "instruction").text
    given = take_text(values.get("input"), "input").text
    return Content(text=f"{instruction}\n\n{given}" if given.strip() else instruction)


def take_messages(value: Any, column: str, *, opened: bool) -> Content:
    """A conversation. Where it is not `opened` for an answer already, the answer at its end is taken off."""
    messages = messages_of(value, column)
    return Content(messages=messages if opened else without_answer(messages))


def without_answer(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation without the assistant's turns at its end."""
    last = len(messages)
    while last and messages[last - 1]["role"] == "assistant":
        last -= 1
    return messages[:last]


def messages_of(value: Any, column: str) -> tuple[Message, ...]:
    """A list of messages as {role, content}, ShareGPT translated; null is an empty one."""
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


def common_messages(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> tuple[Message, ...]:
    """The prompt that two conversations share: the messages that they begin with alike, without an answer."""
    return without_answer(chosen[: _common(chosen, rejected)])


def common_text(chosen: str, rejected: str) -> str:
    """The prompt that two texts share: what they begin with alike, in whole words; "" where nothing tells its end."""
    common = chosen[: _common(chosen, rejected)]
    if _HUMAN in chosen and _ASSISTANT in common:  # the answers may begin alike: the prompt ends before them
        return common[: common.rindex(_ASSISTANT) + len(_ASSISTANT)]
    if chosen == rejected:
        return ""
    return _whole_words(common, chosen, rejected).removesuffix(" ")


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
