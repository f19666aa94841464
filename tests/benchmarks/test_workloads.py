"""What both sides are given: prompts, a tokenizer that loses nothing, and models that end when they should."""

import dataclasses

import pytest
import torch

from benchmarks.workloads import (
    EOS,
    FIRST,
    PAD,
    WORKLOADS,
    Workload,
    checksum,
    lora_config,
    make_classifier,
    make_policy,
    make_prompts,
    make_tokenizer,
)

TOY = WORKLOADS["toy"]
FULL = dataclasses.replace(TOY, prompt=(8, 8), response=(12, 12))


def answers(w: Workload) -> list[list[int]]:
    """Answers of transformers' own sampler, up to their end."""
    found = []
    model = make_policy(w)
    for row in make_prompts(w).ids:
        out = model.generate(
            torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=torch.long), do_sample=True, top_k=0,
            max_new_tokens=w.response[1],
        )  # fmt: skip
        found.append(out[0, len(row) :].tolist())
    return found


def test_a_ragged_model_ends_each_answer_at_the_length_drawn_for_it():
    found = answers(TOY)
    assert [len(row) for row in found] == make_prompts(TOY).response_lengths
    assert all(row[-1] == EOS and EOS not in row[:-1] and PAD not in row for row in found)


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_of_full_answers_gives_its_end_no_chance(tied):
    w = dataclasses.replace(FULL, shape=dataclasses.replace(FULL.shape, tied=tied))
    ids = torch.randint(FIRST, w.shape.vocab, (16, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logprobs = make_policy(w)(ids).logits.log_softmax(-1)
    assert logprobs[..., [PAD, EOS]].max() < -20  # less than one in 10^8
    assert logprobs[..., FIRST:].exp().max() < 0.9  # and the rest is still drawn at random


def test_answers_differ_between_seeds():
    torch.manual_seed(0)
    first = answers(TOY)
    torch.manual_seed(1)
    assert first != answers(TOY)


def test_text_and_ids_say_the_same():
    tokenizer = make_tokenizer(WORKLOADS["real"])
    ids = [FIRST, 17, 49151, 9, 9]
    text = tokenizer.decode(ids)
    assert len(text) == 5
    assert tokenizer(text)["input_ids"] == ids
    assert tokenizer("").input_ids == []


def test_prompts_have_lengths_from_end_to_end_and_no_special_token():
    w = WORKLOADS["ragged"]
    prompts = make_prompts(w)
    lengths = [len(row) for row in prompts.ids]
    assert len(lengths) == 32
    assert 16 <= min(lengths) < 40
    assert 100 < max(lengths) <= 128
    assert 8 <= min(prompts.response_lengths) < 30
    assert 100 < max(prompts.response_lengths) <= 128
    assert all(FIRST <= token < w.shape.vocab for row in prompts.ids for token in row)


def test_both_sides_build_the_same_weights():
    torch.manual_seed(1)
    first = checksum(make_policy(TOY))
    torch.manual_seed(2)
    assert checksum(make_policy(TOY)) == first
    assert checksum(make_policy(TOY, seed=9)) != first
    assert make_classifier(TOY, seed=2).config.num_labels == 1


def test_the_minibatches_of_every_workload_divide_its_rows():
    for w in WORKLOADS.values():
        assert w.minibatch_rows * w.minibatches == w.rows
    assert lora_config(WORKLOADS["real"]) is None
    assert lora_config(WORKLOADS["real-lora"]).r == 16
