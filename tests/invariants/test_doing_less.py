"""What makes a step quick changes none of its numbers: each against the plain way of doing it."""

import dataclasses

import pytest
import tiny
import torch
import transformers
from steps import Batch, assert_same_weights, both_families, largest_change, make_trainer, weights
from test_architectures import FAMILIES, tiny_model

from surefoot import models as models_module
from surefoot import trainer as trainer_module
from surefoot.networks import Head, Trunk, trunk_of
from surefoot.rows import join_rows

SIX_RAGGED = [(3, 6), (9, 1), (1, 11), (5, 4), (7, 9), (12, 8)]
PACKING = (
    "Cohere",
    "Gemma3Text",
    "GPTNeoX",
    "Granite",
    "Lfm2",
    "Mistral",
    "Mixtral",
    "Olmo2",
    "OPT",
    "Phi3",
    "Qwen2",
    "Qwen3",
)


def ragged_rows():
    generator = torch.Generator().manual_seed(0)
    queries, responses = torch.zeros(6, 12, dtype=torch.long), torch.zeros(6, 11, dtype=torch.long)
    mask = torch.zeros(6, 12, dtype=torch.bool)
    for i, (query, response) in enumerate(SIX_RAGGED):
        queries[i, 12 - query :] = torch.randint(6, tiny.VOCAB_SIZE, (query,), generator=generator)
        mask[i, 12 - query :] = True
        responses[i, :response] = torch.randint(6, tiny.VOCAB_SIZE, (response,), generator=generator)
    return join_rows(queries, mask, responses, torch.tensor([response for _, response in SIX_RAGGED]))


def states_and_gradients(model, packs):
    trunk = Trunk(trunk_of(model))
    trunk.packs = packs
    model.zero_grad()
    states = trunk.states(ragged_rows())
    (states * torch.linspace(-1, 1, states.numel()).reshape(states.shape)).sum().backward()
    return states.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", PACKING)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_rows_end_to_end_give_the_states_and_gradients_of_a_rectangle(family):
    model = tiny_model(family).eval()
    assert Trunk(trunk_of(model)).packs
    padded, expected = states_and_gradients(model, packs=False)
    packed, gradients = states_and_gradients(model, packs=True)
    torch.testing.assert_close(packed, padded, atol=1e-5, rtol=1e-5)
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5 * max(1, scale), rtol=1e-5)


@pytest.mark.parametrize("family", ["Bloom", "Falcon", "Gemma2", "StableLm"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_model_that_would_mix_rows_end_to_end_is_found_out_and_padded(family):
    assert family in FAMILIES
    model = tiny_model(family).eval()
    trunk = Trunk(trunk_of(model))
    assert not trunk.packs
    alone = [
        model(input_ids=row[None], output_hidden_states=True).hidden_states[-1][0] for row in split(ragged_rows())
    ]
    torch.testing.assert_close(trunk.states(ragged_rows()), torch.cat(alone), atol=1e-4, rtol=1e-4)


def split(rows):
    return rows.ids.split(list(rows.lengths))


def test_a_vocabulary_of_four_tokens_is_enough_to_be_tried():
    model = tiny.tiny_llama(vocab_size=4, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    assert Trunk(trunk_of(model)).packs
    assert Head(model)(torch.zeros(3, 32)).shape == (3, 4)


def test_a_window_slides_within_each_row_also_end_to_end():
    config = transformers.MistralConfig(
        vocab_size=tiny.VOCAB_SIZE, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=4, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.MistralForCausalLM(config).eval()
    trunk = Trunk(trunk_of(model))
    assert trunk.packs
    alone = torch.cat([trunk.module(input_ids=row[None]).last_hidden_state[0] for row in split(ragged_rows())])
    torch.testing.assert_close(trunk.states(ragged_rows()), alone, atol=1e-5, rtol=1e-5)
    model.config.sliding_window = None
    far = torch.cat([trunk.module(input_ids=row[None]).last_hidden_state[0] for row in split(ragged_rows())])
    assert (far - alone).abs().max() > 1e-2  # the window was seen


def one_step(make_model=tiny.tiny_llama, **options):
    batch = Batch()
    trainer = make_trainer(make_model(seed=0), make_model(seed=1), ppo_epochs=2, entropy_coef=0.01, **options)
    start = weights(trainer)
    stats = trainer.step(batch.queries, batch.responses, batch.scores)
    assert largest_change(start, weights(trainer)) > 1e-3
    return trainer, stats


@both_families
@pytest.mark.parametrize("kl_penalty", ["kl", "full"])
def test_the_number_of_states_that_meet_the_vocabulary_at_a_time_changes_nothing(make_model, kl_penalty, monkeypatch):
    whole, expected = one_step(make_model, kl_penalty=kl_penalty)
    assert whole.models.states_per_piece == 64 * 2**20 // 4 // tiny.VOCAB_SIZE
    monkeypatch.setattr(models_module, "LOGITS_BYTES", 4 * tiny.VOCAB_SIZE * 3)
    parts, stats = one_step(make_model, kl_penalty=kl_penalty)
    assert parts.models.states_per_piece == 3
    assert_same_weights(weights(parts), weights(whole), 2e-6)
    for name in ("objective/kl", "objective/entropy", "ppo/policy/entropy", "ppo/loss/policy", "ppo/grad_norm"):
        assert stats[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6)


def without_kept_passes(monkeypatch):
    monkeypatch.setattr(trainer_module, "first_minibatch", lambda *_, **__: [])


CRITICS = [{}, {"critic": "model"}, {"critic": "adapter", "lora_r": 2}, {"gradient_checkpointing": True}]


@pytest.mark.parametrize("options", CRITICS, ids=["head", "model", "adapter", "checkpointing"])
@pytest.mark.parametrize("mini_batch_size", [8, 3])
def test_the_first_minibatch_on_its_scoring_pass_is_as_on_a_pass_of_its_own(options, mini_batch_size, monkeypatch):
    options = options | {"mini_batch_size": mini_batch_size}
    kept, stats = one_step(**options)
    without_kept_passes(monkeypatch)
    plain, expected = one_step(**options)
    assert_same_weights(weights(kept), weights(plain), 2e-6)
    assert stats["ppo/policy/first_ratio"] == pytest.approx(expected["ppo/policy/first_ratio"], abs=1e-6)


def count_passes(**options):
    """How often the tokens that are there went through the policy's trunk in one step, with a graph and without."""
    batch, seen = Batch(), {True: 0, False: 0}
    trainer = make_trainer(tiny.tiny_llama(seed=0), tiny.tiny_llama(seed=1), **options)

    def count(_module, _arguments, output):
        seen[output.requires_grad] += output.shape[:-1].numel()

    trainer.policy.model.layers[0].register_forward_hook(count)
    trainer.step(batch.queries, batch.responses, batch.scores)
    tokens = sum(len(q) + len(r) for q, r in zip(batch.queries, batch.responses, strict=True))
    return {graph: count / tokens for graph, count in seen.items()}


def test_an_update_in_one_pass_runs_the_policy_once_and_never_on_padding():
    assert count_passes(ppo_epochs=1) == {True: 1, False: 0}
    assert count_passes(ppo_epochs=3) == {True: 3, False: 0}


def test_recomputed_activations_keep_rows_apart():
    plain, _ = one_step()
    recomputed, _ = one_step(gradient_checkpointing=True)
    assert_same_weights(weights(recomputed), weights(plain), 2e-6)


def test_the_policys_own_settings_come_out_of_a_step_as_they_went_in():
    trainer, batch = make_trainer(tiny.tiny_llama()), Batch()
    before = dataclasses.asdict(Settings.of(trainer.policy))
    trainer.step(batch.queries, batch.responses, batch.scores)
    assert dataclasses.asdict(Settings.of(trainer.policy)) == before


@dataclasses.dataclass
class Settings:
    attention: str
    forward: str

    @classmethod
    def of(cls, model):
        return cls(model.config._attn_implementation, model.model.forward.__qualname__)
