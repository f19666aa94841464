"""The pictures that plot what was measured."""

import math
from collections.abc import Sequence
from typing import Any

from tools.pictures.canvas import Axes, Canvas, number, share

Numbers = dict[str, Any]


def judge(n: Numbers) -> Canvas:
    j, canvas = n["judge"], Canvas("Does the reward model know how sure it may be?", 340)
    title = "how often it came true"
    axes = Axes(
        canvas, (64, 48, 410, 286), (0, 1), (0, 1), title=title, x_label="the reward model says: first is better"
    )
    axes.line([0, 1], [0, 1], "soft-line dash", width=1.5)
    for b in j["bins"]:
        axes.whisker(b["said"], b["low"], b["high"], "a")
    axes.line([b["said"] for b in j["bins"]], [b["came_true"] for b in j["bins"]], "a-line")
    axes.dots([b["said"] for b in j["bins"]], [b["came_true"] for b in j["bins"]], "a")
    axes.mark(0.97, 0.97, "as it should be", "soft", anchor="end", dx=-14, dy=-2)
    left, unit = 480, 320
    canvas.text(left, 34, f"agreement with the rater, {j['pairs']} pairs", "ink bold", size=14)
    canvas.line([(left + unit / 2, 60), (left + unit / 2, 262)], "soft-line dash", width=1.5)
    rows = (
        ("the longer one", j["longer"], "soft"),
        ("the reward model", j["accuracy"], "a"),
        ("the rater\u2019s own rule, without error", j["rule"], "soft"),
    )
    for i, (name, value, hue) in enumerate(rows):
        y = 76 + 72 * i
        canvas.text(left, y, name, "ink over")
        canvas.box(left, y + 8, unit, 22, "card", radius=3)
        canvas.shade(left, y + 8, unit * value, 22, hue, 0.75)
        canvas.text(left + unit * value + 7, y + 24, share(value), "ink bold over")
    canvas.text(left + unit / 2, 280, "a coin", "soft", size=12, anchor="middle")
    return canvas


def gae(n: Numbers) -> Canvas:
    g, tokens = n["gae"], n["row"]["tokens"]
    canvas = Canvas("From one score to an advantage for every token", 330)
    values = [a for side in g["advantages"] for a in side]
    low, high = min(0.0, *values), max(0.0, *values)
    margin = 0.1 * (high - low)
    count = len(tokens)
    box = (60, 52, 500, 262)
    span = (low - margin, high + margin)
    axes = Axes(canvas, box, (-0.5, count - 0.5), span, title="advantage", x_ticks=False)
    kinds = (("b-line dash", "b"), ("a-line", "a"), ("c-line dash", "c"))
    for (kind, hue), ys in zip(kinds, g["advantages"], strict=True):
        axes.line(range(count), ys, kind)
        axes.dots(range(count), ys, hue)
    _legend(canvas, 500, [(f"\u03bb = {lam:g}", kind, hue) for lam, (kind, hue) in zip(g["lams"], kinds, strict=True)])
    for i, token in enumerate(tokens):
        x, _ = axes.at(i, 0)
        shown = token.replace(" ", "\u00b7")
        canvas.text(x, 284 + 15 * (i % 2), shown, "mono soft", size=11, anchor="middle")
    right = Axes(
        canvas,
        (570, 52, 820, 262),
        (0, 100),
        (0, 1),
        title="what the first token sees",
        x_label="tokens of the answer",
    )
    for (lam, ys), kind in zip(g["reach"].items(), ("b-line dash", "a-line", "c-line dash"), strict=True):
        right.line(g["lengths"], ys, kind)
        place = {"0.9": (2, 0.12), "0.95": (26, 0.3), "0.99": (56, 0.62)}[lam]
        right.mark(*place, lam, f"{kind[0]} bold", dx=4)
    return canvas


def _legend(canvas: Canvas, right: float, entries: Sequence[tuple[str, str, str]]) -> None:
    """Names beside a piece of their line, up to `right`, in the line of a title."""
    x = right
    for name, kind, hue in reversed(entries):
        x -= 8.2 * len(name) + 40
        canvas.line([(x, 34), (x + 26, 34)], kind)
        canvas.text(x + 32, 38, name, f"{hue} bold", size=12)


def white(n: Numbers) -> Canvas:
    w, canvas = n["white"], Canvas("Whitening: mean 0, spread 1", 320)
    for left, name, title in ((60, "raw", "advantages as they are"), (460, "white", "whitened")):
        side = w[name]
        counts, low, high = side["counts"], side["low"], side["high"]
        width = (high - low) / len(counts)
        span = (min(low, -0.05), max(high, 0.05))
        top = max(counts) * 1.2
        label = f"mean {number(side['mean'])}, standard deviation {number(side['sd'])}"
        axes = Axes(canvas, (left, 56, left + 360, 256), span, (0, top), title=title, x_label=label)
        for i, count in enumerate(counts):
            middle = low + width * (i + 0.5)
            axes.bar(middle, width * 0.9, count, "a" if middle > 0 else "b")
        axes.line([0, 0], [0, top], "soft-line", width=1)
        axes.mark(0, top, "likelier \u2192", "a bold", dx=8, dy=10)
        axes.mark(0, top, "\u2190 rarer", "b bold", dx=-8, dy=10, anchor="end")
    return canvas


def clip(n: Numbers) -> Canvas:
    c, canvas = n["clip"], Canvas("The clip: how far one batch may push a token", 400)
    reach = c["range"]
    for left, name, title, edge, hue in (
        (60, "good", "better than expected (A = 1)", 1 + reach, "a"),
        (460, "bad", "worse than expected (A = \u22121)", 1 - reach, "b"),
    ):
        side = c[name]
        losses = side["losses"]
        span = (min(losses) - 0.1, max(losses) + 0.1)
        axes = Axes(canvas, (left, 52, left + 360, 208), (0.4, 1.6), span, title=title, x_ticks=False)
        axes.mark(0.42, span[1], "loss", "soft", dy=14)
        axes.line([edge, edge], span, "soft-line dash", width=1.2)
        axes.line(c["grid"], losses, f"{hue}-line", width=2.5)
        flat = (1.4, losses[50]) if name == "good" else (0.6, losses[10])
        axes.mark(*flat, "flat: no gradient", "ink", dy=-10, anchor="middle")
        axes.dots([1.0], [losses[30]], hue)
        axes.mark(1.0, losses[30], "starts here", "soft", dx=10, dy=5 if name == "bad" else -6)
        h = side["histogram"]
        counts, width = h["counts"], (h["high"] - h["low"]) / len(h["counts"])
        top = max(counts) * 1.12
        label = "ratio of new to old probability"
        below = Axes(canvas, (left, 232, left + 360, 350), (0.4, 1.6), (0, top), x_label=label)
        for i, count in enumerate(counts):
            middle = h["low"] + width * (i + 0.5)
            beyond = middle > edge if name == "good" else middle < edge
            below.bar(middle, width * 0.9, count, hue, 0.95 if beyond else 0.4)
        below.line([edge, edge], [0, top], "soft-line dash", width=1.2)
        side_of = "end" if name == "bad" else "start"
        place = {"anchor": side_of, "dx": -8 if name == "bad" else 8, "dy": 14}
        below.mark(edge, top, f"{share(side['beyond'], 1)} beyond", f"{hue} bold", **place)
    return canvas


def kl(n: Numbers) -> Canvas:
    k, canvas = n["kl"], Canvas("Three estimators of the divergence", 340)
    d = k["quantiles"]
    low, high = min(-1.0, d[2]), max(1.5, d[-3])
    grid = [low + (high - low) * i / 80 for i in range(81)]
    axes = Axes(
        canvas,
        (60, 52, 420, 270),
        (low, high),
        (min(-1.0, low), max(2.0, high)),
        title="what a token counts as",
        x_label="d = log \u03c0 \u2212 log \u03c0_ref of the token",
    )
    shapes = (
        ("k1", grid, "a-line", "a"),
        ("k2", [x * x / 2 for x in grid], "b-line dash", "b"),
        ("k3", [math.exp(-x) - 1 + x for x in grid], "c-line", "c"),
    )
    for _, ys, kind, _ in shapes:
        inside = [(x, y) for x, y in zip(grid, ys, strict=True) if y <= axes.y[1]]
        axes.line(*zip(*inside, strict=True), kind)
    _legend(canvas, 420, [(name, kind, hue) for name, _, kind, hue in shapes])
    floor = axes.y[0]
    for x in d:
        if low <= x <= high:
            px, py = axes.at(x, floor)
            canvas.shade(px - 0.5, py - 10, 1, 10, "soft", 0.6, radius=0)
    axes.mark(high, floor, "tokens of the run", "soft", dx=-6, dy=-16, anchor="end")
    canvas.text(500, 38, "their means over the same tokens", "ink bold", size=14)
    rows = (("exact", "soft"), ("k1", "a"), ("k2", "b"), ("k3", "c"))
    top = max(k[name]["mean"] + k[name]["reach"] for name, _ in rows) * 1.1
    bottom = min(0.0, *(k[name]["mean"] - k[name]["reach"] for name, _ in rows))
    right = Axes(canvas, (560, 60, 800, 270), (bottom, top), (0, 4), y_ticks=False, x_label="nats per token")
    right.line([k["exact"]["mean"]] * 2, [0, 4], "soft-line dash", width=1.2)
    for i, (name, hue) in enumerate(rows):
        at = 3.5 - i
        mean, reach = k[name]["mean"], k[name]["reach"]
        y = right.at(0, at)[1]
        canvas.text(500, y + 4, name, f"{hue if hue != 'soft' else 'ink'} bold", size=14)
        points = [right.at(mean - reach, at), right.at(mean + reach, at)]
        canvas.add('<g opacity="0.35">')
        canvas.line(points, f"{hue}-line", width=6)
        canvas.add("</g>")
        canvas.dot(*right.at(mean, at), hue)
        spread = f"spread of one token {number(k[name]['sd'])}"
        canvas.text(800, y + 22, spread, "soft over", size=11.5, anchor="end")
    return canvas


def controller(n: Numbers) -> Canvas:
    c, canvas = n["controller"], Canvas("The adaptive controller: a price that follows the divergence", 310)
    steps = list(range(1, len(c["kl"]) + 1))
    span = (min(0.0, *c["kl"]), max(c["target"], *c["kl"]) * 1.12)
    axes = Axes(canvas, (60, 52, 400, 244), (0, len(steps) + 1), span, title="KL, nats per token", x_label="step")
    axes.line([0, len(steps) + 1], [c["target"]] * 2, "b-line dash")
    axes.line(steps, c["kl"], "a-line")
    axes.dots(steps, c["kl"], "a", radius=3)
    axes.mark(0, c["target"], "target", "b bold", dx=6, dy=-7)
    low, high = min(c["coefficient"]), max(c["coefficient"])
    right = Axes(
        canvas,
        (480, 52, 820, 244),
        (0, len(steps) + 1),
        (low - 0.1 * (high - low), high + 0.1 * (high - low)),
        title="\u03b2, the price of a nat",
        x_label="step",
    )
    right.line(steps, c["coefficient"], "a-line")
    right.dots(steps, c["coefficient"], "a", radius=3)
    return canvas


def frontier(n: Numbers) -> Canvas:
    f, canvas = n["frontier"], Canvas("What a score costs, and whether it is worth anything", 350)
    sides = ((60, "score", "the reward model"), (480, "rule", "the rater\u2019s rule"))
    for left, name, title in sides:
        rows = [*f["ppo"], *f["best_of_n"]]
        high = max(r[name] + r[f"{name}_reach"] for r in rows)
        low = min(r[name] - r[f"{name}_reach"] for r in rows)
        margin = 0.08 * (high - low)
        wide = max(math.sqrt(max(0.0, r["kl"])) for r in rows) * 1.06
        label = "\u221a(KL in nats per answer)"
        axes = Axes(
            canvas,
            (left, 52, left + 340, 290),
            (-0.06, wide),
            (low - margin, high + margin),
            title=title,
            x_label=label,
        )
        for kind, hue, dash in (("best_of_n", "b", " dash"), ("ppo", "a", "")):
            xs = [math.sqrt(max(0.0, r["kl"])) for r in f[kind]]
            for x, r in zip(xs, f[kind], strict=True):
                axes.whisker(x, r[name] - r[f"{name}_reach"], r[name] + r[f"{name}_reach"], hue)
            axes.line(xs, [r[name] for r in f[kind]], f"{hue}-line{dash}")
            axes.dots(xs, [r[name] for r in f[kind]], hue)
    _legend(canvas, 400, [("PPO", "a-line", "a"), ("best of n", "b-line dash", "b")])
    return canvas


def exact(n: Numbers) -> Canvas:
    e, canvas = n["exact"], Canvas("Over-optimisation: the better the proxy, the worse the truth", 350)
    sides = ((56, "noisy", "reward model from noisy choices"), (480, "clean", "the same from choices without error"))
    every = [v for side in ("noisy", "clean") for p in e[side]["points"] for v in p[2:]]
    wide = max(math.sqrt(p[1]) for side in ("noisy", "clean") for p in e[side]["points"]) * 1.04
    for left, name, title in sides:
        side = e[name]
        xs = [math.sqrt(p[1]) for p in side["points"]]
        label = "\u221a(KL in nats per answer)"
        box = (left, 52, left + 340, 290)
        axes = Axes(canvas, box, (0, wide), (0, max(every) * 1.08), title=title, x_label=label)
        axes.line(xs, [p[2] for p in side["points"]], "b-line dash")
        axes.line(xs, [p[3] for p in side["points"]], "a-line")
        if name == "clean":
            axes.mark(xs[-1], side["end_proxy"], "proxy", "b bold", dx=6, dy=2)
            axes.mark(xs[-1], side["end"], "truth", "a bold", dx=6, dy=8)
        else:
            axes.mark(xs[-1], side["end_proxy"], "proxy", "b bold", dx=-14, dy=-8, anchor="end")
            axes.mark(xs[42], side["points"][42][3], "truth", "a bold", dx=8, dy=-10)
            peak = math.sqrt(side["peak_kl"])
            axes.line([peak, peak], [0, side["peak"]], "soft-line dash", width=1.2)
            axes.dots([peak], [side["peak"]], "a")
            axes.mark(peak, 0, "best place to stop", "soft", dx=6, dy=-8)
    return canvas
