"""Products by oneDNN are the usual ones, backward too, and only those that they are meant for."""

import pytest
import torch
from torch.nn.functional import linear

from surefoot import arithmetic as arithmetic_module
from surefoot.arithmetic import OneDNNLinear, arithmetic

CPU = torch.device("cpu")


@pytest.fixture
def calls(monkeypatch):
    seen = []
    product = arithmetic_module._product

    def counted(*args):
        seen.append(args)
        return product(*args)

    monkeypatch.setattr(arithmetic_module, "_product", counted)
    return seen


def operands(dtype=torch.float32, shape=(3, 5, 16), bias=True):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).to(dtype)
    weight = torch.randn(8, shape[-1], generator=generator).to(dtype)
    return [
        t.requires_grad_()
        for t in ([x, weight, torch.randn(8, generator=generator).to(dtype)] if bias else [x, weight])
    ]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 16), (7, 16), (16,), (1, 1, 16)])
def test_a_linear_layer_and_its_gradients_are_those_in_double_precision(shape, bias, calls):
    tensors = operands(shape=shape, bias=bias)
    with OneDNNLinear():
        y = linear(*tensors)
    gradients = torch.autograd.grad(y.square().sum(), tensors)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    expected = exact[0] @ exact[1].t() + (exact[2] if bias else 0)
    for mine, theirs in zip(
        [y, *gradients], [expected, *torch.autograd.grad(expected.square().sum(), exact)], strict=True
    ):
        torch.testing.assert_close(mine.double(), theirs, atol=1e-4, rtol=1e-5)
    assert len(calls) == 2  # forward, and the gradient of x


def test_a_frozen_weight_gets_no_gradient_and_x_still_does():
    x, weight = operands(bias=False)
    weight.requires_grad_(False)
    with OneDNNLinear():
        linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand_as(x))
    assert weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_left_alone(dtype, calls):
    with OneDNNLinear():
        assert linear(*operands(dtype)).dtype == dtype
    assert not calls


def test_nothing_at_all_has_a_product_too(calls):
    with OneDNNLinear():
        assert linear(torch.zeros(0, 16), torch.ones(8, 16)).shape == (0, 8)
    assert not calls


def test_float32_passes_on_a_cpu_use_it_and_bfloat16_ones_do_not(calls):
    x, weight = operands(bias=False)
    with arithmetic(CPU, bfloat16=True):
        assert linear(x, weight).dtype == torch.bfloat16
    assert not calls
    with arithmetic(CPU, bfloat16=False):
        assert linear(x, weight).dtype == torch.float32
    assert len(calls) == 1
    linear(x, weight)
    assert len(calls) == 1  # only while it is active
