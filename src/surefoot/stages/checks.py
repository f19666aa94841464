"""What is odd about rows before anything is learnt from them: counted, shown by example, and dropped only by name."""

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from surefoot.display import brief, excerpt, visible
from surefoot.stages.lengths import answer_tokens, merging, rendered, row_tokens, said
from surefoot.stages.rows import Rows, prompt_key

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of odd rows.

    Attributes:
        name: what they are. count: how many. of: among how many.
        meaning: what that does to training, and what is done about it.
        examples: where some of them are, with what they say.
        stops: training should not begin.
    """

    name: str
    count: int
    of: int
    meaning: str
    examples: tuple[str, ...] = ()
    stops: bool = False

    @property
    def sentence(self) -> str:
        """The finding on one line."""
        shown = f" ({'; '.join(self.examples)}{'; …' if self.count > len(self.examples) else ''})"
        return f"{self.count} of {self.of} {self.name}: {self.meaning}{shown if self.examples else ''}"


@dataclass(frozen=True, slots=True)
class PairLengths:
    """How long chosen and rejected answers are, in tokens without special ones.

    Attributes:
        chosen, rejected: means. longer: share of pairs whose chosen answer is the longer one; equal: as long.
    """

    chosen: float
    rejected: float
    longer: float
    equal: float

    @property
    def baseline(self) -> float:
        """How often "the longer answer is better" is right, a tie being right half of the time."""
        return self.longer + self.equal / 2


@dataclass(frozen=True, slots=True)
class DataReport:
    """The state of the rows of a stage.

    Attributes:
        train, held_out: rows on each side. max_tokens: the longest row that is read whole.
        tokens: shortest, median and longest row. pairs: of preferences, the lengths of the answers.
        findings: what was looked for, in order; those with a count of 0 too.
        examples: two rows as the model reads them.
    """

    train: int
    held_out: int
    max_tokens: int | None
    tokens: tuple[int, float, int]
    pairs: PairLengths | None
    findings: tuple[Finding, ...]
    examples: tuple[str, ...]

    @property
    def problems(self) -> list[str]:
        """What should stop training, a sentence each."""
        return [finding.sentence for finding in self.findings if finding.count and finding.stops]

    def text(self) -> str:
        """Plain lines for the terminal."""
        lines = [f"data      {self.train} rows to learn from, {self.held_out} held out"]
        shortest, median, longest = self.tokens
        lines.append(f"tokens    {shortest} to {longest} a row, median {median:g}")
        if self.pairs is not None:
            p = self.pairs
            lines.append(
                f"answers   chosen {p.chosen:.1f} tokens, rejected {p.rejected:.1f}; chosen is longer in "
                f'{p.longer:.0%} of pairs, so "longer is better" alone is right in {p.baseline:.1%}'
            )
        found = [finding for finding in self.findings if finding.count]
        lines += [f"{'problem' if finding.stops else 'note':<10}{finding.sentence}" for finding in found]
        lines += [f"reads {i}   {example}" for i, example in enumerate(self.examples, 1)]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """For a file."""
        pairs = None if self.pairs is None else asdict(self.pairs) | {"baseline": self.pairs.baseline}
        return asdict(self) | {"pairs": pairs, "problems": self.problems}


def drop_unusable(rows: Rows) -> tuple[Rows, tuple[Finding, ...]]:
    """Leaves out rows from which nothing can be learnt, and counts them: (the others, what was left out).

    These are rows without a prompt or without an answer, and pairs whose chosen answer says the same as the rejected
    one. A preference whose answers begin with nothing in common has no prompt.
    """
    reasons = [_unusable(row) for row in rows.rows]
    count = Counter(reasons)
    findings = tuple(
        Finding(name, count[name], len(rows), meaning, _where(rows, (i for i, r in enumerate(reasons) if r == name)))
        for name, meaning in _UNUSABLE.items()
        if count[name]
    )
    return rows.take([i for i, reason in enumerate(reasons) if not reason]), findings


def check_rows(
    train: Rows,
    held_out: Rows,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int | None = None,
    *,
    dropped: Sequence[Finding] = (),
    too_long: str = "what is over is cut off",
    ends: bool = True,
) -> DataReport:
    """Looks at the rows of a stage.

    Args:
        train: what is learnt from.
        held_out: what is not.
        tokenizer: of the model that learns.
        max_tokens: the longest row that the trainer reads whole. None: any length.
        dropped: what `drop_unusable` left out, for the report.
        too_long: what becomes of longer rows, for the report.
        ends: plain texts get an end token behind them, as in SFT and DPO; a reward model reads them as they stand.

    Raises:
        ValueError: the rows are conversations and the tokenizer has no chat template, or it refuses one of them.
    """
    lengths = row_tokens(train, tokenizer, ends=ends) + row_tokens(held_out, tokenizer, ends=ends)
    findings = [*dropped, *_nothing_left(train, dropped), *_repeated(train), *_on_both_sides(train, held_out)]
    if max_tokens is not None:
        findings.append(_too_long(train, held_out, lengths, max_tokens, too_long))
    if _is_preference(train):
        findings.append(_contradictions(train))
    if ends:
        findings.append(_merging(train, tokenizer))
    return DataReport(
        train=len(train),
        held_out=len(held_out),
        max_tokens=max_tokens,
        tokens=(min(lengths), float(statistics.median(lengths)), max(lengths)) if lengths else (0, 0.0, 0),
        pairs=_pair_lengths(train, held_out, tokenizer) if _is_preference(train) else None,
        findings=tuple(findings),
        examples=tuple(map(excerpt, rendered(train.take(range(min(2, len(train)))), tokenizer, ends=ends))),
    )


# ---------------------------------------------------------------------------------------------- unusable rows

_UNUSABLE = {
    "rows have no text": "dropped",
    "rows have no prompt": "dropped; of preferences, where chosen and rejected begin with nothing in common",
    "rows have no answer": "dropped",
    "pairs have the same text as chosen and rejected": "dropped, they prefer nothing",
}
_NO_TEXT, _NO_PROMPT, _NO_ANSWER, _SAME = _UNUSABLE


def _unusable(row: Mapping[str, Any]) -> str:
    """Why nothing can be learnt from a row; "" where something can."""
    if "text" in row:
        return "" if row["text"].strip() else _NO_TEXT
    if "messages" in row:
        answered = any(m["role"] == "assistant" and _says(m) for m in row["messages"])
        return "" if answered else _NO_ANSWER
    answers = [part for name, part in row.items() if name != "prompt"]
    if _empty(row["prompt"]):
        return _NO_PROMPT
    if any(_empty(part) for part in answers):
        return _NO_ANSWER
    return _SAME if len(answers) == 2 and _same(*answers) else ""


def _empty(part: Any) -> bool:
    return not part.strip() if isinstance(part, str) else not any(_says(message) for message in part)


def _says(message: Mapping[str, Any]) -> bool:
    content = message["content"]
    return bool(message.get("tool_calls")) or bool(content.strip() if isinstance(content, str) else content)


def _same(chosen: Any, rejected: Any) -> bool:
    if isinstance(chosen, str) and isinstance(rejected, str):
        return chosen.strip() == rejected.strip()
    return bool(chosen == rejected)


# ---------------------------------------------------------------------------------------------- what is looked for


def _nothing_left(train: Rows, dropped: Sequence[Finding]) -> list[Finding]:
    if len(train):
        return []
    count, reasons = sum(finding.count for finding in dropped), "; ".join(finding.name for finding in dropped)
    return [Finding("rows were dropped", count, count, f"none is left to learn from: {reasons}", stops=True)]


def _repeated(train: Rows) -> list[Finding]:
    whole, prompts = [_whole(row) for row in train.rows], [prompt_key(row) for row in train.rows]
    again = _again(whole)
    same_prompt = sorted(set(_again(prompts)) - set(again))
    findings = [Finding("rows repeat an earlier row", len(again), len(train), "learnt twice", _where(train, again))]
    if "text" not in (train.rows or [{}])[0]:
        findings.append(
            Finding(
                "rows repeat an earlier prompt with another answer", len(same_prompt), len(train),
                "kept, and never split between learning and holding out", _where(train, same_prompt),
            )
        )  # fmt: skip
    return findings


def _on_both_sides(train: Rows, held_out: Rows) -> list[Finding]:
    learnt, asked = {_whole(row) for row in train.rows}, {prompt_key(row) for row in train.rows}
    same = [i for i, row in enumerate(held_out.rows) if _whole(row) in learnt]
    prompts = sorted({i for i, row in enumerate(held_out.rows) if prompt_key(row) in asked} - set(same))
    return [
        Finding(
            "held-out rows are among those that are learnt", len(same), len(held_out),
            "what they measure is memory: take them out of one side", _where(held_out, same), stops=True,
        ),
        Finding(
            "held-out rows share their prompt with a row that is learnt", len(prompts), len(held_out),
            "held-out numbers will be too good", _where(held_out, prompts),
        ),
    ]  # fmt: skip


def _too_long(train: Rows, held_out: Rows, lengths: Sequence[int], limit: int, action: str) -> Finding:
    over = [i for i, length in enumerate(lengths) if length > limit]
    places = [*train.places, *held_out.places]
    examples = tuple(f"{visible(places[i])}: {lengths[i]} tokens" for i in over[:_SHOWN])
    everything = 0 < len(over) == len(lengths)
    meaning = f"{action}; raise max_tokens={limit}" + (
        ", which no row fits in" if everything else " to read them whole"
    )
    return Finding(f"rows have more than {limit} tokens", len(over), len(lengths), meaning, examples, stops=everything)


def _contradictions(train: Rows) -> Finding:
    """Pairs whose answers another pair of the same prompt prefers the other way round."""
    pairs = [(prompt_key(r), _whole(r["chosen"]), _whole(r["rejected"])) for r in train.rows]
    known = set(pairs)
    against = [i for i, (prompt, chosen, rejected) in enumerate(pairs) if (prompt, rejected, chosen) in known]
    return Finding(
        "pairs are preferred the other way round by another row", len(against), len(train),
        "kept; nothing can order both, which bounds the accuracy", _where(train, against),
    )  # fmt: skip


def _merging(train: Rows, tokenizer: PreTrainedTokenizerBase) -> Finding:
    """Rows in which the end of the prompt becomes part of a token of the answer."""
    found = merging(train, tokenizer)
    return Finding(
        "prompts end inside of a token of prompt and answer together", len(found), len(train),
        "the whole token is learnt as the answer's; to avoid it end prompts before a space, or as the template does",
        _where(train, found),
    )  # fmt: skip


def _pair_lengths(train: Rows, held_out: Rows, tokenizer: PreTrainedTokenizerBase) -> PairLengths | None:
    chosen, rejected = (
        answer_tokens(train, tokenizer, name) + answer_tokens(held_out, tokenizer, name)
        for name in ("chosen", "rejected")
    )
    if not chosen:
        return None
    pairs = list(zip(chosen, rejected, strict=True))
    return PairLengths(
        chosen=statistics.fmean(chosen),
        rejected=statistics.fmean(rejected),
        longer=sum(c > r for c, r in pairs) / len(pairs),
        equal=sum(c == r for c, r in pairs) / len(pairs),
    )


def _is_preference(rows: Rows) -> bool:
    return bool(rows.rows) and "chosen" in rows.rows[0]


def _whole(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _again(keys: Sequence[str]) -> list[int]:
    """The places of keys that were there before."""
    seen: set[str] = set()
    return [i for i, key in enumerate(keys) if key in seen or seen.add(key)]  # type: ignore[func-returns-value]


def _where(rows: Rows, indices: Iterable[int]) -> tuple[str, ...]:
    """The first few rows: where they are and what they ask."""
    first = [i for i, _ in zip(indices, range(_SHOWN), strict=False)]
    return tuple(f"{visible(rows.places[i])}: {_asked(rows.rows[i])}" for i in first)


def _asked(row: Mapping[str, Any]) -> str:
    return brief(said(next(iter(row.values()))), 60)
