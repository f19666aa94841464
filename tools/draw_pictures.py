"""Draws docs/rlhf-in-twelve-pictures.md: `python -m tools.draw_pictures`, from the repository's root.

It runs the whole of RLHF on a toy (about three minutes of one core), writes what it found into
docs/images/pictures.json, draws the pictures from that file and fills the numbers into the text. `--draw-only` leaves
the run out.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tools.pictures import charts, schemes
from tools.pictures.canvas import Canvas
from tools.pictures.page import filled

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
NUMBERS = IMAGES / "pictures.json"
PAGE = ROOT / "docs" / "rlhf-in-twelve-pictures.md"

PICTURES: dict[str, Callable[[dict[str, Any]], Canvas]] = {
    "01-stages": schemes.stages,
    "02-models": schemes.models,
    "03-reward-model": charts.judge,
    "04-batch": schemes.batch,
    "05-one-answer": schemes.row,
    "06-advantages": charts.gae,
    "07-whitening": charts.white,
    "08-clip": charts.clip,
    "09-kl-estimators": charts.kl,
    "10-controller": charts.controller,
    "11-frontier": charts.frontier,
    "12-over-optimisation": charts.exact,
}


def drawn(numbers: dict[str, Any]) -> Mapping[str, str]:
    """Every picture by the name of its file."""
    return {f"rlhf-{name}.svg": draw(numbers).render() for name, draw in PICTURES.items()}


def written(numbers: Mapping[str, Any]) -> str:
    """JSON with a line for each picture, so that a change shows where it is."""
    parts = [f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in numbers.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main(draw_only: bool) -> None:
    if not draw_only:
        from tools.pictures.numbers import numbers_of
        from tools.pictures.toy import make_toy

        found = numbers_of(make_toy(lambda line: print(line, flush=True)))  # noqa: T201
        NUMBERS.write_text(written(found), encoding="utf-8")
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    for name, picture in drawn(numbers).items():
        (IMAGES / name).write_text(picture, encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), numbers), encoding="utf-8")


if __name__ == "__main__":
    main("--draw-only" in sys.argv[1:])
