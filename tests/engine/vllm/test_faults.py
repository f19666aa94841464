"""Whatever goes wrong between policy and vLLM: answers are drawn from the policy's weights, or not at all."""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from bigram import bigram
from tiny import tiny_tokenizer

from surefoot.engine.vllm import EngineError, VLLMEngine, engine, folder, worker
from surefoot.peers import AbandonedError
from surefoot.types import Sampling

FAKE = Path(__file__).parents[2] / "fake_vllm.py"
ENDS = (2, 30, 31)
QUERIES = [[65, 66, 67], [70], [80, 81]]
HOW = Sampling(12)

ON_RELOAD = ["not reloaded", "old head", "half of the tensors", "reload fails", "old version"]
ON_ANSWERS = ["dies", "old answers", "an answer is missing", "an answer breaks off", "a token that is none",
              "a log-probability is missing", "a log-probability is not finite"]  # fmt: skip
LATER = [*ON_ANSWERS[2:], "scores fewer tokens", "scores not finite", "does not start", "other model"]


def vllm(model, fault="nothing", when="once", **options):
    command = [sys.executable, "-I", str(FAKE), worker.__file__, fault, when]
    return VLLMEngine(model, tiny_tokenizer(), ENDS, autocast=contextlib.nullcontext, command=command, **options)


@torch.no_grad()
def assert_drawn_from(model, answers):
    """Every log-probability is the model's own."""
    for query, answer in zip(QUERIES, answers, strict=True):
        logits = model(torch.tensor([[*query, *answer.token_ids]])).logits[0, len(query) - 1 : -1]
        seen = logits.double().log_softmax(-1)[range(len(answer.token_ids)), list(answer.token_ids)]
        assert answer.logprobs == pytest.approx(seen.tolist(), abs=1e-5)
        assert answer.finish_reason == ("stop" if answer.token_ids[-1] in ENDS else "length")


def moved(model):
    """The same model with other weights, as an optimizer leaves them."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    return model


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize("tied", [True, False])
def test_answers_are_the_policy_s_before_and_after_its_weights_change(tied):
    model = bigram(tied=tied)
    sampler = vllm(model)
    first = sampler.generate(QUERIES, [1, 2, 3], HOW)
    again = sampler.generate(QUERIES, [1, 2, 3], HOW)
    assert [a.token_ids for a in again] == [a.token_ids for a in first]
    assert (sampler.version, sampler.starts) == (1, 1)
    assert_drawn_from(model, first)
    second = sampler.generate(QUERIES, [1, 2, 3], HOW) if moved(model) else []
    assert (sampler.version, sampler.starts) == (2, 1)
    assert_drawn_from(model, second)
    assert [a.token_ids for a in second] != [a.token_ids for a in first]


def test_a_python_is_found_from_where_the_run_was_started(tmp_path, monkeypatch):
    program = '#!/bin/sh\n[ "$3" = --look ] && { echo "{\\"vllm\\": true}"; exit; }\n'
    program += f'exec {sys.executable} -I {FAKE} {worker.__file__} nothing once "$3"\n'
    (tmp_path / "python").write_text(program)
    (tmp_path / "python").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    model = bigram()
    sampler = VLLMEngine(model, tiny_tokenizer(), ENDS, autocast=contextlib.nullcontext, python="./python")
    assert_drawn_from(model, sampler.generate(QUERIES, [1, 2, 3], HOW))


@pytest.mark.parametrize("when", ["once", pytest.param("always", marks=pytest.mark.slow)])
@pytest.mark.parametrize("fault", ON_RELOAD)
def test_weights_that_do_not_arrive_are_noticed_and_vllm_is_started_with_them(fault, when):
    model = bigram()
    sampler = vllm(model, fault, when)
    sampler.generate(QUERIES, [1, 2, 3], HOW)
    answers = sampler.generate(QUERIES, [1, 2, 3], HOW) if moved(model) else []
    assert_drawn_from(model, answers)
    assert (sampler.version, sampler.starts) == (2, 2)


@pytest.mark.parametrize("fault", [*ON_ANSWERS[:2], *(pytest.param(f, marks=pytest.mark.slow) for f in LATER)])
def test_what_fails_once_is_done_again_by_a_new_process(fault):
    model = bigram()
    sampler = vllm(model, fault)
    answers = sampler.generate(QUERIES, [1, 2, 3], HOW)
    assert_drawn_from(model, answers)
    assert [a.token_ids for a in answers] == [a.token_ids for a in vllm(model).generate(QUERIES, [1, 2, 3], HOW)]
    assert sampler.starts == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param("does not start", "no room for keys and values", marks=pytest.mark.slow),
        ("other model", "does not have the policy's weights"),
        ("dies", "killed by signal 9"),
        pytest.param("scores not finite", "does not have the policy's weights", marks=pytest.mark.slow),
        pytest.param("old answers", "weights of version 0, not 1", marks=pytest.mark.slow),
        pytest.param("an answer is missing", "2 answers to 3 queries", marks=pytest.mark.slow),
        pytest.param("a log-probability is not finite", "answer 0", marks=pytest.mark.slow),
    ],
)
def test_what_fails_again_ends_the_run_with_the_reason(fault, words):
    sampler = vllm(bigram(), fault, "always")
    with pytest.raises(EngineError, match=words):
        sampler.generate(QUERIES, [1, 2, 3], HOW)
    assert sampler.starts == 2
    assert sampler._child is None


def test_one_that_hangs_is_replaced(monkeypatch):
    monkeypatch.setenv("SUREFOOT_TIMEOUT", "3")
    model = bigram()
    sampler = vllm(model, "hangs")
    assert_drawn_from(model, sampler.generate(QUERIES, [1, 2, 3], HOW))
    assert sampler.starts == 2


def test_whoever_leaves_while_it_works_leaves_no_process_behind():
    sampler = vllm(bigram(), "hangs")

    def leave(*_):
        raise AbandonedError("asked to stop")

    before = signal.signal(signal.SIGALRM, leave)
    signal.setitimer(signal.ITIMER_REAL, 2)
    seen = []
    monkey = engine.Child.ask
    try:
        engine.Child.ask = lambda self, *a, **b: seen.append(self.pid) or monkey(self, *a, **b)
        with pytest.raises(AbandonedError):
            sampler.generate(QUERIES, [1, 2, 3], HOW)
    finally:
        engine.Child.ask = monkey
        signal.signal(signal.SIGALRM, before)
    assert seen
    assert not alive(seen[0])


@pytest.mark.parametrize("broken", ["tokenizer", "manifest", "rename"])
def test_a_folder_that_was_not_finished_is_never_loaded(broken, monkeypatch):
    model = bigram()
    sampler = vllm(model)
    first = sampler.generate(QUERIES, [1, 2, 3], HOW)

    def fail(*_, **__):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        if broken == "tokenizer":
            patched.setattr(type(sampler._tokenizer), "save_pretrained", fail)
        else:
            patched.setattr(folder.Path, "write_text" if broken == "manifest" else "rename", fail)
        with pytest.raises(OSError, match="disk full"):
            sampler.generate(QUERIES, [1, 2, 3], HOW) if moved(model) else None
    assert [p.name for p in sampler._home.glob("weights_*")] == ["weights_000001"]
    answers = sampler.generate(QUERIES, [1, 2, 3], HOW)
    assert_drawn_from(model, answers)
    assert [a.token_ids for a in answers] != [a.token_ids for a in first]


@pytest.mark.parametrize("damage", ["cut off", "a tensor is missing", "gone"])
def test_the_worker_refuses_a_folder_that_is_not_as_it_was_written(damage, tmp_path):
    from safetensors.torch import load_file, save_file

    place = folder.write_weights(tmp_path, 3, bigram(tied=False), tiny_tokenizer(), torch.float32)
    assert set(worker.read_weights(str(place), load_file)) == {"embed.weight", "lm_head.weight"}
    file = place / "model.safetensors"
    if damage == "gone":
        file.unlink()
    elif damage == "cut off":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        tensors = load_file(file)
        save_file({"embed.weight": torch.cat(list(tensors.values()))}, file)
        manifest = json.loads((place / "surefoot.json").read_text())
        manifest["files"]["model.safetensors"] = file.stat().st_size
        (place / "surefoot.json").write_text(json.dumps(manifest))
    with pytest.raises((ValueError, OSError)):
        worker.read_weights(str(place), load_file)


def test_weights_that_are_not_finite_are_the_policy_s_fault():
    model = bigram()
    sampler = vllm(model)
    sampler.generate(QUERIES, [1, 2, 3], HOW)
    model.embed.weight.data[65] = float("nan")
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        sampler.generate(QUERIES, [1, 2, 3], HOW)
    assert sampler.starts == 1


def test_longer_prompts_than_there_is_room_for_make_it_start_with_more():
    model = bigram()
    sampler = vllm(model)
    sampler.generate(QUERIES, [1, 2, 3], HOW)
    sampler.generate([[70] * 118], [4], Sampling(12))
    assert (sampler._room, sampler.starts, sampler.version) == (256, 2, 1)


# ------------------------------------------------------------------------------------------ asked for ahead
def test_what_was_asked_for_ahead_comes_from_the_weights_at_that_time_whatever_is_asked_meanwhile():
    model = bigram()
    sampler = vllm(model)
    wait = sampler.begin(QUERIES, [1, 2, 3], HOW)
    now = sampler.generate(QUERIES, [1, 2, 3], HOW) if moved(model) else []
    assert_drawn_from(model, now)
    assert_drawn_from(bigram(), wait())
    assert [a.token_ids for a in wait()] == [a.token_ids for a in vllm(bigram()).generate(QUERIES, [1, 2, 3], HOW)]
    assert (sampler.version, sampler.starts) == (2, 1)


def test_a_reply_larger_than_a_pipe_waits_in_it_for_whoever_comes():
    sampler = vllm(bigram())
    wait = sampler.begin(QUERIES * 300, range(900), HOW)
    answers = wait()
    assert 20 * sum(len(a.token_ids) for a in answers) > 2**16  # characters of a log-probability
    assert_drawn_from(bigram(), answers[:3])


@pytest.mark.parametrize("fault", [ON_ANSWERS[0], *(pytest.param(f, marks=pytest.mark.slow) for f in ON_ANSWERS[1:])])
def test_what_fails_while_it_draws_ahead_leaves_no_answers_and_the_next_are_the_newer_policy_s(fault, caplog):
    model = bigram()
    sampler = vllm(model, fault)
    wait = sampler.begin(QUERIES, [1, 2, 3], HOW)
    answers = [wait(), wait()] if moved(model) else []
    assert answers == [None, None]
    assert caplog.text.count("drawn again, from the weights as they are by then") == 1
    assert_drawn_from(model, sampler.generate(QUERIES, [1, 2, 3], HOW))
    assert (sampler.version, sampler.starts) == (2, 2)


@pytest.mark.slow
def test_one_that_hangs_while_it_draws_ahead_is_given_up_when_its_answers_are_wanted(monkeypatch):
    monkeypatch.setenv("SUREFOOT_TIMEOUT", "3")
    model = bigram()
    sampler = vllm(model, "hangs")
    wait = sampler.begin(QUERIES, [1, 2, 3], HOW)
    assert_drawn_from(model, sampler.generate(QUERIES, [1, 2, 3], HOW))
    assert wait() is None
    assert sampler.starts == 2


@pytest.mark.slow
def test_nothing_is_drawn_ahead_from_other_weights_than_the_policy_s():
    sampler = vllm(bigram(), "other model", "always")
    with pytest.raises(EngineError, match="does not have the policy's weights"):
        sampler.begin(QUERIES, [1, 2, 3], HOW)
    assert sampler._child is None


def test_whoever_leaves_instead_of_waiting_leaves_no_process_behind(monkeypatch):
    def leave(*_):
        raise AbandonedError("asked to stop")

    sampler = vllm(bigram())
    wait, pid = sampler.begin(QUERIES, [1, 2, 3], HOW), sampler._child.pid
    with monkeypatch.context() as patched:
        patched.setattr(engine.Child, "reply", leave)
        with pytest.raises(AbandonedError):
            wait()
    assert not alive(pid)
    assert wait() is None


# ------------------------------------------------------------------------------------------ a process of ours
def test_it_sees_nothing_of_ours_that_it_does_not_need(monkeypatch):
    hidden = {
        "RANK",
        "MASTER_ADDR",
        "TORCHELASTIC_RUN_ID",
        "VLLM_ALLOW_INSECURE_SERIALIZATION",
        "HF_TOKEN",
        "PYTHONPATH",
    }
    for name in hidden:
        monkeypatch.setenv(name, "1")
    sampler = vllm(bigram())
    sampler.generate(QUERIES, [1, 2, 3], HOW)
    seen = json.loads((sampler._home / "environment.json").read_text())
    assert not hidden & set(seen)
    assert seen["HF_HUB_OFFLINE"] == seen["VLLM_NO_USAGE_STATS"] == seen["DO_NOT_TRACK"] == "1"
    assert seen["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_its_folder_goes_with_it():
    sampler = vllm(bigram())
    sampler.generate(QUERIES, [1, 2, 3], HOW)
    home, pid = sampler._home, sampler._child.pid
    assert home.stat().st_mode & 0o077 == 0
    del sampler
    assert not home.exists()
    assert not alive(pid)


PARENT = """
import importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("child", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
child = module.Child(sys.argv[3:], {}, pathlib.Path(sys.argv[2]))
print(child.pid, flush=True)
time.sleep(60)
"""


def test_it_dies_with_a_parent_that_is_killed(tmp_path):
    import subprocess

    from surefoot.engine.vllm import child

    home = tmp_path / "home"
    home.mkdir()
    fake = [sys.executable, "-I", str(FAKE), worker.__file__, "nothing", "once", str(home)]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, child.__file__, str(home), *fake], stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    until = time.monotonic() + 20
    while not (home / "environment.json").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    while (alive(pid) or home.exists()) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(pid)
    assert not home.exists()


@pytest.mark.parametrize(
    ("python", "words"), [("/nowhere/python", "does not run"), (sys.executable, "has no vLLM"), (None, "has no vLLM")]
)
def test_an_interpreter_without_vllm_is_refused_at_once(python, words):
    with pytest.raises(ValueError, match=words):
        VLLMEngine(bigram(), tiny_tokenizer(), ENDS, autocast=contextlib.nullcontext, python=python)
