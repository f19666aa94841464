"""Texts of models, data sets and services that try to steer a terminal, or rich, or the report page."""

import io
import json
import unicodedata
import warnings
from pathlib import Path

import pytest
import tiny
from fake_runs import FakeTrainer, evaluation, result, samples, stats
from fake_service import Service, said
from rich.console import Console

from surefoot.cli import main
from surefoot.demo import run as demo
from surefoot.live import LiveView, closing

SURROGATE = "half \ud83d of a letter"
MARKUP = "[bold]b[/bold] [link=http://evil.example]here[/link] [/] [red on #zzz] \\[x :skull:"
CORPUS = (
    "\x1b[2J\x1b[31mred\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\\x1b]0;title\x07",
    "over\rwritten\x08\x08\x00\x7f\x85\x9b31m",
    "\u202egnp.exe\u2066\u200b\ufeff\u2028next\u2029",
    MARKUP,
    "\N{ROCKET} \U0001f469\u200d\U0001f467 \U0001f1e6\U0001f1f6 \u6f22\u5b57 e\u0301 Z\u0351\u036b\u0343",
    "</script><script>alert(1)</script>",
    "same",
    "same",
)
LONG = "\x1b]0;" + "x" * 2**20


def steering(text: str) -> list[str]:
    """The characters of a text that a terminal may obey, its line ends apart."""
    odd = (c for c in text if c != "\n")
    return [c for c in odd if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    rows = [{"prompt": f"{text} {i}?", "response": text, "label": text} for i, text in enumerate((*CORPUS, LONG))]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("judge.py").write_text("def score(completions):\n    return [float(len(c) % 7) for c in completions]\n")
    return tmp_path


# ------------------------------------------------------------------------------------------ commands
def test_reward_test_shows_every_text_as_it_is_written(folder, capfd):
    assert main(["reward-test", "--reward", "judge.py:score", "--dataset", "rows.jsonl"]) == 0
    out = capfd.readouterr().out
    assert steering(out) == []
    assert r"\x1b[2J\x1b[31mred" in out
    assert r"\u202egnp.exe" in out
    assert MARKUP in out
    assert max(len(line) for line in out.splitlines()) <= 200


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_on_hostile_prompts_shows_and_keeps_them_as_they_are(folder, capfd):
    tiny.tiny_llama().save_pretrained("model")
    tiny.tiny_tokenizer().save_pretrained("model")
    more = ["--steps", "1", "--batch-size", "4", "--mini-batch-size", "4", "--eval-prompts", "3"]
    given = ["--model-name", "model", "--dataset", "rows.jsonl", "--reward", "judge.py:score", "--output-dir", "run"]
    assert main(["ppo", *given, *more, "--ppo-epochs", "1", "--max-new-tokens", "6"]) == 0
    out = capfd.readouterr().out
    assert steering(out) == []
    assert r"example 1  \x1b[2J\x1b[31mred" in out
    assert "too long  1 (row 9): over 250 tokens, dropped" in out
    assert all(steering(path.read_text()) == [] for path in Path("run").rglob("*.jsonl"))
    kept = [json.loads(line) for path in Path("run/samples").iterdir() for line in path.read_text().splitlines()]
    prompts = {f"{text} {i}?" for i, text in enumerate(CORPUS)}
    assert {sample["prompt"] for sample in kept} <= prompts
    page = Path("run/report.html").read_text()
    assert set(steering(page)) <= {"\t", "\u200d"}
    assert "<script>alert" not in page


def test_half_of_a_letter_is_refused_with_its_line(folder, capfd):
    rows = [{"prompt": "fine"}, {"prompt": SURROGATE}]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["reward-test", "--reward", "judge.py:score", "--dataset", "rows.jsonl"]) == 2
    err = capfd.readouterr().err
    assert "rows.jsonl line 2: character 6 is '\\ud83d', half of a character" in err
    assert steering(err) == []


REWARDS = {
    "that raises": "raise ValueError(repr(completions)[1:-1] + TEXT)",
    "that raises what nobody foresaw": "raise StopAsyncIteration(TEXT)",
    "that answers in words": "return [TEXT for c in completions]",
    "that warns": "warnings.warn(TEXT); return []",
    "that logs": "logging.getLogger('surefoot').error(TEXT); return []",
}


@pytest.mark.parametrize("how", REWARDS)
@pytest.mark.parametrize("more", [[], ["--debug"]], ids=["", "debug"])
def test_errors_of_a_reward_show_its_words_as_they_are(folder, capfd, how, more):
    text = "".join(CORPUS) + SURROGATE
    head = f"import logging, warnings\nTEXT = {text!a}\ndef score(completions):\n    "
    Path("loud.py").write_text(head + REWARDS[how] + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["reward-test", "--reward", "loud.py:score", "--dataset", "rows.jsonl", *more]) == 1
    said = capfd.readouterr()
    assert steering(said.out + said.err) == []
    assert r"\x1b[2J" in said.err
    assert len(said.err) < 20_000


def test_what_a_service_says_is_shown_as_it_is(folder, capfd):
    body = ("".join(CORPUS)).encode() + b"\xff\xfe" + b"y" * 2**20
    with Service(lambda request: said(body, 400)) as service:
        given = ["--reward", f"openrlhf+{service.url}#name=a%1B[2J", "--dataset", "rows.jsonl"]
        assert main(["reward-test", *given]) == 1
    err = capfd.readouterr().err
    assert r"HTTP 400" in err
    assert steering(err) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["ppo", "--config", "a\x1b[2J\u202e.yaml"], ["ppo", "--resume", "a\x1b[2J\u202e"], ["a\x1b[2J\u202e"],
        ["ppo", "--a\x1b[2J\u202e", "1"], ["ppo", "a\x1b[2J\u202e"], ["report", "a\x1b[2J\u202e"],
        ["ppo", "--model-name", "a\x1b[2J\u202e", "--dataset", "b", "--reward", "c"],
        ["reward-test", "--dataset", "a\x1b[2J\u202e.jsonl", "--reward", "builtins:len"],
        ["reward-test", "--dataset", "rows.jsonl", "--reward", "a\x1b[2J\u202e.py:f"],
    ],
)  # fmt: skip
def test_names_from_the_command_line_are_shown_as_they_are(folder, capfd, arguments):
    assert main(arguments) == 2
    said = capfd.readouterr()
    assert steering(said.out + said.err) == []
    assert r"a\x1b[2J" in said.err


# ------------------------------------------------------------------------------------------ the view of a run
@pytest.mark.parametrize("text", [*CORPUS, SURROGATE, LONG], ids=range(len(CORPUS) + 2))
@pytest.mark.parametrize("terminal", [False, True])
def test_the_view_of_a_run_shows_answers_as_they_are(text, terminal):
    to = Console(file=io.StringIO(), force_terminal=terminal, no_color=True, width=100, height=40, highlight=False,
                 _environ={"TERM": "xterm"})  # fmt: skip
    told = [s | {"prompt": text + s["prompt"][:0], "scores": {text: 1.0}} for s in samples(1, 1.0, response=text)]
    view, trainer = LiveView(to), FakeTrainer()
    hostile = [_hostile(evaluation(step, 0.5), text) for step in (0, 1)]
    view.on_start(trainer)
    view.on_evaluation(trainer, hostile[0])
    view.on_step(trainer, stats(1), told)
    plain = Console(file=io.StringIO(), width=100)
    for part in (view.render(), closing(result(*hostile), 100)):
        plain.print(part)
    view.on_end(trainer, result())
    assert steering(plain.file.getvalue()) == []
    drawn = to.file.getvalue()
    assert all(bad not in drawn for bad in ("\x1b[2J\x1b[31m", "\x1b]", "\x07", "\x00", "\u202e", "\r\x08", "\ud83d"))
    if text == MARKUP:
        assert MARKUP[:70] in plain.file.getvalue()
        assert "[bold]b[|bold] [link=http:||ev" in plain.file.getvalue()  # a reward's name


def _hostile(found, text):
    metrics = dict(found.metrics) | {f"eval/rewards/{text[:30].replace('/', '|')}": 1.0, "eval/rewards/other": 2.0}
    told = [dict(s) | {"prompt": text, "response": text} for s in found.samples]
    return type(found)(found.step, found.episode, metrics, told)


def test_the_demo_shows_answers_as_they_are():
    for text in CORPUS:
        to = Console(file=io.StringIO(), width=300)
        found = [_hostile(evaluation(step, 0.5), text) for step in (0, 1)]
        for part in demo.samples(*found, seed=0):
            to.print(part)
        assert steering(to.file.getvalue()) == []
