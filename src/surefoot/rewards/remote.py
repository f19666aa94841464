"""A reward model behind HTTP: each answer gets the score that the service gave for it, or the run stops."""

import json
import logging
import queue
import random
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from surefoot.redaction import redact
from surefoot.rewards.address import RemoteOptions, read_address
from surefoot.rewards.conventions import label_of, with_answer, without_ends
from surefoot.rewards.failure import Extras, RewardError, RewardUnavailableError, shown
from surefoot.rewards.protocols import JUDGE_TEMPLATE, WIRES, ReplyError, Row, Scores, read_json
from surefoot.rewards.transport import NoReplyError, Reply, UnusableReplyError, post, token_from
from surefoot.types import Prompt, RewardOutput

logger = logging.getLogger("surefoot")

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
RETRIED = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
"""Refusals that may pass, beside all of 500 and above."""


class RemoteReward:
    """Asks a reward service for scores: in batches, several at a time, again where that can help.

    Asked again, up to the deadline: what was not reached, hung, broke off, or was answered with 408, 429 or 5xx
    (`Retry-After` is honoured); and single scores that were missing from a good reply. Never asked again: what was
    refused with another status, and replies that break their protocol, for these are mistakes that stay.

    Args:
        address: "protocol+http://host:port/path#option=value,...", see `RemoteOptions`.
        special_tokens: texts of the policy's special tokens, taken off both ends of plain prompts.
        options: the same options as behind the '#'; these win.

    Attributes:
        name: what it is logged under.
        tokenizer: of the reward model, where one was named; else None.

    Raises:
        ValueError: the address or an option is wrong, or a named environment variable is not set.
    """

    def __init__(self, address: str, *, special_tokens: Sequence[str] = (), **options: Any) -> None:
        self.address = read_address(address)
        self.options = o = RemoteOptions(**(dict(self.address.options) | options))
        self.wire = WIRES[self.address.protocol]
        if self.wire.needs_model and o.model is None:
            raise ValueError(f"reward {self.address}: {self.address.protocol} needs the model's name: #model=NAME")
        token_from(o.token_env)
        self.name = o.name or (o.model or "").rstrip("/").rpartition("/")[2] or self.address.protocol
        self.tokenizer = None if o.tokenizer is None else _load_tokenizer(o.tokenizer)
        self.template = _read_template(o.template)
        self.special_tokens = tuple(token for token in special_tokens if token)
        if self.address.leaves_in_the_open:
            logger.warning("reward %r: prompts and answers go to %s unencrypted", self.name, self.address)

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> RewardOutput:
        """Scores `completions[i]` as the answer to `prompts[i]`.

        Raises:
            RewardUnavailableError: the service did not give every score before the deadline.
            RewardError: it refused, or its replies are not what the protocol says.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts but {len(completions)} completions: give one answer for each")
        if not prompts:
            raise ValueError("no answers to score: prompts is empty")
        batch = _Batch(self, prompts, completions)
        scores = batch.settled()
        extras = Extras(self.name)
        for reported in batch.extras:
            for key, value in reported.items():
                extras.add(key, value)
        return RewardOutput(scores, extras.means() | {"retries": float(batch.retries)})

    # ------------------------------------------------------------------------------------------ text
    def render(self, prompt: Prompt, completion: str) -> str:
        """The text that is sent."""
        if not prompt.messages:
            return without_ends(prompt.text, self.special_tokens) + str(completion)
        if self.tokenizer is None:
            return prompt.text + str(completion)  # as the policy's chat template wrote it
        text = str(self.tokenizer.apply_chat_template(with_answer(prompt, completion), tokenize=False))
        bos = self.tokenizer.bos_token
        return text.removeprefix(bos) if bos and self.wire.adds_bos else text

    def row(self, prompt: Prompt, completion: str) -> Row:
        """An answer in the forms that protocols send."""
        plain = not prompt.messages
        if self.wire.one_by_one and not plain:
            question = "\n\n".join(f"{m['role']}: {m['content']}" for m in prompt.messages)
        else:
            question = without_ends(prompt.text, self.special_tokens) if plain else prompt.text
        return Row(
            text=self.render(prompt, completion),
            prompt=question,
            response=str(completion),
            label=label_of(prompt.columns),
            messages=() if self.tokenizer is not None else prompt.messages,
            templated=not plain,
        )

    # ------------------------------------------------------------------------------------------ one request
    def ask(self, rows: Sequence[Row], request_id: str, ends: float) -> Scores:
        """One request and its reply, read.

        Raises:
            _PassingError: asking again may help. UnusableReplyError, ReplyError: it will not.
        """
        o, token = self.options, token_from(self.options.token_env)
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close",
                   "User-Agent": "surefoot", "X-Request-Id": request_id}  # fmt: skip
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        body = self._encoded(rows)
        ends = min(ends, time.monotonic() + o.read_timeout)
        limit = o.max_reply_mib * 2**20
        try:
            reply = post(self.address.url, body, headers, connect_timeout=o.connect_timeout, ends=ends, limit=limit)
        except NoReplyError as error:
            raise _PassingError(str(error)) from error
        if reply.status != HTTPStatus.OK:
            raise self._refusal(reply)
        try:
            found = read_json(reply.body)
        except ReplyError as error:
            if reply.end_marked:
                raise
            raise _PassingError(f"the reply {error}; it may have been cut off") from error
        return self.wire.scores(found, len(rows))

    def _encoded(self, rows: Sequence[Row]) -> bytes:
        return json.dumps(self.wire.request(rows, self.options.model, self.template), allow_nan=False).encode()

    def _refusal(self, reply: Reply) -> Exception:
        said = f"HTTP {reply.status}: {self.without_secrets(reply.body[:2000].decode('utf-8', 'replace'))}"
        if 300 <= reply.status < 400:
            target = self.without_secrets(reply.headers.get("location", "nowhere"))
            return UnusableReplyError(f"HTTP {reply.status}, a redirect to {target}, which is not followed")
        if reply.status >= 500 or reply.status in RETRIED:
            return _PassingError(said, _retry_after(reply.headers.get("retry-after")))
        return UnusableReplyError(said)

    def without_secrets(self, text: str) -> str:
        """What a server said, fit to be shown: without our token, or anything else that looks like one."""
        token = token_from(self.options.token_env)
        return shown(redact(text if token is None else text.replace(token, "REDACTED")))


class _PassingError(Exception):
    """Asking again may help, `after` seconds at the earliest."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        self.after = after
        super().__init__(reason)


@dataclass(slots=True)
class _Chunk:
    """Rows of one request, and what became of them; `reason` is why the last try failed."""

    rows: list[int]
    reason: str = ""
    extras: list[dict[str, Any]] = field(default_factory=list)
    error: BaseException | None = None


class _Batch:
    """One batch of answers on its way to being scored. Threads ask; whoever waits for them holds the clock."""

    def __init__(self, reward: RemoteReward, prompts: Sequence[Prompt], completions: Sequence[str]) -> None:
        self.reward = reward
        self.prompts, self.completions = prompts, completions
        self.rows = [reward.row(p, c) for p, c in zip(prompts, completions, strict=True)]
        self.scores: list[float | None] = [None] * len(self.rows)
        self.retries = 0
        self.ends = time.monotonic() + reward.options.deadline
        size = 1 if reward.wire.one_by_one else reward.options.batch_size
        kinds = [[i for i, row in enumerate(self.rows) if row.templated is kind] for kind in (False, True)]
        self.chunks = [_Chunk(rows[at : at + size]) for rows in kinds for at in range(0, len(rows), size)]
        self._stop = threading.Event()
        self._todo: queue.SimpleQueue[_Chunk] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[_Chunk] = queue.SimpleQueue()
        self._lock = threading.Lock()

    @property
    def extras(self) -> list[dict[str, Any]]:
        """What the service reported beside scores, in the order of the rows."""
        return [reported for chunk in self.chunks for reported in chunk.extras]

    def settled(self) -> list[float | None]:
        """Every score; the first failure ends all other requests."""
        for chunk in self.chunks:
            self._todo.put(chunk)
        for _ in range(min(self.reward.options.concurrency, len(self.chunks))):
            threading.Thread(target=self._work, daemon=True).start()  # daemon: a hanging name server holds up nobody
        try:
            for _ in self.chunks:
                chunk = self._done.get(timeout=max(0.0, self.ends - time.monotonic()) + 1.0)
                if chunk.error is not None:
                    raise chunk.error
        except queue.Empty:
            known = [chunk.reason for chunk in self.chunks if chunk.reason]
            raise self._unavailable(range(len(self.rows)), "; before that: ".join(["it hangs", *known[:1]])) from None
        finally:
            self._stop.set()
        return self.scores

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                chunk = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                self._settle(chunk)
            except BaseException as error:  # noqa: BLE001 - whoever waits for this thread raises it
                chunk.error = error
                self._stop.set()
            self._done.put(chunk)

    def _settle(self, chunk: _Chunk) -> None:
        """Asks until every row of the chunk has its score."""
        missing, tries, request_id = chunk.rows, 0, str(uuid.uuid4())
        while not self._stop.is_set():
            pause = FIRST_PAUSE_SECONDS * 2**tries
            tries += 1
            try:
                found = self.reward.ask([self.rows[i] for i in missing], request_id, self.ends)
            except _PassingError as error:
                if not chunk.reason or time.monotonic() < self.ends:  # a try that it cuts off tells less
                    chunk.reason = str(error)
                earliest = error.after
            except (UnusableReplyError, ReplyError) as error:
                raise self._refused(error, missing) from error
            else:
                chunk.extras.append(dict(found.extras))
                for i, value in zip(missing, found.values, strict=True):
                    self.scores[i] = value
                missing = [i for i in missing if self.scores[i] is None]
                if not missing:
                    return
                chunk.reason, earliest, request_id = found.missing, 0.0, str(uuid.uuid4())
            self._wait(max(earliest, _jittered(pause)), missing, chunk.reason)

    def _wait(self, seconds: float, missing: Sequence[int], reason: str) -> None:
        if time.monotonic() + seconds >= self.ends:
            raise self._unavailable(missing, reason)
        with self._lock:
            self.retries += 1
            first = self.retries == 1
        level = logging.WARNING if first else logging.DEBUG
        name, address = self.reward.name, self.reward.address
        logger.log(level, "reward %r at %s: %s; asking again in %.1f s", name, address, reason, seconds)
        self._stop.wait(seconds)

    def _unavailable(self, missing: Sequence[int], reason: str) -> RewardUnavailableError:
        options = self.reward.options
        return RewardUnavailableError(
            self.reward.name,
            f"{self.reward.address} gave no score for {len(missing)} of {len(self.rows)} answers within the "
            f"deadline of {options.deadline:g} s; the last error: {reason}",
        )

    def _refused(self, error: UnusableReplyError | ReplyError, asked: Sequence[int]) -> RewardError:
        reason = f"{self.reward.address}: {error}"
        if not isinstance(error, ReplyError):
            return RewardError(self.reward.name, reason)
        reason = f"{self.reward.address}: the reply {error}"
        if error.row is None:
            return RewardError(self.reward.name, reason)
        i = asked[error.row]
        return RewardError(self.reward.name, reason, self.prompts[i], self.completions[i])


_CHANCE = random.SystemRandom()  # no generator of the run is touched


def _jittered(pause: float) -> float:
    return _CHANCE.uniform(0.5, 1.0) * min(pause, LONGEST_PAUSE_SECONDS)


def _retry_after(text: str | None) -> float:
    """Seconds until a server wants to be asked again: it says so in seconds or as a date. 0 where it does not."""
    if text is None:
        return 0.0
    if text.strip().isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _load_tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer  # takes seconds, and most services need none

    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    if tokenizer.chat_template is None:
        raise ValueError(
            f"tokenizer={name!r} has no chat template, and nothing else of it would be used: leave it out"
        )
    return tokenizer


def _read_template(file: str | None) -> str:
    if file is None:
        return JUDGE_TEMPLATE
    text = Path(file).expanduser().read_text(encoding="utf-8")
    if "{prompt}" not in text or "{response}" not in text:
        raise ValueError(f"template={file!r} must hold {{prompt}} and {{response}}")
    return text
