"""The command `surefoot plan`. Heavy imports wait, so that help and mistakes answer at once."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence

from surefoot.arguments import Parser, UsageError, add_options
from surefoot.settings import load_settings

_EXAMPLES = """
surefoot plan run.yaml
surefoot plan run.yaml --lora-r 16 --max-tokens-per-microbatch auto
surefoot plan run.yaml --processes 8 --shard
"""


def read(arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed command line."""
    summary = "Says what a run would take of the memory; loads no weights."
    parser = Parser("plan", summary, "[FILE ...] [--config FILE ...] [--OPTION VALUE ...]", _EXAMPLES)
    parser.add_argument("file", nargs="*", default=[], metavar="FILE", help="settings files, as with --config")
    parser.general.add_argument("--config", nargs="+", action="extend", default=[], metavar="FILE", help="the same")
    many = "of a run in so many processes, what each takes; on a CPU they share the memory [1]"
    parser.general.add_argument("--processes", type=int, default=1, metavar="N", help=many)
    add_options(parser)
    given = parser.read(arguments)
    if given.processes < 1:
        raise UsageError(f"--processes {given.processes}: there is at least one process")
    return given


def run_plan(files: Sequence[str], options: Mapping[str, str | Sequence[str]], processes: int = 1) -> bool:
    """Prints what a run would take, on each of its processes; whether it fits.

    Raises:
        ValueError: options that are wrong, or a name that leads nowhere.
    """
    from rich.console import Console

    from surefoot.plan import gather
    from surefoot.plan.changes import fits, smallest_change
    from surefoot.plan.page import WIDTH, page
    from surefoot.runtime import cpu_has_bfloat16

    c = load_settings(files, options)
    facts = gather.facts_of(c)
    if facts.device.type == "cpu":
        facts = dataclasses.replace(facts, free=facts.free // processes)
    reckoner = gather.Reckoner(facts, processes)
    wanted = reckoner.need(c)
    enough = fits(wanted, facts.free)
    changes = None
    if not enough:
        half = facts.device.type == "cpu" and cpu_has_bfloat16()
        changes = smallest_change(c, reckoner.need, facts.free, bfloat16=half)
    of_one = f"passes and stages are those of one of {processes} processes; models and answers are shown whole"
    notes = [of_one] if processes > 1 else []
    notes += [f"not counted: reward {name}, whose size is not known here" for name in facts.uncounted]
    if c.max_tokens_per_microbatch == "auto":
        notes.append(f"max_tokens_per_microbatch: auto would be {reckoner.tokens(c)}")
    Console(width=WIDTH, highlight=False).print(page(c, wanted, facts.free, str(facts.device), changes, notes))
    return enough
