"""Writes what `surefoot rlhf` measured into README.md and docs/which-method.md, from the files of its run:

    python tools/show_rlhf.py RUN "make rlhf"

RUN is the folder of the whole run, or of its comparison. Nothing in the tables is typed.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- rlhf:begin -->", "<!-- rlhf:end -->"
Numbers = Mapping[str, Any]


def folder_of(run: str | Path) -> Path:
    """The folder of the comparison: RUN/compare, or RUN itself."""
    for folder in (Path(run, "compare"), Path(run)):
        if (folder / "compare.json").is_file():
            return folder
    raise SystemExit(f"{run} holds no compare.json: give the folder of `surefoot rlhf` or `surefoot compare`")


def cell(found: Numbers | None, digits: int = 2, sign: str = "") -> str:
    """A number with its 95 % interval, or a dash."""
    if found is None or found["value"] is None:
        return "-"
    value, low, high = (signed(found[name], digits, sign) for name in ("value", "low", "high"))
    return f"**{value}** [{low}, {high}]"


def signed(value: float | None, digits: int, sign: str = "") -> str:
    """With a true minus sign; "?" for what cannot be known, such as the interval of a single seed."""
    return "?" if value is None else f"{value:{sign}.{digits}f}".replace("-", "\u2212")


def percent(found: Numbers | None) -> str:
    if found is None:
        return "-"
    return cell({name: None if value is None else 100 * value for name, value in found.items()}, 0) + " %"


def name_of(method: Numbers) -> str:
    """best of/4 -> best of 4."""
    return str(method["name"]).replace("/", " ")


def golds_of(found: Numbers) -> list[str]:
    return [quantity for quantity in found["methods"][0]["means"] if quantity.startswith("gold/")]


def short(gold: str) -> str:
    return gold.removeprefix("gold/").replace("_", " ")


def table(found: Numbers) -> list[str]:
    """One row a method: what judges say that no stage was trained on, what it cost in KL, and in answers and time."""
    golds = golds_of(found)
    heads = [*(f"{short(gold)}, less SFT's" for gold in golds), f"wins against SFT ({short(golds[0])})"]
    heads += ["KL, nats per answer", "seeds", "answers sampled", "minutes"]
    lines = [f"| method | {' | '.join(heads)} |", f"| --- |{' --- |' * len(heads)}"]
    for method in found["methods"][1:]:
        cost, less = method["cost"], method["less_baseline"]
        bound = "" if method["folders"] else "\u2264 "  # the best of n is at most so far away
        cells = [cell(less.get(gold), sign="+") for gold in golds]
        cells += [percent(method["win_rates"].get(golds[0])), bound + cell(method["means"]["kl"], 1)]
        cells += [str(len(method["seeds"])) if method["folders"] else "-"]
        cells += ["-" if cost["answers"] is None else f"{cost['answers']:,.0f}"]
        cells += ["-" if cost["seconds"] is None else f"{cost['seconds'] / 60:.1f}"]
        lines.append(f"| {name_of(method)} | {' | '.join(cells)} |")
    return lines


def differences(found: Numbers) -> list[str]:
    """Between the trained methods, as they ended and at equal KL."""
    golds = golds_of(found)
    lines = [f"| the first less the second | {' | '.join(map(short, golds))} |", f"| --- |{' --- |' * len(golds)}"]
    lines += [_difference(pair, golds, "as they ended") for pair in _trained(found, found["differences"])]
    if found["matched"] is not None:
        at = f"at {signed(found['matched']['kl'], 1)} nats"
        lines += [_difference(pair, golds, at) for pair in found["matched"]["differences"]]
    return lines if len(lines) > 2 else []


def _trained(found: Numbers, pairs: Sequence[Numbers]) -> list[Numbers]:
    trained = {method["name"] for method in found["methods"] if method["folders"]}
    return [pair for pair in pairs if {pair["first"], pair["second"]} <= trained]


def _difference(pair: Numbers, golds: Sequence[str], when: str) -> str:
    names = f"{name_of({'name': pair['first']})} \u2212 {name_of({'name': pair['second']})}"
    cells = [cell(pair["differences"].get(gold), sign="+") for gold in golds]
    return f"| {names}, {when} | {' | '.join(cells)} |"


def introduction(found: Numbers, command: str) -> list[str]:
    e = found["environment"]
    where = "CPU" if e["device"] == "cpu" else e["device"]
    versions = ", ".join(
        f"{name} {e['packages'][name]}" for name in ("torch", "transformers", "trl") if e["packages"].get(name)
    )
    answers = f"{found['answers_each']} answer{'s' if found['answers_each'] != 1 else ''} each"
    return [
        f"`{command}`: every method from the same SFT model, judged by scorers that no stage was trained on, on",
        f"{found['prompts']} held-out prompts with {answers}. Brackets are 95 % intervals over prompts and seeds.",
        f"{e['cores']} cores, {where}; Python {e['python']}, {versions}.",
    ]


def readme_section(found: Numbers, command: str) -> str:
    more = "Method against method, and at equal KL: [which method](docs/which-method.md#what-we-measured)."
    picture = "![score by divergence, for every method](docs/images/compare.png)"
    return "\n".join([BEGIN, *introduction(found, command), "", *table(found), "", picture, "", more, END])


def page_section(found: Numbers, command: str) -> str:
    parts = [BEGIN, *introduction(found, command), "", *table(found)]
    parts += ["", "![score by divergence, for every method](images/compare.png)"]
    if rows := differences(found):
        parts += ["", *rows]
    if found["notes"]:
        parts += ["", *(f"* {note}" for note in found["notes"])]
    return "\n".join([*parts, END])


def put(path: Path, section: str) -> None:
    head, rest = path.read_text(encoding="utf-8").split(BEGIN)
    path.write_text(head + section + rest.split(END)[1], encoding="utf-8")


def main(run: str, command: str) -> None:
    folder = folder_of(run)
    found = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    shutil.copyfile(folder / "frontier.png", ROOT / "docs" / "images" / "compare.png")
    put(ROOT / "README.md", readme_section(found, command))
    put(ROOT / "docs" / "which-method.md", page_section(found, command))


if __name__ == "__main__":
    main(*sys.argv[1:])
