"""Problems whose optimum is known exactly: pi* proportional to pi_ref exp(r / beta). Training must end there."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from surefoot import PPOConfig, PPOTrainer

CASES = json.loads((Path(__file__).parents[1] / "data" / "cases.json").read_text())


def words(count: int) -> PreTrainedTokenizerFast:
    core = Tokenizer(WordLevel({f"w{i}": i for i in range(count)}, unk_token="w0"))
    core.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core)


def tiny(vocabulary: int, width: int, layers: int) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=4,
                max_position_embeddings=16,
                eos_token_id=None,
                bos_token_id=None,
                pad_token_id=None,
            )
        )


def fit(model: LlamaForCausalLM, rows: torch.Tensor, targets: torch.Tensor, steps: int) -> None:
    """Fits next-token distributions `targets` [B, T, V] on `rows` [B, T] by exact cross-entropy."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for _ in range(steps):
        loss = -(targets * model(rows).logits.log_softmax(-1)).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@pytest.mark.slow
def test_a_four_armed_bandit_ends_at_the_exact_optimum():
    case = CASES["B1_beta1.0"]
    reference, rewards = torch.tensor([0.4, 0.3, 0.2, 0.1]), [0.0, 1.0, 2.0, 3.0]
    model, prompt = tiny(4, 16, 1), torch.tensor([0])
    fit(model, prompt[None], reference[None, None], 400)
    config = PPOConfig(
        learning_rate=2e-3,
        lr_schedule="linear",
        batch_size=512,
        mini_batch_size=128,
        ppo_epochs=2,
        steps=120,
        init_kl_coef=1.0,
        kl_controller="fixed",
        max_new_tokens=1,
        seed=1,
        whiten_advantages=False,
        critic_learning_rate=0.05,
    )
    trainer = PPOTrainer(config, model, None, words(4))
    for _ in range(120):
        answers = trainer.generate([prompt], num_return_sequences=512)
        trainer.step([prompt] * 512, answers, [rewards[int(a[0])] for a in answers])
    with torch.no_grad():
        policy = model(prompt[None]).logits[0, -1].softmax(-1)
    assert 0.5 * (policy - torch.tensor(case["pi"])).abs().sum() < 0.02


# ------------------------------------------------------------------------------------------------ the chain
CHAIN = {k: np.array(v) for k, v in CASES["B5"]["inputs_arr"].items()}
LENGTH, ARMS = 8, 5


def exact_optimum(beta: float) -> tuple[float, float]:
    """Expected reward and KL of the exact optimum, by backward recursion over the soft value and a forward pass."""
    ref0, ref, reward = CHAIN["ref0"], CHAIN["ref"], CHAIN["r"]
    value, policies = np.zeros(ARMS), []
    for _ in range(LENGTH - 1):
        weight = ref * np.exp((reward + value[None]) / beta)
        policies.insert(0, weight / weight.sum(1, keepdims=True))
        value = beta * np.log(weight.sum(1))
    start = ref0 * np.exp(value / beta)
    state = start / start.sum()
    kl, total = float((state * np.log(state / ref0)).sum()), 0.0
    for policy in policies:
        joint = state[:, None] * policy
        kl += float((joint * np.log(policy / ref)).sum())
        total += float((joint * reward).sum())
        state = joint.sum(0)
    return total, kl


@pytest.mark.parametrize("beta", [4.0, 2.0, 1.0, 0.5, 0.25])
def test_the_recursion_reproduces_the_recorded_frontier(beta):
    recorded = CASES["B5"]["frontier"][f"beta{beta}"]
    assert exact_optimum(beta) == pytest.approx((recorded["Er"], recorded["KL"]), abs=1e-6)


@pytest.fixture(scope="module")
def chain_reference() -> LlamaForCausalLM:
    """A tiny transformer that is the chain's reference: token 5 is the prompt, then eight of five words."""
    model = tiny(ARMS + 1, 32, 1)
    generator = np.random.default_rng(0)
    rows = np.concatenate([np.full((512, 1), ARMS), generator.integers(0, ARMS, (512, LENGTH - 1))], axis=1)
    table = np.zeros((ARMS + 1, ARMS + 1))
    table[ARMS, :ARMS], table[:ARMS, :ARMS] = CHAIN["ref0"], CHAIN["ref"]
    fit(model, torch.from_numpy(rows), torch.from_numpy(table[rows]).float(), 500)
    return model


def chain_reward(ids: torch.Tensor) -> float:
    return float(
        sum(
            CHAIN["r"][a, b] if max(a, b) < ARMS else -1.0
            for a, b in zip(ids.tolist(), ids.tolist()[1:], strict=False)
        )
    )


@torch.no_grad()
def measured(trainer: PPOTrainer, reference: LlamaForCausalLM) -> tuple[float, float]:
    """Mean reward and sequence KL over 4096 fresh samples; the KL of each step is exact over the vocabulary."""
    prompt = torch.tensor([ARMS])
    answers = torch.stack(trainer.generate([prompt], num_return_sequences=4096))
    rows = torch.cat([torch.full((4096, 1), ARMS), answers], dim=1)[:, :-1]
    new, old = (m(rows).logits.log_softmax(-1) for m in (trainer.policy, reference))
    return float(np.mean([chain_reward(a) for a in answers])), float((new.exp() * (new - old)).sum(-1).sum(-1).mean())


@pytest.mark.slow
@pytest.mark.parametrize("beta", [2.0, 1.0, 0.5])
def test_a_tiny_transformer_lands_on_the_exact_frontier_of_reward_and_kl(chain_reference, beta):
    config = PPOConfig(
        learning_rate=3e-3,
        lr_schedule="linear",
        batch_size=256,
        mini_batch_size=256,
        ppo_epochs=4,
        steps=120,
        init_kl_coef=beta,
        kl_controller="fixed",
        max_new_tokens=LENGTH,
        seed=2,
        critic_learning_rate=0.01,
        lam=1.0,
    )
    trainer = PPOTrainer(config, copy.deepcopy(chain_reference), chain_reference, words(ARMS + 1))
    prompt = torch.tensor([ARMS])
    for _ in range(120):
        answers = trainer.generate([prompt], num_return_sequences=256)
        trainer.step([prompt] * 256, answers, [chain_reward(a) for a in answers])
    reward, kl = measured(trainer, chain_reference)
    frontier = sorted(exact_optimum(b)[::-1] for b in np.geomspace(0.1, 20, 200))
    best = float(np.interp(kl, [k for k, _ in frontier], [r for _, r in frontier]))
    assert reward == pytest.approx(best, abs=0.05)
    assert kl == pytest.approx(exact_optimum(beta)[1], rel=0.25)  # and at the place of this price
