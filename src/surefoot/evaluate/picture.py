"""The frontier: what each method's score cost in divergence, for every gold scorer and for the proxy beside them."""

import math
import pathlib
from typing import Any

from surefoot.evaluate.results import Path, Result, Row
from surefoot.evaluate.tables import shown_name
from surefoot.report.picture import BLUE, GREEN, INK, RUST, SOFT, VIOLET, WINE, drawing
from surefoot.report.svg import Series, chart

_COLOURS = (BLUE, RUST, GREEN, VIOLET, WINE)
_KINDS = ("a", "b", "c", "d", "e")
_AXIS = "distance from the baseline: √(KL in nats an answer)"


def families_of(result: Result) -> list[str]:
    """In the order of the table."""
    return list(dict.fromkeys(path.family for path in result.paths))


def quantities_of(result: Result) -> list[str]:
    """What has a panel."""
    return [*result.golds, *(["proxy"] if result.has_proxy else [])]


def write_frontier(result: Result, path: str | pathlib.Path) -> pathlib.Path:
    """Draws it into a .png or .svg file."""
    quantities = quantities_of(result)
    with drawing(path, (4.2 * max(2, len(quantities)), 3.9)) as figure:
        panels = figure.subplots(1, len(quantities), squeeze=False)[0]
        for axes, quantity in zip(panels, quantities, strict=True):
            _panel(axes, result, quantity)
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(6, len(names)), fontsize=9)
    return pathlib.Path(path)


def _panel(axes: Any, result: Result, quantity: str) -> None:
    axes.set_title("proxy: trained on" if quantity == "proxy" else f"{quantity}: not trained on", pad=8)
    axes.set_xlabel("√(KL in nats an answer)")
    axes.margins(x=0.06, y=0.12)
    if result.matched is not None:
        axes.axvline(math.sqrt(result.matched.kl), color=SOFT, lw=0.8, ls=(0, (2, 3)), label="equal KL")
    for place, family in enumerate(families_of(result)):
        colour = _COLOURS[place % len(_COLOURS)]
        for path in result.paths:
            if path.family == family:
                xs, ys = _line(path, quantity)
                axes.plot(xs, ys, color=colour, lw=1.0, alpha=0.55, marker=".", ms=4)
        rows = [row for row in result.rows if row.method.family == family]
        _ends(axes, rows, quantity, color=colour, label=shown_name(family))
    _ends(axes, [result.rows[0]], quantity, color=INK, label=result.baseline)


def _ends(axes: Any, rows: list[Row], quantity: str, **how: Any) -> None:
    """Each method's end with its interval, and how strong it was where the family has several."""
    xs = [math.sqrt(max(row.means["kl"].value, 0.0)) for row in rows]
    for x, row in zip(xs, rows, strict=True):
        axes.vlines(x, row.means[quantity].low, row.means[quantity].high, color=how["color"], alpha=0.35, lw=4)
        strength = row.method.name.partition("/")[2]
        if strength:
            place = {"textcoords": "offset points", "xytext": (6, -10), "ha": "left"}  # clear of bar and line
            axes.annotate(strength, (x, row.means[quantity].value), color=SOFT, fontsize=8, **place)
    axes.plot(xs, [row.means[quantity].value for row in rows], ls="", marker="o", ms=5.5, mec="white", mew=0.8, **how)


def _line(path: Path, quantity: str) -> tuple[list[float], list[float]]:
    """Distance and score along a path."""
    return [math.sqrt(point.kl) for point in path.points], [point.mean(quantity) for point in path.points]


def frontier_charts(result: Result) -> list[str]:
    """The same for the page."""
    return [_chart(result, quantity) for quantity in quantities_of(result)]


def _chart(result: Result, quantity: str) -> str:
    series = []
    for place, family in enumerate(families_of(result)):
        kind = _KINDS[place % len(_KINDS)]
        mine = [path for path in result.paths if path.family == family]
        series += [Series("", *_line(path, quantity), f"{kind} faint") for path in mine]
        rows = [row for row in result.rows if row.method.family == family]
        ends = [math.sqrt(max(row.means["kl"].value, 0.0)) for row in rows]
        series.append(
            Series(
                shown_name(family),
                ends,
                [row.means[quantity].value for row in rows],
                f"{kind} points only",
                [(row.means[quantity].low, row.means[quantity].high) for row in rows],
                [row.method.name.partition("/")[2] for row in rows],
            )
        )
    note = "the score that was trained on" if quantity == "proxy" else "a scorer that no run was trained on"
    return chart(quantity, series, x_label=_AXIS, note=f"{note[0].upper()}{note[1:]}. Bars: 95 %.", size=(440, 280))
