"""The quicker products are the usual ones, backward too, and only those that they are meant for."""

import pytest
import torch
from torch.nn.functional import embedding, linear
from torch.utils._python_dispatch import TorchDispatchMode

from surefoot import arithmetic as arithmetic_module
from surefoot.arithmetic import QuickLinear, arithmetic

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


@pytest.mark.parametrize("intel", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 16), (7, 16), (16,), (1, 1, 16)])
def test_a_linear_layer_and_its_gradients_are_those_in_double_precision(shape, bias, intel, calls, monkeypatch):
    monkeypatch.setattr(arithmetic_module, "_made_by_intel", lambda: intel)
    tensors = operands(shape=shape, bias=bias)
    with QuickLinear():
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
    with QuickLinear():
        linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand_as(x))
    assert weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_left_alone(dtype, calls):
    with QuickLinear():
        assert linear(*operands(dtype)).dtype == dtype
    assert not calls


def test_nothing_at_all_has_a_product_too(calls):
    with QuickLinear():
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


@pytest.mark.parametrize(("intel", "with_gradients", "without"), [(True, 1, 0), (False, 1, 1)])
def test_a_pass_without_gradients_on_intel_s_is_pytorchs_own_with_the_same_numbers(
    intel, with_gradients, without, calls, monkeypatch
):
    monkeypatch.setattr(arithmetic_module, "_made_by_intel", lambda: intel)
    tensors = operands()
    with arithmetic(CPU, bfloat16=False):
        trained = linear(*tensors)
    assert len(calls) == with_gradients
    with torch.no_grad(), arithmetic(CPU, bfloat16=False):
        frozen = linear(*tensors)
    assert len(calls) == with_gradients + without
    assert torch.equal(trained, frozen)


@pytest.mark.parametrize("padding", [None, 1, -1])
def test_an_embedding_and_its_gradient_are_those_in_double_precision(padding):
    ids = torch.tensor([[0, 1, 1], [4, 4, 4]])
    weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    exact = weight.detach().double().requires_grad_()
    factors = torch.arange(18.0).reshape(2, 3, 3)
    with QuickLinear():
        rows = embedding(ids, weight, padding)
    (rows * factors).sum().backward()
    (embedding(ids, exact, padding) * factors).sum().backward()
    assert torch.equal(rows, weight[ids])
    torch.testing.assert_close(weight.grad.double(), exact.grad)


class LargeResults(TorchDispatchMode):
    """Counts operations that make a new tensor of at least so many numbers."""

    def __init__(self, least):
        super().__init__()
        self.least, self.seen = least, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        old = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        if isinstance(result, torch.Tensor) and result.numel() >= self.least:
            self.seen += [str(function)] * (result.untyped_storage().data_ptr() not in old)
        return result


def test_a_gradient_is_added_to_the_one_that_is_there_without_a_matrix_of_its_own():
    def loss(ids):
        return linear(embedding(ids, weight), weight).square().sum()  # tied: both ends of a language model

    weight = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    first, second = torch.tensor([3, 999, 3]), torch.tensor([5, 3])
    with QuickLinear():
        loss(first).backward()
        place = weight.grad.data_ptr()
        later = loss(second)
        with LargeResults(weight.numel()) as large:
            later.backward()
    assert not large.seen
    assert weight.grad.data_ptr() == place
    exact = weight.detach().double().requires_grad_()
    for ids in (first, second):
        linear(embedding(ids, exact), exact).square().sum().backward()
    torch.testing.assert_close(weight.grad.double(), exact.grad, atol=1e-4, rtol=1e-5)


def test_gradients_meet_in_one_place_on_the_first_way_back_too():
    weight = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with QuickLinear():
        hidden = embedding(torch.tensor([3, 4]), weight)
        leaf = hidden.detach().requires_grad_()
        linear(leaf, weight).square().sum().backward()  # as the update does it: first the head, then the trunk
        with LargeResults(weight.numel()) as large:
            hidden.backward(leaf.grad)
    assert not large.seen


def test_the_maker_of_the_processor_is_read_where_the_system_tells_it(tmp_path):
    (tmp_path / "intel").write_text("processor\t: 0\nvendor_id\t: GenuineIntel\n")
    (tmp_path / "amd").write_text("processor\t: 0\nvendor_id\t: AuthenticAMD\n")
    found = [arithmetic_module._made_by_intel(tmp_path / name) for name in ("intel", "amd", "nothing")]
    assert found == [True, False, False]


def test_products_are_those_of_onednn_except_on_processors_of_intel(monkeypatch):
    used = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            used.append(str(function))
            return function(*args, **(kwargs or {}))

    for intel in (True, False):
        monkeypatch.setattr(arithmetic_module, "_made_by_intel", lambda intel=intel: intel)
        used.clear()
        with QuickLinear(), torch.no_grad(), Watch():
            linear(torch.ones(2, 16), torch.ones(8, 16))
        assert any("mkldnn" in name for name in used) is not intel
