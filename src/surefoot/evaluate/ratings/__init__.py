"""What human ratings say: votes in, numbers and their intervals out. NumPy only, no files but those of an export.

`summarise` computes everything; each part is a module of its own. docs/human-ratings.md explains every number.
"""

from surefoot.evaluate.ratings.export import export, read_votes
from surefoot.evaluate.ratings.plan import VotePlan, plan_votes
from surefoot.evaluate.ratings.sequential import Progress, StoppingRule, progress
from surefoot.evaluate.ratings.summary import RatingSummary, summarise
from surefoot.evaluate.ratings.votes import Pair, Vote

__all__ = [
    "Pair",
    "Progress",
    "RatingSummary",
    "StoppingRule",
    "Vote",
    "VotePlan",
    "export",
    "plan_votes",
    "progress",
    "read_votes",
    "summarise",
]
