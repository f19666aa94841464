"""The mathematics of a step at the size of the workload "small": 32 responses of 64 tokens over 8192 words."""

import pytest
import torch

from surefoot.ops.gae import gae
from surefoot.ops.kl import kl_estimate
from surefoot.ops.logprobs import entropy, logprobs_and_entropies, token_logprobs
from surefoot.ops.loss import policy_loss, value_loss
from surefoot.ops.masking import length_mask, masked_whiten

ROWS, TOKENS, VOCAB = 32, 64, 8192


@pytest.fixture
def tokens():
    """A maker of [rows, tokens] of normal numbers."""
    draw = torch.Generator().manual_seed(0)
    return lambda: torch.randn(ROWS, TOKENS, generator=draw)


@pytest.fixture
def mask():
    """Which of them count: lengths from 33 to 64."""
    return length_mask(torch.arange(ROWS) + TOKENS - ROWS + 1, TOKENS)


@pytest.fixture
def logits():
    """Logits of one minibatch of eight rows."""
    return torch.randn(ROWS // 4 * TOKENS, VOCAB, generator=torch.Generator().manual_seed(0), requires_grad=True)


def test_generalised_advantages(benchmark, tokens, mask):
    benchmark(gae, tokens(), tokens(), mask)


def test_whitening(benchmark, tokens, mask):
    benchmark(masked_whiten, tokens(), mask)


def test_estimate_of_the_divergence(benchmark, tokens):
    benchmark(kl_estimate, tokens(), tokens(), "k3")


def test_policy_loss_and_its_gradient(benchmark, tokens, mask):
    new, old, advantages = tokens().requires_grad_(True), tokens(), tokens()

    def run() -> None:
        policy_loss(new, old, advantages, mask, 0.2, 0.2, None)[0].backward()

    benchmark(run)


def test_value_loss_and_its_gradient(benchmark, tokens, mask):
    new, old, returns = tokens().requires_grad_(True), tokens(), tokens()

    def run() -> None:
        value_loss(new, old, returns, mask, 0.2)[0].backward()

    benchmark(run)


def test_log_probabilities_and_their_gradient(benchmark, logits):
    ids = torch.zeros(len(logits), dtype=torch.long)

    def run() -> None:
        token_logprobs(logits, ids).sum().backward()

    benchmark(run)


def test_log_probabilities_with_entropies_and_their_gradient(benchmark, logits):
    ids = torch.zeros(len(logits), dtype=torch.long)

    def run() -> None:
        logprobs_and_entropies(logits, ids)[0].sum().backward()

    benchmark(run)


def test_entropy_without_gradient(benchmark, logits):
    benchmark(entropy, logits.detach())
