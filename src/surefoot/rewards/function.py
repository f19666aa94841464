"""A user's Python function as a reward, called the way it was written for."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from surefoot.rewards.conventions import Batch, Lazy, Signature, recognise
from surefoot.rewards.failure import Extras, RewardError, check_scores, number
from surefoot.rewards.locate import locate
from surefoot.types import Prompt, RewardOutput


class FunctionReward:
    """Adapts a function of any convention of `surefoot.rewards.conventions`, recognised by its parameter names.

    Sync functions run in the main thread (some use signals there), async ones together in one event loop. Where a
    prompt is a conversation, TRL's and verifiers' functions get messages, unless their annotation says text.

    Args:
        function: a callable, or its place: "module:name", "pkg.module.name", "file.py:name" or "file.py".
        name: what it is logged under. None: the function's own name.
        special_tokens: texts of the policy's special tokens, taken off both ends of plain prompts (but not for
            OpenRLHF's functions, which are used to them).

    Attributes:
        name: what it is logged under.
        convention: name of the convention that was recognised.
        must_be_finite: whether NaN and infinity are errors; else they come out as NaN.
        trainer_state: what functions with such a parameter are handed; whoever trains sets its `global_step`.
    """

    def __init__(
        self, function: str | Callable[..., Any], name: str | None = None, *, special_tokens: Sequence[str] = ()
    ) -> None:
        own_name: str | None = None
        if isinstance(function, str):
            function, own_name = locate(function)
        if not callable(function):
            raise TypeError(f"function={function!r} is not callable")
        self.function = function
        self.name = name or own_name or _name_of(function)
        self.special_tokens = tuple(token for token in special_tokens if token)
        self.trainer_state = SimpleNamespace(global_step=0)
        self.must_be_finite = True
        self._signature = Signature.of(function)
        self._convention = recognise(self._signature, self.name)
        # ms-swift's reward objects get plain text even for conversations; TRL's functions get messages
        self._text_only = any(c.__name__ in ("ORM", "AsyncORM") for c in type(function).__mro__)
        self.convention = self._convention.name

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> RewardOutput:
        """Scores `completions[i]` as the answer to `prompts[i]`.

        Raises:
            RewardError: the function failed, or did not return one finite number or None for each answer.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts but {len(completions)} completions: give one answer for each")
        if not prompts:
            raise ValueError("no answers to score: prompts is empty")
        extras = Extras(self.name)
        if self._convention.per_answer:
            values: Any = self._each(prompts, completions, extras)
        else:
            values = self._all(prompts, completions, extras)
        scores = check_scores(
            self.name, values, prompts, completions, lambda v: _score(v, extras), finite=self.must_be_finite
        )
        return RewardOutput(scores, extras.means())

    # ------------------------------------------------------------------------------------------ calling
    def _each(self, prompts: Sequence[Prompt], completions: Sequence[str], extras: Extras) -> list[Any]:
        results = []
        for prompt, completion in zip(prompts, completions, strict=True):
            try:
                results.append(self._call([prompt], [completion], extras))
            except Exception as error:
                _close(results)
                raise RewardError(self.name, _said(error), prompt, completion) from error
        if not any(inspect.isawaitable(r) for r in results):
            return results
        finished = _finish(results)
        for result, prompt, completion in zip(finished, prompts, completions, strict=True):
            if isinstance(result, Exception):
                raise RewardError(self.name, _said(result), prompt, completion) from result
            if isinstance(result, BaseException):
                raise result
        return finished

    def _all(self, prompts: Sequence[Prompt], completions: Sequence[str], extras: Extras) -> Any:
        try:
            result = self._call(prompts, completions, extras)
            if inspect.isawaitable(result):
                (result,) = _finish([result])
            if isinstance(result, BaseException):
                raise result
        except Exception as error:
            reason = f"{_said(error)} (called once for {len(prompts)} answers; the first of them is shown)"
            raise RewardError(self.name, reason, prompts[0], completions[0]) from error
        return _rewards(result, extras) if isinstance(result, Mapping) else result

    def _call(self, prompts: Sequence[Prompt], completions: Sequence[str], extras: Extras) -> Any:
        batch = Batch(
            prompts,
            completions,
            self._signature,
            self._text_only,
            self.trainer_state,
            extras.add,
            extras.add,
            self.special_tokens,
        )
        offered = self._convention.arguments(batch)
        accepted = {n: v for n, v in offered.items() if n in self._signature.annotations}
        if self._signature.takes_all:
            accepted = {n: v for n, v in offered.items() if not isinstance(v, Lazy) or _available(v)} | accepted
        missing = [n for n in self._signature.annotations if n in self._signature.required and n not in accepted]
        if missing:
            columns = ", ".join(prompts[0].columns) or "none"
            raise _NotGivenError(
                f"it asks for {', '.join(missing)}, which a reward called the {self.convention} way is not given: "
                f"the rows' columns are {columns}; add a column, a default, or bind it with functools.partial"
            )
        accepted = {n: v.make() if isinstance(v, Lazy) else v for n, v in accepted.items()}
        positional = [accepted.pop(n) for n in self._signature.positional_only if n in accepted]
        return self.function(*positional, **accepted)


def _available(value: Lazy) -> bool:
    """Whether an argument that is merely swept up by **kwargs can be made at all."""
    try:
        value.make()
    except ValueError:
        return False
    return True


def _name_of(function: Any) -> str:
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    name = str(getattr(function, "__name__", type(function).__name__))
    return "reward" if name == "<lambda>" else name


class _NotGivenError(TypeError):
    """The function asks for something that its rows do not have."""


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, _NotGivenError) else f"raised {type(error).__name__}: {error}"


def _score(value: Any, extras: Extras) -> float | None:
    """One answer's score; the other entries of a dict are reported."""
    if not isinstance(value, Mapping):
        return number(value)
    if set(value) == {"label", "score"} and isinstance(value["label"], str):
        raise ValueError(
            f"returned the label {value['label']!r} with a score: that score belongs to whichever label won; "
            "wrap it in a function that returns the score of the label you want"
        )
    key = next((k for k in ("score", "rewards", "reward") if k in value), None)
    if key is None:
        raise ValueError(f"returned a dict without 'score'; its keys are {', '.join(map(repr, value)) or 'none'}")
    score = number(value[key])
    for name, extra in value.items():
        if name == "extra_logs" and isinstance(extra, Mapping):
            for inner, inner_value in extra.items():
                extras.add(inner, inner_value)
        elif name != key:
            extras.add(str(name), extra)
    return score


def _rewards(result: Mapping[Any, Any], extras: Extras) -> Any:
    """The list of scores out of a dict that a batch function returned."""
    key = next((k for k in ("rewards", "scores", "score") if k in result), None)
    if key is None:
        return result
    for name, extra in result.items():
        if isinstance(extra, Mapping):
            for inner, inner_value in extra.items():
                extras.add(str(inner), inner_value)
        elif name != key:
            extras.add(str(name), extra)
    return result[key]


def _close(results: Sequence[Any]) -> None:
    for result in results:
        if inspect.iscoroutine(result):
            result.close()


def _finish(results: Sequence[Any]) -> list[Any]:
    """Awaits what is awaitable, all at once; an exception takes the place of its result."""

    async def passed(value: Any) -> Any:
        return value

    async def together() -> list[Any]:
        waiting = [r if inspect.isawaitable(r) else passed(r) for r in results]
        return await asyncio.gather(*waiting, return_exceptions=True)

    return _run(together())


def _run(work: Coroutine[Any, Any, list[Any]]) -> list[Any]:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:  # a notebook's own loop is running in this thread
        return pool.submit(asyncio.run, work).result()
