"""Invariant 5: the score sits on the last response token, and every kind of end is learned and seen as one."""

import math

import pytest
import tiny
import torch
from golden import close
from steps import Batch, both_families, make_trainer, plain_logprobs, weights

BARE = {"init_kl_coef": 0.0, "whiten_advantages": False}
"""Token rewards are the scores alone, and advantages are what GAE made of them."""


@both_families
def test_the_score_sits_on_the_last_token_whether_or_not_it_is_an_end(make_model):
    batch = Batch()
    trainer = make_trainer(make_model(), make_model(seed=1), **BARE)
    trainer.step(batch.queries, batch.responses, batch.scores)
    expected = torch.zeros_like(trainer.last_experience.rewards)
    for i, length in enumerate(batch.lengths):
        expected[i, length - 1] = batch.scores[i]
    close(trainer.last_experience.rewards, expected)


@pytest.mark.parametrize("pad", ["own", "eos", "none"])
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_the_end_of_sequence_is_learned_whatever_the_pad_token_is(pad, advantage):
    query, response = torch.tensor([10, 11]), torch.tensor([tiny.EOS_ID])
    other = torch.tensor([20, 21, 22, 23, 24])  # makes the other row be padded
    trainer = make_trainer(tiny.tiny_llama(), tokenizer=tiny.tiny_tokenizer(pad=pad), batch_size=2, mini_batch_size=2,
                           lam=1.0, gamma=1.0, vf_coef=0.0, **BARE)  # fmt: skip
    with torch.no_grad():
        for parameter in trainer.critic.parameters():
            parameter.zero_()
    before = plain_logprobs(trainer.policy, query, response)[0]
    trainer.step([query, query], [response, other], [advantage, 0.0])
    close(trainer.last_experience.advantages[0], torch.tensor([advantage, 0, 0, 0, 0]))
    assert (plain_logprobs(trainer.policy, query, response)[0] - before) * advantage > 1e-3


def test_an_end_of_sequence_in_the_middle_of_a_given_response_does_not_cut_it():
    response = torch.tensor([20, tiny.EOS_ID, 21])
    trainer = make_trainer(tiny.tiny_llama(), batch_size=1, mini_batch_size=1, **BARE)
    trainer.step([torch.tensor([10])], [response], [1.0])
    close(trainer.last_experience.rewards, torch.tensor([[0.0, 0.0, 1.0]]))


@both_families
def test_an_end_of_sequence_inside_the_prompt_means_nothing(make_model):
    prompt = torch.tensor([10, tiny.EOS_ID, 11, tiny.EOS_ID])
    trainer = make_trainer(
        make_model(), make_model(seed=1), batch_size=2, mini_batch_size=2, max_new_tokens=12, **BARE
    )
    start = make_model()
    answers = trainer.generate([prompt, prompt])
    assert all(len(a) >= 1 for a in answers)
    assert max(map(len, answers)) > 1
    stats = trainer.step([prompt, prompt], answers, [1.0, 2.0])
    assert stats["tokens/queries_len_mean"] == 4
    rollout = trainer.last_experience.rollout
    for i, answer in enumerate(answers):
        close(rollout.old_logprobs[i, : len(answer)], torch.tensor(plain_logprobs(start, prompt, answer)), 1e-5)
        assert int(rollout.response_mask[i].sum()) == len(answer)


def ends_with(token, **options):
    """Statistics and last reward of one response that ends with `token`, where a missing end costs 3."""
    trainer = make_trainer(
        tiny.tiny_llama(), batch_size=1, mini_batch_size=1, missing_eos_penalty=3.0, **BARE, **options
    )
    stats = trainer.step([torch.tensor([10])], [torch.tensor([20, token])], [1.0])
    return stats["tokens/eos_rate"], float(trainer.last_experience.rewards[0, 1])


def test_a_custom_stop_token_is_an_end_like_any_other():
    stop = tiny.byte_id(".")
    assert ends_with(stop, stop_token_ids=(stop,)) == (1.0, 1.0)
    assert ends_with(tiny.EOS_ID, stop_token_ids=(stop,)) == (1.0, 1.0)
    assert ends_with(stop) == (0.0, -2.0)  # the penalty is subtracted, the score is not replaced


def test_generation_stops_at_a_custom_stop_token_and_keeps_it():
    trainer = make_trainer(tiny.tiny_llama(), max_new_tokens=40, stop_token_ids=tuple(range(6, 60)))
    answers = trainer.generate(["hello", "there"])
    assert {a.finish_reason for a in answers} == {"stop"}
    for answer in answers:
        ends = [t in range(6, 60) or t == tiny.EOS_ID for t in answer.token_ids]
        assert ends == [False] * (len(ends) - 1) + [True]


def test_answers_that_were_cut_off_can_be_left_out_of_the_loss():
    batch = Batch()
    scores = batch.scores.clone()
    results = []
    for changed in (scores, scores + torch.tensor([0.0, 50.0] * 4)):  # only the cut-off ones differ
        trainer = make_trainer(tiny.tiny_llama(), overlong_filter=True)
        trainer.step(batch.queries, batch.responses, changed)
        assert not trainer.last_experience.rollout.response_mask[1::2].any()
        results.append(weights(trainer))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_minibatches_in_which_nothing_counts_are_no_optimizer_steps_and_leave_everything_finite():
    batch = Batch()
    trainer = make_trainer(tiny.tiny_llama(), overlong_filter=True, mini_batch_size=1)
    stats = trainer.step(batch.queries, batch.responses, batch.scores)
    assert stats["ppo/optimizer_steps"] == 4
    assert all(math.isfinite(x) for x in stats.scalars().values())

    before = weights(trainer)
    stats = trainer.step(batch.queries[1::2], batch.responses[1::2], batch.scores[1::2])  # cut off, all of them
    assert stats["ppo/optimizer_steps"] == 0
    assert all(math.isfinite(x) for x in stats.scalars().values())
    after = weights(trainer)
    assert all(torch.equal(before[name], after[name]) for name in before)
