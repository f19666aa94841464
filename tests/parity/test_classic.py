"""The recorded classic PPO trainer (tests/data/classic-ppo), number for number, through the stages and the trainer."""

import json
import math

import numpy as np
import pytest
import torch
from golden import DATA, close
from oracle import ppo
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from surefoot import PPOConfig, PPOTrainer, ops
from surefoot.estimate import estimate
from surefoot.models import ActorCritic, Reference, ValueHead
from surefoot.rollout import Response, collect

FOLDER = DATA / "classic-ppo"
GOLDEN = json.loads((FOLDER / "golden.json").read_text())
TOLERANCE = 1e-5
LENGTHS = [len(r) for r in GOLDEN["responses"]]
MASK = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
OLD_OPTIONS = {"init_kl_coef": 0.1, "gamma": 0.97, "lam": 0.9, "cliprange": 0.2, "cliprange_value": 0.2,
               "vf_coef": 0.1, "batch_size": 4, "mini_batch_size": 4, "learning_rate": 0.01, "ratio_threshold": 10.0,
               "max_grad_norm": None}  # fmt: skip


def padded(rows):
    """The recorded ragged lists as a tensor, 0 where there is no token."""
    width = max(map(len, rows))
    return torch.tensor([row + [0.0] * (width - len(row)) for row in rows])


def recorded_model(name):
    return AutoModelForCausalLM.from_pretrained(FOLDER / name, dtype=torch.float32)


def recorded_head():
    head = ValueHead(32)
    head.load_state_dict(load_file(FOLDER / "value_head.safetensors"))
    return head


@pytest.fixture(scope="module")
def models():
    return ActorCritic(recorded_model("model"), recorded_head(), Reference(recorded_model("reference")))


def rollout_of(models, kl_penalty):
    end = GOLDEN["eos_token_id"]
    responses = [Response(ids, [True] * len(ids), (), ids[-1] != end) for ids in GOLDEN["responses"]]
    return collect(models, GOLDEN["queries"], responses, kl_penalty=kl_penalty, max_tokens=40)[0]


def experience_of(models, recorded):
    return estimate(
        rollout_of(models, recorded["kl_penalty"]), torch.tensor(GOLDEN["scores"]), kl_coef=0.1, gamma=0.97, lam=0.9,
        whiten_rewards=recorded["whiten_rewards"],
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["kl", "abs", "mse", "full"])
def test_rollout_and_estimates_are_those_of_the_classic_trainer(models, mode):
    recorded = GOLDEN["cases"][mode]
    experience = experience_of(models, recorded)
    rollout = experience.rollout
    assert torch.equal(rollout.response_mask, MASK)
    for key, actual in {
        "logprobs": rollout.old_logprobs,
        "ref_logprobs": rollout.ref_logprobs,
        "values": rollout.old_values,
        "kl": rollout.kl,
        "rewards": experience.rewards,
        "advantages": experience.advantages,
        "returns": experience.returns,
    }.items():
        close(actual, padded(recorded[key]), TOLERANCE)


def classic_width(x):
    """Recorded rows as the classic trainer held them after the query: as wide as the longest query with its answer."""
    total = max(len(q) + len(r) for q, r in zip(GOLDEN["queries"], GOLDEN["responses"], strict=True))
    wide = np.zeros((4, total))
    wide[:, : x.shape[1]] = x
    exists = np.arange(total) < np.array([total - len(q) for q in GOLDEN["queries"]])[:, None]
    return wide, exists


@pytest.mark.parametrize("mode", ["kl", "abs", "mse", "full"])
def test_whitened_rewards_stay_off_the_padding_where_the_classic_trainer_let_them_leak(models, mode):
    """The classic trainer whitened padded places too, from 0 to a constant, and its GAE walked through them.

    That this alone makes the difference is shown by computing its recorded numbers, leak included, with the oracle.
    Ours are the oracle's without the leak; on the one row without padding the returns are those recorded.
    """
    recorded = GOLDEN["cases"][f"{mode}-whiten"]
    rewards, values = (padded(recorded[name]).double().numpy() for name in ("rewards", "values"))  # before whitening
    scaled = ppo.scale(rewards, MASK.numpy())
    experience = experience_of(models, recorded)
    close(experience.rewards, torch.tensor(scaled), TOLERANCE)

    advantages, returns = ppo.gae(scaled, values, MASK.numpy(), 0.97, 0.9)
    close(experience.advantages, torch.tensor(ppo.whiten(advantages, MASK.numpy())), TOLERANCE)
    close(experience.returns, torch.tensor(returns), TOLERANCE)
    close(experience.returns[2], torch.tensor(recorded["returns"][2]), TOLERANCE)

    mean, deviation = ppo.masked_mean(rewards, MASK.numpy()), ppo.masked_variance(rewards, MASK.numpy()) ** 0.5
    (wide_rewards, exists), (wide_values, _) = classic_width(rewards), classic_width(values)
    leaking = (wide_rewards - mean) / deviation + mean
    advantages, returns = ppo.gae(leaking, wide_values, exists, 0.97, 0.9)
    columns = MASK.shape[1]
    close(torch.tensor(returns[:, :columns])[MASK], padded(recorded["returns"])[MASK], TOLERANCE)
    whitened = torch.tensor(ppo.whiten(advantages[:, :columns], MASK.numpy()))
    close(whitened, padded(recorded["advantages"]), TOLERANCE)
    assert (whitened - experience.advantages).abs().max() > 0.1  # the leak is not a matter of rounding


def test_the_losses_away_from_ratio_one_are_those_of_the_classic_trainer():
    before, loss = GOLDEN["cases"]["kl"], GOLDEN["loss"]
    count = int(MASK.sum())
    policy, seen = ops.policy_loss(
        padded(loss["new_logprobs"]), padded(before["logprobs"]), padded(before["advantages"]), MASK
    )
    close(policy / count, loss["pg_loss_times_1"], TOLERANCE)
    close(seen.clipped / count, loss["clipfrac"], TOLERANCE)
    close(seen.kl_k2 / count, loss["approxkl"], TOLERANCE)
    close(seen.kl_k1 / count, loss["policykl"], TOLERANCE)
    value, seen = ops.value_loss(padded(loss["new_values"]), padded(before["values"]), padded(before["returns"]), MASK)
    close(0.1 * value / count, loss["vf_loss_times_vf_coef"], TOLERANCE)
    close(seen.clipped / count, loss["vf_clipfrac"], TOLERANCE)


def whole_step(epochs):
    """A trainer after one step of `epochs` epochs with plain SGD, and the step's statistics."""
    config = PPOConfig(ppo_epochs=epochs, **OLD_OPTIONS)
    with pytest.warns(UserWarning, match="learning_rate"):
        trainer = PPOTrainer(
            config,
            recorded_model("model"),
            recorded_model("reference"),
            AutoTokenizer.from_pretrained(FOLDER / "model"),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01),
        )
    trainer.critic.load_state_dict(recorded_head().state_dict())
    queries, responses = ([torch.tensor(row) for row in GOLDEN[name]] for name in ("queries", "responses"))
    return trainer, trainer.step(queries, responses, GOLDEN["scores"])


@pytest.fixture(scope="module", params=[1, 3])
def stepped(request):
    return GOLDEN[f"step_{request.param}_epochs"], *whole_step(request.param)


def test_the_weights_after_a_whole_step_are_those_of_the_classic_trainer(stepped):
    recorded, trainer, _ = stepped
    weights = {name: p.detach().double() for name, p in trainer.policy.state_dict().items()}
    weights |= {f"v_head.summary.{name}": p.detach().double() for name, p in trainer.critic.state_dict().items()}
    assert weights.keys() == recorded["parameter_sums"].keys()
    for name, weight in weights.items():
        close(weight.sum(), recorded["parameter_sums"][name], TOLERANCE)
        close(weight.square().sum(), recorded["parameter_square_sums"][name], TOLERANCE)
    close(trainer.critic.weight.detach().flatten(), torch.tensor(recorded["value_head_weight"]), TOLERANCE)


def test_a_whole_step_really_moves_the_weights(stepped):
    recorded, trainer, _ = stepped
    start = recorded_model("model").state_dict()
    moved = [n for n, p in trainer.policy.state_dict().items() if (p - start[n]).abs().max() > 10 * TOLERANCE]
    assert len(moved) > len(start) / 2
    assert recorded["optimizer"] == "SGD"


def test_all_forty_classic_statistics_are_there(stepped):
    recorded, _, stats = stepped
    assert len(recorded["stats_keys"]) == 40
    assert set(recorded["stats_keys"]) <= set(stats)


def test_every_number_among_the_statistics_is_that_of_the_classic_trainer(stepped):
    recorded, _, stats = stepped
    numbers = {n: x for n, x in recorded["stats"].items() if x is not None and not n.startswith("time/")}
    assert len(numbers) == 27
    different = {n: (float(stats[n]), x) for n, x in numbers.items()
                 if not math.isclose(float(stats[n]), x, rel_tol=TOLERANCE, abs_tol=TOLERANCE)}  # fmt: skip
    assert not different


def test_times_are_positive_and_arrays_hold_what_their_names_say(stepped):
    recorded, _, stats = stepped
    case = GOLDEN["cases"]["kl"]
    times = [n for n in recorded["stats_keys"] if n.startswith("time/")]
    assert all(stats[n] >= 0 for n in times)
    assert stats["time/ppo/total"] > 0
    close(stats["objective/kl_dist"], torch.tensor([sum(row) for row in case["kl"]]), TOLERANCE)
    # the classic arrays also held the query and the padding of the batch; ours hold the response, 0 where padded
    close(stats["objective/logprobs"], padded(case["logprobs"]), TOLERANCE)
    close(stats["objective/ref_logprobs"], padded(case["ref_logprobs"]), TOLERANCE)
    close(stats["ppo/policy/advantages"], padded(case["advantages"])[MASK], TOLERANCE)
    assert list(stats["tokens/queries_dist"]) == [len(q) for q in GOLDEN["queries"]]
    assert list(stats["tokens/responses_dist"]) == LENGTHS
