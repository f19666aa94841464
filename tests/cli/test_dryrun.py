"""The checklist: each defect fails its own line and no other, and says what to do."""

import math

import pytest
import torch
from fake_runs import FakeTrainer, stats

from surefoot.dryrun import checklist, dry_run


def failed(step_stats, **how):
    return [check.name for check in checklist(step_stats, **({"rough": False} | how)) if not check.ok]


def test_a_healthy_step_passes_every_check():
    assert failed(stats()) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"objective__kl_per_token": 2e-4}, "KL to the reference is 0"),
        ({"objective__kl_per_token": -2e-4}, "KL to the reference is 0"),
        ({"objective__kl_k3": 2e-4}, "KL to the reference is 0"),
        ({"objective__kl_per_token": math.nan}, "KL to the reference is 0"),
        ({"ppo/policy/first_ratio": 1.002}, "first ratio is 1"),
        ({"ppo/policy/first_ratio": 0.998}, "first ratio is 1"),
        ({"ppo/policy/first_ratio": math.nan}, "first ratio is 1"),
        ({"tokens__eos_rate": 0.0}, "some answers end"),
        ({"tokens__truncated_rate": 0.8}, "most answers are whole"),
        ({"ppo__std_scores": 0.0}, "scores differ"),
        ({"ppo__std_scores": math.nan}, "scores differ"),
        ({"ppo__grad_norm": math.inf}, "gradients are finite"),
        ({"ppo/loss/total": math.nan}, "gradients are finite"),
    ],
)
def test_each_defect_fails_its_own_check_with_advice(changes, name):
    found = checklist(stats(**changes), rough=False)
    assert [check.name for check in found if not check.ok] == [name]
    assert all(bool(check.advice) != check.ok for check in found)


def test_bfloat16_is_given_more_room():
    loose = stats(**{"objective/kl_per_token": 1e-2, "ppo/policy/first_ratio": 1.04})
    assert failed(loose, rough=True) == []
    assert failed(loose) == ["KL to the reference is 0", "first ratio is 1"]
    worse = stats(**{"objective/kl_per_token": 3e-2, "ppo/policy/first_ratio": 1.06})
    assert failed(worse, rough=True) == ["KL to the reference is 0", "first ratio is 1"]


def test_another_reference_may_differ_but_not_be_broken():
    assert failed(stats(objective__kl_per_token=1.5), other_reference=True) == []
    assert failed(stats(objective__kl_per_token=math.inf), other_reference=True) == ["KL to the reference"]


def test_a_dry_run_answers_scores_and_steps_on_one_batch():
    trainer = FakeTrainer()
    report = dry_run(trainer)
    rows, answers, scores = trainer.given
    assert len(rows) == 4
    assert rows[0] == rows[1] != rows[2] == rows[3]
    assert answers == [f"{rows[0]}.0", f"{rows[0]}.1", f"{rows[2]}.0", f"{rows[2]}.1"]
    assert scores == [0.0, 1.0, 2.0, 3.0]
    assert trainer.reward.seen == list(zip(rows, answers, strict=True))
    assert report.passed
    assert set(report.seconds) == {"generate", "score", "step"}
    assert report.run_seconds == pytest.approx(100 * sum(report.seconds.values()))
    assert report.peak_memory_gib == 1.25


def test_the_text_names_failures_advice_times_and_memory():
    trainer = FakeTrainer(stats(tokens__eos_rate=0.0), gamma=0.5)
    text = dry_run(trainer).text()
    lines = text.splitlines()
    assert lines[0].startswith("ok    KL to the reference is 0")
    assert "FAIL  some answers end          0% end by themselves" in lines
    assert any(line.startswith("      no answer ended by itself") for line in lines)
    assert any(line.startswith("note  gamma=0.5 lies outside") for line in lines)
    assert "100 such steps take about 1 min" in text
    assert lines[-1] == "room  1.25 GiB of memory at most"


def test_a_policy_in_bfloat16_is_judged_as_rough():
    trainer = FakeTrainer(stats(objective__kl_per_token=1e-2))
    assert not dry_run(trainer).passed
    trainer.policy = trainer.policy.to(torch.bfloat16)
    assert dry_run(trainer).passed


def test_autocast_is_judged_as_rough():
    trainer = FakeTrainer(stats(objective__kl_per_token=1e-2))
    trainer.models.arithmetic = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    assert dry_run(trainer).passed


@pytest.mark.parametrize("missing", ["reward", "prompts"])
def test_without_prompts_or_reward_there_is_no_dry_run(missing):
    trainer = FakeTrainer()
    setattr(trainer, missing, None)
    with pytest.raises(ValueError, match="needs dataset and reward"):
        dry_run(trainer)
