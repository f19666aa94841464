"""Gold, the watch and what shapes scores, in whole runs of a tiny model."""

import json
import math
from pathlib import Path

import pytest
import torch
from stopped_runs import make
from transformers import AutoModelForCausalLM

from surefoot import PPOConfig, PPOTrainer
from surefoot.checkpoint import read_checkpoint
from surefoot.kept import Saved, best_first, best_valid, place, steps_in
from surefoot.report import write_report


def peak_at(step):
    """Gold that rises until a step and falls after it, the same for every answer but for its length's last digit."""

    def gold(completions, trainer_state, **_):
        return [-abs(trainer_state.global_step - step) + 1e-3 * len(c) for c in completions]

    return gold


def vowels(text):
    return float(sum(text.count(v) for v in "aeiou"))


def trained(folder, **changes):
    trainer = make(folder, **({"reward": vowels, "eval_prompts": 8, "eval_every": 1} | changes))
    return trainer, trainer.train()


def lines(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


# ---------------------------------------------------------------------------------------------- gold
def test_gold_is_in_every_evaluation_and_moves_nothing(tmp_path):
    """Two scorers: their mean counts. The weights are those of a run without."""
    _, plain = trained(tmp_path / "plain", steps=2)
    trainer, result = trained(tmp_path / "gold", steps=2, gold=[vowels, lambda text: 2.0 * len(text)])
    assert [e.step for e in result.evaluations] == [0, 1, 2]
    for with_gold, without in zip(result.evaluations, plain.evaluations, strict=True):
        assert with_gold.score == without.score
        for sample in with_gold.samples:
            expected = [vowels(sample["response"]), 2.0 * len(sample["response"])]
            assert list(sample["golds"].values()) == expected
            assert sample["gold"] == pytest.approx(sum(expected) / 2)
        mean = sum(s["gold"] for s in with_gold.samples) / 8
        assert with_gold.gold == with_gold.metrics["eval/gold"] == pytest.approx(mean)
        assert without.gold is None
    one, other = (read_checkpoint(place(tmp_path / name / "checkpoints", 2))[0] for name in ("plain", "gold"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    written = json.loads((tmp_path / "gold" / "result.json").read_text())
    assert written["gold"]["last"] == {"step": 2, "gold": result.evaluations[-1].gold}
    assert written["model_step"] == 2
    assert trainer.reward is not trainer.gold


def test_the_best_checkpoint_is_kept_by_gold_though_the_score_says_otherwise(tmp_path):
    scores = lambda completions, trainer_state, **_: [float(trainer_state.global_step)] * len(completions)  # noqa: E731
    trained(tmp_path, reward=scores, gold=peak_at(1), keep_checkpoints=2, watch="off")
    assert list(steps_in(tmp_path / "checkpoints")) == [1, 5, 6]


def test_without_gold_the_score_decides_and_where_some_have_gold_only_they_are_compared():
    def saved(step, score, gold=None):
        return Saved(Path(), step, score, gold)

    assert [s.step for s in best_first([saved(1, 2.0), saved(2, 3.0), saved(3, 3.0), saved(4, None)])] == [2, 3, 1]
    assert [s.step for s in best_first([saved(1, 99.0), saved(2, 0.0, -5.0), saved(3, 0.0, -4.0)])] == [3, 2]


# ---------------------------------------------------------------------------------------------- stop and restore
def test_a_run_that_falls_ends_with_the_best_model_and_says_so(tmp_path):
    trainer, result = trained(tmp_path, gold=peak_at(2), watch="stop_and_restore", save_every=0)
    assert (result.steps, result.model_step) == (3, 2)
    assert result.reason.startswith("watch: gold fell from ")
    best = read_checkpoint(place(tmp_path / "checkpoints", 2))[0]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, best[next(n for n in best if n.endswith(name) and "optimizer" not in n)])
    assert all(torch.equal(p, best[n]) for n, p in trainer.models.trainable().items())
    written = json.loads((tmp_path / "result.json").read_text())
    assert (written["model_step"], written["gold"]["best"]["step"], written["gold"]["last"]["step"]) == (2, 2, 3)
    (alarm,) = [a for a in lines(tmp_path, "evaluations.jsonl")[-1]["alarms"] if a["sign"] == "gold"]
    assert alarm["done"] == "stop_and_restore"
    assert len(alarm["prompts"]) == 5
    assert set(alarm["prompts"]) <= {s["row"] for s in result.evaluations[-1].samples}
    page = write_report(tmp_path).read_text()
    assert "Look at these samples: prompts" in page
    assert "of step 2, the best by gold" in page


def test_until_it_acts_a_watched_run_is_the_unwatched_one_bit_for_bit(tmp_path):
    _, watched = trained(tmp_path / "watched", gold=peak_at(2), watch="stop_and_restore", save_every=1)
    _, free = trained(tmp_path / "free", gold=peak_at(2), watch="off", save_every=1, keep_checkpoints=9)
    assert watched.steps < free.steps
    for here, there in zip(watched.evaluations, free.evaluations, strict=False):
        assert (here.step, list(here.samples)) == (there.step, list(there.samples))
        assert {name: here.metrics[name] for name in there.metrics} == there.metrics
    one, other = (read_checkpoint(place(tmp_path / n / "checkpoints", 3))[0] for n in ("watched", "free"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_run_that_has_ended_so_ends_again_at_once_with_the_same_model(tmp_path):
    trainer, result = trained(tmp_path, gold=peak_at(2), watch="stop_and_restore")
    weights = {n: p.detach().clone() for n, p in trainer.models.trainable().items()}
    again = make(tmp_path, reward=vowels, eval_prompts=8, eval_every=1, gold=peak_at(2), watch="stop_and_restore")
    again.restore(place(tmp_path / "checkpoints", 3))
    ended = again.train()
    assert (ended.reason, ended.steps, ended.model_step) == (result.reason, 3, 2)
    assert all(torch.equal(p, weights[n]) for n, p in again.models.trainable().items())


def test_a_run_that_is_told_to_warn_only_goes_on(tmp_path):
    trained(tmp_path, gold=peak_at(2), watch="stop_and_restore")
    again = make(tmp_path, reward=vowels, eval_prompts=8, eval_every=1, gold=peak_at(2), watch="warn")
    again.restore(place(tmp_path / "checkpoints", 3))
    assert again.train().reason == "finished: all 6 steps are done"


def test_where_the_start_was_best_the_start_is_saved(tmp_path):
    _, result = trained(tmp_path, gold=peak_at(0), watch="stop_and_restore")
    assert (result.steps, result.model_step) == (1, 0)


def test_a_damaged_best_checkpoint_is_named_and_the_next_best_taken(tmp_path):
    trained(tmp_path, gold=peak_at(2), steps=3, keep_checkpoints=9)
    file, said = place(tmp_path / "checkpoints", 2) / "state.json", []
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    found = best_valid(tmp_path / "checkpoints", said.append)
    golds = {e["step"]: e["metrics"]["eval/gold"] for e in lines(tmp_path, "evaluations.jsonl")}
    assert found.step == max((1, 3), key=golds.__getitem__)
    assert len(said) == 1
    assert "step_000002" in said[0]


# ---------------------------------------------------------------------------------------------- raise the price
@pytest.mark.parametrize(("controller", "more"), [("fixed", {}), ("linear", {"final_kl_coef": 0.05})])
def test_each_fall_doubles_the_price_from_the_next_step_on(tmp_path, controller, more):
    """Gold is best at step 1 and falls ever after: looked at after steps 2, 3, 4 it raises three times."""

    def prices(folder, watch):
        trained(folder, gold=peak_at(1), watch=watch, kl_controller=controller, init_kl_coef=0.1, steps=5, **more)
        return [line["objective/kl_coef"] for line in lines(folder, "metrics.jsonl")]

    without, raised = prices(tmp_path / "a", "warn"), prices(tmp_path / "b", "raise_kl")
    assert raised == pytest.approx([p * f for p, f in zip(without, (1, 1, 2, 4, 8), strict=True)])


def test_a_price_that_is_steered_gets_a_lower_target_with_it(tmp_path):
    trained(tmp_path, gold=peak_at(1), watch="raise_kl", steps=4, target_kl=0.2, horizon=1e9)
    found = [(line["objective/kl_coef"], line["objective/target_kl"]) for line in lines(tmp_path, "metrics.jsonl")]
    assert [c for c, _ in found] == pytest.approx([0.1, 0.1, 0.2, 0.4], rel=1e-6)
    assert [t for _, t in found] == pytest.approx([0.2, 0.2, 0.1, 0.05])


# ---------------------------------------------------------------------------------------------- refusals
def test_what_cannot_work_is_refused_before_anything_is_trained(tmp_path):
    for action in ("raise_kl", "stop_and_restore"):
        with pytest.raises(ValueError, match="needs gold"):
            trained(tmp_path / action, watch=action)
        assert not (tmp_path / action).exists()
        with pytest.raises(ValueError, match="eval_prompts=0 switches them off"):
            PPOConfig(watch=action, eval_prompts=0)
    with pytest.raises(ValueError, match="needs output_dir"):
        trained(None, watch="stop_and_restore", gold=vowels)
    with pytest.raises(ValueError, match="gold scores evaluations, and there are no evaluation prompts"):
        trained(tmp_path / "b", gold=vowels, eval_prompts=0)
    with pytest.raises(ValueError, match=r"gold='judge\.py' is the reward that PPO is trained on"):
        PPOConfig(reward=("judge.py",), gold=("judge.py", "b.py"))
    with pytest.raises(ValueError, match="needs several rewards, and there is one"):
        PPOConfig(reward=("a.py",), reward_ensemble="mean")


def test_names_are_refused_before_models_are_loaded():
    config = PPOConfig(model_name="nowhere", dataset="nowhere.jsonl", reward=("a.py",), watch="stop_and_restore")
    with pytest.raises(ValueError, match="watch='stop_and_restore' needs gold"):
        PPOTrainer.from_config(config)


# ---------------------------------------------------------------------------------------------- shaped scores
class Asked:
    """A reward that remembers what it was asked."""

    name = "asked"

    def __init__(self):
        self.answers = {}

    def __call__(self, prompts, completions):
        from surefoot import RewardOutput

        for prompt, completion in zip(prompts, completions, strict=True):
            self.answers.setdefault(prompt.index, []).append(str(completion))
        return RewardOutput([vowels(str(c)) for c in completions])


@pytest.mark.parametrize("lora", [0, 2])
def test_scores_stand_beside_those_of_the_references_own_answers(tmp_path, lora):
    """What a step saw is recomputed from the answers that the reward was shown; the second epoch asks for none."""
    reward = Asked()
    trainer, _ = trained(tmp_path, reward=reward, reward_shaping="sigmoid", eval_prompts=0, steps=6, lora_r=lora,
                         dataset=[f"prompt number {i}" for i in range(12)], learning_rate=4e-3)  # fmt: skip
    assert sorted(trainer.references.known) == list(range(12))
    samples = [line for n in range(1, 7) for line in lines(tmp_path, f"samples/step_{n:06d}.jsonl")]
    asked = {row: list(answers) for row, answers in reward.answers.items()}
    for sample in samples:
        asked[sample["row"]].remove(sample["response"])
    assert all(len(rest) == 1 for rest in asked.values())  # one answer of the reference each
    known = {row: vowels(rest[0]) for row, rest in asked.items()}
    assert trainer.references.known == known
    for n in range(1, 7):
        rows = lines(tmp_path, f"samples/step_{n:06d}.jsonl")
        expected = [1 / (1 + math.exp(known[s["row"]] - s["score"])) for s in rows]
        line = lines(tmp_path, "metrics.jsonl")[n - 1]
        assert line["objective/scores"] == pytest.approx(sum(expected) / 4, abs=1e-6)
        assert line["rewards/reference_score"] == pytest.approx(sum(known[s["row"]] for s in rows) / 4)


def test_the_reference_answers_as_the_policy_did_at_the_start_however_far_it_has_gone(tmp_path):
    """Another learning rate is another policy at the second step, and the same reference."""
    changes = {"reward_shaping": "center", "eval_prompts": 0, "steps": 3, "reward": lambda t: sum(map(ord, t)) % 7.0}
    near, _ = trained(tmp_path / "a", learning_rate=1e-5, **changes)
    far, _ = trained(tmp_path / "b", learning_rate=4e-3, **changes)
    assert near.references.known == far.references.known
    here, there = (lines(tmp_path / n, "samples/step_000003.jsonl") for n in "ab")
    assert [s["kl"] for s in here] != [s["kl"] for s in there]


def test_the_length_penalty_is_taken_off_for_each_token(tmp_path):
    trained(tmp_path / "a", steps=1)
    trained(tmp_path / "b", steps=1, length_penalty=0.25)
    plain, fined = (lines(tmp_path / n, "metrics.jsonl")[0] for n in "ab")
    length = plain["tokens/responses_len_mean"]
    assert fined["objective/scores"] == pytest.approx(plain["objective/scores"] - 0.25 * length)
