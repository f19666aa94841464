"""vLLM's side: a script for the Python of vLLM's own environment, which need not have surefoot.

One JSON object a line comes on standard input, and one goes back on standard output; nothing listens anywhere. When
the input ends, whoever asked is gone: this process then takes its folder and its whole process group with it.

    {"id": 1, "op": "start", "folder": ..., "dtype": ..., "room": ..., "cache_bytes": ..., "eager": ...}
    {"id": 2, "op": "load", "folder": ...}                       weights of another version
    {"id": 3, "op": "score", "rows": [[ids]]}                    log-probability of each token but the first
    {"id": 4, "op": "generate", "rows": [[ids]], "seeds": [...], "max_tokens": ..., "temperature": ..., ...}

Every reply has the `id` of its request and the `version` of the weights that it comes from, or an `error`.
"""

import json
import os
import queue
import shutil
import signal
import socket
import stat
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

MANIFEST = "surefoot.json"  # version, size of each file, number of tensors, which weights are tied
OLDEST = (0, 32)
OPERATIONS = ("start", "load", "score", "generate")


class Worker:
    """vLLM with the weights of one version; `version` is None while nobody can say which they are."""

    def __init__(self) -> None:
        self.llm: Any = None
        self.version: int | None = None

    def start(self, folder: str, dtype: str, room: int, cache_bytes: int, eager: bool) -> dict[str, Any]:
        """Loads vLLM and the model in a folder."""
        import vllm

        found = tuple(int(part) for part in vllm.__version__.split("+")[0].split(".")[:2])
        if found < OLDEST:
            raise RuntimeError(f"vLLM {vllm.__version__} is older than {'.'.join(map(str, OLDEST))}")
        manifest = read_manifest(folder)
        self.llm = vllm.LLM(
            model=folder,
            dtype=dtype,
            max_model_len=room,
            kv_cache_memory_bytes=cache_bytes,
            enforce_eager=eager,
            enable_prefix_caching=False,  # what is cached was computed from the weights before
            logprobs_mode="processed_logprobs",  # of the distribution that is drawn from: tempered, cut
            generation_config="vllm",
            trust_remote_code=False,
            disable_log_stats=True,
            seed=0,
        )
        if eager:
            close_listeners()
        self.version = manifest["version"]
        return {"vllm": vllm.__version__}

    def load(self, folder: str) -> dict[str, Any]:
        """Takes the weights in a folder, after looking whether they are all there."""
        from safetensors.torch import load_file

        weights = read_weights(folder, load_file)

        def take(worker: Any) -> None:
            worker.reload_weights(weights_iterator=iter(weights.items()))

        self.version = None
        self.llm.collective_rpc(take)
        self.version = read_manifest(folder)["version"]
        return {}

    def score(self, rows: list[list[int]]) -> dict[str, Any]:
        """Log-probabilities of the tokens of rows under the model, at temperature 1."""
        from vllm import SamplingParams

        how = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        outputs = self.llm.generate([{"prompt_token_ids": row} for row in rows], how, use_tqdm=False)
        return {
            "logprobs": [
                [seen[token].logprob for token, seen in zip(row[1:], output.prompt_logprobs[1:], strict=True)]
                for row, output in zip(rows, outputs, strict=True)
            ]
        }

    def generate(self, rows: list[list[int]], seeds: list[int], **how: Any) -> dict[str, Any]:
        """An answer to each row; `how` is everything about the drawing but the seeds."""
        from vllm import SamplingParams

        stops = how.pop("stop")
        fixed = {"logprobs": 0, "ignore_eos": True, "detokenize": bool(stops), "stop": stops or None}
        params = [SamplingParams(seed=seed, **fixed, **how) for seed in seeds]
        outputs = self.llm.generate([{"prompt_token_ids": row} for row in rows], params, use_tqdm=False)
        return {"answers": [_answer(output.outputs[0]) for output in outputs]}


def close_listeners() -> None:
    """Closes the sockets on which gloo, of torch.distributed, waits for peers: one a group, and every group is of one.

    In the place of each is nothing, so that its number belongs to nobody else. (NCCL, on a GPU, looks at its own.)
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in map(int, os.listdir("/dev/fd")):
        try:
            listens = stat.S_ISSOCK(os.fstat(number).st_mode)
        except OSError:  # the listing's own
            continue
        if listens:
            found = socket.socket(fileno=number)
            listens = bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            found.detach()
        if listens:
            os.dup2(nothing, number, inheritable=False)
    os.close(nothing)


def _answer(output: Any) -> dict[str, Any]:
    ids = list(output.token_ids)
    logprobs = [seen[token].logprob for token, seen in zip(ids, output.logprobs, strict=True)]
    return {"ids": ids, "logprobs": logprobs, "finish": output.finish_reason}


def read_manifest(folder: str) -> Any:
    """What a folder of weights says of itself; its files are looked at.

    Raises:
        ValueError: something is missing or cut off.
    """
    manifest = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
    for name, size in manifest["files"].items():
        found = (Path(folder) / name).stat().st_size
        if found != size:
            raise ValueError(f"{name} has {found} bytes instead of {size}")
    return manifest


def read_weights(folder: str, load_file: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Every tensor by name, and the tied ones under each of their names.

    vLLM reads a tied output matrix only when it starts: later it keeps the old one and warns, unless it is given it.

    Raises:
        ValueError: there are not as many tensors as there were.
    """
    manifest = read_manifest(folder)
    weights: dict[str, Any] = {}
    for name in manifest["files"]:
        weights |= load_file(Path(folder) / name)
    if len(weights) != manifest["tensors"]:
        raise ValueError(f"{folder} holds {len(weights)} tensors instead of {manifest['tensors']}")
    for name, source in manifest["tied"].items():
        weights.setdefault(name, weights[source])
    return weights


def serve(worker: Worker, home: str) -> None:
    """Answers requests until their end; `home` goes with it."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what vLLM prints goes into the log
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests, home), daemon=True).start()
    while True:
        request = json.loads(requests.get())
        reply: dict[str, Any] = {"id": request.pop("id")}
        operation = request.pop("op")
        try:
            if operation not in OPERATIONS:
                raise ValueError(f"no operation {operation!r}")
            reply |= getattr(worker, operation)(**request)
        except Exception as error:  # noqa: BLE001 - whoever asked decides what to do about it
            traceback.print_exc()
            reply["error"] = f"{type(error).__name__}: {error}"
        replies.write(json.dumps(reply | {"version": worker.version}).encode() + b"\n")
        replies.flush()


def _read(requests: "queue.SimpleQueue[bytes]", home: str) -> None:
    for line in sys.stdin.buffer:
        requests.put(line)
    shutil.rmtree(home, ignore_errors=True)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


def look() -> None:
    """Says whether vLLM is in this environment, without loading it."""
    import importlib.util

    found = importlib.util.find_spec("vllm") is not None
    sys.stdout.write(json.dumps({"vllm": found, "python": sys.version.split()[0]}) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "--look":
        look()
    else:
        serve(Worker(), sys.argv[1])
