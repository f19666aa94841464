"""report.html: one file that needs no network and no script, and lets none of its texts become either."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surefoot.report.curves import sections
from surefoot.report.evaluated import Evaluated, evaluated_table, read_evaluated
from surefoot.report.notes import notes
from surefoot.report.numbers import Interval, Row, Run, Sample, before_after, changed_options, number, pairs, read_run
from surefoot.report.stages import TITLES, reward_card, stage_of, stage_sections, stage_table
from surefoot.report.style import STYLE
from surefoot.report.svg import plain, shown

_FIRST_PAIRS = 6
_FOOTER = "Written by surefoot from the files of this run's folder, and from nothing else."
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def write_report(run_dir: str | Path) -> Path:
    """Writes report.html into a run folder from what the folder holds, and says where it is.

    Raises:
        ValueError: the folder holds no run.
    """
    path = Path(run_dir) / "report.html"
    part = path.with_name(".report.html.part")
    run = read_run(run_dir)
    stage = stage_of(run)
    evaluated = read_evaluated(path.parent)
    text = page(run, evaluated) if stage is None else stage_page(run, stage, path.parent, evaluated)
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path


def page(run: Run, evaluated: Evaluated | None = None) -> str:
    """The report as text."""
    rows = before_after(run)
    body = [_headline(run, rows), _table(run, rows), _evaluated(evaluated), _notes(run)]
    for title, kind, figures in sections(run):
        if figures:
            body.append(f"<h2>{title}</h2><div class='charts {kind}'>{''.join(figures)}</div>")
    body += [_samples(run), _options(run), _environment(run)]
    return document(run.model, body, _FOOTER)


def stage_page(run: Run, stage: str, folder: Path, evaluated: Evaluated | None = None) -> str:
    """The report of a stage beside PPO as text."""
    facts = {
        "Steps": f"{max((int(m['step']) for m in run.metrics), default=0):,}",
        "Rows learnt": f"{int(run.episodes[-1]):,}" if run.metrics else "0",
        "Time in steps": _duration(sum(s for s in run.series("time/step") if math.isfinite(s))),
    }
    body = [_header(run, TITLES[stage], "", facts), stage_table(run, stage), reward_card(folder)]
    body.append(_evaluated(evaluated))
    for title, kind, figures in stage_sections(run, stage):
        body.append(f"<h2>{title}</h2><div class='charts {kind}'>{''.join(figures)}</div>")
    lines = "".join(f"<tr><td>{shown(name)}</td><td>{shown(_option(x))}</td></tr>" for name, x in run.config.items())
    head = "<thead><tr><th>Option</th><th>This run</th></tr></thead>"
    body += [f"<h2>Options</h2><table class=words>{head}<tbody>{lines}</tbody></table>", _environment(run)]
    return document(run.model, body, _FOOTER)


def document(title: str, parts: Sequence[str], footer: str) -> str:
    """A page in the report's style around parts that are markup already; empty ones are left out."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{plain(title)} · surefoot</title><style>{STYLE}</style></head><body><main>"
        + "\n".join(part for part in parts if part)
        + f"<footer>{shown(footer)}</footer></main></body></html>\n"
    )


# ---------------------------------------------------------------------------------------------- headline and table
def _headline(run: Run, rows: list[Row]) -> str:
    seconds = sum(s for name in ("time/step", "time/generate") for s in run.series(name) if math.isfinite(s))
    facts = {
        "Steps": f"{max((int(m['step']) for m in run.metrics), default=0):,}",
        "Answers seen": f"{int(run.episodes[-1]):,}" if run.metrics else "0",
        "Time in steps": _duration(seconds) if seconds else "not recorded",
    }
    return _header(run, "PPO", _sentence(run, rows), facts)


def _header(run: Run, kind: str, sentence: str, facts: dict[str, str]) -> str:
    facts = facts | {"Why it ended": run.reason or "not recorded: it is still running, or was interrupted"}
    started = str(run.environment.get("started", ""))[:16].replace("T", " ")
    kicker = f"{kind} run {run.name}" + (f" · {started} UTC" if started else "")
    return (
        f"<header><p class=kicker>{shown(kicker)}</p><h1>{shown(run.model)}</h1>{sentence}<dl class=facts>"
        + "".join(f"<div><dt>{shown(name)}</dt><dd>{shown(fact)}</dd></div>" for name, fact in facts.items())
        + "</dl></header>"
    )


def _sentence(run: Run, rows: list[Row]) -> str:
    score = next((row for row in rows if row.label == "Score"), None)
    if score is None or len(run.evaluations) < 2:
        return ""
    moved = "rose" if score.change > 0 else "fell" if score.change < 0 else "stayed"
    by = f" by <b>{_number(abs(score.change))}</b>" if score.change else ""
    if by and score.change_interval:
        prompts = len({s.get("row") for s in run.evaluations[-1]["samples"]})
        low, high = sorted(abs(x) if score.change_interval[0] * score.change_interval[1] > 0 else x
                           for x in score.change_interval)  # fmt: skip
        by += f" (95 % interval over the same {prompts} prompts: {_interval((low, high))})"
    ends = f"from {_number(score.before)} to <b>{_number(score.after)}</b>"
    return f"<p class=lead>The evaluation score {moved}{by}, {ends}.</p>"


def _table(run: Run, rows: list[Row]) -> str:
    if not rows:
        return "<h2>Before and after</h2><p class=soft>This run has no evaluations on record.</p>"
    first, last = run.evaluations[0], run.evaluations[-1]
    one = first is last
    heads = [f"Before<br>step {int(first['step'])}", f"After<br>step {int(last['step'])}", "Change"]
    head = "".join(f"<th>{text}</th>" for text in ([f"Step {int(first['step'])}"] if one else heads))
    lines = "".join(f"<tr>{_cells(row, one=one)}</tr>" for row in rows)
    return (
        "<h2>Before and after</h2><div class=scroll><table>"
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
        "<p class=note>Small print: 95 % bootstrap intervals over prompts; of changes, over prompts in pairs. "
        "It speaks of these prompts and this one run, not of another seed.</p>"
    )


def _cells(row: Row, *, one: bool) -> str:
    label = f"<td>{shown(row.label)}" + (f"<small>{shown(row.unit)}</small>" if row.unit else "") + "</td>"
    before = _cell(_number(row.before), row.before_interval)
    if one:
        return label + before
    return (
        label
        + before
        + _cell(_number(row.after), row.after_interval)
        + _cell(_signed(row.change), row.change_interval)
    )


def _cell(text: str, interval: Interval | None) -> str:
    return (
        f"<td>{text}"
        + (f"<small>{_interval(interval)}</small>" if interval and interval[0] < interval[1] else "")
        + "</td>"
    )


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{_number(interval[0])} to {_number(interval[1])}"


def _number(value: float) -> str:
    """Three significant digits, no exponent for everyday sizes."""
    if not math.isfinite(value):
        return "\u2013"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:,.{min(digits, 3)}f}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"
    return text.replace("-", "\u2212")


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + _number(value)


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 1:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1g} s"
    return f"{minutes:.0f} min" if hours < 1 else f"{int(hours)} h {int(minutes) % 60:02d} min"


def _evaluated(found: Evaluated | None) -> str:
    table = evaluated_table(found)
    return f"<h2>Against {shown(found.against)}</h2>{table}" if found is not None and table else ""


def _notes(run: Run) -> str:
    found = notes(run)
    if not found:
        return ""
    items = "".join(f"<li>{shown(sentence)}</li>" for sentence in found)
    proof = "<p class=note>These point at numbers; they prove nothing.</p>"
    return f"<h2>Worth a look</h2><ul class=notes>{items}</ul>{proof}"


# ---------------------------------------------------------------------------------------------- samples
def _samples(run: Run) -> str:
    both = [_pair(before, after) for before, after in pairs(run)]
    where = "The same prompts at the first and the last evaluation, in the order of the prompts; none picked."
    if not both:
        both = [_single(sample) for sample in run.last_samples]
        where = f"From {run.last_samples_from}, in the order they were made; none picked."
    if not both:
        return "<h2 id=samples>Samples</h2><p class=soft>This run kept no samples.</p>"
    rest = both[_FIRST_PAIRS:]
    more = f"<details><summary>{len(rest)} more</summary>{''.join(rest)}</details>" if rest else ""
    return f"<h2 id=samples>Samples</h2><p class=soft>{shown(where)}</p>{''.join(both[:_FIRST_PAIRS])}{more}"


def _pair(before: Sample, after: Sample) -> str:
    answers = _answer("Before", before) + _answer("After", after)
    return f"<article class=sample>{_prompt(after)}<div class=two>{answers}</div></article>"


def _single(sample: Sample) -> str:
    return f"<article class=sample>{_prompt(sample)}{_answer('Answer', sample)}</article>"


def _prompt(sample: Sample) -> str:
    row = sample.get("row")
    title = "Prompt" if row is None else f"Prompt {row}"
    return f"<div class=prompt><h3>{shown(title)}</h3>{_text(sample.get('prompt'))}</div>"


def _answer(title: str, sample: Sample) -> str:
    facts = [f"score <b>{_number(number(sample.get('score')))}</b>"]
    parts = sample.get("scores") or {}
    if len(parts) > 1:
        facts += [f"{shown(name)} {_number(number(value))}" for name, value in parts.items()]
    facts.append(f"KL {_number(number(sample.get('kl')))} nats")
    cut = ", cut off" if sample.get("finish_reason") == "length" else ""
    facts.append(f"{shown(sample.get('length'))} tokens{cut}")
    said = " ".join(f"<span>{fact}</span>" for fact in facts)
    return f"<div><h3><span>{title}</span> {said}</h3>{_text(sample.get('response'))}</div>"


def _text(text: object) -> str:
    return "<p class='text empty'>(nothing)</p>" if not text else f"<div class=text dir=auto>{shown(text)}</div>"


# ---------------------------------------------------------------------------------------------- small print
def _options(run: Run) -> str:
    rows = changed_options(run.config)
    if not rows:
        return "<h2>Options</h2><p class=soft>Every option is at its default.</p>" if run.config else ""
    lines = "".join(
        f"<tr><td>{shown(name)}</td><td>{shown(_option(value))}</td><td>{shown(_option(usual))}</td></tr>"
        for name, value, usual in rows
    )
    head = "<thead><tr><th>Option</th><th>This run</th><th>Default</th></tr></thead>"
    return (
        "<h2>Options</h2><p class=soft>Those that differ from the defaults; config.yaml holds them all.</p>"
        f"<table class=words>{head}<tbody>{lines}</tbody></table>"
    )


def _option(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _environment(run: Run) -> str:
    env: Mapping[str, Any] = run.environment
    if not env:
        return ""
    packages = ", ".join(f"{n} {v}" for n, v in (env.get("packages") or {}).items() if v)
    facts = {
        "Command": env.get("command"),
        "Device": env.get("device"),
        "Threads": env.get("threads"),
        "System": env.get("system"),
        "Python": env.get("python"),
        "Packages": packages,
    }
    lines = "".join(
        f"<tr><th scope=row>{name}</th><td colspan=2>{shown(fact)}</td></tr>" for name, fact in facts.items() if fact
    )
    return f"<h2>Environment</h2><table class=words><tbody>{lines}</tbody></table>"
