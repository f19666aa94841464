"""A judge of pairs behind a chat-completions endpoint: asked as a reward service is, but never believed blindly.

Timeouts, broken connections, 429 and 5xx are asked again for as long as one question may take, and count as unanswered
then. A reply that cannot be read counts as one without a verdict. What will not get better, a refusal (401, 404) or a
judge that answers nothing at all, ends the evaluation with the reason.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from surefoot.evaluate.judging import Said, Verdict, read_verdict
from surefoot.evaluate.options import EvaluateOptions
from surefoot.redaction import redact
from surefoot.rewards.failure import RewardError, RewardUnavailableError
from surefoot.rewards.protocols import ReplyError, Row, Scores, Wire
from surefoot.rewards.remote import RemoteReward
from surefoot.types import Prompt

GIVE_UP = 8
"""So many questions without a reply, and none with one: the judge is not there."""
_PATH = "/chat/completions"


class PairJudge:
    """Asks a service which of two answers is better.

    Args:
        options: judge, judge_model and what else concerns it.

    Attributes:
        name: what its verdicts are reported under.

    Raises:
        ValueError: the address is wrong, or the named environment variable is not set.
    """

    def __init__(self, options: EvaluateOptions) -> None:
        self._service = _service(options)
        self.name = f"judge {str(options.judge_model).rstrip('/').rpartition('/')[2]}"
        self.address = str(self._service.address)
        self._concurrency = options.judge_concurrency
        self._lock = threading.Lock()
        self._replies, self._silent = 0, 0

    def ask(self, questions: Sequence[str], progress: Callable[[int], object] = lambda done: None) -> list[Said]:
        """A verdict, or why there is none, for each question.

        Raises:
            RewardError: the service refuses, or does not answer at all.
        """
        different = list(dict.fromkeys(questions))
        found: dict[str, Said] = {}
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                for asked, said in zip(different, pool.map(self._one, different), strict=True):
                    found[asked] = said
                    progress(len(found))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [found[asked] for asked in questions]

    def _one(self, question: str) -> Said:
        try:
            (score,) = self._service([Prompt(question, ())], [""]).scores
        except RewardUnavailableError as error:
            return self._unanswered(error)
        except RewardError as error:
            if not isinstance(error.__cause__, ReplyError):
                raise
            said = Said(None, why_not=f"the reply {error.__cause__}")
        else:
            said = Said(_VERDICTS[float(score or 0.0)])
        with self._lock:
            self._replies += 1
        return said

    def _unanswered(self, error: RewardUnavailableError) -> Said:
        with self._lock:
            self._silent += 1
            if self._silent >= GIVE_UP and not self._replies:
                raise error
        return Said(None, answered=False, why_not=str(error).splitlines()[0])


_CODES: dict[Verdict, float] = {"first": 1.0, "second": -1.0, "tie": 0.0}
_VERDICTS = {code: verdict for verdict, code in _CODES.items()}


def _request(rows: Sequence[Row], model: str | None, _template: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": rows[0].prompt}], "temperature": 0}


def _service(options: EvaluateOptions) -> RemoteReward:
    """The judge as a reward service: a verdict is a number there."""
    address = str(options.judge)
    base, _, fragment = address.partition("#")
    if fragment:
        raise ValueError(f"judge={redact(address)!r}: nothing behind '#'; judge_model and judge_token_env are options")
    whole = base if base.rstrip("/").endswith(_PATH) else base.rstrip("/") + _PATH
    try:
        service = RemoteReward(
            f"openai-judge+{whole}", model=options.judge_model, token_env=options.judge_token_env,
            read_timeout=options.judge_timeout, deadline=options.judge_timeout,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"judge: {error}") from error
    service.wire = Wire(
        _PATH, _request, lambda reply, _: Scores([_CODES[read_verdict(reply)]]), needs_model=True, one_by_one=True,
        adds_bos=False,
    )  # fmt: skip
    return service
