"""How many votes does it take? Closed form, before the first vote.

For the exact sign test of win rate ½ against p, two-sided at level alpha, with the given power (normal approximation
with a correction for continuity, as Fleiss gives it for proportions):

    n₀ = ((z_{1-alpha/2} / 2 + z_power √(p(1 - p))) / (p - ½))²      n = n₀/4 · (1 + √(1 + 2 / (n₀ |p - ½|)))²

n counts decided votes on prompts of their own. The exact power of that n is near what was
asked: within three points above 80 votes, five below, as it jumps from n to n + 1.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

SECONDS_A_VOTE = 36.8
"""Of a paid crowd on pairs of chat answers (AlpacaEval's); a rater's own median replaces it once it is known."""


@dataclass(frozen=True, slots=True)
class VotePlan:
    """What a rating takes, and what it would show.

    Attributes:
        win_rate: of decided votes, to be told from one half. power: probability of doing so where it is true.
        alpha: probability of finding a difference where there is none.
        decided: votes with a preference that it takes. undecided: share of votes expected to have none.
        votes: votes in all. seconds: what they take one rater.
    """

    win_rate: float
    power: float
    alpha: float
    decided: int
    undecided: float
    votes: int
    seconds: float

    def text(self) -> str:
        """The plan in two sentences."""
        return (
            f"To tell a win rate of {100 * self.win_rate:.3g} % from one half in {100 * self.power:.3g} of 100 tries, "
            f"at a risk of {100 * self.alpha:.3g} % to see a difference where there is none, takes {self.decided} "
            f"votes with a preference, each on a prompt of its own. If {100 * self.undecided:.3g} % of the votes have "
            f"none, that is {self.votes} votes, about {duration(self.seconds)} of looking."
        )


def plan_votes(
    win_rate: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    undecided: float = 0.1,
    seconds_a_vote: float = SECONDS_A_VOTE,
) -> VotePlan:
    """The number of votes for a true win rate.

    Raises:
        ValueError: the win rate is one half or not between 0 and 1, or a share is out of its range.
    """
    if not 0 < win_rate < 1 or win_rate == 0.5:
        raise ValueError(f"win_rate is {win_rate}: give a share between 0 and 1 other than one half, say 0.6")
    for name, share, lowest in (("power", power, 0.5), ("alpha", alpha, 0.0), ("undecided", undecided, -0.01)):
        if not lowest < share < 1:
            raise ValueError(f"{name} is {share}: give a share above {max(lowest, 0)} and below 1")
    decided = math.ceil(_votes_for(win_rate, power, alpha))
    votes = math.ceil(decided / (1 - undecided))
    return VotePlan(win_rate, power, alpha, decided, undecided, votes, votes * seconds_a_vote)


def detectable_win_rate(decided: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The win rate nearest one half that so many decided votes can tell from it; 1 where they can tell none."""
    if decided < 1:
        raise ValueError(f"decided is {decided}: give the number of votes with a preference, at least 1")
    low, high = 0.5, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        enough = _votes_for(middle, power, alpha) <= decided
        low, high = (low, middle) if enough else (middle, high)
    return high


def duration(seconds: float) -> str:
    """About how long, in the unit that a person would use, for instance "2 h 5 min"."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _votes_for(win_rate: float, power: float, alpha: float) -> float:
    z = NormalDist().inv_cdf
    away = abs(win_rate - 0.5)
    if away == 0:
        return math.inf
    plain = ((z(1 - alpha / 2) / 2 + z(power) * math.sqrt(win_rate * (1 - win_rate))) / away) ** 2
    return plain / 4 * (1 + math.sqrt(1 + 2 / (plain * away))) ** 2
