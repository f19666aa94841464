"""The KL coefficient, the learning rate and the scale of scores, from step to step."""

import math

import pytest
import torch
from golden import case, close

from surefoot.controllers import AdaptiveKL, ScheduledKL, ScoreScaler, learning_rate_factor, make_kl_controller

OPTIONS = {"value": 0.2, "target": 6.0, "horizon": 10_000.0, "final_target": None, "final_value": None,
           "total_episodes": None}  # fmt: skip


def test_the_adaptive_controller_takes_the_known_course():
    a14 = case("A14")
    controller = make_kl_controller("adaptive", **OPTIONS)
    for kl, expected in zip(a14["kl"].tolist(), a14["beta"].tolist(), strict=True):
        before = controller.value
        controller.update(kl, 512)
        close(controller.value, expected)
        assert controller.value / before <= a14["max_step"] + 1e-9


@pytest.mark.parametrize(("kl", "factor"), [(6.0, 1.0), (60.0, 1.2), (0.0, 0.8), (-9.0, 0.8), (6.6, 1.1)])
def test_over_a_whole_horizon_the_coefficient_moves_by_at_most_a_fifth(kl, factor):
    controller = AdaptiveKL(0.2, 6.0, 10_000.0)
    controller.update(kl, 10_000)
    close(controller.value, 0.2 * factor)


def test_the_target_moves_linearly_to_its_end_and_stays_there():
    controller = AdaptiveKL(0.2, 0.3, 100.0, final_target=0.1, total_episodes=40)
    targets = []
    for _ in range(5):
        targets.append(controller.target)
        controller.update(0.1, 10)
    close(torch.tensor(targets), torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1]))
    close(controller.target, 0.1)


@pytest.mark.parametrize(("kind", "middle"), [("linear", 0.3), ("cosine", 0.3), ("fixed", 0.5)])
def test_a_schedule_does_not_listen_to_the_divergence(kind, middle):
    options = OPTIONS | {"value": 0.5, "final_value": None if kind == "fixed" else 0.1, "total_episodes": 40}
    controller = make_kl_controller(kind, **options)
    values = []
    for kl in (0.0, 1e9, -5.0, 3.0, 2.0):
        values.append(controller.value)
        controller.update(kl, 10)
    close(values[0], 0.5)
    close(values[2], middle)
    close(values[4], 0.5 if kind == "fixed" else 0.1)
    close(controller.value, values[4])
    quarter = {"linear": 0.4, "cosine": 0.1 + 0.4 * (1 + math.cos(math.pi / 4)) / 2, "fixed": 0.5}[kind]
    close(values[1], quarter)


def test_a_raised_price_stays_raised_and_a_target_comes_down_with_it():
    controller = AdaptiveKL(0.2, 0.3, 10_000.0, final_target=0.1, total_episodes=40)
    controller.raise_price(2.0)
    close(controller.value, 0.4)
    close(controller.target, 0.15)
    controller.update(0.15, 20)  # on its target: the price stays, the target moves on its course
    close(controller.value, 0.4)
    close(controller.target, 0.1)
    scheduled = ScheduledKL(0.5, 0.1, "linear", 0.1, 40)
    scheduled.update(0.0, 20)
    scheduled.raise_price(3.0)
    close(scheduled.value, 0.9)
    scheduled.update(0.0, 20)
    close(scheduled.value, 0.3)
    close(scheduled.target, 0.1)


@pytest.mark.parametrize("kind", ["adaptive", "fixed", "linear"])
def test_a_raised_price_is_saved_and_a_state_from_before_prices_could_be_raised_is_read(kind):
    options = OPTIONS | {"final_value": 0.1 if kind == "linear" else None, "total_episodes": 100}
    first, again, old = (make_kl_controller(kind, **options) for _ in range(3))
    plain = first.state_dict()
    first.raise_price(2.0)
    first.update(6.0, 10)
    again.load_state_dict(first.state_dict())
    assert (again.value, again.target) == (first.value, first.target)
    assert set(plain) < set(first.state_dict())
    old.load_state_dict(plain)
    assert (old.value, old.target) == (0.2, 6.0)


@pytest.mark.parametrize("make", [
    lambda: AdaptiveKL(0.2, 0.3, 100.0, final_target=0.1, total_episodes=200),
    lambda: ScheduledKL(0.5, 0.1, "cosine", 0.1, 200),
    lambda: ScheduledKL(0.5, 0.1),
])  # fmt: skip
def test_a_restored_controller_goes_on_as_if_never_interrupted(make):
    straight, stopped = make(), make()
    for controller in (straight, stopped):
        for kl in (0.5, 0.1, 0.9):
            controller.update(kl, 16)
    restored = make()
    restored.load_state_dict(stopped.state_dict())
    assert (restored.value, restored.target) == (straight.value, straight.target)
    for kl in (0.2, 0.7):
        straight.update(kl, 16)
        restored.update(kl, 16)
    assert (restored.value, restored.target) == (straight.value, straight.target)


# ------------------------------------------------------------------------------------------ learning rate
def factors(schedule, warmup, total, steps):
    return torch.tensor(
        [learning_rate_factor(s, schedule=schedule, warmup_steps=warmup, total_steps=total) for s in range(steps)]
    )


def test_the_learning_rate_rises_to_its_full_height_and_stays():
    close(factors("constant", 3, None, 5), torch.tensor([0.25, 0.5, 0.75, 1.0, 1.0]))
    close(factors("constant", 0, 10, 3), torch.ones(3))


def test_a_linear_schedule_would_reach_zero_one_step_after_the_last():
    close(factors("linear", 0, 4, 5), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))
    close(factors("linear", 2, 6, 6), torch.tensor([1 / 3, 2 / 3, 1.0, 0.75, 0.5, 0.25]))


def test_a_cosine_schedule_is_half_way_in_the_middle():
    expected = [(1 + math.cos(math.pi * s / 4)) / 2 for s in range(5)]
    close(factors("cosine", 0, 4, 5), torch.tensor(expected))
    close(expected[2], 0.5)


# --------------------------------------------------------------------------------------------- scores
def itself(x):
    return x


@pytest.mark.parametrize("centre", [False, True])
def test_scores_are_scaled_by_the_moments_of_all_scores_so_far(centre):
    generator = torch.Generator().manual_seed(0)
    scaler, seen = ScoreScaler(centre=centre), []
    for rows in (5, 1, 9, 2):
        scores = 3 + 7 * torch.randn(rows, generator=generator)
        seen += scores.tolist()
        everything = torch.tensor(seen, dtype=torch.float64)
        middle = everything.mean() if centre else 0.0
        close(
            scaler(scores, torch.ones_like(scores).bool(), itself), (scores.double() - middle) / everything.std(), 1e-5
        )


def test_a_single_first_score_is_not_divided_by_a_deviation_that_does_not_exist():
    close(ScoreScaler(centre=False)(torch.tensor([5.0]), torch.tensor([True]), itself), torch.tensor([5.0]))
    close(
        ScoreScaler(centre=False)(torch.tensor([2.0, 2.0]), torch.tensor([True, True]), itself),
        torch.tensor([2.0, 2.0]),
    )


def test_a_restored_scaler_goes_on_as_if_never_interrupted():
    first, second, third = torch.tensor([1.0, 4.0, 2.0]), torch.tensor([9.0, 7.0]), torch.tensor([0.0, 3.0])
    straight, stopped, restored = (ScoreScaler(centre=True) for _ in range(3))
    for scaler in (straight, stopped):
        scaler(first, torch.ones_like(first).bool(), itself)
        scaler(second, torch.ones_like(second).bool(), itself)
    restored.load_state_dict(stopped.state_dict())
    assert torch.equal(*(scaler(third, torch.ones_like(third).bool(), itself) for scaler in (restored, straight)))
