"""Drawings as SVG files of a few kilobytes: boxes, lines, text, and axes to draw data in.

The colours are those of the run's report. They follow the reader's system from light to dark, and nothing is told by
colour alone. Equal numbers give equal bytes.
"""

import html
import re
from collections.abc import Sequence
from typing import Any

from surefoot.report.style import STYLE
from surefoot.report.svg import tick_labels, ticks

WIDTH = 840
HUES = ("a", "b", "c")
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif'
MONO = 'ui-monospace, "SF Mono", "Cascadia Mono", Menlo, "DejaVu Sans Mono", monospace'


def palettes() -> tuple[dict[str, str], dict[str, str]]:
    """The colours of the report's style sheet, light and dark, by name."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.S)[:2]
    return dict(re.findall(r"--([\w-]+): (#\w+)", light)), dict(re.findall(r"--([\w-]+): (#\w+)", dark))


def _rules(colours: dict[str, str]) -> str:
    rules = [f".page{{fill:{colours['card']}}}", f".card{{fill:{colours['page']};stroke:{colours['rule']}}}"]
    rules += [f".ink{{fill:{colours['ink']}}}", f".soft{{fill:{colours['soft']}}}"]
    rules += [f".over{{stroke:{colours['card']}}}", f".grid{{stroke:{colours['grid']}}}"]
    rules += [f".zero{{stroke:{colours['zero']}}}", f".arrow{{stroke:{colours['soft']}}}"]
    for hue in HUES:
        rules.append(f".{hue}{{fill:{colours[hue]}}}.{hue}-line{{stroke:{colours[hue]}}}")
    rules.append(f".soft-line{{stroke:{colours['soft']}}}")
    return "".join(rules)


def _style() -> str:
    light, dark = map(_rules, palettes())
    return (
        f"text{{font-family:{FONT};font-variant-numeric:tabular-nums}}.mono{{font-family:{MONO}}}.bold{{font-weight:600}}"
        ".line{fill:none;stroke-linejoin:round;stroke-linecap:round}.dash{stroke-dasharray:5 5;stroke-linecap:butt}"
        ".over{stroke-width:4;paint-order:stroke;stroke-linejoin:round}"
        f"{light}@media(prefers-color-scheme:dark){{{dark}}}"
    )


def number(value: float, digits: int = 2, sign: bool = False) -> str:
    """With a true minus sign; a rounded -0 is 0."""
    text = f"{value:{'+' if sign else ''},.{digits}f}"
    if not text.strip("+-0.,"):
        text = text.strip("+-")
    return text.replace("-", "\u2212")


def share(value: float, digits: int = 0) -> str:
    return f"{value:.{digits}%}".replace("%", "\u00a0%")


class Canvas:
    """A picture that grows. Coordinates are in units in which text is 13 high, from the top left."""

    def __init__(self, title: str, height: int, width: int = WIDTH) -> None:
        self.title, self.width, self.height = title, width, height
        self._parts: list[str] = []

    def add(self, markup: str) -> None:
        self._parts.append(markup)

    def text(
        self, x: float, y: float, text: object, kind: str = "ink", *, size: float = 13, anchor: str = "start"
    ) -> None:
        """`kind` is the classes: a colour, and bold, mono, or over (a halo that keeps it legible upon lines)."""
        said = html.escape(str(text), quote=False)
        where = f'x="{x:.1f}" y="{y:.1f}" font-size="{size:g}"'
        side = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self.add(f'<text class="{kind}" {where}{side}>{said}</text>')

    def lines(self, x: float, y: float, texts: Sequence[str], kind: str = "soft", *, size: float = 13) -> None:
        for i, text in enumerate(texts):
            self.text(x, y + 1.5 * size * i, text, kind, size=size)

    def box(self, x: float, y: float, w: float, h: float, kind: str = "card", *, radius: float = 8) -> None:
        self.add(f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{radius:g}"/>')

    def frame(self, x: float, y: float, w: float, h: float, kind: str, *, radius: float = 8) -> None:
        where = f'x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{radius:g}"'
        self.add(f'<rect class="line {kind}" stroke-width="2" {where}/>')

    def shade(self, x: float, y: float, w: float, h: float, hue: str, opacity: float, *, radius: float = 3) -> None:
        where = f'x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{radius:g}"'
        self.add(f'<rect class="{hue}" opacity="{opacity:.2f}" {where}/>')

    def line(self, points: Sequence[tuple[float, float]], kind: str, *, width: float = 2) -> None:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self.add(f'<path class="line {kind}" stroke-width="{width:g}" d="M{path}"/>')

    def dot(self, x: float, y: float, hue: str, *, radius: float = 4) -> None:
        self.add(f'<circle class="{hue}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>')

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line with a head, along any number of corners."""
        (x0, y0), (x1, y1) = points[-2:]
        length = max(1e-9, ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5)
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        base = (x1 - 7 * dx, y1 - 7 * dy)
        self.line([*points[:-1], base], "arrow", width=1.5)
        corners = [(x1, y1), (base[0] - 4 * dy, base[1] + 4 * dx), (base[0] + 4 * dy, base[1] - 4 * dx)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
        self.add(f'<path class="soft" d="M{path}Z"/>')

    def render(self) -> str:
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{html.escape(self.title)}</title>'
        page = f'<rect class="page" width="{self.width}" height="{self.height}" rx="8"/>'
        return f"{head}<style>{_style()}</style>{page}\n" + "\n".join(self._parts) + "\n</svg>\n"


class Axes:
    """A part of a canvas in which data has coordinates.

    Args:
        canvas: what is drawn on.
        box: left, top, right and bottom of the field inside the axes.
        x: what the horizontal axis spans. y: the vertical one.
        title: above the field. x_label: below it.
        x_ticks, y_ticks: whether numbers stand at the axes.
    """

    def __init__(
        self,
        canvas: Canvas,
        box: tuple[float, float, float, float],
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        title: str = "",
        x_label: str = "",
        x_ticks: bool = True,
        y_ticks: bool = True,
    ) -> None:
        self.canvas, self.box, self.x, self.y = canvas, box, x, y
        left, top, right, bottom = box
        if title:
            canvas.text(left, top - 14, title, "ink bold", size=14)
        if y_ticks:
            self._y_axis()
        if x_ticks:
            self._x_axis()
        canvas.text((left + right) / 2, bottom + (38 if x_ticks else 20), x_label, "soft", size=12, anchor="middle")

    def _y_axis(self) -> None:
        left, _, right, _ = self.box
        marks = ticks(*self.y, most=5)
        for value, label in zip(marks, tick_labels(marks), strict=True):
            _, at = self.at(self.x[0], value)
            self.canvas.line([(left, at), (right, at)], "zero" if abs(value) < 1e-12 else "grid", width=1)
            self.canvas.text(left - 7, at + 4, label, "soft", size=12, anchor="end")

    def _x_axis(self) -> None:
        _, _, _, bottom = self.box
        marks = ticks(*self.x, most=6)
        for value, label in zip(marks, tick_labels(marks), strict=True):
            at, _ = self.at(value, self.y[0])
            self.canvas.line([(at, bottom), (at, bottom + 4)], "zero", width=1)
            self.canvas.text(at, bottom + 18, label, "soft", size=12, anchor="middle")

    def at(self, x: float, y: float) -> tuple[float, float]:
        left, top, right, bottom = self.box
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    def line(self, xs: Sequence[float], ys: Sequence[float], kind: str, *, width: float = 2) -> None:
        self.canvas.line([self.at(x, y) for x, y in zip(xs, ys, strict=True)], kind, width=width)

    def dots(self, xs: Sequence[float], ys: Sequence[float], hue: str, *, radius: float = 4) -> None:
        for x, y in zip(xs, ys, strict=True):
            self.canvas.dot(*self.at(x, y), hue, radius=radius)

    def whisker(self, x: float, low: float, high: float, hue: str) -> None:
        """A 95 % interval."""
        self.canvas.add(f'<g opacity="0.3">{self._whisker(x, low, high, hue)}</g>')

    def _whisker(self, x: float, low: float, high: float, hue: str) -> str:
        (px, bottom), (_, top) = self.at(x, low), self.at(x, high)
        return f'<path class="line {hue}-line" stroke-width="5" d="M{px:.1f} {bottom:.1f}V{top:.1f}"/>'

    def bar(self, x: float, width: float, height: float, hue: str, opacity: float = 0.75) -> None:
        """From 0 to `height`, `width` wide around x."""
        (left, zero), (right, tip) = self.at(x - width / 2, 0), self.at(x + width / 2, height)
        self.canvas.shade(left, min(zero, tip), right - left, abs(zero - tip), hue, opacity, radius=1)

    def mark(self, x: float, y: float, text: str, kind: str = "ink", **how: Any) -> None:
        """Text at a place of the data, with a halo; `dx` and `dy` shift it."""
        px, py = self.at(x, y)
        self.canvas.text(px + how.pop("dx", 0), py + how.pop("dy", 0), text, f"{kind} over", **{"size": 12, **how})
