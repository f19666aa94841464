"""`surefoot rate` on the command line."""

import importlib.util
import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from rated_runs import client_of, rating_of, vote, write_run
from web_server import serving

from surefoot.cli import main

HEAVY = "torch transformers peft accelerate datasets matplotlib pandas"


def test_the_pages_load_nothing_heavy():
    pages = "import sys, uvicorn, surefoot.web.command, surefoot.web.guard, surefoot.web.rate.app"
    asked = f"{pages}; print([name for name in {HEAVY.split()} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", asked], text=True) == "[]\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_what_is_asked_and_where_and_ends_in_peace(tmp_path, number):
    run = write_run(tmp_path)
    with serving("rate", run, "--raters", "ana", "ben", "--pairs", "16", links=2) as served:
        said = "".join(served.lines)
        assert "10 policy-sft, 3 sft-sft, 3 policy-policy, 1 planted, 3 shown again" in said
        assert "20 screens a rater, about 12 min" in said
        assert len(set(served.links)) == 2
        assert all(re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", link) for link in served.links)
        asked = urllib.request.Request(served.links[0].partition("?")[0] + "healthz")
        assert urllib.request.urlopen(asked, timeout=10).status == 204
        code, rest = served.stop(number)
    assert code == 0
    assert "votes: ana 0 of 20, ben 0 of 20" in rest


def test_results_are_hidden_on_the_terminal_too(tmp_path, capsys):
    run = write_run(tmp_path)
    vote(client_of(rating_of(run, "ana"), "ana"), 0)
    assert main(["rate", str(run), "--results"]) == 1
    assert main(["rate", str(run), "--export", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    assert "hidden until a rater has answered" in shown.err
    assert "ana 1 of 20" in shown.err
    assert "%" not in shown.out + shown.err
    assert not (tmp_path / "out").exists()


def test_results_and_exports_of_a_finished_rating(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    client = client_of(rating_of(run, "ana"), "ana")
    for place in range(20):
        vote(client, place, ("left", "both good", "both bad")[place % 3])
    assert main(["rate", str(run), "--results", "--export", str(tmp_path / "out")]) == 0
    assert "the planned number was reached" in capsys.readouterr().out
    votes = [json.loads(line) for line in (tmp_path / "out" / "votes.jsonl").read_text().splitlines()]
    assert len(votes) == 20
    assert {row["rater"] for row in votes} == {"ana"}
    assert main(["rate", str(run), "--results"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--raters", "ana", "ana"], "a short name of his own"),
        (["--raters", "a\x1bb"], "a short name of his own"),
        (["--pairs", "0"], "at least one"),
        (["--step", "7"], "evaluations after the first step are"),
        (["--results"], "has no rating yet"),
        (["--host", "0.0.0.0"], "nothing is encrypted"),
        (["--host", "lab.example"], "as numbers"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(tmp_path, capsys, arguments, said):
    assert main(["rate", str(write_run(tmp_path)), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_what_was_decided_is_not_decided_again(tmp_path, capsys):
    run = write_run(tmp_path)
    rating_of(run, "ana")
    assert main(["rate", str(run), "--pairs", "30"]) == 2
    assert "was begun already" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["rate", "web"])
def test_missing_packages_are_named_with_what_installs_them(tmp_path, capsys, monkeypatch, command):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else object())
    assert main([command, str(tmp_path)]) == 2
    assert 'pages need uvicorn: pip install "surefoot[web]"' in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert main(["rate", str(tmp_path / "nowhere")]) == 2
    assert "no folder of a run" in capsys.readouterr().err
    assert main(["rate", str(tmp_path)]) == 2
    assert "eval_every" in capsys.readouterr().err
