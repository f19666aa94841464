"""Which models are compared: names, globs, seeds and strengths, and what is refused before anything is loaded."""

import json
from pathlib import Path

import pytest

from surefoot.config import PPOConfig
from surefoot.evaluate.options import CompareOptions
from surefoot.evaluate.run import proxy_of
from surefoot.evaluate.runs import agreed, check_gold, find_candidates, same_scorer, start_of
from surefoot.settings import to_yaml
from surefoot.types import Prompt


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def model(folder, kind="LlamaForCausalLM"):
    Path(folder).mkdir(parents=True)
    Path(folder, "config.json").write_text(json.dumps({"architectures": [kind]}))


def run(folder, **options):
    model(f"{folder}/model")
    given = {"model_name": "sft", "reward": ("judge.py:score",)} | options
    Path(folder, "config.yaml").write_text(to_yaml(PPOConfig(**given)))


def test_runs_of_one_name_but_for_the_seed_are_seeds_of_one_method():
    for seed in (0, 1, 2):
        run(f"runs/ppo-seed{seed}", seed=seed)
    run("runs/first", seed=5)
    model("elsewhere/rloo")
    found = find_candidates(["runs/ppo-seed*", "runs/first", "RLOO of TRL=elsewhere/rloo"])
    assert [(c.label, c.seed) for c in found] == [
        ("ppo", 0), ("ppo", 1), ("ppo", 2), ("first", 5), ("RLOO of TRL", None)
    ]  # fmt: skip
    assert [str(c.model) for c in found[-2:]] == ["runs/first/model", "elsewhere/rloo"]


def test_an_equals_sign_in_the_name_of_a_folder_is_no_label():
    run("runs/lr=1e-5")
    assert [c.label for c in find_candidates(["runs/lr=1e-5"])] == ["lr=1e-5"]


def test_strengths_are_of_one_family():
    run("a", seed=1)
    run("b", seed=1, init_kl_coef=0.3)
    found = find_candidates(["ppo/weak=a", "ppo/strong=b"])
    assert [(c.label, c.family) for c in found] == [("ppo/weak", "ppo"), ("ppo/strong", "ppo")]


def refused(words, specs):
    with pytest.raises(ValueError, match=words):
        find_candidates(specs)


def test_what_is_no_model_and_what_is_no_method_is_refused():
    run("a", seed=1)
    run("b", seed=1)
    run("c", seed=2, learning_rate=1e-5)
    model("judge", "LlamaForSequenceClassification")
    Path("unfinished").mkdir()
    Path("unfinished/config.yaml").write_text("seed: 1\n")
    refused("runs is missing", [])
    refused("there is no folder 'nowhere'", ["nowhere"])
    refused(r"there is no folder 'runs/\*'", ["x=runs/*"])
    refused("'unfinished' holds no model.*its run has not ended", ["unfinished"])
    refused("holds a LlamaForSequenceClassification, no causal language model", ["judge"])
    refused("a and b are both seed 1 of 'x'", ["x=a", "x=b"])
    refused(r"under 'x' differ in learning_rate \(1e-06 and 1e-05\)", ["x=a", "x=c"])
    refused("a folder is named twice under 'x'", ["x=a", "x=./a"])
    refused("that is the name of a row of the table already", ["SFT=a"])
    run("d", seed=3, learning_rate=1e-5)
    refused("1 of p/a, 2 of p/b: give as many seeds of each strength of 'p'", ["p/a=a", "p/b=c", "p/b=d"])


def test_the_baseline_is_what_the_runs_started_from_or_what_is_given():
    run("a", seed=1)
    run("b", seed=2, adapter_name="adapter")
    model("elsewhere")
    assert start_of(find_candidates(["a"]), None) == ("sft", None)
    assert start_of(find_candidates(["b"]), None) == ("sft", "adapter")
    assert start_of(find_candidates(["a", "b"]), "org/name") == ("org/name", None)
    assert start_of(find_candidates(["b"]), "a") == ("a/model", None)
    with pytest.raises(ValueError, match=r"started from different models, 'sft' and 'adapter'"):
        start_of(find_candidates(["a", "b"]), None)
    with pytest.raises(ValueError, match=r"none of the runs says which model it started from"):
        start_of(find_candidates(["elsewhere"]), None)


def test_an_option_is_what_is_given_or_what_all_runs_have():
    run("a", seed=1, temperature=0.7)
    run("b", seed=2)
    both = find_candidates(["a", "b"])
    assert agreed(both[:1], "temperature", None) == 0.7
    assert agreed(both, "temperature", 0.5) == 0.5
    with pytest.raises(ValueError, match=r"temperature is 0\.7 in a and 1\.0 in b: say which"):
        agreed(both, "temperature", None)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("judge.py:score", "./judge.py:score", True),
        ("judge.py", "judge.py:score", True),
        ("judge.py:score", "judge.py:other", False),
        ("judge:score", "judge.score", True),
        ("folder", "./folder/", True),
        ("org/name", "org/name", True),
        ("org/name", "org/other", False),
        ("openrlhf+http://h:1/x#model=a", "openrlhf+http://h:1/x", True),
    ],
)
def test_scorers_are_the_same_however_they_are_written(one, other, same):
    Path("folder").mkdir()
    assert same_scorer(one, other) is same


def test_gold_must_be_a_scorer_that_no_run_was_trained_on():
    run("a", reward=("judge.py:score", "short.py:score"))
    found = find_candidates(["a"])
    check_gold(["other.py:score"], found, ())
    for gold, proxy, words in (
        ([], (), "gold is missing"),
        (["./short.py:score"], (), r"gold='\./short\.py:score' is what a was trained on"),
        (["other.py:score"], ("other.py",), "is the proxy too"),
        (["x.py:score", "x.py:score"], (), "gold names a scorer twice"),
    ):
        with pytest.raises(ValueError, match=words):
            check_gold(gold, found, proxy)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"best_of": (0, 2)}, r"best_of=\[0, 2\] must be whole numbers of at least 1"),
        ({"best_of": (), "best_of_samples": 4}, "best_of_samples=4 is for best of n"),
        ({"best_of_samples": 4}, "best_of_samples=4 is less than the largest best_of, 16"),
        ({"proxy": ("a", "b"), "proxy_weights": (1.0,)}, "2 proxies but 1 proxy_weights"),
        ({"prompt_column": "text"}, "prompt_column, prompt_template and max_prompt_tokens are for dataset"),
        ({"dataset": "x", "prompt_template": "none"}, "has no {prompt} in it"),
        ({"eval_prompts": 1}, "eval_prompts=1 must be at least 2"),
    ],
)
def test_options_that_contradict_themselves_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        CompareOptions(**options)


def test_the_proxy_puts_rewards_together_as_the_runs_did_unless_another_is_named():
    Path("judge.py").write_text(
        "def ones(completions, **_):\n    return [1.0] * len(completions)\n"
        "def fives(completions, **_):\n    return [5.0] * len(completions)\n"
    )
    both = ("judge.py:ones", "judge.py:fives")
    prompts, answers = [Prompt("Q", (1,))], ["A"]
    for number, (how, score) in enumerate(
        [
            ({}, 6.0),
            ({"reward_weights": (2.0, 1.0)}, 7.0),
            ({"reward_ensemble": "min"}, 1.0),
            ({"reward_ensemble": "mean"}, 3.0),
            (
                {"reward_ensemble": "uncertainty", "uncertainty_coef": 0.25},
                3.0 - 0.25 * 4.0,
            ),  # variance ((3-1)²+(5-3)²)/2
        ]
    ):
        run(f"run{number}", reward=both, **how)
        found = find_candidates([f"run{number}"])
        mix = proxy_of(CompareOptions(runs=(f"run{number}",), gold=("other.py:score",)), found, ())
        assert mix(prompts, answers).scores == [score]
        named = CompareOptions(runs=(f"run{number}",), gold=("other.py:score",), proxy=both)
        assert proxy_of(named, found, ())(prompts, answers).scores == [6.0]
