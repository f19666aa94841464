"""Reward models. The oracle is the model's own forward pass on one row without padding."""

import logging

import pytest
import tiny
import torch
from tiny_classifier import TEXTS, classifier, prompts, said

from surefoot.rewards import ModelReward, RewardError, make_reward
from surefoot.types import Prompt


def alone(model, ids):
    model.eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0, 0].item()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("pad", ["own", "eos", "none"])
@pytest.mark.parametrize("adds_eos", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_scores_are_those_of_each_row_alone_whatever_the_padding(kind, pad, adds_eos, side, budget):
    pad_id = {"own": tiny.PAD_ID, "eos": tiny.EOS_ID, "none": None}[pad]
    model = classifier(kind, pad_token_id=pad_id)
    tokenizer = tiny.tiny_tokenizer(pad=pad, adds_eos=adds_eos, side=side)
    output = ModelReward(model, tokenizer, max_tokens_per_batch=budget)(prompts(), said(*TEXTS))
    end = [tiny.EOS_ID] if adds_eos else []
    expected = [alone(model, [tiny.byte_id(c) for c in "Q: " + text] + end) for text in TEXTS]
    assert output.scores == pytest.approx(expected, abs=1e-5)
    assert len({round(s, 3) for s in expected}) == len(TEXTS)  # or the test could not fail
    assert model.config.pad_token_id == pad_id


def test_without_a_pad_token_a_final_eos_is_read():
    model = classifier(pad_token_id=None)
    plain = ModelReward(model, tiny.tiny_tokenizer(pad="none"))(prompts(), said(*TEXTS)).scores
    ended = ModelReward(model, tiny.tiny_tokenizer(pad="none", adds_eos=True))(prompts(), said(*TEXTS)).scores
    assert all(abs(a - b) > 1e-3 for a, b in zip(plain, ended, strict=True))


def test_a_conversation_is_rendered_by_the_reward_models_own_template_with_one_bos():
    reward = ModelReward(classifier(), tiny.tiny_tokenizer(bos=True, chat=True))
    prompt = Prompt("[POLICY]hi[/POLICY]", (1,), ({"role": "user", "content": "hi"},))
    wanted = "<|bos|><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
    ids = reward.encode(prompt, "yo")
    assert reward.render(prompt, "yo") == wanted
    assert ids.count(tiny.BOS_ID) == 1
    assert ids[:4] == [tiny.BOS_ID, tiny.IM_START_ID, tiny.byte_id("u"), tiny.byte_id("s")]
    expected = alone(reward.model, ids)
    assert reward([prompt], said("yo")).scores == pytest.approx([expected], abs=1e-5)


def test_an_answer_that_continues_a_begun_turn_stays_in_that_turn():
    reward = ModelReward(classifier(), tiny.tiny_tokenizer(chat=True))
    messages = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well, "})
    assert reward.render(Prompt("", (1,), messages), "yes").endswith("assistant\nWell, yes<|im_end|>\n")
    assert messages[1]["content"] == "Well, "


def test_plain_text_gets_one_bos_even_when_it_brings_its_own():
    reward = ModelReward(classifier(), tiny.tiny_tokenizer(bos=True))
    wanted = [tiny.BOS_ID, tiny.byte_id("a"), tiny.byte_id("b")]
    assert reward.encode(Prompt("a", (1,)), "b") == wanted
    assert reward.encode(Prompt("<|bos|>a", (1,)), "b") == wanted


def test_special_tokens_of_the_policy_are_taken_off_plain_prompts():
    reward = ModelReward(classifier(), tiny.tiny_tokenizer(), special_tokens=("<s>", "<sep>"))
    assert reward.render(Prompt("<s><s>a<sep>", (1,)), "b") == "ab"


def test_without_a_chat_template_the_bare_contents_are_read_and_that_is_said(caplog):
    reward = ModelReward(classifier(), tiny.tiny_tokenizer())
    with caplog.at_level(logging.WARNING, "surefoot"):
        assert reward.render(prompts("hi", 1, chat=True)[0], "yo") == "hi\n\nyo"
    assert "no chat template" in caplog.text


def test_too_long_inputs_keep_bos_and_the_answer_and_are_counted(caplog):
    reward = ModelReward(classifier(), tiny.tiny_tokenizer(bos=True), max_length=4)
    with caplog.at_level(logging.WARNING, "surefoot"):
        output = reward([Prompt("abcdef", (1,)), Prompt("a", (1,))], said("gh", "h"))
    kept = [tiny.BOS_ID, *map(tiny.byte_id, "fgh")]
    assert output.metrics == {"truncated_rate": 0.5}
    assert output.scores[0] == pytest.approx(alone(reward.model, kept), abs=1e-5)
    assert "lose the beginning" in caplog.text


def test_the_models_positions_limit_the_length():
    assert ModelReward(classifier("gpt2"), tiny.tiny_tokenizer()).max_length == 256


@pytest.mark.parametrize("labels", [2, 3])
def test_more_labels_than_one_are_refused_by_number(labels):
    with pytest.raises(ValueError, match=rf"num_labels={labels}.*Python function"):
        ModelReward(classifier(num_labels=labels), tiny.tiny_tokenizer())


def test_a_saved_reward_model_loads_from_its_folder(tmp_path):
    model, tokenizer = classifier(), tiny.tiny_tokenizer(bos=True)
    folder = tmp_path / "my-rm"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    mix = make_reward([str(folder), lambda text: 100.0])
    expected = ModelReward(model, tokenizer)(prompts(), said(*TEXTS)).scores
    assert list(mix.rewards) == ["my-rm", "reward"]
    assert mix(prompts(), said(*TEXTS)).scores == pytest.approx([100 + s for s in expected], abs=1e-5)


def test_a_random_head_is_refused(tmp_path):
    tiny.tiny_llama(num_labels=1).save_pretrained(tmp_path)
    tiny.tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no weights for score.weight"):
        ModelReward(tmp_path)


def test_a_model_object_without_tokenizer_is_refused():
    with pytest.raises(ValueError, match="without a tokenizer"):
        make_reward(classifier())


def test_a_tokenizer_of_another_model_is_refused():
    with pytest.raises(ValueError, match="knows 50 tokens"):
        ModelReward(classifier(vocab_size=50), tiny.tiny_tokenizer())(prompts(), said(*TEXTS))


def test_nan_from_the_model_stops_with_the_sample():
    model = classifier()
    torch.nn.init.constant_(model.score.weight, float("nan"))
    with pytest.raises(RewardError, match=r"row 0.*nan"):
        ModelReward(model, tiny.tiny_tokenizer(), name="rm")(prompts(), said(*TEXTS))


def test_an_empty_input_is_refused():
    with pytest.raises(RewardError, match="no token"):
        ModelReward(classifier(), tiny.tiny_tokenizer())([Prompt("", ())], said(""))


def test_dropout_is_off_while_scoring_and_the_mode_comes_back():
    model = classifier("gpt2", resid_pdrop=0.5).train()
    reward = ModelReward(model, tiny.tiny_tokenizer())
    first, second = (reward(prompts(), said(*TEXTS)).scores for _ in range(2))
    assert first == second
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_without_a_pad_token_no_token_of_any_row_is_mistaken_for_padding():
    model = classifier(pad_token_id=None)
    ends = ["<|pad|>", "b<|eos|>", "<|bos|><|unk|>"]  # ids 0, 2, 1 and 3
    output = ModelReward(model, tiny.tiny_tokenizer(pad="none"))(prompts("a", 3), said(*ends))
    a, b = tiny.byte_id("a"), tiny.byte_id("b")
    expected = [alone(model, ids) for ids in ([a, 0], [a, b, 2], [a, 1, 3])]
    assert output.scores == pytest.approx(expected, abs=1e-5)
