"""Invariant 2: neither padding nor the order of rows changes anything."""

import dataclasses
import math

import pytest
import torch
from golden import close
from steps import Batch, assert_same_weights, both_families, largest_change, make_trainer, plain_logprobs, weights

from surefoot.faults import FaultRule, StepFaults
from surefoot.runtime import Runtime
from surefoot.types import Experience
from surefoot.update import Losses, Passes, update


@both_families
def test_every_row_gets_the_log_probabilities_it_would_get_alone_without_padding(make_model):
    batch, reference = Batch(), make_model(seed=1)
    trainer = make_trainer(make_model(seed=0), reference)
    trainer.step(batch.queries, batch.responses, batch.scores)
    rollout, start = trainer.last_experience.rollout, make_model(seed=0)
    for i, (query, response) in enumerate(zip(batch.queries, batch.responses, strict=True)):
        n = len(response)
        close(rollout.old_logprobs[i, :n], torch.tensor(plain_logprobs(start, query, response)), 1e-5)
        close(rollout.ref_logprobs[i, :n], torch.tensor(plain_logprobs(reference, query, response)), 1e-5)
        assert not rollout.old_logprobs[i, n:].any()


def widened(experience: Experience, left: int, right: int, poison: float) -> Experience:
    """The same experience, padded wider with ids that mean something and numbers that must never be read."""
    old = experience.rollout

    def wide(x, value, columns=(0, right)):
        return torch.nn.functional.pad(x, columns, value=value)

    poisoned = {}
    for name in ("old_logprobs", "ref_logprobs", "kl", "entropies", "old_values", "sampler_logprobs"):
        poisoned[name] = wide(torch.where(old.response_mask, getattr(old, name), poison), poison)
    rollout = dataclasses.replace(
        old,
        query_ids=wide(torch.where(old.query_mask, old.query_ids, 77), 78, (left, 0)),
        query_mask=wide(old.query_mask, False, (left, 0)),
        response_ids=wide(torch.where(old.response_mask, old.response_ids, 79), 80),
        response_mask=wide(old.response_mask, False),
        **poisoned,
    )
    signal = {}
    for name in ("rewards", "advantages", "returns", "ratios", "weights"):
        signal[name] = wide(torch.where(old.response_mask, getattr(experience, name), poison), poison)
    return Experience(rollout=rollout, **signal)


def updated(make_model, change):
    """Weights and statistics of an update on `change(experience)`, from the same start."""
    batch = Batch()
    trainer = make_trainer(make_model(seed=0), make_model(seed=1))
    start = weights(trainer)
    trainer.optimizer.param_groups[0]["lr"] = trainer._rates.base[0] = 0.0
    trainer.step(batch.queries, batch.responses, batch.scores)
    assert_same_weights(weights(trainer), start)
    trainer.optimizer.param_groups[0]["lr"] = 0.05
    stats = update(
        trainer.models, trainer.optimizer, change(trainer.last_experience), Losses(entropy_coef=0.01, kl_coef=0.1),
        Passes(epochs=2, rows_per_step=8, max_rows=8), seed=0, runtime=Runtime(),
        faults=StepFaults(FaultRule(), 1, Runtime()),
    )  # fmt: skip
    return start, weights(trainer), stats


@both_families
@pytest.mark.parametrize(("left", "right", "poison"), [
    (4, 0, math.nan), (0, 5, math.nan), (3, 2, math.inf), (0, 0, math.nan), (0, 0, 1e30),
])  # fmt: skip
def test_wider_and_poisoned_padding_changes_neither_weights_nor_statistics(make_model, left, right, poison):
    start, plain, expected = updated(make_model, lambda experience: experience)
    _, padded, stats = updated(make_model, lambda experience: widened(experience, left, right, poison))
    assert largest_change(start, plain) > 1e-3
    assert_same_weights(padded, plain)
    for field in dataclasses.fields(stats):
        actual, wanted = getattr(stats, field.name), getattr(expected, field.name)
        assert actual == pytest.approx(wanted, rel=1e-5, abs=1e-6), field.name


@both_families
def test_the_order_of_rows_changes_neither_weights_nor_statistics(make_model):
    batch, turn = Batch(), [5, 2, 7, 0, 3, 6, 1, 4]
    results = []
    for order in (list(range(8)), turn):
        trainer = make_trainer(make_model(seed=0), make_model(seed=1), ppo_epochs=2)
        stats = trainer.step(
            *([column[i] for i in order] for column in (batch.queries, batch.responses, batch.scores))
        )
        results.append((weights(trainer), stats))
    (plain, expected), (turned, stats) = results
    assert_same_weights(turned, plain)
    names = [n for n in expected.scalars() if not n.startswith(("time/", "memory/"))]
    assert {n: stats[n] for n in names} == pytest.approx({n: expected[n] for n in names}, rel=1e-4, abs=1e-5)
    close(stats["objective/kl_dist"], torch.tensor(expected["objective/kl_dist"][turn]), 1e-5)
