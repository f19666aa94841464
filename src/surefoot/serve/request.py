"""The body of a request in OpenRLHF's protocol -> prompts and answers."""

from http import HTTPStatus
from typing import Any

from surefoot.rewards.protocols import ReplyError, read_json
from surefoot.types import Completion, Prompt

MAX_ROWS = 1024
"""Answers of one request, and of one call of the rewards."""


class RefusalError(Exception):
    """A request that is not answered with scores."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        self.status = status
        super().__init__(reason)


def read_request(body: bytes) -> tuple[list[Prompt], list[Completion]]:
    """The answers to score out of a request's body.

    `query` holds prompts with their answers; `prompts`, `labels` and `messages` (conversations, which replace the
    texts of their prompts) may be there, with an entry for each.

    Raises:
        RefusalError: it is not that.
    """
    try:
        request = read_json(body)
    except ReplyError as error:
        raise RefusalError(HTTPStatus.BAD_REQUEST, f"the request {error}") from error
    if not isinstance(request, dict) or "query" not in request:
        raise RefusalError(HTTPStatus.BAD_REQUEST, 'a request is an object with "query", a list of texts')
    texts = _texts("query", request["query"], None)
    count = len(texts)
    prompts = _texts("prompts", request["prompts"], count) if request.get("prompts") is not None else [""] * count
    labels = _list("labels", request["labels"], count) if request.get("labels") is not None else [None] * count
    talks = _list("messages", request["messages"], count) if request.get("messages") is not None else [()] * count
    rows, answers = [], []
    for i, (text, prompt, label, talk) in enumerate(zip(texts, prompts, labels, talks, strict=True)):
        _, found, answer = text.partition(prompt) if prompt else ("", "", text)
        if prompt and not found:
            raise RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, f"query[{i}] does not hold prompts[{i}]")
        columns = {} if label is None else {"label": label, "ground_truth": label}
        rows.append(Prompt(prompt, (), _messages(talk, i), columns, i))
        answers.append(Completion(answer, (), (), "stop"))
    return rows, answers


def _list(name: str, values: Any, count: int | None) -> list[Any]:
    if not isinstance(values, list) or not values or (count is not None and len(values) != count):
        needed = "at least one entry" if count is None else f"{count} entries, as many as query"
        raise RefusalError(HTTPStatus.BAD_REQUEST, f"{name} must be a list with {needed}")
    if len(values) > MAX_ROWS:
        raise RefusalError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{len(values)} texts; at most {MAX_ROWS} a request")
    return values


def _texts(name: str, values: Any, count: int | None) -> list[str]:
    texts = _list(name, values, count)
    if not all(isinstance(text, str) for text in texts):
        raise RefusalError(HTTPStatus.BAD_REQUEST, f"{name} must hold texts only")
    return texts


def _messages(talk: Any, row: int) -> tuple[dict[str, str], ...]:
    fine = isinstance(talk, list | tuple) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in talk
    )
    if not fine:
        reason = f"messages[{row}] must be a list of objects with the texts role and content"
        raise RefusalError(HTTPStatus.BAD_REQUEST, reason)
    return tuple(talk)
