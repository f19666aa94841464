"""What each stage gave, in a few words and numbers, read from the files it left. No torch in here."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.pipeline.parts import Part
from surefoot.pipeline.record import read_record


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a part came to.

    Attributes:
        words: one sentence; empty where it has not ended. seconds: spent on it. fingerprint: of what it was given.
        report: its page, where it has one.
    """

    part: Part
    words: str
    seconds: float
    fingerprint: str
    report: Path | None


def outcome_of(part: Part) -> Outcome:
    """What a part's folder says about it."""
    record = read_record(part.folder)
    words = _WORDS[part.kind](part.folder) if record is not None and record.ended else "not done"
    report = part.folder / "report.html"
    return Outcome(
        part,
        words,
        0.0 if record is None else record.seconds,
        "" if record is None else record.fingerprint,
        report if report.is_file() else None,
    )


def _sft(folder: Path) -> str:
    first, last = ends_of(folder, "eval/loss")
    if first is None:
        return "fine-tuned; no rows were held out, so how well is not known"
    return f"loss on held-out rows {first:.3f} -> {last:.3f} nats per token"


def _rate(folder: Path) -> str:
    found = read_json(folder / "result.json")
    return (
        f"{found['pairs']:,} pairs; the stand-in rater took the answer it scores higher in {found['agreement']:.0%} "
        f"(nobody who knew its scores could foresee more than {found['ceiling']:.0%} of its choices)"
    )


def _reward(folder: Path) -> str:
    card = read_json(folder / "reward-card.json")
    if not card:
        return "trained; no pairs were held out, so how well is not known"
    right, ahead = card["accuracy"], card["beyond_length"]
    return (
        f"{right['value']:.1%} of {card['pairs']} held-out pairs right [{right['low']:.1%}, {right['high']:.1%}]; "
        f"{ahead['value'] * 100:+.1f} points [{ahead['low'] * 100:+.1f}, {ahead['high'] * 100:+.1f}] from what always "
        f"taking the {card['length_rule']} answer gets right"
    )


def _ppo(folder: Path) -> str:
    before, after = ends_of(folder, "eval/score")
    _, kl = ends_of(folder, "eval/kl_per_token")
    if before is None:
        return "trained; without evaluations"
    far = "" if kl is None else f", {kl:.3f} nats per token from where it began"
    return f"reward on held-out prompts {before:.2f} -> {after:.2f}{far}"


def _dpo(folder: Path) -> str:
    _, accuracy = ends_of(folder, "eval/rewards/accuracies")
    _, loss = ends_of(folder, "eval/loss")
    if loss is None:
        return "trained; no pairs were held out, so how well is not known"
    right = "" if accuracy is None else f", {accuracy:.1%} of them on the right side"
    return f"loss on held-out pairs {loss:.3f}{right}"


def _compare(folder: Path) -> str:
    """How often each trained method wins against the baseline, by each judge."""
    found = read_json(folder / "compare.json")
    said = []
    for method in found["methods"]:
        rates = {name.removeprefix("gold/"): rate for name, rate in method["win_rates"].items()}
        if method["folders"] and rates:
            shares = ", ".join(
                f"{judge} {r['value']:.0%} [{r['low']:.0%}, {r['high']:.0%}]" for judge, r in rates.items()
            )
            said.append(f"{method['name']} wins {shares}")
    return f"against the baseline on {found['prompts']} held-out prompts: " + "; ".join(said)


_WORDS: Mapping[str, Callable[[Path], str]] = {
    "sft": _sft, "rate": _rate, "reward": _reward, "ppo": _ppo, "dpo": _dpo, "compare": _compare,
}  # fmt: skip


def ends_of(folder: Path, name: str) -> tuple[float | None, float | None]:
    """A number of the first and of the last evaluation of a run; None where there is none."""
    path = folder / "evaluations.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = [json.loads(line)["metrics"].get(name) for line in lines]
    known = [value for value in found if value is not None]
    return (known[0], known[-1]) if known else (None, None)


def read_json(path: Path) -> dict[str, Any]:
    """An object in a file; empty where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
