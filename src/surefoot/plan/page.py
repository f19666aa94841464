"""A plan as tables, 80 columns wide."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from surefoot.config import PPOConfig
from surefoot.memory import GIB, MARGIN, MIB, Need, peak, stages
from surefoot.plan.changes import fits
from surefoot.settings import yaml_value

WIDTH = 80


def size(number: int) -> str:
    """A number of bytes in the unit it is read best in."""
    if not number:
        return "-"
    return f"{number / GIB:.2f} GiB" if number >= GIB else f"{number / MIB:.1f} MiB" if number >= MIB / 10 else "small"


def page(
    c: PPOConfig, need: Need, free: int, device: str, changes: Mapping[str, Any] | None, notes: list[str]
) -> Group:
    """All of it.

    Args:
        c: the options.
        need: what they take.
        free: bytes that there are.
        device: where.
        changes: what would make it fit; None: it fits, or nothing was found.
        notes: what else is to be said.
    """
    most, fit = peak(need), fits(need, free)
    lines = [
        f"peak     {size(most.total)}, in the {most.name}",
        f"there is {size(free)} on {device}; {MARGIN:.0%} of it are left free, as the reckoning may be off by that",
        "fits     yes" if fit else "fits     no",
    ]
    if changes:
        lines += ["", "The smallest change that would fit:", *(f"  {n}: {yaml_value(v)}" for n, v in changes.items())]
    elif not fit:
        lines += [
            "",
            "No change that was tried makes it fit: choose a smaller model, fewer new tokens, or more memory.",
        ]
    return Group(_models(need), "", _batches(c, need), "", _stages(need), "", Text("\n".join([*lines, *notes])))


def _models(need: Need) -> RenderableType:
    table = Table(title="Models", title_justify="left", width=WIDTH)
    table.add_column("")
    for name in ("parameters", "gradients", "optimizer", "activations"):
        table.add_column(name, justify="right", no_wrap=True)
    activations = need.largest_pass
    for m in need.models:
        table.add_row(m.name, *map(size, (m.weights, m.gradients, m.moments, activations[m.name])))
    return table


def _batches(c: PPOConfig, need: Need) -> RenderableType:
    w = need.work
    table = Table(title="A step", title_justify="left", width=WIDTH, show_header=False)
    table.add_column("", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("")
    minibatches = -(-c.batch_size // c.rows_per_optimizer_step)
    rows = (
        ("answers", c.batch_size, f"to {c.prompts_per_step} prompts, of up to {w.answer_tokens} tokens"),
        ("minibatches", minibatches, f"of {c.rows_per_optimizer_step} answers, {c.ppo_epochs} times over"),
        ("optimizer steps", c.optimizer_steps_per_step, f"of {w.passes} forward and backward passes each"),
        ("tokens of a pass", w.pass_tokens, f"{w.pass_rows} rows of up to {w.row_tokens}"),
    )
    for name, number, words in rows:
        table.add_row(name, f"{number:,}", words)
    return table


def _stages(need: Need) -> RenderableType:
    found = stages(need)
    table = Table(title="Stages, each at its fullest", title_justify="left", width=WIDTH)
    table.add_column("")
    for stage in found:
        table.add_column(stage.name, justify="right", no_wrap=True)
    parts = dict.fromkeys(part for stage in found for part in stage.parts)
    for part in parts:
        table.add_row(part, *(size(stage.parts.get(part, 0)) for stage in found))
    table.add_section()
    table.add_row("together", *(size(stage.total) for stage in found))
    return table
