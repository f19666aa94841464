"""The prompt of a row -> the text and the token ids that the policy reads."""

import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from surefoot.types import Message

Encoded = tuple[str, tuple[int, ...]]


def compile_template(template: str, columns: Sequence[str]) -> Callable[[str, Mapping[str, Any]], str]:
    """A function (prompt, columns of the row) -> text, from a format with {prompt} and any column in braces.

    A column that a row leaves null is rendered as nothing.

    Raises:
        ValueError: the braces do not match, or hold something that is not a column.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"prompt_template={template!r}: {error}; write {{{{ and }}}} for braces that stay") from error
    names = [name for _, name, _, _ in parts if name is not None]
    for name in names:
        if name != "prompt" and name not in columns:
            raise ValueError(
                f"prompt_template={template!r} names {{{name}}}; there are {{prompt}} and the columns "
                f"{', '.join(columns)}; write {{{{ and }}}} for braces that stay"
            )
    if not names:
        raise ValueError(f"prompt_template={template!r} has no {{prompt}} in it: every prompt would be the same text")

    def render(prompt: str, values: Mapping[str, Any]) -> str:
        text = []
        for literal, name, spec, conversion in parts:
            text.append(literal)
            if name is not None:
                value = prompt if name == "prompt" else _column(values, name)
                shown = string.Formatter().convert_field(value, conversion)
                text.append("" if value is None else format(shown, spec or ""))
        return "".join(text)

    return render


def template_fields(template: str) -> set[str]:
    """The names in braces; none where the braces do not match."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError:
        return set()


def _column(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise ValueError(f"no column {name!r}, which prompt_template names; this row has {', '.join(values)}")
    return values[name]


def read_chat_template(chat_template: str | Path | None) -> str | None:
    """The template's text: of a Jinja file, or given as it is (anything with Jinja's {{ or {% in it)."""
    if chat_template is None or (isinstance(chat_template, str) and ("{{" in chat_template or "{%" in chat_template)):
        return chat_template
    path = Path(chat_template).expanduser()
    if not path.is_file():
        raise ValueError(f"chat_template={str(chat_template)!r}: no such file, and no Jinja template either")
    return path.read_text(encoding="utf-8")


def render_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], chat_template: str | None) -> str:
    """The conversation as the policy reads it, open for the assistant's turn.

    A conversation that ends within an assistant turn is left open there, for the policy to go on.
    """
    if chat_template is None and tokenizer.chat_template is None:
        raise ValueError(
            "the prompts are conversations, but the tokenizer has no chat template: give chat_template (a Jinja "
            "file), start from a chat model, or give plain-text prompts"
        )
    goes_on = messages[-1]["role"] == "assistant"
    try:
        return str(
            tokenizer.apply_chat_template(
                [dict(message) for message in messages], chat_template=chat_template, tokenize=False,
                add_generation_prompt=not goes_on, continue_final_message=goes_on,
            )
        )  # fmt: skip
    except (TemplateError, TypeError) as error:
        raise ValueError(f"the chat template refuses this conversation: {error}") from error


def encode_plain(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Encoded]:
    """Plain texts as the tokenizer does it, with the BOS it adds (once) and without an EOS that it appends."""
    if not texts:
        return []
    start = _added_in_front(tokenizer)
    full, bare = (_ids(tokenizer, texts, add_special_tokens=special) for special in (True, False))
    return [_encode_one(tokenizer, start, *parts) for parts in zip(texts, full, bare, strict=True)]


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
    encoding = tokenizer(
        list(texts), add_special_tokens=add_special_tokens, return_attention_mask=False, verbose=False
    )
    return [list(ids) for ids in encoding["input_ids"]]


def _added_in_front(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many special tokens the tokenizer puts before a text."""
    full, bare = (_ids(tokenizer, ["a"], add_special_tokens=special)[0] for special in (True, False))
    return next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)


def _encode_one(
    tokenizer: PreTrainedTokenizerBase, start: int, text: str, full: list[int], bare: list[int]
) -> Encoded:
    if full[start : start + len(bare)] != bare:  # cut in another way between its special tokens
        return decode(tokenizer, full), tuple(full)
    before, after = full[:start], full[start + len(bare) :]
    while after and after[-1] == tokenizer.eos_token_id:
        after.pop()
    if before and before[-1:] == [tokenizer.bos_token_id] == bare[:1]:
        before.pop()  # the text brings its own BOS
    shown = decode(tokenizer, before) + text + decode(tokenizer, after)
    return shown, (*before, *bare, *after)


def encode_chats(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Encoded]:
    """Rendered conversations: the template has written every special token, so none is added."""
    if not texts:
        return []
    rows = _ids(tokenizer, texts, add_special_tokens=False)
    return [(text, tuple(ids)) for text, ids in zip(texts, rows, strict=True)]


def encode_ids(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> Encoded:
    """Ids as they are; refuses those that the tokenizer does not have."""
    for i, token in enumerate(ids):
        if not 0 <= token < len(tokenizer):
            raise ValueError(
                f"token id {token} at position {i} is not in the vocabulary (0 to {len(tokenizer) - 1}): were the ids "
                "made with another tokenizer?"
            )
    return decode(tokenizer, ids), tuple(ids)


def truncate_left(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...], limit: int) -> Encoded:
    """The last `limit` tokens; a BOS at the beginning stays there, in place of one of them."""
    keep = ids[len(ids) - limit :]
    if limit > 1 and ids[0] == tokenizer.bos_token_id:
        keep = (ids[0], *keep[1:])
    return decode(tokenizer, keep), keep


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of the ids, special tokens visible, spaces as they are."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def check_text(text: str) -> None:
    """Refuses half of a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start + 1} is {text[error.start]!a}, half of a character (a lone surrogate), "
            "which cannot be tokenised"
        ) from error
