"""The helpers of the tests keep their promises."""

import pytest
import tiny
import torch


def test_any_text_becomes_one_token_a_byte_and_comes_back(tiny_tokenizer):
    text = "Grüße, 你好 \N{ROCKET}\n\tend"
    ids = tiny_tokenizer(text).input_ids
    assert len(ids) == len(text.encode())
    assert tiny_tokenizer.decode(ids) == text
    assert len(tiny_tokenizer) == tiny.VOCAB_SIZE


def test_the_id_of_a_character_is_known_without_the_tokenizer(tiny_tokenizer):
    assert tiny_tokenizer("aZ \n").input_ids == [tiny.byte_id(c) for c in "aZ \n"]


@pytest.mark.parametrize(("pad", "expected"), [("own", tiny.PAD_ID), ("eos", tiny.EOS_ID), ("none", None)])
def test_the_pad_token_is_as_asked(pad, expected):
    tokenizer = tiny.tiny_tokenizer(pad=pad)
    assert tokenizer.pad_token_id == expected
    assert tokenizer.eos_token_id == tiny.EOS_ID


def test_bos_and_eos_are_added_only_when_asked():
    plain, both = tiny.tiny_tokenizer(), tiny.tiny_tokenizer(bos=True, adds_eos=True)
    assert plain("a").input_ids == [tiny.byte_id("a")]
    assert both("a").input_ids == [tiny.BOS_ID, tiny.byte_id("a"), tiny.EOS_ID]


@pytest.mark.parametrize("make", [tiny.tiny_llama, tiny.tiny_gpt2])
def test_a_model_is_a_function_of_its_seed_and_leaves_the_global_generator_alone(make):
    before = torch.random.get_rng_state()
    first, again, other = make(1), make(1), make(2)
    assert torch.equal(before, torch.random.get_rng_state())
    ids = torch.tensor([[7, 8, 9]])
    with torch.no_grad():
        a, b, c = (m(ids).logits for m in (first, again, other))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)
    assert a.shape == (1, 3, tiny.VOCAB_SIZE)
    assert a.dtype == torch.float32
    assert not first.training
