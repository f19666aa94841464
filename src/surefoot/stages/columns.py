"""The columns of a data set -> which of them hold texts, conversations, prompts and answers, or one clear question."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from surefoot.prompts.cells import listed
from surefoot.prompts.detect import TEXT_COLUMNS, is_alpaca

Kind = Literal["sft", "preference"]

PROMPT_COLUMNS = tuple(name for name in TEXT_COLUMNS if name != "text")
"""Names, in any case, under which a column is taken for the prompt of an answer."""
COMPLETION_COLUMNS = ("completion", "response", "answer", "output")
"""Names, in any case, under which a column is taken for the answer."""
_TALKS = ("messages", "conversations")
_PAIR = "prompt and answer"
_ANSWERS = ("text", "messages", "message")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of a row are.

    Attributes:
        words: for people.
        whole: the column with whole texts or conversations; "" where rows have a prompt and answers.
        prompt: the column with the prompt; "" where the answers begin with it.
        answers: the columns with one answer (completion) or two (chosen, rejected).
        alpaca: the prompt is an instruction with its input.
        open_prompt: the prompt, a conversation, is open for an answer; else the answer at its end is taken off.
        texts: those of the columns that hold texts; the others hold messages.
    """

    words: str
    whole: str = ""
    prompt: str = ""
    answers: tuple[str, ...] = ()
    alpaca: bool = False
    open_prompt: bool = True
    texts: frozenset[str] = frozenset()

    @property
    def used(self) -> tuple[str, ...]:
        """All columns that are read."""
        given = ("input",) if self.alpaca else ()
        return tuple(name for name in (self.whole, self.prompt, *given, *self.answers) if name)


def find_layout(kinds: Mapping[str, str], kind: Kind, named: Mapping[str, str]) -> Layout:
    """The layout of rows whose columns hold these kinds of values.

    Args:
        kinds: column -> the kind of its values, as `cells.column_kind` says it.
        kind: what the rows are for.
        named: the columns that the user named, by argument (`prompt_column`, ...).

    Raises:
        ValueError: a named column is not there or holds something else, or none or several columns fit.
    """
    for argument, column in named.items():
        if column not in kinds:
            raise ValueError(f"{argument}={column!r} is not among the columns {listed(kinds)}{_near(column, kinds)}")
    layout = _sft_layout(kinds, named) if kind == "sft" else _preference_layout(kinds, named)
    return replace(layout, texts=frozenset(name for name in layout.used if kinds[name] == "text"))


# ---------------------------------------------------------------------------------------------- SFT


def _sft_layout(kinds: Mapping[str, str], named: Mapping[str, str]) -> Layout:
    if "text_column" in named:
        if len(named) > 1:
            raise ValueError(f"text_column holds the whole of a row: leave out {_others(named, 'text_column')}")
        return _whole(kinds, named["text_column"], "text_column")
    if named:
        return _pair(kinds, named)
    forms = _sft_forms(kinds)
    if len(forms) > 1:
        raise ValueError(
            f"several ways to read these rows: {', '.join(map(repr, forms))}. Say which with text_column (whole texts "
            f"or conversations) or with prompt_column and completion_column. The columns are {_described(kinds)}"
        )
    if not forms:
        raise ValueError(_no_sft_columns(kinds))
    return _pair(kinds, named) if forms == [_PAIR] else _whole(kinds, forms[0], "text_column")


def _sft_forms(kinds: Mapping[str, str]) -> list[str]:
    """Columns with whole texts or conversations, and `_PAIR` where there are a prompt and an answer."""
    if len(kinds) == 1:
        return [name for name in kinds if kinds[name] in ("text", "messages")]
    talks = [name for name in kinds if name.lower() in _TALKS and kinds[name] == "messages"]
    texts = [name for name in kinds if name.lower() == "text" and kinds[name] == "text"]
    if not (_prompts(kinds) and _candidates(kinds, COMPLETION_COLUMNS)):
        return talks + texts
    return talks + [name for name in texts if not is_alpaca(kinds)] + [_PAIR]  # Alpaca's text says the same again


def _whole(kinds: Mapping[str, str], column: str, argument: str) -> Layout:
    if kinds[column] not in ("text", "messages"):
        raise ValueError(f"{argument}={column!r} holds {kinds[column]}, not texts or lists of messages")
    words = "conversations" if kinds[column] == "messages" else "plain texts, learnt from beginning to end,"
    return Layout(f"{words} in {column!r}", whole=column)


def _pair(kinds: Mapping[str, str], named: Mapping[str, str]) -> Layout:
    completion = named.get("completion_column") or _one(kinds, "completion_column", COMPLETION_COLUMNS)
    if "prompt_column" in named:
        return _with_prompt(kinds, named["prompt_column"], (completion,), "prompts with an answer")
    prompts = _prompts(kinds)
    if not prompts:
        raise ValueError(_absent(kinds, "prompt_column", PROMPT_COLUMNS))
    prompt = _only(kinds, prompts, "prompt_column")
    return _with_prompt(kinds, prompt, (completion,), "prompts with an answer", alpaca=_has_input(kinds, prompt))


def _no_sft_columns(kinds: Mapping[str, str]) -> str:
    message = (
        f"nothing to learn from is recognised among the columns {_described(kinds)}: SFT reads whole texts or "
        "conversations (name the column with text_column), or prompts and answers (prompt_column, completion_column)"
    )
    chosen = _candidates(kinds, ("chosen",))
    if not chosen:
        return message
    option = "completion_column" if _prompts(kinds) else "text_column"
    return f"{message}. To learn the chosen answers of preference rows say {option}={chosen[0]!r}"


# ---------------------------------------------------------------------------------------------- preferences


def _preference_layout(kinds: Mapping[str, str], named: Mapping[str, str]) -> Layout:
    chosen, rejected = (
        named.get(f"{name}_column") or _one(kinds, f"{name}_column", (name,)) for name in ("chosen", "rejected")
    )
    if chosen == rejected:
        raise ValueError(f"chosen_column and rejected_column are both {chosen!r}: a preference needs two answers")
    if kinds[chosen] != kinds[rejected]:
        raise ValueError(
            f"{chosen!r} holds {kinds[chosen]} and {rejected!r} {kinds[rejected]}: both answers must be of one kind"
        )
    words, answers = "preference rows with an explicit prompt", (chosen, rejected)
    if "prompt_column" in named:
        return _with_prompt(kinds, named["prompt_column"], answers, words)
    found = _prompts(kinds) or [name for name in kinds if name.lower() in _TALKS]
    if found:
        prompt = _only(kinds, found, "prompt_column")
        return _with_prompt(kinds, prompt, answers, words, alpaca=_has_input(kinds, prompt))
    if kinds[chosen] not in ("text", "messages"):
        raise ValueError(
            f"there is no prompt: {chosen!r} holds {kinds[chosen]}; name the column with prompt_column, or give texts "
            "or conversations that begin with the prompt"
        )
    what = "conversations" if kinds[chosen] == "messages" else "plain text"
    return Layout(
        f"preference rows without a prompt, {what}: the prompt is what {chosen!r} and {rejected!r} begin with alike",
        answers=answers,
    )


# ---------------------------------------------------------------------------------------------- both


def _with_prompt(
    kinds: Mapping[str, str], prompt: str, answers: tuple[str, ...], words: str, *, alpaca: bool = False
) -> Layout:
    if kinds[prompt] not in ("text", "messages"):
        raise ValueError(f"the prompt {prompt!r} holds {kinds[prompt]}: it must be a text or a list of messages")
    for column in answers:
        if kinds[column] not in _ANSWERS:
            raise ValueError(f"the answer {column!r} holds {kinds[column]}: it must be a text or a list of messages")
    columns = [f"{prompt!r} (under it 'input')" if alpaca else repr(prompt), *map(repr, answers)]
    what = {kinds[name] for name in (prompt, *answers)}
    content = "plain text" if what == {"text"} else "conversations"
    return Layout(
        f"{words}, {content} in {', '.join(columns[:-1])} and {columns[-1]}",
        prompt=prompt,
        answers=answers,
        alpaca=alpaca,
        open_prompt=prompt.lower() not in _TALKS,
    )


def _has_input(kinds: Mapping[str, str], prompt: str) -> bool:
    return prompt == "instruction" and is_alpaca(kinds) and kinds.get("input") == "text"


def _prompts(kinds: Mapping[str, str]) -> list[str]:
    found = _candidates(kinds, PROMPT_COLUMNS)
    return [name for name in found if name != "input"] if is_alpaca(kinds) else found


def _candidates(kinds: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """Columns of these names that hold something; the first name alone where it is among them."""
    found = [column for column in kinds if column.lower() in names and kinds[column] != "nothing"]
    if any(column.lower() == names[0] for column in found):
        return [column for column in found if column.lower() == names[0]]
    return found


def _one(kinds: Mapping[str, str], argument: str, names: Sequence[str]) -> str:
    found = _candidates(kinds, names)
    if not found:
        raise ValueError(_absent(kinds, argument, names))
    return _only(kinds, found, argument)


def _absent(kinds: Mapping[str, str], argument: str, names: Sequence[str]) -> str:
    return (
        f"no column {' or '.join(map(repr, names))} among {_described(kinds)}: name the one that is meant with "
        f"{argument}{_near(names[0], kinds)}"
    )


def _only(kinds: Mapping[str, str], found: Sequence[str], argument: str) -> str:
    if len(found) > 1:
        raise ValueError(
            f"several columns could be meant: {', '.join(map(repr, found))}. Say which with {argument}, for instance "
            f"{argument}={found[0]!r}. The columns are {_described(kinds)}"
        )
    return found[0]


def _near(column: str, kinds: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(column, kinds, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _others(named: Mapping[str, str], argument: str) -> str:
    return " and ".join(name for name in named if name != argument)


def _described(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{name!r} ({kind})" for name, kind in kinds.items())
