"""A worker without vLLM, that is quick and fails as it is told: `python -I fake_vllm.py WORKER FAULT WHEN HOME`.

It speaks the protocol by the real worker's own loop, and its model is `Bigram`'s: logits = embedding[token] @ head.
WHEN is "once" (a worker started after it is right) or "always".
"""

import importlib.util
import itertools
import json
import os
import pathlib
import signal
import sys
import time

import numpy as np
from safetensors.numpy import load_file


def worker_module(path):
    spec = importlib.util.spec_from_file_location("worker", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WORKER, FAULT, WHEN, HOME = sys.argv[1:]
worker = worker_module(WORKER)
(pathlib.Path(HOME) / "environment.json").write_text(json.dumps(dict(os.environ)))


def now(fault):
    """Whether `fault` is to happen: always, or only until it has happened once in this home."""
    if fault != FAULT:
        return False
    seen = pathlib.Path(HOME) / "seen"
    first = not seen.exists()
    seen.touch()
    return WHEN == "always" or first


SPOILS = {
    "an answer is missing": lambda answers: answers.pop(),
    "an answer breaks off": lambda answers: answers.__setitem__(
        0, {"ids": [7], "logprobs": [-1.0], "finish": "length"}
    ),
    "a token that is none": lambda answers: answers[0]["ids"].__setitem__(0, 10**6),
    "a log-probability is missing": lambda answers: answers[0]["logprobs"].pop(),
    "a log-probability is not finite": lambda answers: answers[0]["logprobs"].__setitem__(0, float("nan")),
}


class Fake(worker.Worker):
    def start(self, folder, **_):
        if now("does not start"):
            raise RuntimeError("no room for keys and values")
        self.weights = worker.read_weights(folder, load_file)
        self.version = worker.read_manifest(folder)["version"]
        if now("other model"):
            self.weights["embed.weight"] = -self.weights["embed.weight"]
        return {"vllm": "0.0"}

    def load(self, folder):
        if now("reload fails"):
            self.version = None
            raise RuntimeError("'list' object has no attribute 'dtype'")
        found = worker.read_weights(folder, load_file)
        if now("old head"):
            del found["lm_head.weight"]
        if now("half of the tensors"):
            del found["embed.weight"]
        if not now("not reloaded"):
            self.weights |= found
        if not now("old version"):
            self.version = worker.read_manifest(folder)["version"]
        return {}

    def logprobs(self, token):
        logits = self.weights["embed.weight"][token].astype(np.float64) @ self.weights["lm_head.weight"].T
        logits -= logits.max()
        return logits - np.log(np.exp(logits).sum())

    def score(self, rows):
        if now("scores fewer tokens"):
            rows = [row[:-1] for row in rows]
        sign = np.nan if now("scores not finite") else 1.0
        return {"logprobs": [[sign * self.logprobs(a)[b] for a, b in itertools.pairwise(row)] for row in rows]}

    def generate(self, rows, seeds, max_tokens, stop_token_ids, **_):
        if now("dies"):
            os.kill(os.getpid(), signal.SIGKILL)
        if now("hangs"):
            time.sleep(60)
        if now("old answers"):
            self.version -= 1
        answers = [self.answer(row, seed, max_tokens, stop_token_ids) for row, seed in zip(rows, seeds, strict=True)]
        for fault, spoil in SPOILS.items():
            if now(fault):
                spoil(answers)
        return {"answers": answers}

    def answer(self, row, seed, max_tokens, stop_token_ids):
        numbers = np.random.default_rng(seed)
        ids, logprobs = [], []
        while len(ids) < max_tokens and not (ids and ids[-1] in stop_token_ids):
            seen = self.logprobs(ids[-1] if ids else row[-1])
            ids.append(int(np.searchsorted(np.exp(seen).cumsum(), numbers.random() * 0.999999)))
            logprobs.append(float(seen[ids[-1]]))
        return {"ids": ids, "logprobs": logprobs, "finish": "stop" if ids[-1] in stop_token_ids else "length"}


worker.serve(Fake(), HOME)
