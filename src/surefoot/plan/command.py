"""The command `surefoot plan`."""

from collections.abc import Mapping, Sequence

from rich.console import Console

from surefoot.plan.changes import fits, smallest_change
from surefoot.plan.gather import Reckoner, facts_of
from surefoot.plan.page import WIDTH, page
from surefoot.runtime import cpu_has_bfloat16
from surefoot.settings import load_settings


def run_plan(files: Sequence[str], options: Mapping[str, str | Sequence[str]]) -> bool:
    """Prints what a run would take; whether it fits.

    Raises:
        ValueError: options that are wrong, or a name that leads nowhere.
    """
    c = load_settings(files, options)
    facts = facts_of(c)
    reckoner = Reckoner(facts)
    wanted = reckoner.need(c)
    enough = fits(wanted, facts.free)
    changes = None
    if not enough:
        half = facts.device.type == "cpu" and cpu_has_bfloat16()
        changes = smallest_change(c, reckoner.need, facts.free, bfloat16=half)
    notes = [f"not counted: reward {name}, whose size is not known here" for name in facts.uncounted]
    if c.max_tokens_per_microbatch == "auto":
        notes.append(f"max_tokens_per_microbatch: auto would be {reckoner.tokens(c)}")
    Console(width=WIDTH, highlight=False).print(page(c, wanted, facts.free, str(facts.device), changes, notes))
    return enough
