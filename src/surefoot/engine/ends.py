"""Where an answer ends: one rule, whichever engine drew it."""

from collections.abc import Collection, Sequence
from typing import Any

from surefoot.types import FinishReason, Sampling


def finish_of(ids: Sequence[int], end_ids: Collection[int], sampling: Sampling, tokenizer: Any) -> FinishReason | None:
    """Why an answer ends with the last of `ids`, if it does."""
    if ids[-1] in end_ids or ids[-1] in sampling.stop_token_ids:
        return "stop"
    if sampling.stop_strings:
        # A token carries at least a byte: the last ones that could spell the longest stop are enough to look at.
        window = ids[-(max(len(s.encode()) for s in sampling.stop_strings) + 4) :]
        text = tokenizer.decode(window, skip_special_tokens=True)
        if any(stop in text for stop in sampling.stop_strings):
            return "stop"
    return "length" if len(ids) == sampling.max_new_tokens else None
