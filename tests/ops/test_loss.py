"""The clipped losses: numbers made by hand, the oracle, gradients, and what padding must never change."""

import math

import pytest
import torch
from golden import case, close
from hypothesis import assume, given
from hypothesis import strategies as st
from oracle import ppo
from ragged import POISONS, ragged

from surefoot import ops


def _policy(ratio, advantage, **options):
    """Loss, gradient in the log-probability, and diagnostics of one token."""
    logprobs = torch.tensor([[math.log(ratio)]], requires_grad=True)
    mask = torch.ones(1, 1).bool()
    loss, seen = ops.policy_loss(logprobs, torch.zeros(1, 1), torch.tensor([[advantage]]), mask, **options)
    loss.backward()
    return loss.item(), logprobs.grad.item(), seen


@pytest.mark.parametrize(("ratio", "advantage", "loss", "gradient", "clipped"), [
    (1.0, 2.0, -2.0, -2.0, 0),
    (1.1, 2.0, -2.2, -2.2, 0),
    (1.5, 2.0, -2.4, 0.0, 1),       # good and already likelier: no more of it
    (0.5, 2.0, -1.0, -1.0, 0),      # good and become unlikelier: full pull back
    (1.5, -2.0, 3.0, 3.0, 0),       # bad and become likelier: full push down
    (0.5, -2.0, 1.6, 0.0, 1),       # bad and already unlikelier: enough
])  # fmt: skip
def test_the_clip_stops_the_gradient_only_where_the_policy_has_gone_far_enough(
    ratio, advantage, loss, gradient, clipped
):
    actual, slope, seen = _policy(ratio, advantage)
    close(actual, loss)
    close(slope, gradient)
    assert int(seen.clipped) == clipped


@pytest.mark.parametrize(("ratio", "advantage", "loss"), [
    (1.25, 1.0, -1.25), (1.5, 1.0, -1.28), (0.7, -1.0, 0.8), (0.85, -1.0, 0.85), (1.25, -1.0, 1.25),
])  # fmt: skip
def test_the_upper_clip_distance_may_be_larger_than_the_lower(ratio, advantage, loss):
    close(_policy(ratio, advantage, clip_low=0.2, clip_high=0.28)[0], loss)


@pytest.mark.parametrize(("ratio", "advantage", "loss", "gradient", "clipped"), [
    (5.0, -1.0, 3.0, 0.0, 1),       # without it: 5, and growing
    (2.0, -1.0, 2.0, 2.0, 0),
    (5.0, 1.0, -1.2, 0.0, 1),       # good tokens have the ordinary clip only
    (0.5, -1.0, 0.8, 0.0, 1),
])  # fmt: skip
def test_the_dual_clip_bounds_the_loss_of_bad_tokens(ratio, advantage, loss, gradient, clipped):
    actual, slope, seen = _policy(ratio, advantage, dual_clip=3.0)
    close(actual, loss)
    close(slope, gradient)
    assert int(seen.clipped) == clipped


def test_the_end_of_sequence_is_learned_like_any_token():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().reshape(1, 1, 3).requires_grad_()
    eos = torch.tensor([[2]])
    mask = ops.eos_mask(eos, [2])
    logprobs = ops.token_logprobs(logits, eos)
    loss, _ = ops.policy_loss(logprobs, logprobs.detach(), torch.ones(1, 1), mask)
    loss.backward()
    close(logits.grad.flatten(), torch.tensor([0.5, 0.3, -0.8]))


def test_diagnostics_are_sums_over_counted_tokens_only():
    a20 = case("A20")
    step = math.sqrt(0.1)
    new = torch.tensor([[-1.0 + step, -2.0 - step, 1.0, 1.0, 5.0]])
    old = torch.tensor([[-1.0, -2.0, 1.0, 1.0, 1.0]])
    mask = torch.tensor([[True, True, False, False, False]])
    _, seen = ops.policy_loss(new, old, torch.ones(1, 5), mask)
    close(seen.kl_k2 / 2, a20["approxkl"])
    close(seen.kl_k1, 0.0)
    close(seen.kl_k3, math.exp(step) - 1 - step + math.exp(-step) - 1 + step)
    close(seen.ratio, math.exp(step) + math.exp(-step))
    close(ops.masked_mean(torch.tensor([[1.5, 1.5, -1.0, -1.0, -1.0]]), mask) * 2, a20["entropy_sum"])


def test_losses_are_sums_so_that_one_division_gives_the_token_mean():
    a17 = case("A17")
    mask, count = a17["mask"], a17["mask"].sum()
    loss, _ = ops.policy_loss(torch.zeros(3, 4), torch.zeros(3, 4), -a17["loss"], mask)
    close(loss / count, 14 / 7)
    close(loss / count, a17["token_mean"])
    roots = (2 * a17["loss"]).sqrt()
    loss, _ = ops.value_loss(roots, roots, torch.zeros(3, 4), mask)
    close(loss / count, a17["token_mean"])


def _value(value, old, target, clip_range=0.2):
    values = torch.tensor([[value]], requires_grad=True)
    mask = torch.ones(1, 1).bool()
    loss, seen = ops.value_loss(values, torch.tensor([[old]]), torch.tensor([[target]]), mask, clip_range)
    loss.backward()
    return loss.item(), values.grad.item(), seen


def test_the_larger_of_the_two_value_errors_counts():
    # V = 6 went from 4.6 toward the target 10; clipped it stands at 4.8, and (4.8 - 10)^2 = 27.04 > (6 - 10)^2 = 16
    loss, gradient, seen = _value(6.0, 4.6, 10.0)
    close(loss, 27.04 / 2)
    assert gradient == 0
    assert int(seen.clipped) == 1
    close(seen.squared_error, 16.0)


def test_a_critic_that_went_the_wrong_way_is_pulled_back_in_full():
    loss, gradient, seen = _value(3.0, 4.6, 10.0)  # clipped it would stand at 4.4, nearer to the target
    close(loss, 49 / 2)
    close(gradient, -7.0)
    assert int(seen.clipped) == 0


def test_values_within_the_range_are_not_counted_as_clipped_by_rounding():
    old, values, returns = torch.randn(3, 100, 100, generator=torch.Generator().manual_seed(0))
    inside = (values - old).abs() < 0.9
    assert int(inside.sum()) > 1000
    _, seen = ops.value_loss(values, old, returns, inside, clip_range=0.9)
    assert int(seen.clipped) == 0


def test_without_a_value_clip_the_loss_is_half_the_squared_error():
    loss, gradient, seen = _value(6.0, 4.6, 10.0, None)
    close(loss, 8.0)
    close(gradient, -4.0)
    assert int(seen.clipped) == 0
    close(seen.values, 6.0)


clip = st.floats(0.05, 0.9)


@given(ragged(columns=3), clip, clip, st.one_of(st.none(), st.floats(1.1, 4)))
def test_the_policy_loss_equals_the_oracle(batch, low, high, dual):
    (new, old, advantages), mask = batch.columns, batch.mask
    edges = [1 - low, 1 + high, *([] if dual is None else [dual])]
    assume(all(bool((((new - old).exp() - edge).abs() > 1e-4).all()) for edge in edges))  # rounding decides there
    loss, seen = ops.policy_loss(new, old, advantages, mask, low, high, dual)
    expected, clipped = ppo.policy_loss(new.numpy(), old.numpy(), advantages.numpy(), mask.numpy(), low, high, dual)
    close(loss, expected, 1e-5)
    assert int(seen.clipped) == clipped


@given(ragged(columns=3), st.one_of(st.none(), clip))
def test_the_value_loss_equals_the_oracle(batch, clip_range):
    (values, old, returns), mask = batch.columns, batch.mask
    assume(
        clip_range is None or bool((((values - old).abs() - clip_range).abs() > 1e-4).all())
    )  # rounding decides there
    loss, seen = ops.value_loss(values, old, returns, mask, clip_range)
    expected, clipped = ppo.value_loss(values.numpy(), old.numpy(), returns.numpy(), mask.numpy(), clip_range)
    close(loss, expected, 1e-5)
    assert int(seen.clipped) == clipped


def _losses(columns, mask):
    """Both losses on the same columns, and the gradients in the first."""
    results = []
    for function in (ops.policy_loss, ops.value_loss):
        first = columns[0].clone().requires_grad_()
        loss, seen = function(first, *columns[1:], mask)
        loss.backward()
        results.append((loss.detach(), first.grad, torch.stack([x.float() for x in seen])))
    return results


@pytest.mark.parametrize("poison", POISONS)
@given(batch=ragged(columns=3))
def test_what_stands_in_the_padding_changes_neither_loss_nor_gradient(poison, batch):
    columns, mask = batch.columns, batch.mask
    poisoned = [torch.where(mask, x, poison) for x in columns]
    for clean, dirty in zip(_losses(columns, mask), _losses(poisoned, mask), strict=True):
        for expected, actual in zip(clean, dirty, strict=True):
            assert torch.equal(actual, expected)
            assert torch.isfinite(actual).all()
        assert not dirty[1][~mask].any()


@given(ragged(columns=3))
def test_row_order_and_wider_padding_change_neither_loss_nor_gradient(batch):
    columns, mask = batch.columns, batch.mask
    reverse = torch.arange(len(mask)).flip(0)
    wide = [torch.nn.functional.pad(x, (0, 3), value=5) for x in columns]
    turned = _losses([x[reverse] for x in columns], mask[reverse])
    widened = _losses(wide, torch.nn.functional.pad(mask, (0, 3)))
    for plain, other, wider in zip(_losses(columns, mask), turned, widened, strict=True):
        close(other[0], plain[0], 1e-5)
        close(wider[0], plain[0], 1e-5)
        assert torch.equal(other[1], plain[1][reverse])
        assert torch.equal(wider[1][:, : mask.shape[1]], plain[1])


def test_an_exploded_ratio_leaves_loss_and_gradient_finite():
    for advantage in (-1.0, 1.0):
        logprobs = torch.tensor([[0.0]], requires_grad=True)
        loss, seen = ops.policy_loss(logprobs, torch.tensor([[-200.0]]), torch.tensor([[advantage]]),
                                     torch.ones(1, 1).bool())  # fmt: skip
        loss.backward()
        assert all(torch.isfinite(x).all() for x in (loss, logprobs.grad, *seen))


def test_a_batch_in_which_nothing_counts_has_loss_and_gradient_zero():
    nothing = torch.zeros(2, 3).bool()
    for loss, gradient, _ in _losses([torch.full((2, 3), math.nan)] * 3, nothing):
        assert loss == 0
        assert not gradient.any()
