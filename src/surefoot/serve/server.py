"""Scoring what comes over HTTP: one thread scores, and requests that wait for it are scored together."""

import logging
import queue
import signal
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus

from surefoot.rewards import RewardError, RewardMix
from surefoot.rewards.address import is_loopback
from surefoot.serve.http import PATH, Gate, Job, Listener
from surefoot.serve.request import MAX_ROWS

logger = logging.getLogger("surefoot")

GOODBYE_SECONDS = 5.0
"""What connections that are left may take when the server stops."""


class RewardServer:
    """Serves rewards until it is told to stop.

    Whoever calls `serve` scores. It should be the main thread, as some reward functions use signals.

    Args:
        reward: what scores.
        host: the address to listen at. One of another kind than loopback needs a token.
        port: 0 takes a free one.
        token: what requests must carry as `Authorization: Bearer ...`; None: nothing.

    Attributes:
        url: where scores are given.

    Raises:
        ValueError: the address can be reached from elsewhere and there is no token.
        OSError: the address is taken.
    """

    def __init__(self, reward: RewardMix, host: str = "127.0.0.1", port: int = 5000, token: str | None = None) -> None:
        if token is None and not is_loopback(host):
            raise ValueError(f"host={host!r} can be reached from other machines: give token_env as well")
        shown = f"[{host}]" if ":" in host else host
        names = frozenset(["localhost", "127.0.0.1", "[::1]", shown.lower()]) if is_loopback(host) else None
        self.reward = reward
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._held: Job | None = None
        self._stopping = False
        self._listener = Listener(host, port, Gate(names, token), self._ask)
        self.url = f"http://{shown}:{self._listener.server_port}{PATH}"

    def serve(self) -> None:
        """Scores what comes until `stop`; what has come by then is still answered."""
        listening = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        listening.start()
        try:
            while not self._stopping:
                self._score(self._next_jobs())
        finally:
            self._listener.shutdown()
            listening.join()
        ends = time.monotonic() + GOODBYE_SECONDS
        while self._listener.connections and time.monotonic() < ends:
            try:
                self._score(self._next_jobs(0.05))
            except queue.Empty:
                continue
        self._listener.server_close()

    def serve_until_signalled(self) -> None:
        """`serve` in the main thread, until Ctrl-C or SIGTERM; a second one ends the process at once."""

        def hear(number: int, _frame: object) -> None:
            signal.signal(number, signal.SIG_DFL)
            self.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, hear)
        self.serve()

    def stop(self) -> None:
        """Ends `serve`; may be called by a signal's handler and from any thread."""
        self._jobs.put(None)

    def _ask(self, job: Job) -> None:
        """Waits until a job is done."""
        self._jobs.put(job)
        job.done.wait()

    def _next_jobs(self, timeout: float | None = None) -> list[Job]:
        """Waits for a job and takes along those that wait already, up to MAX_ROWS answers."""
        job = self._held or self._jobs.get(timeout=timeout)
        self._held = None
        jobs: list[Job] = []
        rows = 0
        while job is not None:
            rows += len(job.prompts)
            if jobs and rows > MAX_ROWS:
                self._held = job
                return jobs
            jobs.append(job)
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs
        self._stopping = True
        return jobs

    # ------------------------------------------------------------------------------------------ scoring
    def _score(self, jobs: Sequence[Job]) -> None:
        waiting = [job for job in jobs if not _let_go(job)]
        try:
            self._score_together(waiting)
        except Exception as error:
            if len(waiting) > 1:  # one request's bad answer is not the others' fault
                for job in waiting:
                    self._score([job])
                return
            said = str(error)
            if not isinstance(error, RewardError):
                logger.exception("the reward failed")
                said = f"the reward raised {type(error).__name__}"
            waiting[0].finish(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": said})

    def _score_together(self, jobs: Sequence[Job]) -> None:
        """Each job gets its scores, and all get the means of what the rewards report beside."""
        if not jobs:
            return
        prompts = [prompt for job in jobs for prompt in job.prompts]
        completions = [completion for job in jobs for completion in job.completions]
        outputs = {name: reward(prompts, completions) for name, reward in self.reward.rewards.items()}
        scores = self.reward.combine(outputs, prompts, completions).scores
        logs: dict[str, float] = {}
        for name, output in outputs.items():
            prefix = "" if len(outputs) == 1 else f"{name}/"
            logs |= {f"{prefix}{key}": float(value) for key, value in output.metrics.items()}
        for job in jobs:
            mine, scores = scores[: len(job.prompts)], scores[len(job.prompts) :]
            job.finish(HTTPStatus.OK, {"rewards": mine, "scores": mine, "extra_logs": logs})


def _let_go(job: Job) -> bool:
    """Whether nobody waits for the job any more; then it is done."""
    if not job.abandoned:
        return False
    job.finish(HTTPStatus.REQUEST_TIMEOUT, {"error": "nobody waited for the scores"})
    return True
