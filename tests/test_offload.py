"""Frozen models that leave between stages: the same numbers to the last bit, and less memory meanwhile."""

import pytest
import torch
from steps import Batch, make_trainer
from tiny import tiny_llama, tiny_tokenizer
from tiny_classifier import classifier
from torch import nn

from surefoot.offload import Offloaded, frozen_models
from surefoot.rewards import ModelReward
from surefoot.runtime import resident_bytes

MIB = 2**20


def step(**options):
    batch = Batch()
    trainer = make_trainer(tiny_llama(), tiny_llama(seed=1), ppo_epochs=2, mini_batch_size=4, **options)
    stats = [trainer.step(batch.queries, batch.responses, batch.scores) for _ in range(2)]
    weights = [p.detach().clone() for p in (*trainer.policy.parameters(), *trainer.critic.parameters())]
    return weights, [{k: v for k, v in s.items() if isinstance(v, float) and "time" not in k and "memory" not in k}
                     for s in stats]  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_gives_the_same_bits(precision):
    (weights, numbers), (offloaded, same) = (step(precision=precision, offload_frozen=o) for o in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(weights, offloaded, strict=True))
    assert numbers == same


def test_a_reward_model_scores_the_same_and_a_shared_tensor_stays_shared():
    model = classifier().requires_grad_(False)
    reward = ModelReward(model, tiny_tokenizer())
    tied = tiny_llama(tie_word_embeddings=True).requires_grad_(False)
    ids = torch.arange(6, 14)[None]
    before = tied(ids).logits, model(ids).logits
    away = Offloaded(frozen_models(tied, [reward]))
    with away.present():
        assert torch.equal(tied(ids).logits, before[0])
        assert torch.equal(model(ids).logits, before[1])
    assert tied.lm_head.weight is tied.model.embed_tokens.weight


def test_what_is_trained_never_leaves():
    trained = tiny_llama()
    assert frozen_models(trained, [ModelReward(classifier(), tiny_tokenizer()), lambda: 0]) == []
    Offloaded([])  # and nothing is fine too


def test_a_frozen_model_is_in_memory_only_while_it_is_asked():
    model = nn.Linear(4096, 16 * 1024, bias=False).requires_grad_(False)  # 256 MiB
    x = torch.ones(1, 4096)
    away = Offloaded([model])
    before = resident_bytes()
    with away.present():
        y = model(x)
        there = resident_bytes()
    assert there - before > 200 * MIB
    assert resident_bytes() - before < 40 * MIB
    with away.present():
        assert torch.equal(model(x), y)
