"""The pipeline in a terminal: what would happen, and what every stage gave."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from surefoot.display import visible
from surefoot.live import duration
from surefoot.pipeline.outcome import outcome_of
from surefoot.pipeline.parts import Part
from surefoot.pipeline.record import State

WORDS = {"done": "done: skipped", "run": "runs", "go on": "goes on where it stopped", "anew": "is made anew"}


def plan_table(states: Sequence[State]) -> Table:
    """What is to be done about each stage, and with what it begins."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in ("stage", "", "begins with", "folder"):
        table.add_column(title, overflow="fold")
    for state in states:
        what = WORDS[state.what] + (f" ({state.why})" if state.why else "")
        table.add_row(*(Text(visible(cell)) for cell in (
            state.part.name, what, begins_with(state.part), str(state.part.folder)
        )))  # fmt: skip
    return table


def begins_with(part: Part) -> str:
    """The model that a part starts from, and what it learns from, in words."""
    o = part.options
    if part.kind == "compare":
        return f"{o.baseline} and {len(o.runs)} {'run' if len(o.runs) == 1 else 'runs'}"
    model = f"{o.model_name}" + (f" + {o.adapter_name}" if getattr(o, "adapter_name", None) else "")
    reward = f"; reward {', '.join(o.reward)}" if part.kind == "ppo" else ""
    return f"{model}; {o.dataset}{reward}"


def summary_table(parts: Sequence[Part]) -> Table:
    """What each stage gave, how long it took, and where it is."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("stage")
    table.add_column("gave", ratio=1, overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("folder", overflow="fold")
    for outcome in map(outcome_of, parts):
        took = duration(outcome.seconds) if outcome.seconds else ""
        cells = (outcome.part.name, outcome.words, took, str(outcome.part.folder))
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table
