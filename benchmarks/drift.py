"""How far passes in bfloat16 autocast lead from the same in float32: `python -m benchmarks.drift [--model FOLDER]`.

The same rows go through one step of plain gradient descent in either precision: what the weights moved is the
gradient. Without --model the toy and the shape of SmolLM2-135M are measured, both of random weights, whose
distributions are flat; a trained model's numbers are the ones to go by.
"""

import argparse
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from surefoot import PPOConfig, PPOTrainer  # before torch: see benchmarks.ours

# isort: split
import torch
from torch import Tensor

from benchmarks.report import table
from benchmarks.workloads import WORKLOADS, make_policy, make_tokenizer

ROWS, PROMPT, RESPONSE = 8, 32, 64
Makes = Callable[[], tuple[Any, Any]]
"""Makes a model in float32, the same at every call, and its tokenizer."""


def measure(make: Makes) -> dict[str, float]:
    """Differences of the two precisions on answers that the model draws itself, in float32."""
    queries, answers = _answers(make)
    exact, exact_moved = _step(make, "float32", queries, answers)
    rough, rough_moved = _step(make, "bfloat16", queries, answers)
    e, r = exact.last_experience.rollout, rough.last_experience.rollout
    there = e.response_mask
    products = (_product(x, y) for x, y in ((exact_moved, rough_moved), (exact_moved,) * 2, (rough_moved,) * 2))
    between, of_exact, of_rough = products
    difference = (r.old_logprobs - e.old_logprobs)[there].abs()
    return {
        "mean": float(difference.mean()),
        "max": float(difference.max()),
        "first_kl": float(r.kl[there].abs().max()),
        "entropy": float((r.entropies - e.entropies)[there].mean()),
        "kl": float(_divergence(exact, rough, queries, answers)),
        "cosine": between / math.sqrt(of_exact * of_rough),
        "norm": math.sqrt(of_rough / of_exact),
    }


def _answers(make: Makes) -> tuple[list[Tensor], list[Tensor]]:
    model, tokenizer = make()
    draw = torch.Generator().manual_seed(0)
    vocab = model.get_output_embeddings().weight.shape[0]
    queries = [torch.randint(2, vocab, (PROMPT,), generator=draw) for _ in range(ROWS)]
    trainer = _trainer(model, tokenizer, "float32")
    return queries, trainer.generate(queries, max_new_tokens=RESPONSE)


def _trainer(model: Any, tokenizer: Any, precision: str) -> PPOTrainer:
    config = PPOConfig(batch_size=ROWS, mini_batch_size=ROWS, ppo_epochs=1, max_grad_norm=None, precision=precision)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PPOTrainer(config, model, None, tokenizer, optimizer=lambda p: torch.optim.SGD(p, lr=1.0))


def _product(x: Sequence[Tensor], y: Sequence[Tensor]) -> float:
    return sum(float((a.double() * b.double()).sum()) for a, b in zip(x, y, strict=True))


def _step(
    make: Makes, precision: str, queries: Sequence[Tensor], answers: Sequence[Tensor]
) -> tuple[Any, list[Tensor]]:
    """A trainer after one step of gradient descent, and minus the gradient of every weight of the policy."""
    model, tokenizer = make()
    trainer = _trainer(model, tokenizer, precision)
    before = [p.detach().clone() for p in model.parameters()]
    trainer.step(queries, answers, torch.linspace(-1, 1, ROWS))
    moved = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
    with torch.no_grad():
        for parameter, b in zip(model.parameters(), before, strict=True):
            parameter.copy_(b)
    return trainer, moved


@torch.no_grad()
def _divergence(exact: PPOTrainer, rough: PPOTrainer, queries: Sequence[Tensor], answers: Sequence[Tensor]) -> Tensor:
    """KL of the rough from the exact distribution, over the whole vocabulary, in nats a token."""
    found = []
    for query, answer in zip(queries, answers, strict=True):
        ids = torch.cat([query, answer])[None]
        p, q = (_log_distributions(t, ids)[len(query) - 1 : -1] for t in (exact, rough))
        found.append((p.exp() * (p - q)).sum(-1))
    return torch.cat(found).mean()


def _log_distributions(trainer: PPOTrainer, ids: Tensor) -> Tensor:
    with trainer.models.arithmetic():
        logits: Tensor = trainer.policy(input_ids=ids, use_cache=False).logits[0]
    return logits.double().log_softmax(-1)


def of_random_weights(name: str) -> Makes:
    """The model of a workload."""
    return lambda: (make_policy(WORKLOADS[name]), make_tokenizer(WORKLOADS[name]))


def of_folder(path: str) -> Makes:
    """A trained model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    return lambda: (AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval(), tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", default=[], help="folder of a trained model")
    args = parser.parse_args()
    makes = {name: of_random_weights(name) for name in ("toy", "real")} | {m: of_folder(m) for m in args.model}
    head = ("model", "mean |Δ log p|", "largest", "entropy", "KL, nats a token", "first KL to the reference",
            "cosine of the gradients", "ratio of their norms")  # fmt: skip
    lines = []
    for name, make in makes.items():
        m = measure(make)
        numbers = [f"{m[key]:.2g}" for key in ("mean", "max", "entropy", "kl", "first_kl")]
        lines.append([name, *numbers, *(f"{m[key]:.4f}" for key in ("cosine", "norm"))])
    print(table(head, lines))


if __name__ == "__main__":
    main()
