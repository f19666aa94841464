"""Files, hub names, data sets and lists -> the rows that supervised fine-tuning, reward models and DPO learn from.

Rows come out in the form that TRL's trainers read: {"text"}, {"messages"}, {"prompt", "completion"} or {"prompt",
"chosen", "rejected"}, each part a text or a list of messages {role, content}.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from surefoot.display import brief, excerpt, visible
from surefoot.prompts.cells import (
    cell,
    column_kind,
    common_messages,
    common_text,
    messages_of,
    take_alpaca,
    take_text,
    without_answer,
)
from surefoot.prompts.order import PromptOrder
from surefoot.prompts.read import Row, Source, read_source
from surefoot.stages.columns import Kind, Layout, find_layout
from surefoot.types import Message

Part = str | tuple[Message, ...]
"""A prompt or an answer: a text, or messages."""
ANSWERS = ("completion", "chosen", "rejected")
"""What answers are called in a row."""
_ASKING = ("user", "system")
"""Roles with which an answer cannot begin."""
_EXAMPLE_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to learn from.

    Attributes:
        rows: as TRL's trainers read them. places: where each came from, for messages ("pairs.jsonl line 3").
        source: file, hub name or kind of object. form: what was recognised, in words. unused: columns not read.
    """

    rows: list[dict[str, Any]]
    places: tuple[str, ...]
    source: str
    form: str
    unused: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def what(self) -> str:
        """Plain lines for the terminal: what was recognised, and the first two rows."""
        lines = [f"rows      {visible(self.source)}: {len(self)}", f"format    {visible(self.form)}"]
        if self.unused:
            lines.append(f"not used  {visible(', '.join(map(repr, self.unused)))}")
        for i, row in enumerate(self.rows[:2], 1):
            for j, (name, part) in enumerate(row.items()):
                first = f"example {i}" if j == 0 else " " * 9
                lines.append(f"{first}  {name:<10}  {excerpt(_as_text(part), _EXAMPLE_LENGTH)}")
        return "\n".join(lines)

    def take(self, indices: Sequence[int]) -> "Rows":
        """These rows alone, in this order."""
        return replace(self, rows=[self.rows[i] for i in indices], places=tuple(self.places[i] for i in indices))


def load_rows(
    source: Any,
    *,
    kind: Kind,
    text_column: str | None = None,
    prompt_column: str | None = None,
    completion_column: str | None = None,
    chosen_column: str | None = None,
    rejected_column: str | None = None,
) -> Rows:
    """Reads rows and finds out their format.

    Args:
        source: a .jsonl, .json, .csv, .parquet or .txt file, a hub name ("name" or "name:split"), a
            `datasets.Dataset`, or a list of rows (dicts) or texts.
        kind: "sft" or "preference".
        text_column: for SFT, the column with whole texts or conversations. None, here and below: detected.
        prompt_column: the column with the prompt.
        completion_column: for SFT, the column with the answer.
        chosen_column: for preferences, the column with the better answer.
        rejected_column: for preferences, the column with the worse one.

    Raises:
        ValueError: nothing is there, a row is malformed, or the format is unclear.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind={kind!r} must be one of {', '.join(map(repr, get_args(Kind)))}")
    others = {"text_column": text_column, "completion_column": completion_column}
    pair = {"chosen_column": chosen_column, "rejected_column": rejected_column}
    mine, foreign = (others, pair) if kind == "sft" else (pair, others)
    for argument, column in foreign.items():
        if column is not None:
            raise ValueError(f"{argument}={column!r} does not belong to {kind} rows: leave it out")
    named = {name: column for name, column in ({"prompt_column": prompt_column} | mine).items() if column is not None}
    found = _rows_of(read_source(source), kind)
    try:
        layout = find_layout(_kinds(found.rows), kind, named)
    except ValueError as error:
        raise ValueError(f"{found.name}: {error}") from error
    return _taken(found, layout)


def split_rows(rows: Rows, count: int, seed: int) -> tuple[Rows, Rows]:
    """Holds out `count` rows: (those to learn from, those held out), both in their order.

    The split is by prompt: all rows of a prompt are on one side. Prompts are taken in an order drawn from `seed`,
    each with all its rows, as long as they fit in; where prompts have several rows, a few less than `count` may be
    held out.

    Raises:
        ValueError: nothing would be left to learn from, or nothing can be held out.
    """
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows.rows):
        groups.setdefault(prompt_key(row), []).append(i)
    if not 0 <= count < len(rows):
        raise ValueError(f"{count} rows cannot be held out of {len(rows)}: at least one must be left to learn from")
    if count == 0:
        return rows, rows.take([])
    keys = list(groups)
    held_out: list[int] = []
    for k in PromptOrder(len(keys), seed).take(0, len(keys)):
        if len(held_out) + len(groups[keys[k]]) <= count:
            held_out += groups[keys[k]]
    if not held_out:
        fewest = min(map(len, groups.values()))
        raise ValueError(
            f"no prompt has {count} rows or fewer (the fewest are {fewest}), and a prompt is never on both sides: "
            f"hold out at least {fewest} rows, or give a data set of its own for evaluation"
        )
    out = set(held_out)
    return rows.take([i for i in range(len(rows)) if i not in out]), rows.take(sorted(out))


def prompt_key(row: Mapping[str, Any]) -> str:
    """What a row asks, as one text, the same for rows that ask the same; a plain text asks all that it says."""
    if "prompt" in row:
        return _key(row["prompt"])
    if "messages" in row:
        return _key(list(without_answer(tuple(row["messages"]))))
    return str(row["text"])


def _key(part: Any) -> str:
    return part if isinstance(part, str) else json.dumps(part, sort_keys=True, ensure_ascii=False, default=str)


# ---------------------------------------------------------------------------------------------- reading


def _rows_of(found: Source, kind: Kind) -> Source:
    """The source's rows; bare texts, which are read as prompts elsewhere, are texts to learn here."""
    if found.prompts:
        raise ValueError(f"{found.name} holds Prompt objects: give rows with an answer")
    if not found.one_text_a_row:
        return found
    if kind == "preference":
        raise ValueError(f"{found.name} has a bare text a row: a preference needs a chosen and a rejected answer")
    return replace(found, rows=tuple(Row(row.place, {"text": row.values["prompt"]}) for row in found.rows))


def _kinds(rows: Sequence[Row]) -> dict[str, str]:
    return {name: _kind(rows, name) for name in rows[0].values}


def _kind(rows: Sequence[Row], column: str) -> str:
    """As `column_kind`; an answer may also be a single message."""
    kind = column_kind(rows, column)
    if kind != "an object":
        return kind
    first = next(value for row in rows if isinstance(value := row.values.get(column), Mapping))
    return "message" if {"role", "content"} <= set(first) or {"from", "value"} <= set(first) else kind


def _taken(found: Source, layout: Layout) -> Rows:
    take = _take_whole if layout.whole else _take_parts
    rows = []
    for row in found.rows:
        try:
            rows.append(take(row.values, layout))
        except ValueError as error:
            raise ValueError(f"{row.place}: {error}") from error
    form, answers = layout.words, list(rows[0])[1:]
    if layout.prompt and isinstance(rows[0]["prompt"], str) and _repeated(rows, answers):
        rows = [_without_prompt(row, answers) for row in rows]
        form += "; every answer began with its prompt, which was taken off"
    unused = tuple(name for name in found.rows[0].values if name not in layout.used)
    return Rows([_plain(row) for row in rows], tuple(row.place for row in found.rows), found.name, form, unused)


def _take_whole(values: Mapping[str, Any], layout: Layout) -> dict[str, Part]:
    part = _part(values, layout.whole, layout)
    return {"text": part} if isinstance(part, str) else {"messages": part}


def _take_parts(values: Mapping[str, Any], layout: Layout) -> dict[str, Part]:
    answers = tuple(_part(values, column, layout) for column in layout.answers)
    prompt, answers = _aligned(_prompt(values, layout), answers) if layout.prompt else _parted(answers)
    names = ("completion",) if len(answers) == 1 else ("chosen", "rejected")
    return {"prompt": prompt, **dict(zip(names, answers, strict=True))}


def _prompt(values: Mapping[str, Any], layout: Layout) -> Part:
    if layout.alpaca:
        return take_alpaca(values).text
    prompt = _part(values, layout.prompt, layout)
    return prompt if isinstance(prompt, str) or layout.open_prompt else without_answer(prompt)


def _part(values: Mapping[str, Any], column: str, layout: Layout) -> Part:
    value = cell(values, column)
    if column in layout.texts:
        return take_text(value, column).text
    return messages_of([value] if isinstance(value, Mapping) else value, column)


def _parted(answers: tuple[Part, ...]) -> tuple[Part, tuple[Part, ...]]:
    """The prompt that the answers begin with alike, and the answers behind it."""
    prompt: Part
    if isinstance(answers[0], str):
        prompt = common_text(*(str(answer) for answer in answers))
    else:
        prompt = common_messages(*(answer for answer in answers if not isinstance(answer, str)))
    return prompt, tuple(answer[len(prompt) :] for answer in answers)


def _aligned(prompt: Part, answers: tuple[Part, ...]) -> tuple[Part, tuple[Part, ...]]:
    """Prompt and answers in one kind: all texts, or all messages, without the prompt where the answers repeat it."""
    if isinstance(prompt, str) and all(isinstance(answer, str) for answer in answers):
        return prompt, answers
    talks = [_said("assistant", answer) for answer in answers]
    if isinstance(prompt, str) and all(talk and talk[0]["role"] in _ASKING for talk in talks):
        asked: tuple[Message, ...] = common_messages(talks[0], talks[-1])  # the prompt again, as messages
    else:
        asked = _said("user", prompt)
    if all(talk[: len(asked)] == asked for talk in talks):
        talks = [talk[len(asked) :] for talk in talks]
    for talk in talks:
        if talk and talk[0]["role"] in _ASKING:
            raise ValueError(
                f"an answer begins with a message of the {talk[0]['role']}, which is not how its prompt begins: "
                f"{brief(talk[0]['content'])}"
            )
    return asked, tuple(talks)


def _said(role: str, part: Part) -> tuple[Message, ...]:
    if isinstance(part, str):
        return ({"role": role, "content": part},) if part else ()
    return part


def _repeated(rows: Sequence[Mapping[str, Part]], names: Sequence[str]) -> bool:
    """Whether every answer that says anything, a text, begins with its prompt."""
    pairs = [(str(row["prompt"]), str(row[name])) for row in rows for name in names if row["prompt"] and row[name]]
    return bool(pairs) and all(answer.startswith(prompt) for prompt, answer in pairs)


def _without_prompt(row: Mapping[str, Part], names: Sequence[str]) -> dict[str, Part]:
    return {"prompt": row["prompt"], **{name: row[name][len(row["prompt"]) :] for name in names}}


def _plain(row: Mapping[str, Part]) -> dict[str, Any]:
    """Messages as lists of dicts, as tables hold them."""
    return {name: part if isinstance(part, str) else [dict(m) for m in part] for name, part in row.items()}


def _as_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    return " ".join(f"[{m['role']}] {m['content']}" for m in part)
