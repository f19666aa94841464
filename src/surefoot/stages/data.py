"""What a stage learns from, read and checked before anything is trained."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from surefoot.stages.checks import DataReport, check_rows, drop_unusable
from surefoot.stages.options import StageOptions
from surefoot.stages.ratings import rated_rows
from surefoot.stages.rows import Rows, load_rows, split_rows

_COLUMNS = ("text_column", "prompt_column", "completion_column", "chosen_column", "rejected_column")

RATINGS_HELD_OUT = 5
"""Where nobody says otherwise, one of so many votes is held out: there are tens of them, and 128 would be too many."""


@dataclass(frozen=True, slots=True)
class Data:
    """The rows of a stage.

    Attributes:
        train: what is learnt from. held_out: what is evaluated. report: what was found odd about them.
    """

    train: Rows
    held_out: Rows
    report: DataReport

    def text(self) -> str:
        """Plain lines for the terminal."""
        return f"{self.train.what}\n{self.report.text()}"

    def digest(self) -> str:
        """Of all rows, in their order."""
        rows = json.dumps([self.train.rows, self.held_out.rows], sort_keys=True, default=str)
        return hashlib.sha256(rows.encode()).hexdigest()


def load_data(options: StageOptions, tokenizer: Any, max_tokens: int) -> Data:
    """Reads the rows, holds some out, drops what cannot be learnt from, and looks at the rest.

    Raises:
        ValueError: nothing is there, the format is unclear, or something should stop training.
    """
    rated: tuple[str, ...] = getattr(options, "ratings", ())
    if options.dataset is None and not rated:
        beside = ", or runs that people rated (ratings)" if "ratings" in options.kinds() else ""
        raise ValueError(f"dataset is missing: name the rows to learn from{beside}")
    rows, dropped = drop_unusable(rated_rows(rated) if rated else read_rows(options, "dataset"))
    if not len(rows):
        gone = "; ".join(finding.sentence for finding in dropped) or "it is empty"
        source = f"ratings={' '.join(rated)}" if rated else f"dataset={options.dataset!r}"
        raise ValueError(f"{source}: no row is left to learn from: {gone}")
    if options.eval_dataset is not None:
        held_out = drop_unusable(read_rows(options, "eval_dataset"))[0]
        if not len(held_out):
            raise ValueError(f"eval_dataset={options.eval_dataset!r}: no row is left to evaluate")
    else:
        count = len(rows) // RATINGS_HELD_OUT if rated and options.eval_rows is None else options.eval_rows or 0
        try:
            rows, held_out = split_rows(rows, count, options.seed)
        except ValueError as error:
            raise ValueError(f"eval_rows={count}: {error}") from None
    reward = options.COMMAND == "reward"
    how = {"too_long": "they are left out"} if reward else {}
    report = check_rows(rows, held_out, tokenizer, max_tokens, dropped=dropped, ends=not reward, **how)
    if report.problems:
        raise ValueError("\n".join(report.problems))
    return Data(rows, held_out, report)


def read_rows(options: StageOptions, option: str) -> Rows:
    """The rows that an option names, by the columns that the options name."""
    columns = {name: getattr(options, name) for name in _COLUMNS if name in options.kinds()}
    kind = "sft" if options.COMMAND == "sft" else "preference"
    try:
        return load_rows(getattr(options, option), kind=kind, **columns)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error
