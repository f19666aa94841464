"""Invariant 8: how many optimizer steps are made, and that each of them has its gradient clipped."""

import math

import pytest
import tiny
import torch
from steps import Batch, both_families, make_trainer


class Watched(torch.optim.SGD):
    """Plain SGD that notes the norm of the gradient at each of its steps."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr=lr)
        self.norms = []

    def step(self, closure=None):
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
        return super().step(closure)


def watched(parameters):
    return Watched(parameters, lr=0.01)


@both_families
@pytest.mark.parametrize(("rows", "mini_batch_size", "accumulation", "epochs"), [
    (8, 8, 1, 3), (8, 3, 1, 2), (8, 2, 2, 2), (8, 3, 2, 2), (5, 2, 2, 2), (1, 4, 2, 3), (7, 1, 1, 1),
])  # fmt: skip
def test_there_are_epochs_times_minibatches_optimizer_steps_on_short_batches_too(
    make_model, rows, mini_batch_size, accumulation, epochs
):
    batch = Batch(rows)
    trainer = make_trainer(
        make_model(), mini_batch_size=mini_batch_size, gradient_accumulation_steps=accumulation, ppo_epochs=epochs,
        ratio_threshold=None, optimizer=watched,
    )  # fmt: skip
    stats = trainer.step(batch.queries, batch.responses, batch.scores)
    expected = epochs * math.ceil(rows / (mini_batch_size * accumulation))
    assert len(trainer.optimizer.norms) == expected
    assert stats["ppo/optimizer_steps"] == expected


@both_families
def test_every_gradient_is_clipped_not_only_the_first(make_model):
    batch, limit = Batch(), 1e-3
    free, held = (
        make_trainer(make_model(), mini_batch_size=2, ppo_epochs=3, max_grad_norm=norm, optimizer=watched)
        for norm in (None, limit)
    )
    for trainer in (free, held):
        for _ in range(2):
            trainer.step(batch.queries, batch.responses, batch.scores)
        assert len(trainer.optimizer.norms) == 24
    assert min(free.optimizer.norms) > 10 * limit
    assert held.optimizer.norms == pytest.approx([limit] * 24, rel=1e-3)


def test_the_reported_norm_is_the_one_before_clipping():
    batch = Batch()
    trainers = [make_trainer(tiny.tiny_llama(), max_grad_norm=norm, optimizer=watched) for norm in (None, 1e-3)]
    reported = [t.step(batch.queries, batch.responses, batch.scores)["ppo/grad_norm"] for t in trainers]
    assert reported[0] == pytest.approx(trainers[0].optimizer.norms[0], rel=1e-5)
    assert reported[1] == pytest.approx(reported[0], rel=1e-5)


@pytest.mark.parametrize("critic", [{"critic": "model"}, {"critic": "adapter", "lora_r": 2}], ids=["model", "adapter"])
def test_a_critic_of_its_own_is_clipped_by_a_norm_of_its_own(critic):
    batch, limit = Batch(), 1e-3
    trainer = make_trainer(tiny.tiny_llama(), max_grad_norm=limit, optimizer=watched, ppo_epochs=2, **critic)
    trainer.step(batch.queries, batch.responses, batch.scores)
    assert trainer.optimizer.norms == pytest.approx([limit * math.sqrt(2)] * 2, rel=1e-3)


def test_a_minibatch_over_the_ratio_threshold_takes_no_optimizer_step():
    batch = Batch()
    trainer = make_trainer(
        tiny.tiny_llama(), ppo_epochs=4, ratio_threshold=1.000001,
        optimizer=lambda parameters: Watched(parameters, lr=20.0),
    )  # fmt: skip
    stats = trainer.step(batch.queries, batch.responses, batch.scores)
    assert stats["ppo/policy/skipped_minibatches"] > 0
    assert stats["ppo/policy/skipped_minibatches"] + stats["ppo/optimizer_steps"] == 4
    assert len(trainer.optimizer.norms) == stats["ppo/optimizer_steps"]
