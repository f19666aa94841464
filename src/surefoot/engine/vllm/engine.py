"""The engine: before anything is drawn, vLLM has the policy's weights as they are, and has been seen to have them.

    policy changed?  -> complete folder of the new version -> vLLM takes it -> canary -> only then are answers drawn

Where any of it fails, vLLM is started anew from the newest complete folder, which is the way it loads every model;
where that fails too, the run stops. Every reply says from which version it comes, and another is refused.

Answers that are asked for ahead go the same way, but nobody waits for the reply: it stays in the pipe while the policy
moves on, and nothing of ours runs meanwhile. Where it does not come there are no answers, and they are drawn later.
"""

import json
import logging
import math
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from surefoot.engine.draw import NOT_FINITE
from surefoot.engine.ends import finish_of
from surefoot.engine.vllm import worker
from surefoot.engine.vllm.canary import Canary, policy_logprobs, probe_of
from surefoot.engine.vllm.child import Child, EngineFaultError, remove
from surefoot.engine.vllm.folder import make_home, write_weights
from surefoot.redaction import is_secret
from surefoot.runtime import patience
from surefoot.snapshot import weights_digest
from surefoot.types import Completion, FinishReason, Sampling

_LOG = logging.getLogger("surefoot")
T = TypeVar("T")

_CACHED_TOKENS = 65_536
_BLOCK = 128
"""vLLM keeps keys and values in blocks of at most so many tokens, and each row has blocks of its own."""

_NOT_THEIRS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT",
               "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "VLLM_ALLOW_INSECURE_SERIALIZATION")  # fmt: skip
_ALWAYS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process: nothing is pickled between its parts
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_PLUGINS": "",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "GLOO_SOCKET_IFNAME": "lo",  # its groups are of one process, but listen while vLLM starts
    "NCCL_SOCKET_IFNAME": "lo",
}


class EngineError(RuntimeError):
    """vLLM could not be made to answer with the policy's weights."""


@dataclass
class _Drawing:
    """Answers that were asked for ahead; `found` once somebody has waited for them, None where they did not come."""

    count: int
    sampling: Sampling
    found: list[Completion] | None = None


class VLLMEngine:
    """Draws answers with vLLM; an `Engine` like any other.

    It starts at the first call, on the device of the policy, and ends with this object or this process, however that
    ends. `SUREFOOT_TIMEOUT` bounds the wait for any reply.

    Args:
        model: the policy, with or without LoRA.
        tokenizer: the policy's.
        eos_ids: ids that end an answer.
        autocast: makes the context of the policy's arithmetic.
        bfloat16: whether that is in bfloat16; vLLM's is the same.
        python: the interpreter that has vLLM; None: the one that runs this.
        context: longest row that the model takes; None: any.
        rows: answers at a time for which keys and values have room; the others wait.
        longest: tokens of the longest query and answer, as far as they are known; where longer ones come, vLLM is
            started anew.
        command: what is run in place of our worker, for tests.

    Attributes:
        version: of the weights; it grows by one whenever they have changed.
        starts: how often vLLM was started.

    Raises:
        ValueError: there is no such interpreter, or no vLLM in its environment.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        eos_ids: Iterable[int],
        *,
        autocast: Callable[[], AbstractContextManager[Any]],
        bfloat16: bool = False,
        python: str | None = None,
        context: int | None = None,
        rows: int = 64,
        longest: int = 0,
        command: Sequence[str] | None = None,
    ) -> None:
        self._model, self._tokenizer, self._autocast = model, tokenizer, autocast
        self._eos_ids = frozenset(eos_ids)
        self._vocabulary = int(model.get_output_embeddings().weight.shape[0])
        self._dtype = torch.bfloat16 if bfloat16 else torch.float32
        self._context, self._rows, self._room = context, rows, 0
        self._longest = longest
        self._command = _worker_command(python) if command is None else list(command)
        self._home = make_home(model)
        weakref.finalize(self, remove, self._home, os.getpid())
        self._digest = ""
        self._folder: Path | None = None
        self._child: Child | None = None
        self._held = -1
        self._canary: Canary | None = None
        self._drawing: _Drawing | None = None
        self.version = self.starts = 0

    def generate(self, queries: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """One answer for each query, in their order; see `Engine`.

        Raises:
            EngineError: vLLM failed, and failed again after it was started anew.
        """
        with self._closed_on_failure():
            request = self._prepared(queries, seeds, sampling)
            return self._twice(lambda: self._completions(self._ask("generate", **request), len(queries), sampling))

    def begin(
        self, queries: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> Callable[[], list[Completion] | None]:
        """Asks for what `generate` gives and does not wait for it; see `EngineAhead`.

        Whatever is asked next waits for these answers first.

        Raises:
            EngineError: vLLM did not take the weights, or what it was asked, and again not after it was started anew.
        """
        with self._closed_on_failure():
            request = self._prepared(queries, seeds, sampling)
            self._twice(lambda: self._running.send("generate", patience(), **request))
            drawing = self._drawing = _Drawing(len(queries), sampling)

        def wait() -> list[Completion] | None:
            if self._drawing is drawing:
                self._settle()
            return drawing.found

        return wait

    def close(self) -> None:
        """Ends vLLM; the next call starts it again."""
        if self._child is not None:
            self._child.close()
        self._child, self._held, self._drawing = None, -1, None

    @contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()  # it may still be at work on what nobody waits for
            raise

    def _settle(self) -> None:
        """Waits for answers that were asked for ahead: vLLM hears nothing else before."""
        drawing = self._drawing
        if drawing is None:
            return
        try:
            with self._closed_on_failure():
                reply = self._of_newest(self._running.reply(patience()))
                drawing.found = self._completions(reply, drawing.count, drawing.sampling)
        except EngineFaultError as fault:
            _LOG.warning(
                "vLLM, drawing ahead: %s\nThese answers are drawn again, from the weights as they are by then.", fault
            )
        self._drawing = None

    # ------------------------------------------------------------------------------------------ weights
    def _make_room(self, queries: Sequence[Sequence[int]], new_tokens: int) -> None:
        """Rows of the next power of two, so that longer prompts make it start anew a few times at most."""
        most = self._context or sys.maxsize
        need = min(most, max(self._longest, max(len(query) for query in queries) + new_tokens))
        if need > self._room:
            self._room = min(most, 1 << max(7, (need - 1).bit_length()))
            self.close()
        if self._canary is None:
            self._canary = Canary(probe_of(queries, self._room), self._dtype)

    def _write(self) -> None:
        """A new folder, where the weights are not those of the newest any more."""
        digest = weights_digest(dict(self._model.named_parameters()))
        if digest == self._digest and self._folder is not None:
            return
        before = self._folder
        self._folder = write_weights(self._home, self.version + 1, self._model, self._tokenizer, self._dtype)
        self._digest, self.version = digest, self.version + 1
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)

    def _twice(self, action: Callable[[], T]) -> T:
        """Does it with the weights as they are; where that fails, once more with vLLM started anew."""
        try:
            self._hand_over()
            return action()
        except EngineFaultError as first:
            _LOG.warning("vLLM: %s\nIt is started anew from version %d of the weights.", first, self.version)
            self.close()
            try:
                self._hand_over()
                return action()
            except EngineFaultError as second:
                raise EngineError(
                    f"vLLM failed: {first}\nStarted anew from {self._folder}, it failed again: {second}\nNothing was "
                    "drawn from other weights than the policy's. Look at the lines above; engine: transformers needs "
                    "no vLLM"
                ) from second

    def _hand_over(self) -> None:
        """Makes vLLM hold the newest version, and looks whether it does."""
        if self._child is None:
            self._start()
        elif self._held != self.version:
            self._ask("load", folder=str(self._folder))
        else:
            return
        self._look()
        self._held = self.version

    def _look(self) -> None:
        """The canary.

        Raises:
            EngineFaultError: it does not have the policy's weights.
            FloatingPointError: the policy's own are at fault.
        """
        assert self._canary is not None
        ours = policy_logprobs(self._model, self._canary.rows, self._autocast)
        if not all(math.isfinite(x) for row in ours for x in row):
            raise FloatingPointError(NOT_FINITE)
        theirs = self._ask("score", rows=self._canary.rows)["logprobs"]
        complaint = self._canary.complaint(ours, theirs)
        if complaint is not None:
            raise EngineFaultError(complaint)

    def _start(self) -> None:
        device = next(self._model.parameters()).device
        self._child = Child([*self._command, str(self._home)], _environment(device, self._home), self._home)
        self.starts += 1
        tokens = max(min(_CACHED_TOKENS, self._rows * (self._room + _BLOCK)), self._room + 2 * _BLOCK)
        began = self._ask(
            "start",
            folder=str(self._folder),
            dtype=str(self._dtype).removeprefix("torch."),
            room=self._room,
            cache_bytes=tokens * _bytes_of_a_token(self._model, self._dtype),
            eager=device.type != "cuda",
        )
        _LOG.info("vLLM %s holds version %d of the weights", began.get("vllm"), self.version)

    def _ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """A reply that comes from the newest version.

        Raises:
            EngineFaultError: it does not, or there is none.
        """
        return self._of_newest(self._running.ask(operation, patience(), **arguments))

    def _of_newest(self, reply: dict[str, Any]) -> dict[str, Any]:
        if reply.get("version") != self.version:
            raise EngineFaultError(f"it answered with weights of version {reply.get('version')}, not {self.version}")
        return reply

    @property
    def _running(self) -> Child:
        assert self._child is not None
        return self._child

    # ------------------------------------------------------------------------------------------ answers
    def _prepared(self, queries: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling) -> dict[str, Any]:
        """What vLLM is asked, once the weights lie ready and it has nothing else to say."""
        self._settle()
        self._make_room(queries, sampling.max_new_tokens)
        self._write()
        return {
            "rows": [list(query) for query in queries],
            "seeds": list(seeds),
            "max_tokens": sampling.max_new_tokens,
            "temperature": 0.0 if sampling.greedy else sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "stop": list(sampling.stop_strings),
            "stop_token_ids": sorted(self._eos_ids | set(sampling.stop_token_ids)),
        }

    def _completions(self, reply: Mapping[str, Any], count: int, sampling: Sampling) -> list[Completion]:
        answers = reply.get("answers")
        if not isinstance(answers, list) or len(answers) != count:
            raise EngineFaultError(f"it gave {len(answers or ())} answers to {count} queries")
        return [self._completion(answer, i, sampling) for i, answer in enumerate(answers)]

    def _completion(self, answer: Mapping[str, Any], row: int, sampling: Sampling) -> Completion:
        """An answer that ends where ours would; vLLM looks for stops in a text of its own."""
        ids, logprobs = list(answer["ids"]), list(answer["logprobs"])
        if not ids or len(ids) != len(logprobs) or not all(0 <= i < self._vocabulary for i in ids):
            raise EngineFaultError(f"answer {row} is no row of known tokens with a log-probability each")
        if not all(math.isfinite(x) for x in logprobs):
            raise EngineFaultError(f"answer {row} has a log-probability that is not finite")
        count, finish = self._end_of(ids, sampling)
        if finish is None and sampling.stop_strings and answer.get("finish") == "stop":
            finish = "stop"
        if finish is None:
            raise EngineFaultError(f"answer {row} breaks off after {len(ids)} tokens, before any end")
        text = self._tokenizer.decode(ids[:count], skip_special_tokens=True)
        return Completion(text, ids[:count], logprobs[:count], finish)

    def _end_of(self, ids: list[int], sampling: Sampling) -> tuple[int, FinishReason | None]:
        """How many tokens there are up to the first end, and which it is."""
        for count in range(1, len(ids) + 1):
            finish = finish_of(ids[:count], self._eos_ids, sampling, self._tokenizer)
            if finish is not None:
                return count, finish
        return len(ids), None


def _worker_command(python: str | None) -> list[str]:
    """The worker under an interpreter, which is asked whether it has vLLM.

    Isolated: neither our folders nor our variables are in its path, where `transformers.py` of ours would be found.
    """
    interpreter = sys.executable if python is None else str(Path(python).expanduser().absolute())
    named = "this Python" if python is None else f"vllm_python={python!r}"
    script = str(Path(worker.__file__).resolve())
    try:
        looked = subprocess.run(
            [interpreter, "-I", script, "--look"], capture_output=True, check=True, timeout=60, text=True
        )
        found = bool(json.loads(looked.stdout)["vllm"])
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ValueError(f"{named} does not run: {error}") from error
    if not found:
        raise ValueError(
            f"engine='vllm': {named} has no vLLM. Install it in an environment of its own (docs/vllm.md) and name its "
            "Python by vllm_python"
        )
    return [interpreter, "-I", script]


def _environment(device: torch.device, home: Path) -> dict[str, str]:
    """Ours without secrets and what belongs to this process alone, and what keeps vLLM to itself."""
    kept = {k: v for k, v in os.environ.items() if not (k in _NOT_THEIRS or k.startswith("TORCHELASTIC_"))}
    kept = {k: v for k, v in kept.items() if not is_secret(k)}
    kept |= _ALWAYS | {"TMPDIR": str(home), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    if device.type == "cuda":
        ours = kept.get("CUDA_VISIBLE_DEVICES", "")
        index = device.index or 0
        kept["CUDA_VISIBLE_DEVICES"] = ours.split(",")[index] if ours else str(index)
    return kept


def _bytes_of_a_token(model: Any, dtype: torch.dtype) -> int:
    """Keys and values of one token in all layers."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * dtype.itemsize)
