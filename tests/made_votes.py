"""Votes made in a line: `vote("i1", "a")`, `votes("aabs")`, and a whole session whose truth is known."""

import numpy as np

from surefoot.evaluate.ratings import Pair, Vote

CHOICES = {"a": "a", "b": "b", "+": "both good", "-": "both bad", "s": "skip"}


def vote(item="i", choice="a", **more):
    """A vote on an item of its own prompt, the policy's answer on the left."""
    given = {"kind": "policy-sft", "prompt_id": f"p-{item}", "rater": "ann", "left": "a"} | more
    return Vote(item=item, choice=choice, **given)


def votes(letters, prefix="i", **more):
    """One vote a letter: a, b, + both good, - both bad, s skipped; each on an item and prompt of its own, in order."""
    return [vote(f"{prefix}{n}", CHOICES[c], **{"time": float(n)} | more) for n, c in enumerate(letters)]


def pair(item="i", **more):
    given = {"kind": "policy-sft", "prompt_id": f"p-{item}", "prompt": "Why?", "a": "Because.", "b": "No idea."}
    return Pair(item=item, **given | more)


def session(count=200, raters=("ann", "bob"), *, better=0.5, seed=0):
    """Votes, scores and lengths of a made-up rating with all kinds of pair, ties, repeats, planted pairs and skips.

    The policy is better by `better` in log-odds; longer answers and higher scores are liked within a model too.
    """
    g = np.random.default_rng(seed)
    kinds = g.choice(["policy-sft", "sft-sft", "policy-policy", "planted"], size=count, p=[0.55, 0.2, 0.2, 0.05])
    made, scores, lengths = [], {}, {}
    for n, kind in enumerate(kinds):
        item, quality = f"i{n}", g.normal()
        lengths[item] = (float(g.integers(20, 120)), float(g.integers(20, 120)))
        scores[item] = (float(quality + g.normal(scale=0.7)), float(g.normal(scale=0.3)))
        pull = quality + 0.4 * np.log(lengths[item][0] / lengths[item][1]) + better * (kind == "policy-sft")
        shown = [(item, ""), (f"{item}-again", item)] if n % 7 == 0 and kind != "planted" else [(item, "")]
        for rater in raters if n % 3 else raters[:1]:
            for place, (name, repeats) in enumerate(shown):
                choice = "a" if kind == "planted" else _choose(g, pull)
                left = "a" if (g.random() < 0.5) != bool(place) else "b"
                made.append(vote(name, choice, kind=str(kind), prompt_id=f"p{n // 2}", rater=rater, repeats=repeats,
                                 left=left, seconds=float(g.integers(5, 60)), time=float(len(made))))  # fmt: skip
    return made, scores, lengths


def _choose(g, pull):
    u = g.random()
    if u < 0.15:
        return ("both good", "both bad", "skip")[int(g.integers(3))]
    return "a" if g.random() < 1 / (1 + np.exp(-1.5 * pull)) else "b"
