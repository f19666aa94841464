"""The pictures of how parts hang together: stages, models, an answer's tokens, the batch's arithmetic."""

import textwrap
from collections.abc import Sequence
from typing import Any

from tools.pictures.canvas import Canvas, number, share

Numbers = dict[str, Any]


def _quoted(canvas: Canvas, x: float, y: float, text: str, kind: str = "ink", columns: int = 31) -> float:
    """A text as it stands, in a few lines; returns where the next thing may stand."""
    lines = textwrap.wrap(text, columns) or ["(nothing)"]
    for line in lines[:3]:
        canvas.text(x, y, line, f"mono {kind}", size=12)
        y += 17
    return y


def stages(n: Numbers) -> Canvas:
    s, canvas = n["stages"], Canvas("Three stages: supervised fine-tuning, reward model, PPO", 330)
    lefts, width = (16, 295, 574), 250
    for x in lefts:
        canvas.box(x, 16, width, 238)
    canvas.arrow((266, 135), (295, 135))
    canvas.arrow((545, 135), (574, 135))
    canvas.arrow((141, 254), (141, 296), (699, 296), (699, 254))
    canvas.text(
        420, 316, "the same model again: the policy starts as it, and is held near it", "soft", anchor="middle"
    )
    x = lefts[0] + 14
    canvas.text(x, 42, "1 \u00b7 Supervised fine-tuning", "ink bold", size=15)
    canvas.lines(x, 66, [f"reads {s['texts']:,} texts like"])
    _quoted(canvas, x, 90, s["example_text"])
    canvas.lines(x, 172, ["a token surprises it by", f"{number(s['first_loss'])} nats at first,"])
    canvas.text(x, 211, f"{number(s['last_loss'])} at the end", "soft")
    canvas.text(x, 241, "\u2192 the SFT model", "a bold", size=14)
    x = lefts[1] + 14
    canvas.text(x, 42, "2 \u00b7 Reward model", "ink bold", size=15)
    canvas.lines(x, 66, [f"reads {s['pairs']:,} choices like"])
    y = _quoted(canvas, x, 90, f"{s['pair']['prompt']} \u2026", "soft")
    y = _quoted(canvas, x, y + 4, f"+ {s['pair']['chosen'].strip()}", "a")
    _quoted(canvas, x, y + 4, f"\u2212 {s['pair']['rejected'].strip()}", "b")
    judged = f"agrees with {share(n['judge']['accuracy'])} of {s['held_out_pairs']} others"
    canvas.text(x, 211, judged, "soft")
    canvas.text(x, 241, "\u2192 a score for any answer", "a bold", size=14)
    x = lefts[2] + 14
    canvas.text(x, 42, "3 \u00b7 PPO", "ink bold", size=15)
    canvas.lines(x, 66, [f"answers {s['prompts']:,} prompts like"])
    y = _quoted(canvas, x, 90, f"{s['answer']['prompt']} \u2026", "soft")
    _quoted(canvas, x, y + 4, s["answer"]["response"].strip(), "a")
    canvas.lines(x, 172, [f"{s['answers']:,} answers in {s['steps']} steps;", "mean score of others:"])
    canvas.text(x, 211, f"{number(s['score_before'])} \u2192 {number(s['score_after'])}", "soft")
    canvas.text(x, 241, "\u2192 the policy", "a bold", size=14)
    return canvas


def models(n: Numbers) -> Canvas:
    m, canvas = n["models"], Canvas("Four models: policy, reference, critic, reward model", 400)
    canvas.text(20, 34, "trained", "a bold")
    canvas.frame(80, 20, 34, 20, "a-line", radius=4)
    canvas.text(132, 34, "frozen", "soft bold")
    canvas.frame(186, 20, 34, 20, "soft-line dash", radius=4)
    canvas.box(16, 145, 116, 90)
    canvas.text(30, 170, "prompt", "ink bold")
    _quoted(canvas, 30, 194, n["row"]["prompt"], "soft", columns=13)
    canvas.arrow((132, 190), (166, 190))
    said = ["writes the answer", f"{m['policy_mib']:.0f} MiB in training"]
    _model(canvas, (166, 125, 190, 130), "policy", m["policy"], said, "a-line")
    canvas.arrow((356, 190), (390, 190))
    canvas.box(390, 132, 130, 116)
    canvas.text(404, 157, "answer", "ink bold")
    _quoted(canvas, 404, 182, n["row"]["response"].strip(), "soft", columns=15)
    right, width = 570, 254
    tops = (16, 136, 256)
    for top in tops:
        canvas.arrow((520, 190), (570, top + 54))
    said = ["log-probability of each token,", f"as it was before PPO; {m['reference_mib']:.0f} MiB"]
    _model(canvas, (right, tops[0], width, 108), "reference", m["reference"], said, "soft-line dash")
    said = ["what is still to come, before each", "token; a head on the policy"]
    _model(canvas, (right, tops[1], width, 108), "critic", m["critic"], said, "a-line")
    said = ["one score for the whole answer", f"{m['reward_mib']:.0f} MiB"]
    _model(canvas, (right, tops[2], width, 108), "reward model", m["reward"], said, "soft-line dash")
    canvas.arrow((697, 364), (697, 384), (261, 384), (261, 255))
    canvas.text(410, 376, "advantages, and their gradient", "soft", anchor="middle")
    return canvas


def _model(
    canvas: Canvas,
    place: tuple[float, float, float, float],
    name: str,
    weights: int,
    said: Sequence[str],
    kind: str,
) -> None:
    x, y, w, h = place
    canvas.box(x, y, w, h)
    canvas.frame(x, y, w, h, kind)
    canvas.text(x + 14, y + 26, name, "ink bold", size=15)
    canvas.text(x + 14, y + 48, f"{weights:,} weights", "ink")
    canvas.lines(x + 14, y + 69, said, size=12)


ROWS = (
    ("logprobs", "log \u03c0", "the policy\u2019s"),
    ("ref_logprobs", "log \u03c0_ref", "the reference\u2019s"),
    ("kl", "KL", "the first less the second"),
    ("rewards", "reward r", "\u2212\u03b2 KL, at the end + score"),
    ("values", "value V", "the critic\u2019s, before the token"),
    ("advantages", "advantage A", "how much better than V"),
    ("returns", "return G", "A + V: what V should be"),
)
UNTINTED = ("logprobs", "ref_logprobs")


def row(n: Numbers) -> Canvas:
    r = n["row"]
    canvas, left, height = Canvas("One answer, token by token", 420), 216, 42
    width = (824 - left) / len(r["tokens"])
    canvas.text(20, 36, f"\u201c{r['prompt']} \u2026\u201d", "ink bold", size=14)
    head = (
        f"step {r['step']}, score {number(r['score'])}, \u03b2 = {number(r['coefficient'], 3)}, \u03bb = {r['lam']:g}"
    )
    canvas.text(824, 36, head, "soft", anchor="end")
    canvas.text(20, 80, "token", "ink bold")
    for i, token in enumerate(r["tokens"]):
        middle = left + width * (i + 0.5)
        canvas.box(left + width * i + 2, 58, width - 4, 34, radius=5)
        size = min(13.0, (width - 10) / (0.62 * max(1, len(_visible(token)))))
        canvas.text(middle, 80, _visible(token), "mono ink", size=size, anchor="middle")
    for k, (name, label, meaning) in enumerate(ROWS):
        top = 104 + height * k
        canvas.text(20, top + 17, label, "ink bold")
        canvas.text(20, top + 33, meaning, "soft", size=11.5)
        largest = max(map(abs, r[name])) or 1.0
        for i, value in enumerate(r[name]):
            if name not in UNTINTED:
                hue = "a" if value >= 0 else "b"
                canvas.shade(left + width * i + 2, top + 3, width - 4, height - 8, hue, 0.4 * abs(value) / largest)
            middle = left + width * (i + 0.5)
            canvas.text(middle, top + 24, number(value), "ink", anchor="middle")
    return canvas


def _visible(token: str) -> str:
    """A leading blank is part of a token: it is shown as a dot in the middle."""
    return token.replace(" ", "\u00b7")


def batch(n: Numbers) -> Canvas:
    b = n["batch"]
    canvas, cell, left = Canvas("The arithmetic of a step", 352), 15, 96
    groups, per_row = b["minibatches"], b["minibatch"] // 2
    stride = cell * per_row + 36
    for g in range(groups):
        middle = left + stride * g + cell * per_row / 2
        canvas.text(middle, 32, f"minibatch {g + 1}", "soft", anchor="middle")
    for epoch, order in enumerate(b["orders"]):
        top = 48 + 56 * epoch
        canvas.text(20, top + 20, f"epoch {epoch + 1}", "ink bold")
        for place, answer in enumerate(order):
            group, inside = divmod(place, b["minibatch"])
            x = left + stride * group + cell * (inside % per_row)
            y = top + cell * (inside // per_row)
            hue, opacity = ("b", 1.0) if answer == b["shown"] else ("a", 0.35)
            canvas.shade(x, y, cell - 3, cell - 3, hue, opacity)
    right = left + stride * groups - 8
    for epoch in range(len(b["orders"])):
        canvas.text(right, 48 + 56 * epoch + 20, f"{groups} steps", "soft")
    x, y = 20, 292
    each = b["minibatches"] * b["epochs"]
    canvas.text(x, y, f"{b['answers']} answers \u00f7 {b['minibatch']} a minibatch = {groups} minibatches", "ink")
    more = f"\u00d7 {b['epochs']} epochs = {each} optimizer steps from {b['tokens']:,} tokens"
    canvas.text(x + 310, y, more, "ink")
    whole = (
        f"\u00d7 {b['steps']} steps = {b['all_answers']:,} answers and {b['all_optimizer_steps']:,} optimizer steps"
    )
    canvas.text(x, y + 24, whole, "ink")
    canvas.text(
        x, y + 46, "The orange square is the answer of the fifth picture: every epoch meets it once.", "soft", size=12
    )
    return canvas
