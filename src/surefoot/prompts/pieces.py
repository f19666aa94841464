"""What each token of an answer adds to its text, for pictures of answers token by token."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from surefoot.prompts.encode import decode

_LONGEST_CHARACTER = 4
"""Bytes of a character at most, and so tokens that it can be spread over."""
_HALF = "\ufffd"


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """One text a token, which together are the text of all; special tokens are visible.

    Tokenizers that begin words with a blank drop it at the beginning of a text, so each token is read behind the one
    before it. A character that is spread over several tokens stands at the last of them.
    """
    texts: list[str] = []
    start = 0
    for place in range(len(ids)):
        before = decode(tokenizer, ids[start - 1 : start]) if start else ""
        whole = decode(tokenizer, ids[max(0, start - 1) : place + 1])
        text = whole[len(before) :] if whole.startswith(before) else whole
        if text.endswith(_HALF) and place - start + 1 < _LONGEST_CHARACTER and place + 1 < len(ids):
            texts.append("")
            continue
        texts.append(text)
        start = place + 1
    return texts
