"""What is wrong with a pipeline is told before anything is trained: all of it, with the option and what to do."""

import pytest
import tiny
import tiny_classifier
from pipelines import lines, whole, write_files

from surefoot.pipeline.checks import check_all, tokenizers_differ
from surefoot.pipeline.parts import parts_of

REAL = {"gold": ["judge.py:vowels"], "rate": {"rater": "judge.py:shortness"}, "max_new_tokens": 8}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)


def check(**changes):
    return check_all(*parts_of(whole(**REAL | changes)))


def refusal(**changes):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the message is what is tested
        check(**changes)
    return str(refused.value)


def test_what_is_right_is_described():
    told = "\n".join(check())
    assert "prompts.jsonl: 32 of 32 rows" in told
    assert "held_out.jsonl: 16 of 16 rows" in told


def test_a_gold_scorer_that_chose_the_pairs_is_named_as_one_that_was_heard():
    assert "judge.py:shortness also chose the pairs" in "\n".join(check(gold=["judge.py:shortness"]))


def test_a_model_that_gold_chose_is_judged_by_gold_with_a_word_of_it():
    leans = "it leans in its favour"
    assert leans in "\n".join(check(ppo={"watch": "stop_and_restore", "eval_prompts": 8}))
    assert leans not in "\n".join(check())


def test_a_folder_that_is_no_model_is_no_start(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "model_name='empty' is a folder without config.json: it holds no model" in refusal(model_name="empty")
    assert "model_name='./gone': no such folder" in refusal(model_name="./gone")


def test_preferences_without_chosen_are_no_preferences(tmp_path):
    lines(tmp_path / "bad.jsonl", [{"prompt": "a", "rejected": "b"}] * 4)
    message = refusal(rate=None, preferences="bad.jsonl")
    assert "bad.jsonl" in message
    assert "chosen" in message
    assert message.count("bad.jsonl") == 1  # reward and dpo read it, and it is told once


def test_a_reward_model_does_not_begin_from_two_labels(tmp_path):
    tiny_classifier.classifier(num_labels=2).save_pretrained(tmp_path / "two")
    tiny.tiny_tokenizer().save_pretrained(tmp_path / "two")
    message = refusal(reward={"model_name": "./two"})
    assert "reward: model_name='./two' is a classifier with num_labels=2, a reward model has 1" in message


def test_a_reward_with_two_labels_is_no_reward(tmp_path):
    tiny_classifier.classifier(num_labels=2).save_pretrained(tmp_path / "two")
    tiny.tiny_tokenizer().save_pretrained(tmp_path / "two")
    message = refusal(reward=None, ppo={"reward": "./two"})
    assert "ppo: reward='./two' is a classifier with num_labels=2" in message


def test_a_model_that_reads_the_policys_ids_has_the_policys_tokenizer(tmp_path):
    tiny.tiny_llama().save_pretrained(tmp_path / "other")
    other = tiny.tiny_tokenizer()
    other.add_tokens(["<more>"])
    other.save_pretrained(tmp_path / "other")
    message = refusal(ppo={"critic": "model", "value_model_name": "./other"})
    assert "ppo: value_model_name='./other' has another tokenizer than the policy, 'base'" in message
    assert "262 tokens" in message
    assert "263" in message
    assert check(reward={"model_name": "./other"})  # it is given text


def test_held_out_prompts_are_held_out(tmp_path):
    lines(tmp_path / "held_out.jsonl", [{"prompt": "The sea and the tree"}, {"prompt": "Something else"}])
    assert "1 of the held_out_prompts are among the prompts" in refusal()


def test_held_out_prompts_are_held_out_of_the_preferences_too(tmp_path):
    pair = {"chosen": " x", "rejected": " y"}
    lines(tmp_path / "pairs.jsonl", [{"prompt": f"Prompt {i}"} | pair for i in range(4)])
    lines(tmp_path / "held_out.jsonl", [{"prompt": "Prompt 3"}, {"prompt": "Something else"}])
    message = refusal(rate=None, preferences="pairs.jsonl")
    assert "1 of the held_out_prompts are among the preferences" in message


def test_the_judge_is_not_who_was_trained_on():
    message = refusal(reward=None, ppo={"reward": "judge.py:vowels"})
    assert "gold='judge.py:vowels' is the reward that PPO is trained on" in message


def test_everything_that_is_wrong_is_told_at_once(tmp_path):
    (tmp_path / "prompts.jsonl").unlink()
    message = refusal(sft={"dataset": "gone.jsonl"}, gold=["judge.py:nobody"])
    for part in ("prompts: no file 'prompts.jsonl'", "sft: no file 'gone.jsonl'", "there is no 'nobody' in it"):
        assert part in message


def test_tokenizers_that_give_the_same_ids_do_not_differ():
    one = tiny.tiny_tokenizer()
    assert tokenizers_differ(one, tiny.tiny_tokenizer()) == ""
    assert "eos_token_id" in tokenizers_differ(one, _with_eos("<|im_end|>"))


def _with_eos(token):
    other = tiny.tiny_tokenizer()
    other.eos_token = token
    return other
