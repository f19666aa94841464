"""What goes wrong in numbers that are all finite: a policy that runs away, scores that say nothing, a KL below 0."""

import math

import pytest
import torch
from steps import Batch, make_trainer
from tiny import tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.callbacks import Callback
from surefoot.checkpoint import read_checkpoint


class Keep(Callback):
    def __init__(self):
        self.steps = []

    def on_step(self, trainer, stats, samples):
        self.steps.append(stats)


def length(completions, **_):
    return [float(len(c)) for c in completions]


def runaway(tmp_path, **changes):
    keep = Keep()
    options = {"learning_rate": 10.0, "kl_ceiling": 5.0, "batch_size": 8, "mini_batch_size": 4, "max_new_tokens": 5,
               "steps": 20, "eval_prompts": 0, "output_dir": str(tmp_path / "run"), "ratio_threshold": None,
    }  # fmt: skip
    with pytest.warns(UserWarning, match="learning_rate=10 is far above"):
        trainer = PPOTrainer(PPOConfig(**(options | changes)), tiny_llama(), None, tiny_tokenizer(), reward=length,
                             dataset=[f"p {i}" for i in range(40)], callbacks=[keep])  # fmt: skip
    return trainer, trainer.train(), keep.steps


def test_a_kl_that_explodes_ends_the_run_with_advice_and_a_checkpoint(tmp_path):
    trainer, result, steps = runaway(tmp_path)
    assert result.reason.startswith("kl_ceiling: ")
    for word in ("learning_rate", "ppo_epochs", "init_kl_coef", "use_score_scaling", "early_stop_kl", "checkpoint"):
        assert word in result.reason
    assert steps[-1]["objective/kl_per_token"] > 5.0
    assert all(s["objective/kl_per_token"] <= 5.0 for s in steps[:-1])
    assert len(steps) < 20
    read_checkpoint(tmp_path / "run" / "checkpoints" / f"step_{len(steps):06d}")
    assert all(bool(p.isfinite().all()) for p in trainer.policy.parameters())


def test_an_update_that_goes_too_far_is_stopped_after_one_step_of_the_optimizer(tmp_path):
    _, _, steps = runaway(tmp_path, early_stop_kl=0.1, steps=1, kl_ceiling=None)
    assert steps[0]["ppo/policy/early_stopped"] == 1
    assert steps[0]["ppo/optimizer_steps"] == 1


# ------------------------------------------------------------------------------------------ scores that say nothing
def test_constant_rewards_give_advantages_of_nothing_but_the_price_and_a_warning_after_three_steps(caplog):
    batch, t = Batch(), make_trainer(tiny_llama(), use_score_scaling=True, whiten_rewards=True)
    for step in range(1, 6):
        stats = t.step(batch.queries, batch.responses, torch.full((8,), 0.5))
        assert all(math.isfinite(x) for x in stats.scalars().values())
        assert bool(t.last_experience.advantages.isfinite().all())
        said = [r.getMessage() for r in caplog.records if "same score" in r.getMessage()]
        assert len(said) == (step >= 3)
    assert "3 steps in a row" in said[0]
    assert "reward-test" in said[0]


def test_a_batch_of_one_answer_is_finite_and_warned_of_once(caplog):
    t = make_trainer(tiny_llama(), batch_size=1, mini_batch_size=1, use_score_scaling=True)
    for _ in range(2):
        stats = t.step([torch.tensor([10, 11])], [torch.tensor([12])], [1.0])  # one token, too: no spread at all
        assert all(math.isfinite(x) for x in stats.scalars().values())
        assert t.last_experience.advantages.tolist() == [[0.0]]
    assert sum("single answer" in r.getMessage() for r in caplog.records) == 1


# ------------------------------------------------------------------------------------------ a KL below 0
def test_a_clearly_negative_kl_is_warned_of_with_its_causes_once(caplog):
    # Answers that the reference finds likelier than the policy: drawn from the reference, as with stale weights.
    policy, reference = tiny_llama(seed=0), tiny_llama(seed=1)
    drawn = make_trainer(tiny_llama(seed=1), batch_size=8).generate(
        [torch.tensor([10 + i]) for i in range(8)], max_new_tokens=20
    )
    t = make_trainer(policy, reference)
    for _ in range(2):
        stats = t.step([torch.tensor([10 + i]) for i in range(8)], drawn, torch.arange(8.0))
        assert stats["objective/kl_per_token"] < -0.05
    (said,) = [r.getMessage() for r in caplog.records if "clearly negative" in r.getMessage()]
    for cause in ("temperature", "top_p", "older weights", "tokenised again", "dropout", "padding"):
        assert cause in said


def test_the_small_negative_kl_of_sampling_noise_is_not(caplog):
    t = make_trainer(tiny_llama())
    for _ in range(3):
        queries = [torch.tensor([10 + i]) for i in range(8)]
        answers = t.generate(queries, max_new_tokens=10)
        t.step(queries, answers, torch.arange(8.0))
    assert not [r for r in caplog.records if "negative" in r.getMessage()]
