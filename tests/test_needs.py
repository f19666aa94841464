"""What max_tokens_per_microbatch="auto" stands for, and the arithmetic of a step."""

import torch
from steps import Batch, make_trainer
from tiny import tiny_llama

from surefoot import PPOConfig, needs
from surefoot.memory import Growth, Model, Need, Output, Pass, Sampler
from surefoot.needs import tokens_of_a_pass, work_of

CPU = torch.device("cpu")


def tokens(free, c, queries):
    """With 1000 bytes of weights and 100 a token kept."""
    policy = Model("policy", 1000, pass_=Pass(kept=Growth(0, 100)))
    work = work_of(c, queries, 512, padded=False)
    need = Need(policy, Model("critic", 0), Model("reference", 0), Output(1, 10**9), Sampler(), work)
    return tokens_of_a_pass(c, need, queries, free, CPU)


def test_auto_is_the_largest_power_of_two_that_fits_and_no_more_than_pays():
    c = PPOConfig(batch_size=4096, mini_batch_size=4096, max_new_tokens=1, eval_prompts=0)
    several = [1] * 4  # rows of 2 tokens
    fit = 1000 + 204_800 + 3 * 4 * 1024  # 2048 tokens and their logits
    assert tokens(round(fit / 0.85) + 1, c, several) == 2048
    assert tokens(round(fit / 0.85) - 2, c, several) == 1024
    assert tokens(10**9, c, several) == 8192
    assert tokens(10, c, several) == 512  # where sampling alone takes more


def test_the_longest_prompts_make_the_largest_pass():
    c = PPOConfig(batch_size=8, mini_batch_size=3, max_new_tokens=10, num_generations=2, eval_prompts=0)
    work = work_of(c, [4, 9, 7, 1], None, padded=False)
    assert (work.pass_rows, work.pass_tokens, work.passes) == (3, (9 + 9 + 7) + 3 * 10, 1)
    assert work_of(c, [4, 9, 7, 1], None, padded=True).pass_tokens == 3 * 19
    budget = work_of(c, [4, 9, 7, 1], 40, padded=False)
    assert (budget.pass_rows, budget.passes) == (2, 2)


def test_auto_is_made_out_once_and_goes_with_the_checkpoint(tmp_path, monkeypatch):
    free = [10**10]
    monkeypatch.setattr(needs, "free_memory_bytes", lambda device: free[0])
    first = make_trainer(tiny_llama(), max_tokens_per_microbatch="auto")
    assert first.tokens_of_a_pass() == 8192
    batch = Batch()
    first.step(batch.queries, batch.responses, batch.scores)
    first.save(tmp_path / "step")
    free[0] = 0
    assert first.tokens_of_a_pass() == 8192
    assert (make_trainer(tiny_llama(), max_tokens_per_microbatch="auto").tokens_of_a_pass() or 0) < 8192
    resumed = make_trainer(tiny_llama(), max_tokens_per_microbatch="auto")
    resumed.restore(tmp_path / "step")
    assert resumed.tokens_of_a_pass() == 8192
