"""report.html of a comparison: one file in the style of a run's report."""

from collections.abc import Sequence
from typing import Any

from surefoot.evaluate.picture import frontier_charts
from surefoot.evaluate.results import Result
from surefoot.evaluate.tables import Cells, sentences, tables
from surefoot.report.page import document
from surefoot.report.svg import shown

_PROMPTS = 6


def page(result: Result, samples: Sequence[dict[str, Any]], name: str = "compare") -> str:
    """The page as text; of the samples, the first answer of each method to the first prompts.

    `name`: of the file with the numbers.
    """
    parts = [_headline(result), _verdicts(result)]
    charts = "".join(frontier_charts(result))
    parts += [f"<h2>What a score costs</h2><div class='charts wide'>{charts}</div>"] if charts else []
    parts += [_table(cells) for cells in tables(result)]
    parts += [_notes(result), _samples(samples), _environment(result)]
    footer = f"Written by surefoot. {name}.json holds every number, samples.jsonl every answer."
    return document("Evaluation" if result.duels else "Comparison", parts, footer)


def _headline(result: Result) -> str:
    runs = [row.method.name for row in result.rows if row.method.folders]
    facts = {
        "Held-out prompts": f"{result.facts['prompts']:,}",
        "Answers of each model": f"{result.facts['answers_each']} a prompt",
        "Judged by": ", ".join(
            dict.fromkeys(by.removeprefix("gold/") for by in [*result.golds, *(duel.by for duel in result.duels)])
        ),
        "Baseline": result.facts["baseline"],
    }
    cells = "".join(f"<div><dt>{shown(name)}</dt><dd>{shown(fact)}</dd></div>" for name, fact in facts.items())
    kind = "Evaluation" if result.duels else "Comparison"
    return (
        f"<header><p class=kicker>{kind} on prompts that no run was trained on</p>"
        f"<h1>{shown(', '.join(runs))}</h1><dl class=facts>{cells}</dl></header>"
    )


def _verdicts(result: Result) -> str:
    return "<ul>" + "".join(f"<li>{shown(sentence)}</li>" for sentence in sentences(result)) + "</ul>"


def _table(cells: Cells) -> str:
    head = "".join(f"<th>{shown(text)}</th>" for text in cells.heads)
    lines = "".join("<tr>" + "".join(f"<td>{shown(text)}</td>" for text in line) + "</tr>" for line in cells.lines)
    title = shown(cells.title[:1].upper() + cells.title[1:])
    table = f"<table class=even><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    return f"<h2>{title}</h2><div class=scroll>{table}</div>"


def _notes(result: Result) -> str:
    if not result.notes:
        return ""
    items = "".join(f"<li>{shown(sentence)}</li>" for sentence in result.notes)
    return f"<h2>Before you believe it</h2><ul class=notes>{items}</ul>"


def _samples(samples: Sequence[dict[str, Any]]) -> str:
    """The first prompts with one answer of every method, none picked."""
    prompts = list(dict.fromkeys(s["row"] for s in samples))[:_PROMPTS]
    cards = []
    for row in prompts:
        of_prompt = [s for s in samples if s["row"] == row]
        first = {s["method"]: s for s in reversed(of_prompt)}
        names = dict.fromkeys(s["method"] for s in of_prompt)
        answers = "".join(_answer(first[name]) for name in names)
        text = f"<div class=text dir=auto>{shown(of_prompt[0]['prompt'])}</div>"
        prompt = f"<div class=prompt><h3>Prompt {row}</h3>{text}</div>"
        cards.append(f"<article class=sample>{prompt}{answers}</article>")
    where = "The first prompts and each method's first answer, by its first seed; none picked."
    return f"<h2>Samples</h2><p class=soft>{where}</p>{''.join(cards)}"


def _answer(sample: dict[str, Any]) -> str:
    scores = " ".join(f"<span>{shown(name)} {value:.3g}</span>" for name, value in sample["scores"].items())
    text = shown(sample["response"]) or "(nothing)"
    return f"<div><h3><b>{shown(sample['method'])}</b> {scores}</h3><div class=text dir=auto>{text}</div></div>"


def _environment(result: Result) -> str:
    env = result.facts["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in env["packages"].items() if version)
    facts = {"Command": env["command"], "Device": env["device"], "Packages": packages,
             "Options, SHA-256": result.facts["config_sha256"], "Intervals": result.facts["intervals"]}  # fmt: skip
    lines = "".join(
        f"<tr><th scope=row>{name}</th><td colspan=2>{shown(fact)}</td></tr>" for name, fact in facts.items()
    )
    return f"<h2>Environment</h2><table class=words><tbody>{lines}</tbody></table>"
