"""The pages over runs. They only read, so a reload, a second tab or an end of the server loses nothing."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from surefoot.evaluate.rated.rating import Rating
from surefoot.evaluate.rated.session import read_session, sessions
from surefoot.evaluate.ratings.proportions import Estimate
from surefoot.records import RunRecords
from surefoot.report.evaluated import evaluated_table, read_evaluated
from surefoot.report.notes import notes
from surefoot.report.numbers import Run, Sample
from surefoot.web.live.charts import LOOKS, figures, people
from surefoot.web.live.samples import COLOURS, colours_of, facts, prompt_of, tokens_of
from surefoot.web.live.shelf import Shelf
from surefoot.web.rendering import page, site

FIRST_RUNS = 3
"""Runs that are shown until somebody chooses others: those written to last."""
MOST_OF_A_STEP = 12
"""Answers of a training step that are shown."""


def make_app(folder: Path) -> Starlette:
    """The application over the runs below a folder."""
    pages = _Pages(Shelf(folder))
    return site(Route("/", pages.runs), Route("/samples", pages.samples), Route("/steps", pages.steps))


class _Pages:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def runs(self, asked: Request) -> Response:
        """Runs side by side."""
        folders = self._shelf.folders()
        wanted = asked.query_params.getlist("run") or list(folders)[:FIRST_RUNS]
        chosen = [name for name in folders if name in wanted][: len(LOOKS)]
        runs, broken = self._read({name: folders[name] for name in chosen})
        rated = {name: win_rates(folders[name]) for name in runs}
        groups = figures(runs, people(runs, rated)) if runs else []
        return page(
            "runs.html", names=list(folders), chosen=chosen, most=len(LOOKS), broken=broken,
            rows=[_row(name, run, look) for (name, run), look in zip(runs.items(), LOOKS, strict=False)],
            alerts={name: notes(run) for name, run in runs.items()},
            evaluated={name: found for name, *found in _evaluated(folders, runs)},
            groups=[(title, kind, [Markup(figure) for figure in found]) for title, kind, found in groups],
        )  # fmt: skip

    def samples(self, asked: Request) -> Response:
        """One prompt of one run through the training."""
        folders = self._shelf.folders()
        name = asked.query_params.get("run", next(iter(folders), ""))
        if name not in folders:
            return page("missing.html", 404, what="There is no run of that name.")
        runs, broken = self._read({name: folders[name]})
        prompt = prompt_of(runs[name], asked.query_params.get("row")) if runs else None
        if prompt is None:
            return page("missing.html", 404, what=broken.get(name, "The evaluations of this run have no such prompt."))
        everything = [sample for found in prompt.answers.values() for sample in found]
        colour, colours = _colour(asked, everything)
        answers = [
            (step, [(s, _shown_facts(s), tokens_of(s, colour)) for s in found])
            for step, found in prompt.answers.items()
        ]
        return page("samples.html", name=name, prompt=prompt, answers=answers, colour=colour, colours=colours)

    def steps(self, asked: Request) -> Response:
        """The answers that one step learnt from, those first whose tokens are on record."""
        folders = self._shelf.folders()
        name = asked.query_params.get("run", next(iter(folders), ""))
        if name not in folders:
            return page("missing.html", 404, what="There is no run of that name.")
        records = RunRecords(folders[name])
        known = records.sample_steps("step")
        wanted = asked.query_params.get("step", str(known[-1]) if known else "")
        if wanted not in map(str, known):
            return page("missing.html", 404, what="This run kept no answers of such a step.")
        place = known.index(int(wanted))
        samples = records.read_samples("step", known[place])
        colour, colours = _colour(asked, samples)
        shown = sorted(samples, key=lambda sample: "tokens" not in sample)[:MOST_OF_A_STEP]
        return page(
            "steps.html", name=name, step=known[place], place=place, of=len(known), colour=colour, colours=colours,
            before=known[place - 1] if place else None, after=known[place + 1] if place + 1 < len(known) else None,
            answers=[(s, _shown_facts(s), tokens_of(s, colour)) for s in shown], count=len(samples),
        )  # fmt: skip

    def _read(self, folders: Mapping[str, Path]) -> tuple[dict[str, Run], dict[str, str]]:
        """The runs, and of those that cannot be read, why."""
        runs, broken = {}, {}
        for name, path in folders.items():
            try:
                runs[name] = self._shelf.read(name, path)
            except (ValueError, OSError) as error:
                broken[name] = str(error)
        return runs, broken


def _evaluated(folders: Mapping[str, Path], runs: Mapping[str, Run]) -> Iterator[tuple[str, str, Markup]]:
    """Of each run that was evaluated: its name, against what, and the table."""
    for name in runs:
        found = read_evaluated(folders[name])
        table = evaluated_table(found)
        if found is not None and table:
            yield name, found.against, Markup(table)


def _colour(asked: Request, samples: Sequence[Sample]) -> tuple[str, dict[str, str]]:
    """What tokens are coloured by, and what they may be coloured by; nothing where no token is on record."""
    known = {name: COLOURS[name] for name in colours_of(samples)}
    if not known:
        return "none", {}
    wanted = asked.query_params.get("colour", next(iter(known)))
    known["none"] = COLOURS["none"]
    return wanted if wanted in known else next(iter(known)), known


def win_rates(run: Path) -> dict[int, Estimate]:
    """Step -> what people preferred, of ratings that are done; others stay hidden."""
    if not (run / "ratings.sqlite").is_file():
        return {}
    ratings = [Rating(run, read_session(run, step)) for step in sessions(run)]
    done = [rating.session for rating in ratings if rating.store.closed(rating.session.step) is not None]
    found = {session.step: _final_win_rate(run, session.step, session.plan["made"]) for session in done}
    return {step: share for step, share in found.items() if math.isfinite(share.low)}


@functools.lru_cache(maxsize=256)
def _final_win_rate(run: Path, step: int, _made: str) -> Estimate:
    """Of a rating that is done, whose votes never change again."""
    return Rating(run, read_session(run, step)).summary().win_rate_interval


def _row(name: str, run: Run, look: str) -> dict[str, Any]:
    """A line of the table of runs."""
    first, last = (run.evaluations[i]["metrics"] if run.evaluations else {} for i in (0, -1))
    return {
        "name": name,
        "look": look,
        "model": run.model,
        "state": run.reason or "no end on record: it is going on, or was interrupted",
        "goes_on": run.reason is None,
        "steps": max((int(m["step"]) for m in run.metrics), default=0),
        "answers": int(run.episodes[-1]) if run.metrics else 0,
        "before": _digits(first.get("eval/score")),
        "after": _digits(last.get("eval/score")),
        "kl": _digits(last.get("eval/kl_per_token")),
        "length": _digits(last.get("eval/length")),
    }


def _shown_facts(sample: Mapping[str, Any]) -> str:
    known = {name: _digits(value) for name, value in facts(sample).items() if math.isfinite(value)}
    units = {"kl": "KL {} nats", "length": "{} tokens", "score": "score {}"}
    return " · ".join(units[name].format(value) for name, value in known.items())


def _digits(value: object) -> str:
    """Three significant digits; a dash for what is no number."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "\u2013"
    return f"{value:.3g}".replace("-", "\u2212")
