"""What a rater is shown, in which order, on which side: drawn by lot, balanced, and the same again for one seed."""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from surefoot.evaluate.ratings.votes import KINDS, Kind, Pair, Side

SHARES: Mapping[Kind, float] = {"policy-sft": 0.6, "sft-sft": 0.2, "policy-policy": 0.2}
"""Of the pairs that count, the rate of wins and the reward model's agreement each get their part."""
BLOCKS = (4, 6, 8)
"""Within so many first showings each answer stands on the left half of the time; the size is drawn by lot, too."""
APART = 10
"""Showings between a pair and its repetition, where there are as many: it should have been forgotten."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A pair before one rater. left: the answer on the left."""

    pair: Pair
    left: Side


def arrange(pairs: Sequence[Pair], *, rater: str, seed: int = 0) -> list[Shown]:
    """All pairs in an order of this rater's own, repetitions some way after their first showing and sides swapped.

    Sides are balanced within each kind of pair, as each kind gives a rate of its own. What comes again is shown in the
    first half, so that there is room behind it.

    Raises:
        ValueError: a pair repeats one that is not among them.
    """
    generator = _generator(seed, rater)
    first = [pair for pair in pairs if not pair.repeats]
    again = {pair.repeats for pair in pairs}
    shuffled = [first[i] for i in generator.permutation(len(first))]
    order = [pair for pair in shuffled if pair.item not in again]
    for pair in shuffled:
        if pair.item in again:
            order.insert(int(generator.integers(len(order) // 2 + 1)), pair)
    sides = {kind: _sides(generator) for kind in KINDS}
    left = {pair.item: next(sides[pair.kind]) for pair in order}
    for pair in pairs:
        if not pair.repeats:
            continue
        if pair.repeats not in left:
            raise ValueError(f"item {pair.item!r} repeats {pair.repeats!r}, which is not among the pairs")
        place = next(i for i, other in enumerate(order) if other.item == pair.repeats)
        order.insert(int(generator.integers(min(place + 1 + APART, len(order)), len(order) + 1)), pair)
        left[pair.item] = "b" if left[pair.repeats] == "a" else "a"
    return [Shown(pair, left[pair.item]) for pair in order]


def counts_by_kind(count: int, shares: Mapping[Kind, float] = SHARES) -> dict[Kind, int]:
    """How many pairs of each kind make so many in all, as near to the shares as whole numbers come."""
    exact = {kind: count * share / sum(shares.values()) for kind, share in shares.items()}
    found = {kind: int(number) for kind, number in exact.items()}
    for kind in sorted(exact, key=lambda kind: found[kind] - exact[kind])[: count - sum(found.values())]:
        found[kind] += 1
    return found


def repetitions(pairs: Sequence[Pair], share: float = 0.15, *, seed: int = 0) -> list[Pair]:
    """At least this share of the pairs that are neither planted nor repetitions, drawn by lot, to be shown again."""
    usable = [pair for pair in pairs if pair.kind != "planted" and not pair.repeats]
    drawn = _generator(seed, "repetitions").permutation(len(usable))[: math.ceil(share * len(usable))]
    return [dataclasses.replace(usable[i], item=f"{usable[i].item}-again", repeats=usable[i].item) for i in drawn]


def planted(pair: Pair, sound: Side = "b", *, seed: int = 0) -> Pair:
    """A pair that shows whether its rater reads: one of the answers beside its own words in another order.

    Raises:
        ValueError: the answer has too few words to be spoiled.
    """
    text = getattr(pair, sound)
    words = text.split()
    generator = _generator(seed, pair.item)
    for _ in range(100):
        spoiled = [words[i] for i in generator.permutation(len(words))]
        if sum(a != b for a, b in zip(words, spoiled, strict=True)) >= max(3, len(words) / 2):
            return dataclasses.replace(
                pair, item=f"{pair.item}-planted", kind="planted", a=text, b=" ".join(spoiled), repeats=""
            )
    raise ValueError(f"answer {sound} of item {pair.item!r} cannot be spoiled by shuffling its words: {text[:80]!r}")


def _sides(generator: np.random.Generator) -> Iterator[Side]:
    both: tuple[Side, Side] = ("a", "b")
    while True:
        size = int(generator.choice(BLOCKS))
        yield from (both[i % 2] for i in generator.permutation(size))


def _generator(seed: int, purpose: str) -> np.random.Generator:
    told = hashlib.sha256(purpose.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(told[:8], "big")])
