"""What a run's folder tells a comparison, and when its evaluations cannot stand beside what is measured anew."""

import json

import pytest
from made_run import OPENINGS, make_run

from surefoot.evaluate.recorded import cost_of, points_of
from surefoot.evaluate.runs import Candidate, options_in
from surefoot.rewards import make_reward
from surefoot.types import Prompt, Sampling

START = ("some-lab/Small-135M", None)
PROMPTS = [Prompt(text, (1,), index=i) for i, text in enumerate(OPENINGS)]


def length(completions, **columns):
    return [float(len(text)) for text in completions]


@pytest.fixture
def run(tmp_path):
    folder = make_run(tmp_path / "run", steps=30, every=10, prompts=len(OPENINGS))
    return Candidate("ppo", folder, folder / "model", options_in(folder))


def points(run, prompts=PROMPTS, start=START, **sampling):
    how = Sampling(**({"max_new_tokens": 64} | sampling))
    return points_of(run, prompts, how, start, {"gold/length": make_reward(length)})


def test_evaluations_between_the_ends_are_judged_by_the_new_scorer_in_the_order_of_the_new_prompts(run):
    found = points(run, PROMPTS[::-1])
    assert [point.label for point in found] == ["ppo, step 10", "ppo, step 20"]  # neither the first nor the last
    lines = [json.loads(line) for line in (run.folder / "samples/eval_000010.jsonl").read_text().splitlines()]
    said = {line["prompt"]: line for line in lines}
    assert found[0].values["gold/length"].tolist() == [len(said[p]["response"]) for p in OPENINGS[::-1]]
    assert found[0].kl == pytest.approx(sum(line["kl"] for line in lines) / len(lines))


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        ({"temperature": 0.7}, {}, "they were answered with another temperature"),
        ({"max_new_tokens": 32}, {}, "they were answered with another max_new_tokens"),
        ({"start": ("other", None)}, {}, "their KL is from another model"),
        ({}, {"ref_model_name": "other"}, "their KL is from another model"),
        ({}, {"kl_penalty": "abs"}, "their KL is the estimate 'abs', whose mean is not the divergence"),
        ({"prompts": [*PROMPTS, Prompt("another", (1,))]}, {}, "they are of other prompts"),
    ],
)
def test_evaluations_under_other_conditions_are_left_out_and_it_is_said_why(run, given, options, words):
    run.options.update(options)
    assert points(run, **given) == words


def test_what_a_method_cost_is_the_mean_over_its_runs(run):
    found = cost_of([run])
    assert (found.answers, found.scores, found.rows) == (30 * 64, 2 * 30 * 64, 0)
    assert found.seconds == pytest.approx(30 * (2.6 + 1.9), rel=0.05)


def test_a_run_that_learns_from_a_file_samples_nothing(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "episode": 32, "time/step": 1.5}\n')
    found = cost_of([Candidate("dpo", tmp_path, tmp_path, {"beta": 0.1})])
    assert (found.answers, found.scores, found.rows, found.seconds) == (0, 0, 32, 1.5)
