"""What other libraries say of made-up ratings (tests/data/ratings). `from ratings_golden import recorded`."""

import functools
import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).parent / "data" / "ratings" / "numbers.json"


@functools.cache
def _all() -> dict[str, Any]:
    return json.loads(PATH.read_text(encoding="utf-8"))


def recorded(name: str) -> list[dict[str, Any]]:
    return _all()[name]
