"""The demo's course: build, train, compare, tell. Every number that is shown is computed in the run that shows it."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from surefoot.callbacks import Evaluation, TrainResult
from surefoot.demo.scorers import distinct_pairs
from surefoot.demo.stories import Story, quick_story, real_story
from surefoot.display import visible, visible_lines
from surefoot.evaluate.card import write_card
from surefoot.evaluate.statistics import Comparison, Estimate, Measure, compare
from surefoot.live import LiveView, duration
from surefoot.report import write_report
from surefoot.trainer import PPOTrainer

SAMPLES = 5


def run(quick: bool, seed: int, output_dir: str | None, console: Console | None = None) -> int:
    """The whole demo; `surefoot.demo.run_demo` says the rest."""
    console = console or Console()
    transformers.utils.logging.disable_progress_bar()
    began = time.monotonic()
    folder = output_dir or f"runs/demo-{'quick-' if quick else ''}{time.strftime('%Y%m%d-%H%M%S')}"
    build = quick_story if quick else real_story
    try:
        story = build(seed, folder, lambda line: _say(console, line))
    except ModuleNotFoundError as error:
        _say(console, str(error))
        return 1
    result = train(story, console)
    before, after = result.evaluations[0], result.evaluations[-1]
    measured = [(measure, compare(measure)) for measure in measures(story, before, after)]
    console.print()
    console.print(table(measured, len(after.samples)))
    _say(console, verdict(measured))
    for part in samples(before, after, seed):
        console.print(part)
    report = write_report(folder)
    write_card(folder)
    _say(console, f"\nReport:  {Path(report).resolve()}\nModel:   {(Path(folder) / 'model').resolve()}")
    took = duration(time.monotonic() - began)
    _say(console, f"{result.steps} steps, {result.episodes} answers, {took}: {result.reason}.")
    return 0


def _say(console: Console, text: str) -> None:
    console.print(visible_lines(text), markup=False, highlight=False, soft_wrap=True)


def train(story: Story, console: Console) -> TrainResult:
    """The run itself. Its last checkpoint, several times the model's size, is not kept: nobody goes on from a demo."""
    with LiveView(console) as view:
        trainer = PPOTrainer(
            story.config,
            story.model,
            None,
            story.tokenizer,
            reward=story.reward,
            dataset=story.openings.training,
            eval_dataset=story.openings.held_out,
            callbacks=[view],
        )
        result = trainer.train()
    shutil.rmtree(Path(str(story.config.output_dir)) / "checkpoints", ignore_errors=True)
    return result


def measures(story: Story, before: Evaluation, after: Evaluation) -> list[Measure]:
    """What the table shows, from the answers to the held-out prompts."""
    old, new = _by_row(before), _by_row(after)
    texts = [[str(s["response"]) for s in side] for side in (old, new)]
    lengths = [[float(s["length"]) for s in side] for side in (old, new)]
    kl_old, kl_new = ([float(s["kl"]) for s in side] for side in (old, new))
    (pairs_old, counts_old), (pairs_new, counts_new) = map(distinct_pairs, texts)
    found = [Measure(story.reward_label, [s["score"] for s in old], [s["score"] for s in new])]
    found += [Measure(f"{name} (not trained on)", judge(texts[0]), judge(texts[1]))
              for name, judge in story.witnesses.items()]  # fmt: skip
    found += [
        Measure("KL, nats per token", kl_old, kl_new, lengths[0], lengths[1]),
        Measure("length, tokens", lengths[0], lengths[1], digits=1),
        Measure("distinct-2", pairs_old, pairs_new, counts_old, counts_new),
    ]
    return found


def _by_row(evaluation: Evaluation) -> list[dict[str, Any]]:
    return sorted(evaluation.samples, key=lambda sample: int(sample["row"]))


def table(measured: Sequence[tuple[Measure, Comparison]], prompts: int) -> Table:
    """One row a measure, each number with its 95 % interval: as half its width, and of the change as its ends."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    shown.add_column(f"{prompts} held-out prompts")
    for name in ("before", "after", "change [95 %]"):
        shown.add_column(name, justify="right", no_wrap=True)
    for measure, found in measured:
        before, after = (_with_reach(estimate, measure.digits) for estimate in (found.before, found.after))
        shown.add_row(measure.name, before, after, _with_ends(found.change, measure.digits))
    return shown


def _with_reach(estimate: Estimate, digits: int) -> str:
    return f"{estimate.value:.{digits}f} ± {(estimate.high - estimate.low) / 2:.{digits}f}"


def _with_ends(estimate: Estimate, digits: int) -> str:
    value, low, high = (f"{x:+.{digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def verdict(measured: Sequence[tuple[Measure, Comparison]]) -> str:
    """In words: what rose, what fell, and of what the prompts are too few to tell."""
    words = {1: "rose", 0: "did not change beyond chance", -1: "fell"}
    told = [(m.name, words[c.change.direction]) for m, c in measured if not m.name.startswith("KL")]
    return "; ".join(f"{name} {word}" for name, word in told) + "."


def samples(before: Evaluation, after: Evaluation, seed: int) -> list[Table]:
    """Five prompts, drawn by the seed, with the answers before and after."""
    import random

    old, new = _by_row(before), _by_row(after)
    chosen = random.Random(seed).sample(range(len(old)), min(SAMPLES, len(old)))
    return [_side_by_side(old[row], new[row]) for row in sorted(chosen)]


def _side_by_side(old: dict[str, Any], new: dict[str, Any]) -> Table:
    title = Text(visible(f"{old['prompt']} …"))
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    for name, sample in (("before", old), ("after", new)):
        shown.add_column(f"{name}: {sample['score']:+.2f}", ratio=1)
    shown.add_row(Text(_one_line(old)), Text(_one_line(new)))
    return shown


def _one_line(sample: dict[str, Any]) -> str:
    return visible(" ".join(str(sample["response"]).split()))
