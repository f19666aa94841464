"""OUTPUT/report.html: the whole pipeline on one page, from the files of its stages and from nothing else."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surefoot.live import duration
from surefoot.pipeline.outcome import Outcome, outcome_of, read_json
from surefoot.pipeline.parts import Part
from surefoot.pipeline.tables import begins_with
from surefoot.report.page import document
from surefoot.report.svg import plain, shown

_WIDTHS = "<colgroup><col style='width:8rem'><col><col style='width:9rem'></colgroup>"


def write_page(out: Path, parts: Sequence[Part]) -> Path:
    """Writes the page and says where it is."""
    path = out / "report.html"
    part = path.with_name(".report.html.part")
    part.write_text(page(out, parts), encoding="utf-8")
    part.replace(path)
    return path


def page(out: Path, parts: Sequence[Part]) -> str:
    """The page as text."""
    outcomes = [outcome_of(part) for part in parts]
    compared = [read_json(part.folder / "compare.json") for part in parts if part.kind == "compare"]
    comparison = "".join(_comparison(found) for found in compared if found)
    parts_of_page = [_headline(out, outcomes), _stages(out, outcomes), comparison, _given(outcomes)]
    footer = "Written by surefoot from the files of this folder, and from nothing else."
    return document(f"RLHF in {out.name}", parts_of_page, footer)


def _headline(out: Path, outcomes: Sequence[Outcome]) -> str:
    first = outcomes[0].part.options
    model = getattr(first, "model_name", None) or first.baseline
    facts = {
        "Stages": ", ".join(dict.fromkeys(o.part.kind for o in outcomes)),
        "Time": duration(sum(o.seconds for o in outcomes)),
    }
    return (
        f"<header><p class=kicker>RLHF in {shown(out)}</p><h1>{shown(model)}</h1><dl class=facts>"
        + "".join(f"<div><dt>{name}</dt><dd>{shown(fact)}</dd></div>" for name, fact in facts.items())
        + "</dl></header>"
    )


def _stages(out: Path, outcomes: Sequence[Outcome]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{_link(out, o)}</th><td>{shown(o.words)}</td><td>{shown(duration(o.seconds))}</td></tr>"
        for o in outcomes
    )
    head = _WIDTHS + "<thead><tr><th>Stage</th><th>What it gave</th><th>Time</th></tr></thead>"
    return f"<h2>The stages</h2><table class=words>{head}<tbody>{rows}</tbody></table>"


def _comparison(found: Mapping[str, Any]) -> str:
    """Every method beside the baseline, by each judge."""
    judges = [name for name in found["methods"][0]["means"] if name.startswith("gold/")]
    heads = "".join(f"<th>{shown(j.removeprefix('gold/'))}, change</th><th>wins against SFT</th>" for j in judges)
    rows = "".join(_method(method, judges) for method in found["methods"])
    note = (
        f"<p class=note>Small print: {shown(found['prompts'])} held-out prompts, {shown(found['answers_each'])} "
        "answers of each model to each; 95 % intervals over prompts, and over seeds where there are several. "
        "The comparison's own page has the rest: differences between methods, the frontier, the answers.</p>"
    )
    return (
        "<h2>How they compare</h2><div class=scroll><table><thead><tr><th>Method</th><th>Seeds</th>"
        f"<th>KL, nats a token</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{note}"
    )


def _method(method: Mapping[str, Any], judges: Sequence[str]) -> str:
    kl = method["means"].get("kl_per_token")
    cells = [str(len(method["seeds"])) if method["folders"] else "\u2013", _estimate(kl)]
    for judge in judges:
        cells += [
            _estimate(method["less_baseline"].get(judge), "+"),
            _estimate(method["win_rates"].get(judge), share=True),
        ]
    return f"<tr><td>{shown(method['name'])}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _estimate(found: Mapping[str, float] | None, sign: str = "", *, share: bool = False) -> str:
    """A number with its interval below it."""
    if found is None:
        return "\u2013"
    value, low, high = (
        f"{found[name]:.0%}" if share else f"{found[name]:{sign}.3f}" for name in ("value", "low", "high")
    )
    return f"{value}<small>{low} to {high}</small>"


def _link(out: Path, outcome: Outcome) -> str:
    """The stage's name, leading to its own page where it has one."""
    name = shown(outcome.part.name)
    if outcome.report is None:
        return name
    return f'<a href="{plain(Path(os.path.relpath(outcome.report, out)).as_posix())}">{name}</a>'


def _given(outcomes: Sequence[Outcome]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{shown(o.part.name)}</th><td>{shown(begins_with(o.part))}</td>"
        f"<td><code>{shown(o.fingerprint)}</code></td></tr>"
        for o in outcomes
    )
    head = _WIDTHS + "<thead><tr><th>Stage</th><th>Begins with</th><th>Fingerprint</th></tr></thead>"
    note = (
        "<p class=note>The fingerprint is of all its options, of the contents of the files they name, and of the "
        "results before it: the same fingerprint, the same stage. Its folder holds them: stage.json, config.yaml.</p>"
    )
    return f"<h2>What each was given</h2><table class=words>{head}<tbody>{rows}</tbody></table>{note}"
