"""One rating on disk: rate/pairs_000120.jsonl, what is asked, and rate/plan_000120.json, what was decided.

The number is the step after which the policy is rated. Both are written before the first vote and never again; the
plan says what was decided then, so that nobody can decide it later by what the votes say. Votes are in ratings.sqlite
(store.py).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from surefoot.evaluate.rated.pairs import Item, Source, choose, counts, evaluated_steps, material
from surefoot.evaluate.ratings.votes import Kind, Pair
from surefoot.records import RunRecords, dump, read_lines, replace_file
from surefoot.settings import read_file

QUESTION = (
    "Which answer would you rather have, as the one who wrote the prompt? Judge what the answer says and how it "
    "reads; longer is not better in itself. No preference is an answer too: say whether both are good or both are bad."
)
STOPS = "when a rater has answered all pairs, or when the e-value of policy against SFT model reaches 20"
_DECODING = ("temperature", "max_new_tokens", "stop_strings", "chat_template")


@dataclass(frozen=True, slots=True)
class Session:
    """A rating of one checkpoint.

    Attributes:
        step: after which the policy was sampled; the rating's name.
        plan: what was decided before the first vote.
    """

    step: int
    items: Mapping[str, Item]
    plan: Mapping[str, Any]

    @property
    def pairs(self) -> list[Pair]:
        """What raters are shown."""
        return [item.pair for item in self.items.values()]

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""
        return int(self.plan["seed"])


def sessions(run: Path) -> list[int]:
    """Steps of the ratings that were begun, ascending."""
    return sorted(int(path.stem.rpartition("_")[2]) for path in (run / "rate").glob("plan_*.json"))


def read_session(run: Path, step: int) -> Session:
    """A rating that was begun.

    Raises:
        ValueError: its files are not what was written.
    """
    plan = json.loads(_plan(run, step).read_bytes())
    if _digest(_pairs(run, step)) != plan["pairs_sha256"]:
        raise ValueError(
            f"{_pairs(run, step)} is not the file that was planned: its votes would speak of other texts. Put it "
            "back, or move rate/ and ratings.sqlite away and begin anew"
        )
    return Session(step, {item.pair.item: item for item in read_items(_pairs(run, step))}, plan)


def begin(run: Path, *, count: int = 50, seed: int = 0, step: int | None = None, given: Path | None = None) -> Session:
    """Decides what is asked, writes it down, and reads it back.

    Args:
        run: the run's folder.
        count: pairs, besides those planted and shown again.
        seed: of all choices and orders.
        step: whose answers are the policy's; None: the newest evaluation's.
        given: a file of pairs made elsewhere, in the form of rate/pairs_*.jsonl; taken as it is.

    Raises:
        ValueError: there is nothing to ask about.
    """
    records = RunRecords(run)
    if given is not None:
        items, identical, notes = read_items(given), {}, [f"The pairs are those of the file {given.name}."]
        step = step or max((int(m["step"]) for m in records.read_metrics()), default=0)
    else:
        step = evaluated_steps(records)[-1] if step is None else step
        stock = material(records, step)
        items = choose(stock, count, seed=seed)
        identical, notes = dict(stock.identical), list(stock.notes)
    (run / "rate").mkdir(parents=True, exist_ok=True)
    replace_file(_pairs(run, step), b"".join(dump(_record(item)) for item in items))
    config = run / "config.yaml"
    plan = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "seed": seed,
        "showings_of_each_rater": len(items),
        "pairs": counts(items),
        "identical_pairs_left_out_as_ties": identical,
        "question": QUESTION,
        "results_open": STOPS,
        "notes": notes,
        "decoding": {k: s.value for k, s in read_file(config).items() if k in _DECODING} if config.exists() else {},
        "config_sha256": _digest(config) if config.exists() else None,
        "pairs_sha256": _digest(_pairs(run, step)),
    }
    replace_file(_plan(run, step), dump(plan, indent=2))
    return read_session(run, step)


def _pairs(run: Path, step: int) -> Path:
    return run / "rate" / f"pairs_{step:06d}.jsonl"


def _plan(run: Path, step: int) -> Path:
    return run / "rate" / f"plan_{step:06d}.json"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---------------------------------------------------------------------------------------------- lines
def _record(item: Item) -> dict[str, Any]:
    return {**asdict(item.pair), "a_is": asdict(item.a), "b_is": asdict(item.b)}


def read_items(path: Path) -> list[Item]:
    """Pairs from a file, one a line.

    Raises:
        ValueError: a line that is no pair, or a name that two pairs have.
    """
    items = [_read_item(record, f"{path.name}, line {n}") for n, record in enumerate(read_lines(path), start=1)]
    if not items:
        raise ValueError(f"{path} holds no pairs")
    names = [item.pair.item for item in items]
    for item in items:
        if names.count(item.pair.item) > 1:
            raise ValueError(f"{path.name}: two pairs are named {item.pair.item!r}: give each a name of its own")
        if item.pair.repeats and item.pair.repeats not in names:
            raise ValueError(f"{path.name}: {item.pair.item!r} repeats {item.pair.repeats!r}, which is not there")
    return items


def _read_item(record: Mapping[str, Any], where: str) -> Item:
    texts: dict[str, Any] = {name: record.get(name) for name in ("item", "kind", "prompt_id", "a", "b")}
    wrong = [name for name, value in texts.items() if not isinstance(value, str)]
    if wrong or texts["kind"] not in get_args(Kind) or not _is_prompt(record.get("prompt")):
        raise ValueError(
            f"{where} is no pair ({', '.join(wrong) or 'kind or prompt'}): it needs item, kind "
            f"({', '.join(get_args(Kind))}), prompt_id, prompt, a and b; a_is and b_is may say model, step, score "
            "and length"
        )
    pair = Pair(**texts, prompt=record["prompt"], repeats=str(record.get("repeats", "")))
    return Item(pair, _source(record.get("a_is"), where), _source(record.get("b_is"), where))


def _is_prompt(prompt: Any) -> bool:
    if isinstance(prompt, str):
        return True
    return isinstance(prompt, Sequence) and all(
        isinstance(m, Mapping) and {"role", "content"} <= set(m) for m in prompt
    )


def _source(record: Any, where: str) -> Source:
    known = {"model", "step", "score", "length"}
    if record is None:
        return Source("unknown")
    if not isinstance(record, Mapping) or not set(record) <= known or not isinstance(record.get("model"), str):
        raise ValueError(f"{where}: a_is and b_is hold model, and step, score and length where those are known")
    return Source(**record)
