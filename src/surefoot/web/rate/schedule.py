"""In which order a rater sees the pairs, and which answer stands on the left. Pure: names and numbers in and out."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from surefoot.evaluate.ratings.votes import Pair, Side

BLOCKS = (4, 6, 8)
APART = 10
"""A pair that is shown again is so many pairs away, where there are as many."""


@dataclass(frozen=True, slots=True)
class Showing:
    """One screen: a pair, and which of its answers stands on the left."""

    item: str
    left: Side


def arrange(pairs: Sequence[Pair], *, seed: int, rater: str) -> list[Showing]:
    """A rater's screens in order.

    Sides are drawn in permuted blocks within each kind: in every block, of 4, 6 or 8, each answer is on the left in
    half. Single coin flips would leave a quarter of all sessions of 20 pairs with less than 40 % on one side. A pair
    that is shown again has its sides swapped, so that a rater who goes by the side contradicts himself.
    """
    generator = random.Random(f"{seed}/{rater}")
    first = _order([pair for pair in pairs if not pair.repeats], {pair.repeats for pair in pairs}, generator)
    left = _sides(first, generator)
    order = list(first)
    for again in (pair for pair in pairs if pair.repeats):
        place = next(n for n, pair in enumerate(order) if pair.item == again.repeats)
        earliest = min(place + 1 + APART, len(order))
        order.insert(generator.randint(earliest, len(order)), again)
        left[again.item] = "b" if left[again.repeats] == "a" else "a"
    return [Showing(pair.item, left[pair.item]) for pair in order]


def _order(first: Sequence[Pair], repeated: set[str], generator: random.Random) -> list[Pair]:
    """Shuffled, those that come again in the first half, so that there is room behind them."""
    order = [pair for pair in first if pair.item not in repeated]
    generator.shuffle(order)
    for pair in first:
        if pair.item in repeated:
            order.insert(generator.randint(0, len(order) // 2), pair)
    return order


def _sides(order: Sequence[Pair], generator: random.Random) -> dict[str, Side]:
    blocks: dict[str, list[Side]] = {}
    left: dict[str, Side] = {}
    for pair in order:
        block = blocks.setdefault(pair.kind, [])
        if not block:
            half = generator.choice(BLOCKS) // 2
            block += ["a", "b"] * half
            generator.shuffle(block)
        left[pair.item] = block.pop()
    return left
