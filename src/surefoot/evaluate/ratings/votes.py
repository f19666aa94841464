"""What people are shown and what they answer: pairs of answers, and votes.

Every statistic of this package is made of votes, and of nothing that a vote does not say.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["policy-sft", "sft-sft", "policy-policy", "planted"]
"""Whose answers `a` and `b` are: the policy's and the SFT model's, two of the SFT model, two of the policy, or,
planted to see whether a rater reads, a sound answer and a spoiled one."""
Side = Literal["a", "b"]
Choice = Literal["a", "b", "both good", "both bad", "skip"]
Outcome = Literal["win", "tie", "loss", "both bad"]
"""What a vote says of answer `a`."""

KINDS: tuple[Kind, ...] = get_args(Kind)
CHOICES: tuple[Choice, ...] = get_args(Choice)
WITHIN_A_MODEL: tuple[Kind, ...] = ("sft-sft", "policy-policy")
_OUTCOMES: dict[Choice, Outcome] = {"a": "win", "both good": "tie", "b": "loss", "both bad": "both bad"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two answers to one prompt, as they are put before raters.

    Attributes:
        item: a name of its own; votes refer to it.
        prompt_id: the same for all pairs of one prompt: the unit that statistics draw again.
        prompt: text, or the messages of a conversation. a, b: the answers; see `Kind` for whose they are.
        repeats: the item that this one shows a second time, sides swapped; "" for a first showing.
    """

    item: str
    kind: Kind
    prompt_id: str
    prompt: str | Sequence[dict[str, Any]]
    a: str
    b: str
    repeats: str = ""

    def __post_init__(self) -> None:
        _check_item(self.item, self.kind, self.repeats)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One rater's answer to one pair.

    Attributes:
        item, kind, prompt_id, repeats: of the pair, as there.
        rater: who. left: which answer stood on the left.
        choice: the better answer whatever its side; or no preference, of two kinds; or no answer at all.
        seconds: how long the rater looked. time: when, in seconds since 1970. note: the rater's own words.
    """

    item: str
    kind: Kind
    prompt_id: str
    rater: str
    left: Side
    choice: Choice
    seconds: float = math.nan
    time: float = 0.0
    note: str = ""
    repeats: str = ""

    def __post_init__(self) -> None:
        _check_item(self.item, self.kind, self.repeats)
        _check_one_of("choice", self.choice, CHOICES)
        _check_one_of("left", self.left, get_args(Side))
        if not self.rater:
            raise ValueError(f"rater of item {self.item!r} is empty: give each rater a name")

    @property
    def answered(self) -> bool:
        """Whether the pair was judged, and not skipped."""
        return self.choice != "skip"

    @property
    def decided(self) -> bool:
        """Whether one answer was called the better one."""
        return self.choice in ("a", "b")

    @property
    def chose_left(self) -> bool:
        """Whether the answer on the left was called the better one."""
        return self.choice == self.left

    @property
    def outcome(self) -> Outcome:
        """What the vote says of answer `a`.

        Raises:
            ValueError: of a skipped pair.
        """
        if self.choice == "skip":
            raise ValueError(f"item {self.item!r} was skipped by {self.rater!r}: it has no outcome")
        return _OUTCOMES[self.choice]


def check_votes(votes: Iterable[Vote]) -> list[Vote]:
    """The votes in the order of time, when there is one at most for each item and rater.

    Raises:
        ValueError: two votes of one rater on one item, or an item that is two things.
    """
    seen: set[tuple[str, str]] = set()
    meaning: dict[str, tuple[str, str, str]] = {}
    cast = sorted(votes, key=lambda vote: vote.time)
    for vote in cast:
        if (vote.item, vote.rater) in seen:
            raise ValueError(
                f"two votes of rater {vote.rater!r} on item {vote.item!r}: give the last one only, or, if the pair "
                "was shown a second time on purpose, an item of its own that `repeats` the first"
            )
        seen.add((vote.item, vote.rater))
        of_item = (vote.kind, vote.prompt_id, vote.repeats)
        if meaning.setdefault(vote.item, of_item) != of_item:
            raise ValueError(
                f"item {vote.item!r} has votes as (kind, prompt_id, repeats) = {meaning[vote.item]} and as {of_item}: "
                "an item is one pair"
            )
    return cast


def counted(votes: Iterable[Vote], *kinds: Kind) -> list[Vote]:
    """The votes that a rate is made of: judged, of these kinds (or of all but planted ones), shown a first time."""
    wanted = kinds or tuple(kind for kind in KINDS if kind != "planted")
    return [vote for vote in votes if vote.answered and vote.kind in wanted and not vote.repeats]


def _check_item(item: str, kind: str, repeats: str) -> None:
    if not item:
        raise ValueError("item is empty: give each pair a name of its own")
    _check_one_of("kind", kind, KINDS)
    if repeats == item:
        raise ValueError(f"item {item!r} repeats itself: `repeats` names the item that was shown first")


def _check_one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}: it is one of {', '.join(map(repr, known))}")
