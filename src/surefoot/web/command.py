"""The commands `surefoot rate` and `surefoot web`. Heavy imports wait, so that help and mistakes answer at once."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from surefoot.arguments import Parser, UsageError
from surefoot.display import visible
from surefoot.terminal import EXIT_FAILED, EXIT_OK, complain, console, say, usage_errors
from surefoot.web.serving import add_place_options, check_packages, place_of, serve

if TYPE_CHECKING:
    from surefoot.evaluate.rated.rating import Rating
    from surefoot.evaluate.rated.session import Session

_RATE_EXAMPLES = """
surefoot rate runs/first
surefoot rate runs/first --raters ana ben --pairs 100
surefoot rate runs/first --results --export ratings/
"""
_LONGEST_NAME = 40


def rate(arguments: Sequence[str]) -> int:
    """`surefoot rate`: a blind comparison of the policy with the SFT model, by people."""
    summary = "Asks people, blind, which answers are better: the policy's or those of the model it started from."
    parser = Parser("rate", summary, "RUN [--raters NAME ...] [--results] [--export DIR]", _RATE_EXAMPLES)
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    parser.add_argument("--raters", nargs="+", default=["rater"], metavar="NAME", help="a link for each [rater]")
    parser.add_argument("--step", type=int, metavar="N", help="rate the policy after this step [the newest evaluated]")
    parser.add_argument("--pairs", type=int, metavar="N", help="how many, decided once, before the first vote [50]")
    parser.add_argument("--pairs-file", metavar="FILE", help="pairs made elsewhere, in the form of rate/pairs_*.jsonl")
    parser.add_argument("--seed", type=int, metavar="N", help="of the choice of pairs and of all orders [0]")
    parser.add_argument("--results", action="store_true", help="say what the votes say, once the rating is done")
    parser.add_argument("--export", metavar="DIR", help="write the votes as data sets, once the rating is done")
    add_place_options(parser, 8765)
    given = parser.read(arguments)
    place = place_of(given.host, given.name, given.port, given.i_know)
    check_packages()
    run = Path(given.run)
    if not run.is_dir():
        raise UsageError(f"{run} is no folder of a run: give the output_dir of one, which holds its samples/")
    _check_names(given.raters)
    from surefoot.evaluate.rated.rating import Rating

    with usage_errors():
        rating = Rating(run, _session(run, given))
    if given.results or given.export:
        return _tell(rating, given)
    for rater in given.raters:
        rating.invite(rater)

    def ready(links: dict[str, str]) -> None:
        print(_headline(run, rating), flush=True)
        if not place.is_local:
            complain(f"warning: {place.host} can be reached from other machines, and nothing is encrypted")
        for rater, link in links.items():
            print(f"{visible(rater):<12} {link}", flush=True)
        print("Ctrl-C ends the page; every vote is kept as it is given.", flush=True)

    from surefoot.web.rate.app import make_app

    serve(lambda: make_app(rating), place, given.raters, ready)
    done = ", ".join(f"{visible(r)} {n} of {of}" for r, (n, of) in rating.store.standing(rating.session.step).items())
    print(f"stopped; votes: {done}. They are in {rating.store.path}")
    return EXIT_OK


_WEB_EXAMPLES = """
surefoot web
surefoot web runs/first
"""


def web(arguments: Sequence[str]) -> int:
    """`surefoot web`: the runs below a folder, side by side, while they go on."""
    summary = "Shows runs in the browser while they go on: curves, what to look at, answers through the training."
    parser = Parser("web", summary, "[RUNS]", _WEB_EXAMPLES)
    parser.add_argument("runs", nargs="?", default="runs", metavar="RUNS", help="folder of runs, or of one [runs]")
    add_place_options(parser, 8764)
    given = parser.read(arguments)
    place = place_of(given.host, given.name, given.port, given.i_know)
    check_packages()
    folder = Path(given.runs)
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: give the one that your runs are in")

    def ready(links: dict[str, str]) -> None:
        if not place.is_local:
            complain(f"warning: {place.host} can be reached from other machines, and nothing is encrypted")
        print(f"runs of      {visible(str(folder))}\npage         {links['reader']}\nCtrl-C ends it.", flush=True)

    from surefoot.web.live.app import make_app

    serve(lambda: make_app(folder), place, ["reader"], ready)
    print("stopped")
    return EXIT_OK


def _check_names(raters: Sequence[str]) -> None:
    for name in raters:
        if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable() or raters.count(name) > 1:
            raise UsageError(f"--raters {visible(name)!r}: give each rater a short name of his own")


def _session(run: Path, given: argparse.Namespace) -> "Session":
    """The rating to go on with, or a new one.

    Without --step it is the newest that was begun; where none was, one of the newest evaluation is begun.
    """
    from surefoot.evaluate.rated.session import begin, read_session, sessions

    begun = sessions(run)
    step = given.step if given.step is not None else begun[-1] if begun else None
    if step is not None and step in begun:
        if given.pairs is not None or given.pairs_file is not None or given.seed is not None:
            raise UsageError(
                f"the rating of step {step} was begun already, and what it asks is decided: leave out --pairs, "
                "--pairs-file and --seed, or rate another --step"
            )
        return read_session(run, step)
    if given.results or given.export:
        raise UsageError(f"{run} has no rating{'' if step is None else f' of step {step}'} yet: `surefoot rate {run}`")
    if given.pairs is not None and given.pairs < 1:
        raise UsageError(f"--pairs {given.pairs}: at least one is needed")
    file = None if given.pairs_file is None else Path(given.pairs_file)
    return begin(run, count=given.pairs or 50, seed=given.seed or 0, step=step, given=file)


def _headline(run: Path, rating: "Rating") -> str:
    from surefoot.evaluate.ratings.plan import SECONDS_A_VOTE, duration

    plan = rating.session.plan
    kinds = ", ".join(f"{count} {kind}" for kind, count in plan["pairs"].items() if count)
    screens = plan["showings_of_each_rater"]
    lines = [
        f"rating       {visible(str(run))}, the policy after step {rating.session.step}: {kinds}",
        f"takes        {screens} screens a rater, about {duration(SECONDS_A_VOTE * screens)}",
        *(f"note         {visible(note)}" for note in plan["notes"]),
    ]
    same = sum(plan["identical_pairs_left_out_as_ties"].values())
    return "\n".join(lines + ([f"left out     {same} pairs of identical answers; they count as ties"] if same else []))


def _tell(rating: "Rating", given: argparse.Namespace) -> int:
    """Results on the terminal, or that they are hidden still."""
    why = rating.open()
    if why is None:
        standing = rating.store.standing(rating.session.step)
        done = ", ".join(f"{visible(r)} {n} of {of}" for r, (n, of) in standing.items()) or "none"
        complain(f"results are hidden {rating.session.plan['results_open'].replace('when', 'until')}; votes: {done}")
        return EXIT_FAILED
    if given.results:
        say(console(), rating.summary().text())
        same = f" {rating.identical} pairs of identical answers were left out: ties." if rating.identical else ""
        say(console(), f"The voting ended because {why}.{same}")
    if given.export:
        for name, rows in rating.export(Path(given.export)).items():
            print(f"{Path(given.export) / name}: {rows} rows")
    return EXIT_OK
