"""Writes the result of `make rlhf` into README.md, from its folder: `python tools/show_rlhf.py RUN "make rlhf"`.

Nothing in the table is typed: every number is read from what the stages and the comparison left.
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surefoot.pipeline.outcome import read_json
from surefoot.pipeline.record import read_record

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- rlhf:begin -->", "<!-- rlhf:end -->"


def cell(found: Mapping[str, float] | None, digits: int = 2, sign: str = "", *, share: bool = False) -> str:
    if found is None:
        return "-"
    ends = (found["value"], found["low"], found["high"])
    value, low, high = (f"{x:.0%}" if share else f"{x:{sign}.{digits}f}" for x in ends)
    return f"**{value}** [{low}, {high}]"


def row(method: Mapping[str, Any], judges: list[str]) -> str:
    cells = [method["name"], cell(method["means"].get("kl_per_token"), 3)]
    for judge in judges:
        cells += [cell(method["less_baseline"].get(judge), 2, "+"), cell(method["win_rates"].get(judge), share=True)]
    return "| " + " | ".join(cells) + " |"


def section(run: Path, command: str) -> str:
    found, card = read_json(run / "compare" / "compare.json"), read_json(run / "reward" / "reward-card.json")
    folders = sorted(path.parent for path in run.glob("*/stage.json") if ".old" not in path.parent.name)
    seconds = sum(record.seconds for folder in folders if (record := read_record(folder)) is not None)
    judges = [name for name in found["methods"][0]["means"] if name.startswith("gold/")]
    seeds = max(len(method["seeds"]) for method in found["methods"])
    heads = [f"{judge.removeprefix('gold/')}, change | wins against SFT" for judge in judges]
    right, ahead = card["accuracy"], card["beyond_length"]
    return "\n".join(
        [
            BEGIN,
            f"`{command}`: the whole of it on SmolLM2-135M, offline, {seconds / 60:.0f} minutes on two CPU cores:",
            "SFT on sentences of film reviews; a stand-in rater (a classifier of film reviews, with a person's noise)",
            "chooses between the model's own answers; a reward model and DPO learn from these choices, PPO from the",
            "reward model.",
            f"The reward model gets {right['value']:.0%} [{right['low']:.0%}, {right['high']:.0%}] of {card['pairs']} "
            f"held-out pairs right, {ahead['value'] * 100:+.0f} points [{ahead['low'] * 100:+.0f}, "
            f"{ahead['high'] * 100:+.0f}] from",
            f"what always taking the {card['length_rule']} answer gets. {found['prompts']} held-out prompts, "
            f"{seeds} {'seed' if seeds == 1 else 'seeds'}, 95 % intervals:",
            "",
            f"| | KL, nats a token | {' | '.join(heads)} |",
            f"| --- | --- | {' | '.join(['--- | ---'] * len(judges))} |",
            *(row(method, judges) for method in found["methods"]),
            "",
            "VADER, a lexicon rated by people, is seen by no stage. The other judge is the rater itself, of whose",
            "choices, not scores, reward model and DPO learnt. [How it works](docs/rlhf.md).",
            "",
            "![reward and KL of these methods](docs/images/rlhf.png)",
            END,
        ]
    )


def main(run: str, command: str) -> None:
    readme = ROOT / "README.md"
    head, rest = readme.read_text().split(BEGIN)
    readme.write_text(head + section(Path(run), command) + rest.split(END)[1])
    (ROOT / "docs" / "images").mkdir(exist_ok=True)
    shutil.copy(Path(run) / "compare" / "frontier.png", ROOT / "docs" / "images" / "rlhf.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
