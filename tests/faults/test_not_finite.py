"""Nothing that is not finite reaches the weights: the run stops, or the update or answers are left out, counted."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from steps import Batch, assert_same_weights, make_trainer, weights
from tiny import tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.callbacks import Callback
from surefoot.controllers import LearningRates
from surefoot.faults import NonFiniteError
from surefoot.rewards import RewardError

POISON = 77
"""A token whose embedding holds NaN, in a model that is healthy otherwise."""


def trainer(**options):
    return make_trainer(tiny_llama(), **({"kl_controller": "adaptive", "horizon": 100.0} | options))


def poisoned():
    model = tiny_llama()
    with torch.no_grad():
        model.get_input_embeddings().weight[POISON] = math.nan
    return model


def batch_with_poison(row):
    batch = Batch()
    for ids in (*batch.queries, *batch.responses):
        ids[ids == POISON] = POISON + 1
    batch.responses[row][0] = POISON
    return batch


def rows(batch, chosen):
    return [batch.queries[i] for i in chosen], [batch.responses[i] for i in chosen], batch.scores[list(chosen)]


def infinite_gradients(trainer, minibatches):
    """Makes a gradient infinite in these minibatches (from 1), and finite in every other."""
    seen = iter(range(1, 10_000))
    next(p for p in trainer.policy.parameters() if p.requires_grad).register_hook(
        lambda gradient: gradient * math.inf if next(seen) in minibatches else gradient
    )


# ------------------------------------------------------------------------------------------ stop
@pytest.mark.parametrize("options", [{}, {"critic": "model"}, {"critic_warmup_steps": 1}, {"max_grad_norm": 1.0}])
def test_an_infinite_loss_stops_the_run_before_any_optimizer_steps(options):
    batch, t = Batch(), trainer(**options)
    batch.scores[3] = 1e30  # its squared error is infinite in float32
    before = weights(t)
    with pytest.raises(
        NonFiniteError, match=r"(?s)step 1: the .*loss.* is not finite in minibatch 1 .*on_fault: skip"
    ):
        t.step(batch.queries, batch.responses, batch.scores)
    assert t.steps_done == 0
    after = weights(t)
    assert all(torch.equal(before[name], after[name]) for name in before)
    t.step(batch.queries, batch.responses, torch.zeros(8))  # nothing of it is left in the gradients
    clean = trainer(**options)
    clean.step(batch.queries, batch.responses, torch.zeros(8))
    assert_same_weights(weights(clean), weights(t))


def test_an_infinite_gradient_stops_actor_and_critic_together():
    batch, t = Batch(), trainer(critic="model")
    infinite_gradients(t, {1})
    before = weights(t)
    with pytest.raises(NonFiniteError, match="the gradient is not finite in minibatch 1"):
        t.step(batch.queries, batch.responses, batch.scores)
    after = weights(t)
    assert any(name.startswith("critic") for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_critic_that_breaks_keeps_the_policy_from_stepping_too():
    batch, t = Batch(), trainer(critic="model")
    t.critic.head.weight.register_hook(lambda gradient: gradient * math.nan)
    before = weights(t)
    with pytest.raises(NonFiniteError, match=r"the gradient .*critic_grad_norm nan"):
        t.step(batch.queries, batch.responses, batch.scores)
    after = weights(t)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_log_probabilities_and_values_that_are_not_finite_are_found_before_the_update():
    batch = batch_with_poison(row=5)
    t = make_trainer(poisoned())
    with pytest.raises(NonFiniteError, match=r"log-probability of the policy.* before the update, rows 5"):
        t.step(batch.queries, batch.responses, batch.scores)
    assert t.steps_done == 0


def test_advantages_that_overflow_are_found_before_the_update():
    batch, t = Batch(), trainer(gamma=1.0, lam=1.0)
    scores = [torch.full((len(r),), 3e38) for r in batch.responses]
    with pytest.raises(NonFiniteError, match="an advantage or return"):
        t.step(batch.queries, batch.responses, scores)


def test_a_learning_rate_that_is_not_finite_is_refused():
    batch, t = Batch(), trainer()
    scheduler = torch.optim.lr_scheduler.LambdaLR(t.optimizer, lambda step: math.nan)
    t._rates = LearningRates(t.optimizer, scheduler, "constant", 0, None)
    before = weights(t)
    with pytest.raises(ValueError, match="the learning rates are"):
        t.step(batch.queries, batch.responses, batch.scores)
    assert_same_weights(before, weights(t), tolerance=0)


# ------------------------------------------------------------------------------------------ skip
def test_a_skipped_minibatch_takes_no_step_and_the_others_do():
    batch = Batch()
    options = {"on_fault": "skip", "mini_batch_size": 2, "max_skipped_updates": 1}
    t = trainer(**options)
    infinite_gradients(t, {2, 4})
    stats = t.step(batch.queries, batch.responses, batch.scores)
    assert stats["ppo/optimizer_steps"] == 2
    assert stats["ppo/faults/skipped_updates"] == 2
    assert all(math.isfinite(x) for x in [*stats.scalars().values(), *(float(w.sum()) for w in weights(t).values())])
    assert t.kl_controller.value != t.config.init_kl_coef  # something was learned, so the price moved


def test_a_skipped_step_moves_neither_schedule_nor_price():
    batch = Batch()
    options = {"on_fault": "skip", "lr_schedule": "linear", "steps": 4, "init_kl_coef": 0.3}
    t = trainer(**options)
    infinite_gradients(t, {1})
    before = weights(t)
    stats = t.step(batch.queries, batch.responses, batch.scores)
    assert stats["ppo/optimizer_steps"] == 0
    assert_same_weights(before, weights(t), tolerance=0)
    assert (t.steps_done, t.kl_controller.value) == (1, 0.3)
    second = t.step(batch.queries, batch.responses, batch.scores)
    third = t.step(batch.queries, batch.responses, batch.scores)
    assert second["ppo/learning_rate"] == stats["ppo/learning_rate"]
    assert second["objective/kl_coef"] == 0.3
    assert third["ppo/learning_rate"] == pytest.approx(0.75 * stats["ppo/learning_rate"])
    assert third["objective/kl_coef"] != 0.3


def test_a_step_whose_rollout_is_broken_is_skipped_whole():
    batch, t = batch_with_poison(row=2), make_trainer(poisoned(), on_fault="skip", mini_batch_size=2)
    stats = t.step(batch.queries, batch.responses, batch.scores)
    assert (stats["ppo/optimizer_steps"], stats["ppo/faults/skipped_updates"]) == (0, 1)
    assert all(math.isfinite(x) for x in stats.scalars().values())


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_more_updates_in_a_row_than_allowed_stop_the_run(limit):
    batch, t = Batch(), trainer(on_fault="skip", max_skipped_updates=limit)
    infinite_gradients(t, range(1, 100))
    for _ in range(limit):
        t.step(batch.queries, batch.responses, batch.scores)
    with pytest.raises(NonFiniteError, match=rf"{limit} updates in a row were left out before it"):
        t.step(batch.queries, batch.responses, batch.scores)
    assert t.steps_done == limit


def test_a_good_update_ends_the_row_and_the_row_is_part_of_a_checkpoint(tmp_path):
    batch, options = Batch(), {"on_fault": "skip", "max_skipped_updates": 2}
    t = trainer(**options)
    infinite_gradients(t, {1, 2, 4, 5})
    for _ in range(5):
        t.step(batch.queries, batch.responses, batch.scores)
    t.save(tmp_path / "state")
    resumed = trainer(**options)
    resumed.restore(tmp_path / "state")
    infinite_gradients(resumed, {1})
    with pytest.raises(NonFiniteError, match="2 updates in a row"):
        resumed.step(batch.queries, batch.responses, batch.scores)


# ------------------------------------------------------------------------------------------ drop
@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, None, 1e39])
@pytest.mark.parametrize("options", [{}, {"use_score_scaling": True}, {"critic": "model", "whiten_rewards": True}])
def test_without_a_score_an_answer_is_left_out_as_if_it_had_never_been_there(score, options):
    batch = Batch()
    others = [0, 1, 2, 4, 5, 6, 7]
    t, expected = trainer(on_fault="drop_sample", **options), trainer(**options, batch_size=7, mini_batch_size=7)
    scores = [score if i == 3 else float(s) for i, s in enumerate(batch.scores)]
    stats = t.step(batch.queries, batch.responses, scores)
    wanted = expected.step(*rows(batch, others))
    assert stats["ppo/faults/dropped_rows"] == 1
    assert_same_weights(weights(expected), weights(t), tolerance=2e-6)
    for name in ("objective/scores", "objective/kl", "objective/entropy", "ppo/std_scores", "ppo/loss/policy",
                 "ppo/loss/value", "ppo/grad_norm"):  # fmt: skip
        assert stats[name] == pytest.approx(wanted[name], rel=1e-4, abs=1e-6), name


def test_an_answer_that_the_model_cannot_read_is_left_out_as_if_it_had_never_been_there():
    batch = batch_with_poison(row=5)
    others = [0, 1, 2, 3, 4, 6, 7]
    t = make_trainer(poisoned(), on_fault="drop_sample")
    expected = make_trainer(poisoned(), batch_size=7, mini_batch_size=7)
    stats = t.step(batch.queries, batch.responses, batch.scores)
    expected.step(*rows(batch, others))
    assert stats["ppo/faults/dropped_rows"] == 1
    found, wanted = weights(t), weights(expected)
    for name in found:
        torch.testing.assert_close(found[name], wanted[name], atol=2e-6, rtol=1e-5, equal_nan=True)


def test_the_row_that_breaks_a_minibatch_is_found_and_the_others_are_learned_from():
    batch, options = Batch(), {"whiten_advantages": False, "init_kl_coef": 0.0}
    others = [0, 1, 2, 4, 5, 6, 7]
    t = trainer(on_fault="drop_sample", **options)
    expected = trainer(**options, batch_size=7, mini_batch_size=7)
    scores = batch.scores.clone()
    scores[3] = 1e30
    stats = t.step(batch.queries, batch.responses, scores)
    expected.step(*rows(batch, others))
    assert stats["ppo/faults/dropped_rows"] == 1
    assert stats["ppo/optimizer_steps"] == 1
    assert_same_weights(weights(expected), weights(t), tolerance=2e-6)


def test_where_no_row_is_to_blame_dropping_stops_the_run():
    batch, t = Batch(), trainer(on_fault="drop_sample")
    infinite_gradients(t, {1})
    with pytest.raises(NonFiniteError, match="no single answer is to blame"):
        t.step(batch.queries, batch.responses, batch.scores)


def test_a_step_of_which_no_answer_is_left_moves_nothing():
    batch, t = Batch(), trainer(on_fault="drop_sample")
    before = weights(t)
    stats = t.step(batch.queries, batch.responses, [math.nan] * 8)
    assert (stats["ppo/faults/dropped_rows"], stats["ppo/optimizer_steps"]) == (8, 0)
    assert all(math.isfinite(x) for x in stats.scalars().values())
    assert_same_weights(before, weights(t), tolerance=0)
    assert t.kl_controller.value == t.config.init_kl_coef


# ------------------------------------------------------------------------------------------ bundles
@pytest.mark.parametrize("on_fault", ["stop", "drop_sample"])
def test_a_bundle_holds_the_rows_and_everything_about_them(tmp_path, on_fault):
    batch = batch_with_poison(row=5)
    t = make_trainer(poisoned(), on_fault=on_fault, output_dir=str(tmp_path))
    try:
        t.step(batch.queries, batch.responses, batch.scores)
    except NonFiniteError as error:
        assert str(tmp_path / "faults" / "step_000001") in str(error)  # noqa: PT017 - one of the two raises
    folder = tmp_path / "faults" / "step_000001"
    assert sorted(p.name for p in folder.iterdir()) == ["fault.json", "rows.safetensors"]
    about = json.loads((folder / "fault.json").read_text(), parse_constant=pytest.fail)
    assert (about["step"], about["minibatch"], about["on_fault"], len(about["config_sha256"])) == (
        1,
        None,
        on_fault,
        64,
    )
    (row,) = about["rows"]
    assert (row["row"], row["response_tokens"], row["finite/old_logprobs"]) == (5, batch.lengths[5], False)
    assert row["score"] == pytest.approx(float(batch.scores[5]))
    tensors = load_file(folder / "rows.safetensors")
    ids = tensors["process0/response_ids"]
    assert ids[0, : batch.lengths[5]].tolist() == batch.responses[5].tolist()
    assert not tensors["process0/old_logprobs"].isfinite().all()


def test_a_second_fault_of_a_step_has_a_bundle_of_its_own_with_losses_and_norms(tmp_path):
    batch = Batch()
    t = trainer(on_fault="skip", mini_batch_size=4, max_skipped_updates=2, output_dir=str(tmp_path))
    infinite_gradients(t, {1, 2})
    t.step(batch.queries, batch.responses, batch.scores)
    found = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("faults/*/fault.json"))]
    assert [about["minibatch"] for about in found] == [1, 2]
    assert sorted(row["row"] for about in found for row in about["rows"]) == list(range(8))
    assert found[0]["numbers"]["grad_norm"] in ("inf", "nan")
    assert isinstance(found[0]["numbers"]["policy_loss"], float)


def test_a_bundle_that_cannot_be_written_does_not_hide_the_fault(tmp_path):
    (tmp_path / "faults").write_text("in the way")
    batch, t = Batch(), trainer(output_dir=str(tmp_path))
    infinite_gradients(t, {1})
    with pytest.raises(NonFiniteError, match="the gradient is not finite"):
        t.step(batch.queries, batch.responses, batch.scores)


# ------------------------------------------------------------------------------------------ the whole loop
class Keep(Callback):
    def __init__(self):
        self.steps, self.samples = [], []

    def on_step(self, trainer, stats, samples):
        self.steps.append(stats)
        self.samples += samples


def run(tmp_path, value, **options):
    """A run whose reward gives `value` to every fourth answer of the second step."""
    keep, calls = Keep(), iter(range(100))

    def score(completions, **_):
        call = next(calls)
        return [value if call == 1 and i % 4 == 0 else float(len(c)) for i, c in enumerate(completions)]

    config = PPOConfig(batch_size=8, mini_batch_size=4, ppo_epochs=1, max_new_tokens=4, steps=3, eval_prompts=0,
                       save_every=1, output_dir=str(tmp_path), learning_rate=1e-4, **options)  # fmt: skip
    t = PPOTrainer(config, tiny_llama(), None, tiny_tokenizer(), reward=score, dataset=[f"p {i}" for i in range(24)],
                   callbacks=[keep])  # fmt: skip
    return t, keep


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "0.5", 1e39, [1.0, 2.0]])
def test_a_broken_reward_stops_the_run_and_names_the_prompt_and_the_last_checkpoint_stays(tmp_path, value):
    t, keep = run(tmp_path, value)
    with pytest.raises(RewardError, match=r"reward 'score' at row \d+") as caught:
        t.train()
    assert caught.value.row is not None
    assert len(keep.steps) == 1
    assert [p.name for p in (tmp_path / "checkpoints").glob("step_*")] == ["step_000001"]


@pytest.mark.parametrize("value", [math.nan, math.inf, None, 1e39])
def test_answers_with_a_broken_reward_are_dropped_and_counted_and_no_score_is_made_up(tmp_path, value):
    t, keep = run(tmp_path, value, on_fault="drop_sample")
    t.train()
    assert [stats["ppo/faults/dropped_rows"] for stats in keep.steps] == [0, 2, 0]
    assert all(math.isfinite(x) for stats in keep.steps for x in stats.scalars().values())
    without = [record for record in keep.samples if not math.isfinite(record["score"])]
    assert [record["step"] for record in without] == [2, 2]
    assert keep.steps[1]["objective/scores"] == pytest.approx(
        sum(r["score"] for r in keep.samples if r["step"] == 2 and r not in without) / 6
    )
    (bundle,) = (tmp_path / "faults").iterdir()
    about = json.loads((bundle / "fault.json").read_text())
    assert about["step"] == 2
    assert sorted(row["prompt"] for row in about["rows"]) == sorted(record["row"] for record in without)


def test_a_text_in_place_of_a_reward_is_a_mistake_and_never_dropped(tmp_path):
    t, _ = run(tmp_path, "0.5", on_fault="drop_sample")
    with pytest.raises(RewardError, match="where a number is needed"):
        t.train()
