"""A run whose reward service fails again and again ends with the very weights of one whose service never failed."""

import json
import random
import threading
from collections import Counter

import pytest
import torch
from fake_service import Service, chunked, drip, flood, hang, http, ok, raw, reset, said, score_of
from tiny import tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.callbacks import Callback
from surefoot.rewards import RemoteReward, RewardError, remote

PASSING = {
    "500": said("", 500), "502": said("<html>", 502), "503": said("", 503, Retry_After="0"), "429": said("", 429),
    "408": said("", 408), "reset": reset, "closed": raw(), "hangs": hang, "no http": raw(b"\x16\x03\x01"),
    "drips": drip({"rewards": [0.0] * 8}), "cut in the head": raw(b"HTTP/1.1 200 OK\r\nConte"),
    "cut in the body": raw(*http(200, b'{"rewards": [0.0, 0.0', length=90)),
    "cut in a chunk": chunked(b'{"rewards": [0.0,', end=False), "no body": raw(b"HTTP/1.0 200 OK\r\n\r\n"),
}  # fmt: skip
LASTING = {
    "400": said("no", 400), "404": said("", 404), "redirect": said("", 302, Location="http://127.0.0.1/"),
    "NaN": said('{"rewards": [NaN]}'), "Infinity": said('{"rewards": [Infinity]}'), "overflow": said("[1e999]"),
    "text": said("all good"), "too few": ok({"rewards": []}), "too many": ok({"rewards": [0.0] * 99}),
    "other": ok({"scores": [0.0]}), "no number": ok({"rewards": ["0.0"]}), "huge": flood,
}  # fmt: skip


class Moody:
    """A service with `count` faults, at most three in a row for one request; half of them leave out single scores."""

    def __init__(self, count: int, seed: int) -> None:
        self.left = count
        self.met: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._row: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, request):
        texts = request.body["query"]
        scores = [score_of(text) for text in texts]
        with self._lock:
            key = json.dumps(texts)
            if not self.left or self._row[key] == 3 or self._chance.random() < 0.3:
                self._row[key] = 0
                return ok({"rewards": scores})
            self.left -= 1
            self._row[key] += 1
            name = self._chance.choice([*PASSING, "left out"])
            self.met[name] += 1
            if name != "left out":
                return PASSING[name]
            gone = self._chance.randrange(len(scores))
            return ok({"rewards": [None if i == gone else score for i, score in enumerate(scores)]})


class Scores(Callback):
    """Keeps every text and its score."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float]] = []

    def on_step(self, trainer, stats, samples):
        self.seen += [(record["prompt"] + record["response"], record["score"]) for record in samples]


def trained(behave, steps):
    """The weights after a run that is scored by such a service, and every score that it was trained on."""
    scores = Scores()
    config = PPOConfig(steps=steps, batch_size=8, mini_batch_size=8, ppo_epochs=1, max_new_tokens=4, eval_prompts=0,
                       learning_rate=1e-3, seed=5)  # fmt: skip
    with Service(behave) as service:
        reward = RemoteReward(f"openrlhf+{service.url}", batch_size=2, concurrency=2, read_timeout=0.2, deadline=60.0)
        dataset = [f"prompt {i}: " for i in range(16)]
        trainer = PPOTrainer(
            config, tiny_llama(), None, tiny_tokenizer(), reward=reward, dataset=dataset, callbacks=[scores]
        )
        trainer.train()
    return {name: p.detach().clone() for name, p in trainer.models.trainable().items()}, scores.seen


@pytest.mark.parametrize("count", [15, pytest.param(200, marks=pytest.mark.soak)])
def test_faults_that_pass_change_nothing(count, monkeypatch, record_property):
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.005)
    steps, moody = max(4, count // 4), Moody(count, seed=1)
    expected, _ = trained(Moody(0, seed=1), steps)
    weights, scores = trained(moody, steps)
    invented = [score for text, score in scores if score != score_of(text)]
    other = [name for name in expected if not torch.equal(weights[name], expected[name])]
    record_property(
        "counts",
        f"{sum(moody.met.values())} reward faults of {len(moody.met)} kinds, {len(invented)} of {len(scores)} scores "
        f"invented, {len(other)} of {len(expected)} tensors other than without faults",
    )
    assert moody.left == 0
    assert sum(moody.met.values()) == count
    assert len(moody.met) > 5
    assert scores
    assert invented == []
    assert weights.keys() == expected.keys()
    assert other == []


@pytest.mark.parametrize("name", LASTING)
def test_a_fault_that_lasts_stops_the_run_before_anything_is_learned_from_it(name, monkeypatch):
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.005)
    start = {key: p.detach().clone() for key, p in tiny_llama().named_parameters()}
    config = PPOConfig(steps=1, batch_size=2, mini_batch_size=2, max_new_tokens=4, eval_prompts=0, learning_rate=1e-3)
    model = tiny_llama()
    with Service(lambda request: LASTING[name]) as service:
        reward = RemoteReward(f"openrlhf+{service.url}", deadline=20.0, max_reply_mib=1)
        trainer = PPOTrainer(config, model, None, tiny_tokenizer(), reward=reward, dataset=["a ", "b "])
        with pytest.raises(RewardError):
            trainer.train()
    assert len(service.requests) == 1
    assert trainer.steps_done == 0
    assert all(torch.equal(p, start[key]) for key, p in model.named_parameters())
