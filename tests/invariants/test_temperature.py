"""Invariant 9: all log-probabilities are those of the temperature-scaled distribution, in float32."""

import pytest
import tiny
import torch
from golden import close
from steps import Batch, both_families, make_trainer, plain_logprobs

TEMPERATURES = pytest.mark.parametrize("temperature", [0.5, 1.0, 1.5])


@both_families
@TEMPERATURES
def test_old_policy_and_reference_are_scored_at_the_temperature(make_model, temperature):
    batch = Batch()
    trainer = make_trainer(make_model(), make_model(seed=1), temperature=temperature)
    trainer.step(batch.queries, batch.responses, batch.scores)
    rollout, policy, reference = trainer.last_experience.rollout, make_model(), make_model(seed=1)
    for i, (query, response) in enumerate(zip(batch.queries, batch.responses, strict=True)):
        n = len(response)
        close(rollout.old_logprobs[i, :n], torch.tensor(plain_logprobs(policy, query, response, temperature)), 1e-5)
        close(rollout.ref_logprobs[i, :n], torch.tensor(plain_logprobs(reference, query, response, temperature)), 1e-5)


@both_families
@TEMPERATURES
def test_the_new_policy_is_scored_at_the_same_temperature_as_the_old(make_model, temperature):
    batch = Batch()
    trainer = make_trainer(make_model(), temperature=temperature, ppo_epochs=2, mini_batch_size=3,
                           optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0))  # fmt: skip
    stats = trainer.step(batch.queries, batch.responses, batch.scores)
    close(stats["ppo/policy/ratio"], torch.ones(6))
    close(stats["ppo/policy/approxkl_k3"], 0.0)


@both_families
@TEMPERATURES
def test_what_the_sampler_says_about_its_tokens_is_what_the_step_says(make_model, temperature):
    trainer = make_trainer(make_model(), temperature=temperature, max_new_tokens=10)
    queries = ["a", "to be or not", "why?", "seven"] * 2
    answers = trainer.generate(queries)
    trainer.step(queries, answers, [float(i) for i in range(8)])
    rollout = trainer.last_experience.rollout
    for i, answer in enumerate(answers):
        n = len(answer.token_ids)
        assert rollout.response_ids[i, :n].tolist() == list(answer.token_ids)
        close(torch.tensor(answer.logprobs), rollout.old_logprobs[i, :n], 1e-4)
    close(rollout.sampler_logprobs, rollout.old_logprobs, 1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_log_probabilities_are_computed_in_float32_whatever_the_passes_are(precision):
    batch = Batch()
    trainer = make_trainer(tiny.tiny_llama(), tiny.tiny_llama(seed=1), precision=precision)
    stats = trainer.step(batch.queries, batch.responses, batch.scores)
    rollout = trainer.last_experience.rollout
    for logprobs in (rollout.old_logprobs, rollout.ref_logprobs):
        assert logprobs.dtype == torch.float32
        counted = logprobs[rollout.response_mask]
        rounded = counted.bfloat16().float()
        assert (counted != rounded).float().mean() > 0.8  # nothing was rounded to half precision on the way
    assert stats["ppo/policy/first_ratio"] == pytest.approx(1, abs=1e-6)


def test_a_model_loaded_in_half_precision_is_trained_in_float32():
    batch = Batch()
    trainer = make_trainer(tiny.tiny_llama().bfloat16())
    trainer.step(batch.queries, batch.responses, batch.scores)
    assert {p.dtype for p in trainer.policy.parameters()} == {torch.float32}
