"""Line and point charts as inline SVG: a few hundred bytes each, coloured by the page's style sheet, so that one
picture serves light and dark. Numbers in, markup out; all text goes through `shown`.
"""

import html
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

MAX_POINTS = 400
"""A longer line is drawn as the means of so many equal stretches."""

_KEPT = frozenset("\n\t\u200c\u200d")  # the joiners are part of how Persian, Hindi and emoji are written


def shown(text: object) -> str:
    """Any text as markup that stays text: escaped, control, bidirectional and invisible characters spelled out."""
    letters = str(text)
    if letters.replace("\n", "").isprintable():  # as nearly all are, and some are a megabyte
        return html.escape(letters, quote=True)
    return "".join(
        f'<span class="escape">{_spelled(c)}</span>' if _hides(c) else html.escape(c, quote=True) for c in letters
    )


def plain(text: object) -> str:
    """The same for places that hold no markup, such as attributes and titles."""
    return html.escape("".join(_spelled(c) if _hides(c) else c for c in str(text)), quote=True)


def _hides(character: str) -> bool:
    return character not in _KEPT and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def _spelled(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart.

    Attributes:
        kind: style classes of the sheet: one of "a" to "e" for the colour; "faint", "dash", "points" beside it.
        intervals: low and high at each point, None where there is none.
        labels: written beside the points; "" for none.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    kind: str = "a"
    intervals: Sequence[tuple[float, float] | None] = ()
    labels: Sequence[str] = ()

    @property
    def known(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        return [(x, y) for x, y in zip(self.xs, self.ys, strict=True) if math.isfinite(x) and math.isfinite(y)]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Maps data to the picture: the box inside the axes, and what the axes span."""

    box: tuple[float, float, float, float]
    x: tuple[float, float]
    y: tuple[float, float]
    y_ticks: Sequence[float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        left, top, right, bottom = self.box
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return left + across * (right - left), bottom - up * (bottom - top)


def chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str = "answers seen",
    unit: str = "",
    note: str = "",
    size: tuple[int, int] = (360, 220),
    span: tuple[float, float] | None = None,
) -> str:
    """A figure with title, legend and axes; "" where no series has a point.

    Args:
        title: what is drawn.
        series: drawn in order, the first at the bottom.
        x_label: of the x axis, with its unit.
        unit: of the y axis; it stands beside the title.
        note: a sentence under the picture.
        size: width and height in the units in which text is 12 high.
        span: of the y axis, where it should not follow the data.
    """
    drawn = [s for s in series if s.known]
    if not drawn:
        return ""
    width, height = size
    frame = _frame(drawn, size, span)
    legend = "".join(f'<li class="{s.kind}"><i></i>{shown(s.name)}</li>' for s in drawn if s.name)
    legend = f"<ul class=legend>{legend}</ul>" if sum(bool(s.name) for s in drawn) > 1 else ""
    caption = f"<b>{shown(title)}</b>" + (f" <small>{shown(unit)}</small>" if unit else "") + legend
    left, _, right, _ = frame.box
    axis = f'<text class=axis x="{(left + right) / 2:.0f}" y="{height - 4}" text-anchor=middle>{shown(x_label)}</text>'
    body = _axes(frame) + axis + "".join(_draw(s, frame) for s in drawn)
    picture = f'<svg viewBox="0 0 {width} {height}" role=img aria-label="{plain(title)}">{body}</svg>'
    below = f"<p class=note>{shown(note)}</p>" if note else ""
    return f"<figure><figcaption>{caption}</figcaption>{picture}{below}</figure>"


def _frame(series: Sequence[Series], size: tuple[int, int], span: tuple[float, float] | None) -> _Frame:
    xs = [x for s in series for x, _ in s.known]
    ys = [y for s in series for _, y in s.known] + [y for s in series for i in s.intervals if i for y in i]
    labelled = any(any(s.labels) for s in series)
    y_span = _widened(min(ys), max(ys), 0.14 if labelled else 0.06) if span is None else span
    y_ticks = ticks(*y_span, most=6 if size[1] > 240 else 5)
    left = 12 + 6.8 * max(map(len, tick_labels(y_ticks)))
    x_span = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) - 1, max(xs) + 1)
    if any("points" in s.kind for s in series):  # dots should not sit on the frame
        margin = (x_span[1] - x_span[0]) * 0.03
        x_span = (x_span[0] - margin, x_span[1] + margin)
    return _Frame((left, 10, size[0] - 12, size[1] - 38), x_span, y_span, y_ticks)


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        pad = abs(low) * 0.1 or 1.0
        return low - pad, high + pad
    margin = (high - low) * share
    return (0.0 if low >= 0 > low - margin else low - margin), high + margin


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within [low, high], at most `most`: multiples of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [n * step for n in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """The numbers of an axis, all with the digits that tell them apart and no more."""
    reach = max(map(abs, values), default=1.0)
    step = values[1] - values[0] if len(values) > 1 else reach or 1.0
    if 0 < reach < 1e-3:
        return ["0" if abs(v) < step / 2 else f"{v:.1e}".replace("e-0", "e-").replace("-", "\u2212") for v in values]
    scale, mark = (1000, "k") if reach >= 10_000 else (1, "")
    digits = max(0, math.ceil(-math.log10(step / scale) - 1e-9))
    return [("0" if v == 0 and mark else f"{v / scale:,.{digits}f}{mark}").replace("-", "\u2212") for v in values]


def _axes(frame: _Frame) -> str:
    left, _, right, bottom = frame.box
    parts = []
    for value, label in zip(frame.y_ticks, tick_labels(frame.y_ticks), strict=True):
        _, y = frame.at(frame.x[0], value)
        kind = "zero" if abs(value) < 1e-12 else "grid"
        parts.append(f'<path class={kind} d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
        parts.append(f'<text x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor=end>{label}</text>')
    marks = ticks(*frame.x, most=5)
    for value, label in zip(marks, tick_labels(marks), strict=True):
        x, _ = frame.at(value, frame.y[0])
        parts.append(f'<path class=grid d="M{x:.1f} {bottom:.1f}v4"/>')
        anchor = "end" if x > right - 8 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor={anchor}>{label}</text>')
    return "".join(parts)


def _draw(series: Series, frame: _Frame) -> str:
    parts = []
    for x, interval in zip(series.xs, series.intervals, strict=False):
        if interval:
            (px, low), (_, high) = frame.at(x, interval[0]), frame.at(x, interval[1])
            parts.append(f'<path class=whisker d="M{px:.1f} {low:.1f}V{high:.1f}"/>')
    if "only" not in series.kind:
        parts.append(f'<path class=line d="{_path(series, frame)}"/>')
    if "points" in series.kind or len(series.known) == 1:
        for x, y in series.known:
            px, py = frame.at(x, y)
            tip = f"{series.name}: {y:.4g} at {x:.6g}".strip(": ")
            parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r=3.5><title>{plain(tip)}</title></circle>')
    for place, label in enumerate(series.labels):
        if label and math.isfinite(series.ys[place]):
            neighbour = series.ys[place - 1 if place else min(1, len(series.ys) - 1)]
            over = series.ys[place] > neighbour
            parts.append(_beside(*frame.at(series.xs[place], series.ys[place]), label, over, frame))
    return f'<g class="{series.kind}">{"".join(parts)}</g>'


def _beside(x: float, y: float, label: str, over: bool, frame: _Frame) -> str:
    """A label over or under its point, on the side where the line does not come from."""
    left, _, right, _ = frame.box
    anchor, shift = ("end", 4) if x > (left + right) / 2 else ("start", -4)
    drop = -9 if over else 19
    return f'<text class=label x="{x + shift:.1f}" y="{y + drop:.1f}" text-anchor={anchor}>{shown(label)}</text>'


def _path(series: Series, frame: _Frame) -> str:
    """The line, interrupted where a number is missing."""
    points, pen = [], "M"
    for x, y in _thinned(series):
        if not math.isfinite(x + y):
            pen = "M"
            continue
        px, py = frame.at(x, y)
        points.append(f"{pen}{px:.1f} {py:.1f}")
        pen = "L"
    return "".join(points)


def _thinned(series: Series) -> list[tuple[float, float]]:
    points = list(zip(series.xs, series.ys, strict=True))
    size = math.ceil(len(points) / MAX_POINTS)
    stretches = (points[i : i + size] for i in range(0, len(points), size))
    return [(sum(x for x, _ in s) / len(s), sum(y for _, y in s) / len(s)) for s in stretches]
