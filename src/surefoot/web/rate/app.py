"""The pages of a rating: one decision a screen. Every change is a plain form, so they work without JavaScript."""

import math
import re
from collections.abc import Mapping
from typing import Any, cast, get_args
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from surefoot.evaluate.rated.rating import EVIDENCE, Judged, Rating, seconds_left
from surefoot.evaluate.rated.store import Answer
from surefoot.evaluate.ratings.plan import duration
from surefoot.web.rendering import page, site

LONGEST_NOTE = 2000
_SHOWN_JUDGED = 100
_NOTICES = {
    "before": "That screen had its vote already; nothing was counted twice.",
    "quick": "That came too soon after the vote before, so it was taken for a double click and not counted.",
    "undone": "Your last vote was taken back.",
    "nothing": "There is no vote to take back.",
}
_AFTER = {"counted": "/", "closed": "/results", "counted before": "/?said=before", "too quick": "/?said=quick"}


def make_app(rating: Rating) -> Starlette:
    """The application; who asks is in `request.state.who`, a rater's name."""
    pages = _Pages(rating)
    return site(
        Route("/", pages.screen),
        Route("/vote", pages.vote, methods=["POST"]),
        Route("/undo", pages.undo, methods=["POST"]),
        Route("/results", pages.results, methods=["GET"]),
        Route("/results", pages.open, methods=["POST"]),
    )


class _Pages:
    def __init__(self, rating: Rating) -> None:
        self._rating, self._store, self._step = rating, rating.store, rating.session.step

    def screen(self, asked: Request) -> Response:
        """The pair that a rater is at."""
        who, closed = asked.state.who, self._store.closed(self._step)
        if closed is not None:
            return RedirectResponse("/results", 303)
        done, of = self._store.standing(self._step)[who]
        at = self._store.screen(self._step, who)
        notice = _NOTICES.get(asked.query_params.get("said", ""), "")
        if at is None:
            return page("done.html", notice=notice, of=of, others=self._others(who))
        pair = self._rating.session.items[at.showing.item].pair
        texts = [text.strip() for text in ((pair.a, pair.b) if at.showing.left == "a" else (pair.b, pair.a))]
        left = duration(seconds_left(self._store.seconds(self._step, who), of - done))
        why = self._rating.why_open()
        return page(
            "rate.html", place=at.place, number=done + 1, of=of, left=left, prompt=_messages(pair.prompt), texts=texts,
            question=self._rating.session.plan["question"], notice=notice,
            enough=why if why == EVIDENCE else None, longest=LONGEST_NOTE,
        )  # fmt: skip

    async def vote(self, asked: Request) -> Response:
        """Counts a vote and leads to the next screen."""
        given = _form(await asked.body())
        place, answer, note = given.get("place", ""), given.get("answer", ""), given.get("note", "").strip()
        if not re.fullmatch("[0-9]{1,6}", place) or answer not in get_args(Answer) or len(note) > LONGEST_NOTE:
            return Response("That is no vote. Nothing was changed.\n", 400, media_type="text/plain")
        said, seconds = cast(Answer, answer), _seconds(given.get("seconds", ""))
        taken = await run_in_threadpool(
            self._store.vote, self._step, asked.state.who, int(place), said, seconds=seconds, note=note
        )
        return RedirectResponse(_AFTER[taken], 303)

    async def undo(self, asked: Request) -> Response:
        """Takes the last vote back and leads to its screen."""
        undone = await run_in_threadpool(self._store.undo, self._step, asked.state.who)
        return RedirectResponse("/?said=undone" if undone else "/?said=nothing", 303)

    async def open(self, _asked: Request) -> Response:
        """Ends the voting and shows what it says, if it may be shown."""
        await run_in_threadpool(self._rating.open)
        return RedirectResponse("/results", 303)

    def results(self, asked: Request) -> Response:
        """What the votes say, or that it is hidden still."""
        why = self._store.closed(self._step)
        if why is None:
            opens = self._rating.session.plan["results_open"]
            return page("hidden.html", standing=self._store.standing(self._step), opens=opens)
        judged, only = self._rating.judged(), asked.query_params.get("only", "")
        if only == "disagreed":
            judged = sorted((j for j in judged if j.disagrees), key=lambda j: -abs(j.margin or 0.0))
        sentence, _, numbers = self._rating.summary().text().partition("\n")
        return page(
            "results.html", why=why, identical=self._rating.identical, sentence=sentence, numbers=numbers, only=only,
            plan=self._rating.session.plan,
            judged=[_told(j) for j in judged[:_SHOWN_JUDGED]], count=len(judged),
        )  # fmt: skip

    def _others(self, who: str) -> dict[str, tuple[int, int]]:
        return {rater: counts for rater, counts in self._store.standing(self._step).items() if rater != who}


def _form(body: bytes) -> dict[str, str]:
    """The fields of a form; the first of each name."""
    try:
        fields = parse_qs(body.decode("ascii", "replace"), keep_blank_values=True, max_num_fields=10)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def _seconds(text: str) -> float | None:
    """How long somebody looked; None of anything that cannot be."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and 0 <= seconds <= 86_400 else None


def _messages(prompt: Any) -> list[Mapping[str, str]]:
    """A prompt as messages; a text is one without a role."""
    if isinstance(prompt, str):
        return [{"role": "", "content": prompt}]
    return [{"role": str(m["role"]), "content": str(m["content"])} for m in prompt]


def _told(judged: Judged) -> dict[str, Any]:
    """A pair as the results page tells it."""
    pair = judged.item.pair
    names = {"policy": "policy", "sft": "SFT model", "spoiled": "spoiled on purpose"}
    said = {"a": "preferred the first", "b": "preferred the second"}
    return {
        "kind": pair.kind + (", shown again" if pair.repeats else ""),
        "prompt": _messages(pair.prompt),
        "answers": [
            (names.get(s.model, s.model), s.step, s.score, text.strip())
            for s, text in ((judged.item.a, pair.a), (judged.item.b, pair.b))
        ],
        "votes": [(v.rater, said.get(v.choice, v.choice), v.note) for v in judged.votes],
        "disagrees": judged.disagrees,
    }
