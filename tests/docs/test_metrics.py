"""docs/metrics.md names everything that a step and an evaluation return, and nothing else."""

import re
from pathlib import Path

import pytest
import tiny

from surefoot import PPOConfig, PPOTrainer, RewardOutput
from surefoot.callbacks import Callback
from surefoot.watch.run import SIGNS

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
CLASSIC = """
objective/kl objective/kl_dist objective/logprobs objective/ref_logprobs objective/kl_coef objective/entropy
ppo/mean_non_score_reward ppo/mean_scores ppo/std_scores ppo/learning_rate ppo/loss/policy ppo/loss/value
ppo/loss/total ppo/policy/entropy ppo/policy/approxkl ppo/policy/policykl ppo/policy/clipfrac
ppo/policy/advantages ppo/policy/advantages_mean ppo/policy/ratio ppo/returns/mean ppo/returns/var
ppo/val/vpred ppo/val/error ppo/val/clipfrac ppo/val/mean ppo/val/var ppo/val/var_explained
tokens/queries_len_mean tokens/queries_len_std tokens/queries_dist tokens/responses_len_mean
tokens/responses_len_std tokens/responses_dist time/ppo/forward_pass time/ppo/compute_rewards
time/ppo/compute_advantages time/ppo/optimize_step time/ppo/calc_stats time/ppo/total
"""


class Picky:
    """A reward with all that a reward may say: no score for some answers, and a number of its own."""

    name = "picky"

    def __call__(self, prompts, completions):
        return RewardOutput([None if i % 2 else float(len(c)) for i, c in enumerate(completions)], {"answers": 1.0})


def plain(completions, **_):
    return [float(c.count("e")) for c in completions]


def longer(completions, **_):
    return [float(len(c)) + 0.1 * i for i, c in enumerate(completions)]


class Keep(Callback):
    def __init__(self):
        self.steps, self.evaluations = [], []

    def on_step(self, trainer, stats, samples):
        self.steps.append(stats)

    def on_evaluation(self, trainer, evaluation):
        self.evaluations.append(evaluation)


def section(title: str) -> list[str]:
    body = PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)`", body, re.M)


STEP = [n for t in ("Divergence, score and price", "Update", "Critic", "Tokens", "Sampler", "Time, memory and counts")
        for n in section(t)]  # fmt: skip
OVERLAP = {"sampler/staleness"}  # of runs that draw a step ahead: tests/test_overlap.py


@pytest.fixture(scope="module")
def run():
    keep = Keep()
    config = PPOConfig(batch_size=8, mini_batch_size=4, ppo_epochs=1, max_new_tokens=5, steps=1, eval_prompts=4,
                       seed=3, learning_rate=3e-3, reward_shaping="center")  # fmt: skip
    texts = [f"prompt number {i}" for i in range(16)]
    trainer = PPOTrainer(config, tiny.tiny_llama(), None, tiny.tiny_tokenizer(), reward=[Picky(), plain],
                         gold=[plain, longer], dataset=texts, callbacks=[keep])  # fmt: skip
    result = trainer.train()
    return trainer, keep.steps[0], result.evaluations[-1].metrics


def test_the_page_names_what_a_step_returns_and_nothing_else(run):
    trainer, _, _ = run
    queries = ["a prompt", "another one"]
    stats = trainer.step(queries, trainer.generate(queries), [1.0, -1.0])
    assert sorted([*stats, *OVERLAP]) == sorted(STEP)
    arrays = {name for name in stats if name not in stats.scalars()}
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert arrays == {re.match(r"\| `([^`]+)`", line)[1] for line in lines if "*array*" in line and line[0] == "|"}


def test_the_page_names_what_train_adds_and_nothing_else(run):
    _, stats, _ = run
    patterns = {"rewards/<name>/mean": "rewards/picky/mean", "rewards/<name>/std": "rewards/picky/std",
                "rewards/<name>/none_rate": "rewards/picky/none_rate",
                "rewards/<name>/<metric>": "rewards/picky/answers",
                "rewards/reference_score": "rewards/reference_score",
                "time/score": "time/score"}  # fmt: skip
    assert sorted(section("Rewards")) == sorted(patterns)
    assert set(stats) - set(STEP) == {*patterns.values(), "rewards/plain/mean", "rewards/plain/std"}


def test_the_page_names_what_an_evaluation_returns_and_nothing_else(run):
    _, _, metrics = run
    named = set(section("Evaluations"))
    signs = {f"eval/watch/{sign}" for sign in SIGNS}  # these words of one letter are too short for some of them
    found = {re.sub(r"^(eval/rewards/|eval/gold/).*", r"\1<name>", name) for name in metrics}
    assert found | signs == named
    assert "eval/watch/length_ratio" in found
    assert {"eval/rewards/picky", "eval/rewards/plain"} <= set(metrics)


def test_the_daggers_mark_the_forty_classic_names():
    assert len(CLASSIC.split()) == 40
    assert sorted(re.findall(r"^\| `([^`]+)` †", PAGE.read_text(encoding="utf-8"), re.M)) == sorted(CLASSIC.split())


def test_no_name_is_listed_twice():
    names = STEP + section("Rewards") + section("Evaluations")
    assert len(names) == len(set(names))
