"""Adam with moments in eight bits: near to Adam, a quarter of its memory, saved and restored to the last bit."""

import sys

import pytest
import torch
from steps import Batch
from tiny import tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.eightbit import eight_bit_adam
from surefoot.memory import moments_of

OPTIONS = {"batch_size": 8, "mini_batch_size": 4, "ppo_epochs": 2, "learning_rate": 1e-4}


def trainer(**options):
    return PPOTrainer(PPOConfig(**(OPTIONS | options)), tiny_llama(), tiny_llama(), tiny_tokenizer())


def steps(made, count):
    batch = Batch()
    for _ in range(count):
        made.step(batch.queries, batch.responses, batch.scores)
    return [p.detach().clone() for p in (*made.policy.parameters(), *made.critic.parameters())]


def test_it_moves_the_weights_nearly_as_adam_does():
    pytest.importorskip("bitsandbytes")
    start = [p.detach().clone() for p in tiny_llama().parameters()]
    plain, small = steps(trainer(), 3), steps(trainer(eight_bit_adam=True), 3)
    moved, apart = (torch.cat([(a - b).flatten() for a, b in zip(x, y, strict=False)]).norm()
                    for x, y in ((plain, start), (plain, small)))  # fmt: skip
    assert 0 < apart < 0.2 * moved


def test_saved_and_restored_it_goes_on_as_if_never_interrupted(tmp_path):
    pytest.importorskip("bitsandbytes")
    first, second = trainer(eight_bit_adam=True), trainer(eight_bit_adam=True)
    steps(first, 2)
    first.save(tmp_path / "step")
    second.restore(tmp_path / "step")
    assert all(torch.equal(a, b) for a, b in zip(steps(first, 2), steps(second, 2), strict=True))


def test_its_moments_take_what_the_reckoning_says():
    pytest.importorskip("bitsandbytes")
    made = trainer(eight_bit_adam=True)
    steps(made, 1)
    parameters = [p for group in made.optimizer.param_groups for p in group["params"]]
    names = ("state1", "state2", "absmax1", "absmax2")
    kept = sum(made.optimizer.state[p][n].nbytes for p in parameters for n in names if n in made.optimizer.state[p])
    assert kept == moments_of([p.numel() for p in parameters], eight_bits=True)


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match=r"eight_bit_adam needs bitsandbytes.*surefoot\[8bit\]"):
        eight_bit_adam([])


def test_a_given_optimizer_and_the_option_contradict_each_other():
    with pytest.raises(ValueError, match="an optimizer was given"):
        PPOTrainer(PPOConfig(**OPTIONS, eight_bit_adam=True), tiny_llama(), None, tiny_tokenizer(),
                   optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))  # fmt: skip
