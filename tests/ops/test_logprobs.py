"""Token log-probabilities and entropies of the tempered distribution."""

import math

import numpy as np
import pytest
import torch
from golden import case, close
from oracle import ppo

from surefoot import ops


@pytest.mark.parametrize(("temperature", "name"), [(1.0, "logp_T1"), (0.7, "logp_T0_7"), (2.0, "logp_T2")])
def test_log_probabilities_are_those_of_the_tempered_distribution(temperature, name):
    a1 = case("A1")
    close(ops.token_logprobs(a1["logits"], torch.tensor(a1["token"]), temperature), a1[name])


def test_entropies_are_those_of_the_tempered_distribution():
    a1 = case("A1")
    close(ops.entropy(a1["logits"]), a1["entropy_T1"])
    close(ops.entropy(a1["logits"], 0.7), a1["entropy_T0_7"])


def test_a_bigram_table_gives_the_log_probabilities_of_its_rows():
    a2 = case("A2")
    before, drawn = torch.tensor([2, 0, 3]), torch.tensor([0, 3, 1])  # query 0 2, response 0 3 1
    logprobs = ops.token_logprobs(a2["probs"].log()[before], drawn)
    close(logprobs, a2["expected"])
    close(logprobs.sum(), a2["sum"])


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
def test_log_probabilities_and_entropies_equal_the_oracle(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(3, 4, 11, generator=generator)
    ids = torch.randint(0, 11, (3, 4), generator=generator)
    numbers = logits.numpy().astype(np.float64)
    close(
        ops.token_logprobs(logits, ids, temperature), torch.tensor(ppo.token_logprobs(numbers, ids, temperature)), 1e-5
    )
    close(ops.entropy(logits, temperature), torch.tensor(ppo.entropy(numbers, temperature)), 1e-5)


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.zeros(1, 1, 4096, dtype=torch.bfloat16)
    logprob = ops.token_logprobs(logits, torch.tensor([[7]]))
    assert logprob.dtype == torch.float32
    close(logprob, torch.tensor([[-math.log(4096)]]))


def test_large_logits_do_not_overflow():
    logits = torch.tensor([[1e4, 0.0, -1e4]])
    close(ops.token_logprobs(logits, torch.tensor([0])), torch.tensor([0.0]))
    close(ops.entropy(logits), torch.tensor([0.0]))


def test_a_token_the_model_rules_out_adds_nothing_to_the_entropy_or_its_gradient():
    logits = torch.tensor([[0.0, 0.0, -math.inf]], requires_grad=True)
    ops.entropy(logits).sum().backward()
    close(ops.entropy(logits).detach(), torch.tensor([math.log(2)]))
    assert torch.isfinite(logits.grad).all()


def test_the_gradient_of_a_log_probability_is_one_hot_minus_the_distribution():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().requires_grad_()
    ops.token_logprobs(logits, torch.tensor([2])).sum().backward()
    close(logits.grad, torch.tensor([[-0.5, -0.3, 0.8]]))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("ruled_out", [False, True])
def test_one_look_at_the_logits_gives_both_numbers_and_both_gradients(temperature, ruled_out):
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(5, 11, generator=generator)
    ids = torch.randint(0, 7, (5,), generator=generator)
    if ruled_out:
        logits[:, 8:] = -math.inf
    weight, other = torch.randn(2, 5, generator=generator)

    def run(read):
        leaf = logits.clone().requires_grad_()
        logprobs, entropies = read(leaf)
        (weight * logprobs + other * entropies).sum().backward()
        return logprobs.detach(), entropies.detach(), leaf.grad

    def plainly(x):
        x = (x[:, :8] if ruled_out else x) / temperature
        p = x.double().softmax(-1)
        return p.log().gather(-1, ids[:, None]).squeeze(-1), -(p * p.log()).sum(-1)

    seen = run(lambda x: ops.logprobs_and_entropies(x, ids, temperature))
    expected = run(plainly)
    for mine, theirs in zip(seen, expected, strict=True):
        close(mine.float(), theirs.float(), 1e-5)


@pytest.mark.parametrize("which", [0, 1])
def test_either_gradient_alone_is_right(which):
    logits, ids = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([1])
    leaf, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ops.logprobs_and_entropies(leaf, ids)[which].sum().backward()
    p = plain.log_softmax(-1)
    (p[:, 1] if which == 0 else -(p.exp() * p)).sum().backward()
    close(leaf.grad, plain.grad, 1e-6)
