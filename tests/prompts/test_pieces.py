"""The text of each token: together they are the text, and none of a word's blank or a character's bytes is lost."""

import pytest
import tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from surefoot.prompts.pieces import token_texts


def test_a_character_of_several_bytes_stands_at_its_last_token():
    tokenizer = tiny.tiny_tokenizer()
    ids = tokenizer("né 🙂!")["input_ids"]
    assert token_texts(tokenizer, ids) == ["n", "", "é", " ", "", "", "", "🙂", "!"]


def test_special_tokens_are_visible_and_half_a_character_at_the_end_is_told():
    tokenizer = tiny.tiny_tokenizer()
    assert token_texts(tokenizer, [tiny.byte_id("a"), tiny.EOS_ID]) == ["a", "<|eos|>"]
    half = tokenizer("é")["input_ids"][:1]
    assert token_texts(tokenizer, [tiny.byte_id("a"), *half]) == ["a", "\ufffd"]
    assert token_texts(tokenizer, []) == []


def test_bytes_that_are_no_character_do_not_swallow_the_rest():
    tokenizer = tiny.tiny_tokenizer()
    lone = tokenizer("é")["input_ids"][1:]  # a byte that no character begins with
    found = token_texts(tokenizer, [*lone * 5, tiny.byte_id("a"), tiny.byte_id("b")])
    assert "".join(found).endswith("ab")
    assert len(found) == 7


@pytest.mark.parametrize("text", ["the cat sat", "cat the"])
def test_the_blank_before_a_word_is_kept_where_tokenizers_drop_it_at_the_beginning(text):
    core = Tokenizer(models.WordLevel({"▁the": 0, "▁cat": 1, "▁sat": 2, "?": 3}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?")
    found = token_texts(tokenizer, tokenizer(text)["input_ids"])
    assert "".join(found) == text
    assert found[1:] == [f" {word}" for word in text.split()[1:]]
