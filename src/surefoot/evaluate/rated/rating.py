"""What a rating's votes say, and from when on it may be known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

from surefoot.evaluate.rated.pairs import Item, Source
from surefoot.evaluate.rated.session import Session
from surefoot.evaluate.rated.store import Showing, Store
from surefoot.evaluate.ratings.arrange import arrange
from surefoot.evaluate.ratings.export import export
from surefoot.evaluate.ratings.plan import SECONDS_A_VOTE
from surefoot.evaluate.ratings.sequential import StoppingRule, progress
from surefoot.evaluate.ratings.summary import RatingSummary, summarise
from surefoot.evaluate.ratings.votes import Pair, Vote

EVIDENCE = "the sequential test had seen enough"
PLANNED = "the planned number was reached"
_ENOUGH_VOTES = 5


class Rating:
    """A session with its votes.

    Args:
        run: the run's folder.
        session: what is asked.
    """

    def __init__(self, run: Path, session: Session) -> None:
        self.session = session
        self.store = Store(run / "ratings.sqlite")

    @cached_property
    def _pairs(self) -> dict[str, Pair]:
        return {name: item.pair for name, item in self.session.items.items()}

    def invite(self, rater: str) -> None:
        """Gives a rater his order, unless he has one."""
        order = arrange(self.session.pairs, rater=rater, seed=self.session.seed)
        self.store.join(self.session.step, rater, [Showing(shown.pair.item, shown.left) for shown in order])

    def votes(self) -> list[Vote]:
        """The votes that count."""
        return self.store.votes(self.session.step, self._pairs)

    # ------------------------------------------------------------------------------------------ when
    def why_open(self) -> str | None:
        """Why results may be seen now; None while they may not."""
        closed = self.store.closed(self.session.step)
        if closed is not None:
            return closed
        rule = self._rule()
        if rule is not None and progress(self.votes(), rule).stop == "evidence":
            return EVIDENCE
        done = any(votes == of for votes, of in self.store.standing(self.session.step).values())
        return PLANNED if done else None

    def open(self) -> str | None:
        """Ends the voting so that results can be seen, if they may be; the reason."""
        why = self.why_open()
        if why is not None:
            self.store.close(self.session.step, why)
        return why

    def _rule(self) -> StoppingRule | None:
        planned = sum(pair.kind == "policy-sft" and not pair.repeats for pair in self.session.pairs)
        return StoppingRule(planned) if planned else None

    @property
    def identical(self) -> int:
        """Pairs of policy and SFT model that nobody was asked about, as both answers were the same text."""
        return int(self.session.plan["identical_pairs_left_out_as_ties"].get("policy-sft", 0))

    # ------------------------------------------------------------------------------------------ what
    def summary(self) -> RatingSummary:
        """Every statistic of the votes."""
        return summarise(
            self.votes(), scores=self._numbers(lambda s: s.score), lengths=self._numbers(lambda s: s.length),
            rule=self._rule(), seed=self.session.seed,
        )  # fmt: skip

    def export(self, folder: Path) -> Mapping[str, int]:
        """Writes the votes as data sets; rows by file."""
        return export(folder, self.votes(), self.session.pairs, self._numbers(lambda s: s.score))

    def _numbers(self, number: Callable[[Source], float | None]) -> dict[str, tuple[float, float]] | None:
        """Of both answers of every pair but the planted; None where one is not known."""
        found: dict[str, tuple[float, float]] = {}
        for name, item in self.session.items.items():
            a, b = number(item.a), number(item.b)
            if item.pair.kind != "planted":
                if a is None or b is None:
                    return None
                found[name] = (a, b)
        return found

    def judged(self) -> list["Judged"]:
        """Pairs with votes, in the order of the file."""
        by_item: dict[str, list[Vote]] = {}
        for vote in self.votes():
            by_item.setdefault(vote.item, []).append(vote)
        return [Judged(item, by_item[name]) for name, item in self.session.items.items() if name in by_item]


@dataclass(frozen=True, slots=True)
class Judged:
    """A pair with the votes on it."""

    item: Item
    votes: list[Vote]

    @property
    def margin(self) -> float | None:
        """The reward model's score of answer `a` less that of `b`."""
        a, b = self.item.a.score, self.item.b.score
        return None if a is None or b is None else a - b

    @property
    def disagrees(self) -> bool:
        """Whether a rater preferred the answer that the reward model scored lower."""
        margin = self.margin
        return bool(margin) and any(v.decided and (v.choice == "a") != ((margin or 0) > 0) for v in self.votes)


def seconds_left(seen: list[float], left: int) -> float:
    """How long the pairs that are left will take, at a rater's median; at first, at what others are known to take."""
    known = seen[-50:] + [SECONDS_A_VOTE] * max(0, _ENOUGH_VOTES - len(seen))
    return median(known) * left
