"""How rows are cut into passes. The cut never changes a result, only time and memory."""

from collections.abc import Sequence
from itertools import pairwise


def microbatches(
    lengths: Sequence[int], *, max_rows: int | None = None, max_tokens: int | None = None
) -> list[list[int]]:
    """Groups row numbers into passes, longest rows first, so that each pass is padded as little as possible.

    A pass holds at most `max_rows` rows, or rows x longest row of at most `max_tokens` tokens; a single row that is
    longer than `max_tokens` gets a pass of its own.
    """
    groups: list[list[int]] = []
    width = 0
    for row in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        group = groups[-1] if groups else []
        full = (max_rows is not None and len(group) >= max_rows) or (
            max_tokens is not None and (len(group) + 1) * width > max_tokens
        )
        if not group or full:
            group, width = [], lengths[row]
            groups.append(group)
        group.append(row)
    return groups


def pieces(count: int, size: int) -> list[slice]:
    """Cuts `count` things into as few pieces of at most `size` as possible, all about equally long."""
    number = -(-count // size)
    bounds = [count * i // number for i in range(number + 1)] if number else [0]
    return [slice(a, b) for a, b in pairwise(bounds)]
