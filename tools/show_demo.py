"""Writes the demo's result into README.md from the files of its run: `python tools/show_demo.py RUN "make demo"`.

Nothing in the table is typed: every number is computed again from the answers in the run folder.
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from surefoot.callbacks import Evaluation
from surefoot.demo.run import measures
from surefoot.demo.scorers import vader
from surefoot.evaluate.statistics import compare
from surefoot.report import write_picture
from surefoot.tracking import RunFolder

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- demo:begin -->", "<!-- demo:end -->"


def evaluation(folder: RunFolder, record: dict[str, Any]) -> Evaluation:
    return Evaluation(
        record["step"], record["episode"], record["metrics"], folder.read_samples("eval", record["step"])
    )


def cell(found: Any, digits: int, sign: str = "") -> str:
    value, low, high = (f"{x:{sign}.{digits}f}" for x in (found.value, found.low, found.high))
    return f"**{value}** [{low}, {high}]"


def section(folder: RunFolder, command: str) -> str:
    records = folder.read_evaluations()
    before, after = evaluation(folder, records[0]), evaluation(folder, records[-1])
    story: Any = SimpleNamespace(reward_label="score (IMDb classifier, log-odds)", witnesses={"VADER": vader})
    rows = []
    for measure in measures(story, before, after):
        found = compare(measure)
        cells = [cell(found.before, measure.digits), cell(found.after, measure.digits)]
        rows.append(f"| {measure.name} | {' | '.join(cells)} | {cell(found.change, measure.digits, '+')} |")
    metrics = folder.read_metrics()
    seconds = sum(m["time/step"] + m["time/generate"] for m in metrics)
    return "\n".join(
        [
            BEGIN,
            f"`{command}`: SmolLM2-135M continues the openings of film reviews. PPO raises the score of",
            "a classifier, and a lexicon that training never sees looks on.",
            f"{len(metrics)} steps in {seconds / 60:.0f} minutes on two CPU cores, judged on {len(after.samples)}",
            "other openings before and after, with 95 % bootstrap intervals:",
            "",
            "| | before | after | change |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            "![score and KL of that run](docs/images/demo.png)",
            END,
        ]
    )


def main(run: str, command: str) -> None:
    folder = RunFolder(run)
    readme = ROOT / "README.md"
    head, rest = readme.read_text().split(BEGIN)
    readme.write_text(head + section(folder, command) + rest.split(END)[1])
    (ROOT / "docs" / "images").mkdir(exist_ok=True)
    write_picture(run, ROOT / "docs" / "images" / "demo.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
