"""The folder of a comparison or an evaluation.

config.yaml      the options                     compare.json     every number        samples.jsonl  every answer
environment.json versions, device, command       compare.md       tables              frontier.svg, frontier.png
result.json      there when all else is          report.html      all of it to look at

The files of an evaluation are called evaluation.json and evaluation.md.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from surefoot.evaluate.answers import Answers
from surefoot.evaluate.options import MeasuringOptions
from surefoot.evaluate.page import page
from surefoot.evaluate.picture import quantities_of, write_frontier
from surefoot.evaluate.results import Result
from surefoot.evaluate.runs import BEST_OF
from surefoot.evaluate.tables import markdown
from surefoot.redaction import hide_values
from surefoot.settings import to_yaml
from surefoot.types import Prompt

NAMES = {"compare": "compare", "evaluate": "evaluation"}
"""Command -> what its files are called."""
Said = tuple[str, int | None, Answers]
"""Method, seed of the run, and what it said."""


def check(folder: Path, fresh: bool) -> None:
    """Refuses a folder that cannot be taken.

    Raises:
        ValueError: it holds a comparison that is not to be moved aside, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir={str(folder)!r} is a file: choose a folder")
    if (folder / "result.json").exists() and not fresh:
        raise ValueError(
            f"output_dir={str(folder)!r} holds a comparison or a run already: choose another, or add --fresh"
        )


def claim(folder: Path, complain: Callable[[str], None]) -> None:
    """Makes the folder; what another comparison left there is moved aside."""
    if (folder / "result.json").exists():
        number, aside = 1, folder.with_name(f"{folder.name}.old")
        while aside.exists():
            number += 1
            aside = folder.with_name(f"{folder.name}.old-{number}")
        folder.rename(aside)
        complain(f"what {folder} held is now in {aside}")
    folder.mkdir(parents=True, exist_ok=True)


def write(
    folder: Path, options: MeasuringOptions, result: Result, said: Sequence[Said], prompts: Sequence[Prompt]
) -> None:
    """Writes everything, under the name "best of" the answers that it is estimated from.

    result.json comes last, so that a folder with it is whole.
    """
    samples, name = list(_samples(said, prompts)), NAMES[options.COMMAND]
    _write(folder / "config.yaml", hide_values(to_yaml(options)))
    _write(folder / "environment.json", _json(result.facts["environment"]))
    _write(folder / "samples.jsonl", "".join(json.dumps(_strict(sample)) + "\n" for sample in samples))
    _write(folder / f"{name}.json", _json(result.as_dict()))
    _write(folder / f"{name}.md", markdown(result))
    for kind in ("svg", "png") if quantities_of(result) else ():
        write_frontier(result, folder / f"frontier.{kind}")
    _write(folder / "report.html", page(result, [sample for sample in samples if sample["method"] != BEST_OF], name))
    _write(folder / "result.json", _json({"reason": "finished: everything is compared"}))


def _samples(said: Sequence[Said], prompts: Sequence[Prompt]) -> Iterator[dict[str, Any]]:
    for method, seed, answers in said:
        each = len(answers.completions) // len(prompts)
        scores = [name for name in answers.values if name == "proxy" or name.startswith("gold/")]
        for i, completion in enumerate(answers.completions):
            row, k = divmod(i, each)
            yield {
                "method": method,
                "seed": seed,
                "row": row,
                "answer": k,
                "prompt": prompts[row].text,
                "response": str(completion),
                "scores": {name: float(answers.values[name][row, k]) for name in scores},
                "kl": float(answers.values["kl"][row, k]),
                "length": len(completion.token_ids),
                "finish_reason": completion.finish_reason,
            }


def _json(value: Any) -> str:
    return json.dumps(_strict(value), indent=1, allow_nan=False, default=float) + "\n"


def _strict(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, dict):
        return {name: _strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
