"""The readable toy stays true: it learns, and it computes what the library computes."""

import copy
import importlib.util
import inspect
import itertools
from pathlib import Path

import pytest
import torch
from golden import close
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from surefoot import PPOConfig, PPOTrainer
from surefoot.ops import derive_seed

PATH = Path(__file__).parents[2] / "examples" / "ppo_in_one_file.py"


@pytest.fixture(scope="module")
def toy():
    spec = importlib.util.spec_from_file_location("ppo_in_one_file", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tokenizer_of(toy):
    names = {toy.PAD: "<pad>", toy.EOS: "<eos>"} | {i + 2: str(i) for i in range(toy.VOCABULARY - 2)}
    core = Tokenizer(models.WordLevel({name: i for i, name in names.items()}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")


@pytest.fixture
def pair(toy):
    """The toy's models with an optimizer, and a trainer of the library over copies of them."""
    args = toy.Args(batch_size=12, mini_batch_size=5, epochs=3, temperature=0.8, gamma=0.98, horizon=100)
    torch.manual_seed(3)
    policy, reference = toy.make_policy().eval(), toy.make_policy().eval().requires_grad_(False)
    config = PPOConfig(
        batch_size=12, mini_batch_size=5, ppo_epochs=3, temperature=0.8, gamma=0.98, lam=args.lam, horizon=100.0,
        cliprange=args.clip, cliprange_value=args.value_clip, vf_coef=args.vf_coef, init_kl_coef=args.kl_coef,
        target_kl=args.target_kl, max_grad_norm=args.max_grad_norm, learning_rate=args.learning_rate, seed=11,
    )  # fmt: skip
    trainer = PPOTrainer(
        config, copy.deepcopy(policy), copy.deepcopy(reference), tokenizer_of(toy),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    )  # fmt: skip
    critic = toy.make_critic(policy)
    with torch.no_grad():
        for parameter, theirs in zip(critic.parameters(), trainer.critic.parameters(), strict=True):
            parameter.normal_(std=0.2)
            theirs.copy_(parameter)
    optimizer = torch.optim.SGD([*policy.parameters(), *critic.parameters()], lr=0.1)
    return args, (policy, critic, reference, optimizer), trainer


def test_toy_and_library_have_the_same_losses_prices_and_weights(toy, pair):
    args, (policy, critic, reference, optimizer), trainer = pair
    kl_coef, draws = args.kl_coef, torch.Generator().manual_seed(7)
    for step in range(3):
        batch = toy.sample(policy, args, draws)
        responses = toy.answers(batch)
        scores = torch.tensor([toy.score(answer) + 0.1 * len(answer) for answer in responses])
        queries = [row[mask.bool()] for row, mask in zip(batch["queries"], batch["query_mask"], strict=True)]
        stats = trainer.step(queries, [torch.tensor(r) for r in responses], scores)

        order = torch.Generator().manual_seed(derive_seed(11, "order", step))  # the library's order of rows
        batch = toy.estimate(policy, critic, reference, batch, scores, kl_coef, args)
        losses = toy.update(policy, critic, optimizer, batch, args, order)

        experience = trainer.last_experience
        columns = experience.rewards.shape[1]
        for name in ("advantages", "returns"):
            close(getattr(experience, name), batch[name][:, :columns], 1e-5)
        close(experience.rollout.kl, batch["kl"][:, :columns], 1e-5)
        close(stats["objective/kl_coef"], kl_coef, 1e-5)
        close(stats["ppo/loss/policy"], losses[0], 1e-5)
        close(stats["ppo/loss/value"], losses[1], 1e-5)
        kl_coef = toy.next_kl_coef(kl_coef, batch, args)
        close(trainer.kl_controller.value, kl_coef, 1e-5)
    assert abs(kl_coef / args.kl_coef - 1) > 0.02
    for mine, theirs in zip(
        itertools.chain(policy.parameters(), critic.parameters()),
        itertools.chain(trainer.policy.parameters(), trainer.critic.parameters()),
        strict=True,
    ):
        close(theirs.detach(), mine.detach(), 1e-5)


def test_the_toy_learns_its_rule_within_seconds(toy, capsys):
    history = toy.train(toy.Args(steps=15))
    assert sum(history[-3:]) / 3 > 3 * history[0]
    assert capsys.readouterr().out.count("score") == 3


def test_the_toy_fits_on_a_few_screens_and_needs_only_torch_and_transformers(toy):
    source = inspect.getsource(toy)
    assert len(source.splitlines()) < 200
    imports = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imports == {"copy", "dataclasses", "itertools", "torch", "transformers"}


@pytest.mark.parametrize(("answer", "expected"), [
    ([2, 3, 4, 1], 1.0), ([2, 3, 3, 1], 0.5), ([4, 3, 1], 0.0), ([2, 3, 4], 0.0), ([3, 1], 0.0), ([2, 0, 4, 1], 0.0),
])  # fmt: skip
def test_the_toys_rule_counts_rising_neighbours_of_answers_that_end(toy, answer, expected):
    assert toy.score(answer) == expected
