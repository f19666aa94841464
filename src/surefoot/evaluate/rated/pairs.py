"""The pairs of a rating: made once from a run's evaluations, and kept, so that what was asked stays known.

The SFT model's answers are those of the evaluation before the first step; the policy's those of a later one. Two
answers of one model to one prompt are two of one evaluation where it sampled several, and otherwise one of that
evaluation and one of its neighbour, the nearest thing on record; the plan says which.
"""

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from surefoot.evaluate.ratings.arrange import counts_by_kind, planted, repetitions
from surefoot.evaluate.ratings.votes import KINDS, Kind, Pair
from surefoot.records import RunRecords

PLANTED = 0.05
"""Of the pairs, so many more that show whether a rater reads."""


@dataclass(frozen=True, slots=True)
class Source:
    """Whose an answer is and what is known of it; None is unknown."""

    model: str
    step: int | None = None
    score: float | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A pair with the sources of its answers. Raters see of it nothing but the prompt and the two texts."""

    pair: Pair
    a: Source
    b: Source


@dataclass(frozen=True, slots=True)
class Material:
    """All pairs that a run's evaluations allow, by kind, and what raters need not be asked.

    Attributes:
        identical: how often both answers of a pair were the same text, a tie that nobody has to look at.
        notes: sentences on where the answers are from, and on what was not to be had.
    """

    found: Mapping[Kind, Sequence[Item]]
    identical: Mapping[str, int]
    notes: Sequence[str]


def evaluated_steps(records: RunRecords) -> list[int]:
    """Steps whose evaluation left samples, ascending.

    Raises:
        ValueError: there is no evaluation before the first step, or none after it.
    """
    steps = records.sample_steps("eval")
    if not steps or steps[0] != 0 or len(steps) < 2:
        raise ValueError(
            f"{str(records.path)!r} has samples of the evaluations {steps or 'of no step'}: a rating compares answers "
            "from before the first step with later ones; train with eval_every set, or give a file with --pairs-file"
        )
    return steps


def material(records: RunRecords, step: int) -> Material:
    """What can be asked about the policy after `step`.

    Raises:
        ValueError: that step, or the one before all steps, has no samples.
    """
    steps = evaluated_steps(records)
    if step not in steps[1:]:
        raise ValueError(f"step={step} has no samples; evaluations after the first step are {steps[1:]}")
    sft, policy = _answers(records, 0, "sft"), _answers(records, step, "policy")
    earlier = [s for s in steps if 0 < s < step]
    notes = [f"The SFT model's answers are those before the first step; the policy's those after step {step}."]
    near_policy = _within("policy", policy, records, step, earlier[-1:], notes)
    near_sft = _within("sft", sft, records, 0, earlier[:1] if len(earlier) > 1 else [], notes)
    across = [(policy[row][0], sft[row][0]) for row in policy if row in sft]
    pairs: dict[Kind, list[_Two]] = {"policy-sft": across, "sft-sft": near_sft, "policy-policy": near_policy}
    different = {kind: [two for two in twos if not _same(*two)] for kind, twos in pairs.items()}
    return Material(
        {kind: [_item(f"{step}-{kind}", kind, a, b) for a, b in twos] for kind, twos in different.items()},
        {kind: len(twos) - len(different[kind]) for kind, twos in pairs.items()},
        notes,
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    row: str
    prompt: str | Sequence[dict[str, Any]]
    text: str
    source: Source


_Two = tuple[_Answer, _Answer]


def _answers(records: RunRecords, step: int, model: str) -> dict[str, list[_Answer]]:
    """Answers by row, in the order in which they were written."""
    found: dict[str, list[_Answer]] = {}
    for place, sample in enumerate(records.read_samples("eval", step)):
        source = Source(model, step, _number(sample.get("score")), sample.get("length"))
        row = str(sample.get("row", place))
        answer = _Answer(row, _asked(sample), str(sample.get("response", "")), source)
        found.setdefault(row, []).append(answer)
    return found


def _asked(sample: Mapping[str, Any]) -> str | Sequence[dict[str, Any]]:
    """The prompt as it was put: the conversation, where it was one."""
    return list(sample["messages"]) if sample.get("messages") else str(sample.get("prompt", ""))


def _same(one: _Answer, other: _Answer) -> bool:
    """Whether people would see the same text twice; blanks at the ends are not shown."""
    return one.text.strip() == other.text.strip()


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _within(
    model: str,
    answers: Mapping[str, Sequence[_Answer]],
    records: RunRecords,
    step: int,
    neighbour: Sequence[int],
    notes: list[str],
) -> list[_Two]:
    """Two answers of one model to each prompt, and a note that says what they are."""
    name = {"sft": "SFT model", "policy": "policy"}[model]
    several = [(many[0], many[1]) for many in answers.values() if len(many) > 1]
    if several:
        return several
    if not neighbour:
        notes.append(f"The run has no second answer of the {name} to a prompt, so no pairs within it are asked about.")
        return []
    near = _answers(records, neighbour[0], model)
    notes.append(f"Pairs within the {name} are answers after step {step} and after step {neighbour[0]}.")
    return [(many[0], near[row][0]) for row, many in answers.items() if row in near]


def _item(name: str, kind: Kind, a: _Answer, b: _Answer) -> Item:
    pair = Pair(item=f"{name}-{a.row}", kind=kind, prompt_id=a.row, prompt=a.prompt, a=a.text, b=b.text)
    return Item(pair, a.source, b.source)


# ---------------------------------------------------------------------------------------------- choosing
def choose(stock: Material, count: int, *, seed: int) -> list[Item]:
    """Pairs of the three kinds, spread over the prompts, with planted and repeated ones among them.

    What a kind cannot give is taken of the others.

    Args:
        stock: what there is.
        count: of pairs, besides the planted and those shown again.
        seed: of all choices.

    Raises:
        ValueError: nothing can be asked.
    """
    generator = random.Random(seed)
    chosen = _mixed(stock.found, count, generator)
    if not chosen:
        raise ValueError("no prompt has two different answers: there is nothing to ask about")
    sound = generator.sample(stock.found["policy-sft"], len(stock.found["policy-sft"]))
    spoiled = islice(_spoiled(sound, seed), max(1, round(PLANTED * count)))
    by_name = {item.pair.item: item for item in chosen}
    again = [replace(by_name[pair.repeats], pair=pair) for pair in repetitions([i.pair for i in chosen], seed=seed)]
    return [*chosen, *spoiled, *again]


def _mixed(found: Mapping[Kind, Sequence[Item]], count: int, generator: random.Random) -> list[Item]:
    """Kinds by their shares; each kind goes on with the prompts that those before have left."""
    prompts = sorted({item.pair.prompt_id for items in found.values() for item in items})
    generator.shuffle(prompts)
    turns = {kind: _turn(items, prompts) for kind, items in found.items()}
    chosen: list[Item] = []
    for kind, wanted in counts_by_kind(count).items():
        chosen += islice(turns[kind], wanted)
        used = {item.pair.prompt_id for item in chosen}
        prompts.sort(key=lambda prompt: prompt in used)  # stable: those not used yet come first
    rest = [item for turn in turns.values() for item in turn]
    return chosen + rest[: count - len(chosen)]


def _turn(items: Sequence[Item], prompts: Sequence[str]) -> Iterator[Item]:
    """The items in the order that the prompts have when the first one is asked for."""
    yield from sorted(items, key=lambda item: prompts.index(item.pair.prompt_id))


def _spoiled(items: Sequence[Item], seed: int) -> Iterator[Item]:
    """SFT answers beside their own words in disorder: who reads them knows which is better."""
    for item in items:
        with suppress(ValueError):  # too few words to tell
            yield Item(planted(item.pair, "b", seed=seed), item.b, Source("spoiled"))


def counts(items: Sequence[Item]) -> dict[str, int]:
    """How many pairs of each kind there are, and how many are shown again."""
    first = Counter(item.pair.kind for item in items if not item.pair.repeats)
    return {**{kind: first[kind] for kind in KINDS}, "shown again": len(items) - first.total()}
