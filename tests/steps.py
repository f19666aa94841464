"""Trainers over tiny models and ragged batches of ids, for tests of whole steps. `from steps import make_trainer`.

`plain_logprobs` is the independent second opinion: one row at a time, no padding, float64, straight from the model.
"""

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from oracle import ppo
from torch import Tensor

from surefoot import PPOConfig, PPOTrainer

both_families = pytest.mark.parametrize("make_model", [tiny.tiny_gpt2, tiny.tiny_llama], ids=["gpt2", "llama"])

_QUERY_LENGTHS, _RESPONSE_LENGTHS = (3, 9, 1, 5, 7, 2, 4, 6), (6, 1, 11, 4, 2, 9, 3, 14)


class Batch:
    """Queries and responses of very unequal lengths; every other response ends with the EOS."""

    def __init__(self, rows: int = 8, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(length: int) -> Tensor:
            return torch.randint(6, tiny.VOCAB_SIZE, (length,), generator=generator)

        self.queries = [draw(_QUERY_LENGTHS[i % 8]) for i in range(rows)]
        self.responses = [draw(_RESPONSE_LENGTHS[i % 8]) for i in range(rows)]
        for response in self.responses[::2]:
            response[-1] = tiny.EOS_ID
        self.scores = torch.randn(rows, generator=generator)

    @property
    def lengths(self) -> list[int]:
        return [len(r) for r in self.responses]


def make_trainer(policy: Any, reference: Any = None, *, tokenizer: Any = None, optimizer: Any = None,
                 **options: Any) -> PPOTrainer:  # fmt: skip
    """A trainer with plain SGD, without limit on the gradient, and with a critic that is not 0 everywhere."""
    settings = {"batch_size": 8, "mini_batch_size": 8, "ppo_epochs": 1, "learning_rate": 1e-4, "max_grad_norm": None,
                "lam": 0.9, "gamma": 0.95, "vf_coef": 0.5}  # fmt: skip
    trainer = PPOTrainer(
        PPOConfig(**(settings | options)),
        policy,
        reference,
        tokenizer or tiny.tiny_tokenizer(),
        optimizer=optimizer or (lambda parameters: torch.optim.SGD(parameters, lr=0.05)),
    )
    head = getattr(trainer.critic, "head", trainer.critic)
    with torch.no_grad():
        head.weight.copy_(torch.linspace(-0.3, 0.3, head.weight.numel()).reshape(head.weight.shape))
        head.bias.fill_(0.1)
    return trainer


def weights(trainer: PPOTrainer) -> dict[str, Tensor]:
    """Copies of everything that is trained."""
    named = [*trainer.policy.named_parameters(), *((f"critic.{n}", p) for n, p in trainer.critic.named_parameters())]
    return {name: p.detach().clone() for name, p in named if p.requires_grad}


def assert_same_weights(first: dict[str, Tensor], second: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(
            first[name], second[name], atol=tolerance, rtol=tolerance, msg=lambda m, n=name: n + m
        )


def largest_change(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@torch.no_grad()
def plain_logits(model: Any, query: Tensor, response: Tensor) -> np.ndarray:
    """[R, V] in float64: what the model says before each response token, from a pass of this row alone."""
    logits = model(torch.cat([query, response])[None]).logits[0]
    return logits[len(query) - 1 : -1].double().numpy()


def plain_logprobs(model: Any, query: Tensor, response: Tensor, temperature: float = 1.0) -> np.ndarray:
    """[R]: log-probabilities of the response's tokens, from a pass of this row alone."""
    return ppo.token_logprobs([plain_logits(model, query, response)], [response.tolist()], temperature)[0]
