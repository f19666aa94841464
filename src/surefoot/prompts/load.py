"""Any source of prompts -> a PromptSet: rows read, format detected, prompts encoded, odd rows counted."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from transformers import PreTrainedTokenizerBase

from surefoot.display import excerpt, visible
from surefoot.prompts.cells import Content
from surefoot.prompts.detect import Format, detect
from surefoot.prompts.encode import (
    Encoded,
    check_text,
    compile_template,
    decode,
    encode_chats,
    encode_ids,
    encode_plain,
    read_chat_template,
    render_chat,
    template_fields,
    truncate_left,
)
from surefoot.prompts.read import Row, Source, read_source
from surefoot.types import Message, Prompt

Overlong = Literal["error", "drop", "truncate_left"]


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows are of a kind, and the numbers of the first five, counted from 1."""

    count: int
    first_rows: tuple[int, ...]

    @classmethod
    def of(cls, indices: Sequence[int]) -> "Tally":
        """The tally of rows with these indices, which count from 0."""
        return cls(len(indices), tuple(i + 1 for i in sorted(indices)[:5]))

    def __str__(self) -> str:
        if not self.count:
            return "0"
        rows = ", ".join(map(str, self.first_rows)) + (", …" if self.count > len(self.first_rows) else "")
        return f"{self.count} ({'row' if self.count == 1 else 'rows'} {rows})"


@dataclass(frozen=True, slots=True)
class DetectionReport:
    """What was found in a source of prompts.

    Attributes:
        source: file, hub name or kind of object. format: in words. prompt_column: the columns that hold the prompt.
        rows, kept: rows read, and prompts made of them.
        too_long: rows over `max_prompt_tokens`, dropped or truncated as `overlong` says.
        empty: rows without a prompt, dropped. duplicates: kept rows that repeat the text of an earlier one.
        length_min, length_median, length_max: tokens of the prompts that are kept.
        examples: the first prompts as the policy reads them, special tokens visible, control characters escaped.
    """

    source: str
    format: str
    prompt_column: str
    rows: int
    kept: int
    too_long: Tally
    empty: Tally
    duplicates: Tally
    length_min: int
    length_median: float
    length_max: int
    max_prompt_tokens: int | None
    overlong: str
    examples: tuple[str, ...]

    def text(self) -> str:
        """Plain lines for the terminal."""
        lines = [f"prompts   {visible(self.source)}: {self.kept} of {self.rows} rows", f"format    {self.format}"]
        lines.append(f"tokens    {self.length_min} to {self.length_max}, median {self.length_median:g}")
        if self.too_long.count:
            done = "truncated on the left" if self.overlong == "truncate_left" else "dropped"
            lines.append(f"too long  {self.too_long}: over {self.max_prompt_tokens} tokens, {done}")
        if self.empty.count:
            lines.append(f"empty     {self.empty}: dropped")
        if self.duplicates.count:
            lines.append(f"repeated  {self.duplicates}: kept")
        lines += [f"example {i}  {example}" for i, example in enumerate(self.examples, 1)]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class PromptSet:
    """The prompts of a source, in its order, and the report on how they were found."""

    prompts: tuple[Prompt, ...]
    report: DetectionReport


def load_prompts(
    source: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompt_column: str | None = None,
    prompt_template: str | None = None,
    max_prompt_tokens: int | None = None,
    overlong: Overlong = "drop",
    chat_template: str | Path | None = None,
) -> PromptSet:
    """Reads prompts, finds out their format and encodes them for the policy.

    Args:
        source: a .jsonl, .json, .csv, .parquet or .txt file, a hub name ("name" or "name:split"), a
            `datasets.Dataset`, or a list of texts, rows or `Prompt`s (these keep their ids and are numbered anew).
        tokenizer: the policy's.
        prompt_column: the column with the prompt; None: detected.
        prompt_template: a format for plain-text prompts, with {prompt} and any other column in braces.
        max_prompt_tokens: the longest prompt; None: any length.
        overlong: what happens to longer ones.
        chat_template: a Jinja file, or the template itself, in place of the tokenizer's.

    Raises:
        ValueError: nothing is there, a row is malformed, the format is unclear, or no prompt is left.
    """
    if overlong not in get_args(Overlong):
        raise ValueError(f"overlong={overlong!r} must be one of {', '.join(map(repr, get_args(Overlong)))}")
    if max_prompt_tokens is not None and max_prompt_tokens < 1:
        raise ValueError(f"max_prompt_tokens={max_prompt_tokens} leaves no room for a prompt")
    found = read_source(source)
    if found.prompts:
        if prompt_column is not None or prompt_template is not None:
            raise ValueError("prompt_column and prompt_template are for rows; these prompts are encoded already")
        how = Format("prompts that are encoded already", "token_ids", lambda values: Content())
        encoded = _check_prompts(tokenizer, found.prompts)
    else:
        how = _format(found, prompt_column, prompt_template)
        encoded = _encode_rows(tokenizer, found.rows, how, prompt_template, read_chat_template(chat_template))
    return _sift(tokenizer, found, how, encoded, max_prompt_tokens, overlong)


# ---------------------------------------------------------------------------------------------- rows -> prompts


def _format(found: Source, prompt_column: str | None, prompt_template: str | None) -> Format:
    fields = set() if prompt_template is None else template_fields(prompt_template)
    if prompt_column is None and fields and "prompt" not in fields and fields <= set(found.rows[0].values):
        return Format("text put together from columns", ", ".join(sorted(fields)), lambda values: Content(text="."))
    try:
        how = detect(found.rows, prompt_column)
    except ValueError as error:
        raise ValueError(f"{found.name}: {error}") from error
    return replace(how, words="one plain text a row") if found.one_text_a_row else how


def _encode_rows(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    how: Format,
    prompt_template: str | None,
    chat_template: str | None,
) -> list[Prompt]:
    """One prompt a row; an empty one has no ids."""
    template = None if prompt_template is None else compile_template(prompt_template, list(rows[0].values))
    texts: dict[int, str] = {}
    chats: dict[int, str] = {}
    encoded: dict[int, Encoded] = {}
    messages: dict[int, tuple[Message, ...]] = {}
    for i, row in enumerate(rows):
        try:
            content = how.take(row.values)
            if prompt_template is not None and (content.messages or content.ids):
                raise ValueError("prompt_template is for plain-text prompts; this row holds a conversation or ids")
            if content.messages:
                messages[i] = content.messages
                chats[i] = render_chat(tokenizer, content.messages, chat_template)
            elif content.ids:
                encoded[i] = encode_ids(tokenizer, content.ids)
            elif content.text.strip():
                text = content.text if template is None else template(content.text, row.values)
                texts |= {i: text} if text.strip() else {}
            check_text(texts.get(i, chats.get(i, "")))
        except ValueError as error:
            raise ValueError(f"{row.place}: {error}") from error
    encoded |= zip(texts, encode_plain(tokenizer, list(texts.values())), strict=True)
    encoded |= zip(chats, encode_chats(tokenizer, list(chats.values())), strict=True)
    prompts = []
    for i, row in enumerate(rows):
        text, ids = encoded.get(i, ("", ()))
        columns = {name: value for name, value in row.values.items() if name not in how.left_out}
        prompts.append(Prompt(text, ids, messages.get(i, ()), columns, i))
    return prompts


def _check_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[Prompt]:
    checked = []
    for i, prompt in enumerate(prompts):
        try:
            text, _ = encode_ids(tokenizer, prompt.token_ids)
        except ValueError as error:
            raise ValueError(f"row {i + 1} of the list: {error}") from error
        checked.append(replace(prompt, text=prompt.text or text, index=i))
    return checked


# ---------------------------------------------------------------------------------------------- sifting and counting


def _sift(
    tokenizer: PreTrainedTokenizerBase,
    found: Source,
    how: Format,
    prompts: Sequence[Prompt],
    limit: int | None,
    overlong: Overlong,
) -> PromptSet:
    """Drops the empty, treats the overlong as asked, and counts both and the repeated ones."""
    empty = Tally.of([p.index for p in prompts if not p.token_ids])
    long = {p.index for p in prompts if limit is not None and len(p.token_ids) > limit}
    too_long = Tally.of(sorted(long))
    if long and overlong == "error":
        raise ValueError(
            f"{found.name}: {too_long} over max_prompt_tokens={limit}: shorten them, or set overlong_prompts to "
            "'drop' or 'truncate_left'"
        )
    kept = [p for p in prompts if p.token_ids and p.index not in long]
    if limit is not None and overlong == "truncate_left":
        kept = [_truncated(tokenizer, p, limit) if p.index in long else p for p in prompts if p.token_ids]
    if not kept:
        raise ValueError(
            f"{found.name}: no prompt is left of {len(prompts)} rows: {empty.count} empty, "
            f"{too_long.count} longer than max_prompt_tokens={limit}"
        )
    first = {p.text: p.index for p in reversed(kept)}
    repeated = [p.index for p in kept if p.index != first[p.text]]
    lengths = [len(p.token_ids) for p in kept]
    report = DetectionReport(
        source=found.name, format=how.words, prompt_column=how.column, rows=len(prompts), kept=len(kept),
        too_long=too_long, empty=empty, duplicates=Tally.of(repeated), length_min=min(lengths),
        length_median=float(statistics.median(lengths)), length_max=max(lengths), max_prompt_tokens=limit,
        overlong=overlong,
        examples=tuple(excerpt(decode(tokenizer, p.token_ids)) for p in kept[:2]),
    )  # fmt: skip
    return PromptSet(tuple(kept), report)


def _truncated(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, limit: int) -> Prompt:
    text, ids = truncate_left(tokenizer, prompt.token_ids, limit)
    return replace(prompt, text=text, token_ids=ids)
