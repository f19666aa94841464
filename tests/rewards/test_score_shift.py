"""A centred reward model: what its config, or the note beside its adapter, says is taken off its scores."""

import io
import json
import math
from pathlib import Path

import pytest
import tiny
import torch
from reward_adapters import alone, save_adapter, save_base
from rich.console import Console
from tiny_classifier import TEXTS, classifier, prompts, said
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.models import ValueModel
from surefoot.rewards import ModelReward, RewardMix, make_reward
from surefoot.rewards.adapter import write_score_shift
from surefoot.rewardtest import try_rewards

SHIFT = 1.75


@pytest.fixture
def folder(tmp_path):
    classifier().save_pretrained(tmp_path / "judge")
    tiny.tiny_tokenizer().save_pretrained(tmp_path / "judge")
    return tmp_path / "judge"


def raw_scores(folder):
    """The oracle: the model's own outputs, which know nothing of a shift."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = [[tiny.byte_id(c) for c in "Q: " + text] for text in TEXTS]
    with torch.no_grad():
        return [model(input_ids=torch.tensor([row])).logits.item() for row in rows]


def test_the_shift_in_the_config_is_taken_off_every_score(folder):
    raw = raw_scores(folder)
    write_score_shift(folder, SHIFT)
    assert ModelReward(folder)(prompts(), said(*TEXTS)).scores == pytest.approx([s - SHIFT for s in raw], abs=1e-5)
    assert raw_scores(folder) == raw  # the weights are as they were


def test_the_shift_survives_being_saved_again_by_transformers(folder, tmp_path):
    write_score_shift(folder, SHIFT)
    AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert ModelReward(tmp_path / "again", tiny.tiny_tokenizer()).score_shift == SHIFT


def test_a_model_that_is_not_centred_has_no_shift(folder):
    assert ModelReward(folder).score_shift == 0.0


@pytest.mark.parametrize("shared", [False, True])
def test_the_note_beside_an_adapter_is_taken_off_on_a_base_of_its_own_and_on_the_policys(tmp_path, shared):
    base = save_base(tmp_path / "base")
    folder = save_adapter(tmp_path / "judge", base)
    expected = [s - SHIFT for s in alone(folder, base, [[tiny.byte_id(c) for c in "Q: " + t] for t in TEXTS])]
    write_score_shift(folder, SHIFT)
    assert json.loads(Path(folder, "reward.json").read_text()) == {"score_shift": SHIFT}
    reward = _beside_a_policy(base, folder) if shared else make_reward(folder)
    assert reward(prompts(), said(*TEXTS)).parts["judge"] == pytest.approx(expected, abs=1e-5)


def _beside_a_policy(base, folder):
    config = PPOConfig(model_name=base, lora_r=4, batch_size=8, mini_batch_size=8, max_new_tokens=4)
    policy = AutoModelForCausalLM.from_pretrained(base)
    trainer = PPOTrainer(config, policy, None, AutoTokenizer.from_pretrained(base), reward=folder)
    assert type(trainer.reward.rewards["judge"].model).__name__ == "SharedClassifier"
    return trainer.reward


def test_an_adapter_does_not_take_over_the_shift_of_its_base(tmp_path):
    base = save_base(tmp_path / "base")
    folder = save_adapter(tmp_path / "judge", base)
    write_score_shift(base, SHIFT)  # as if the base were a centred reward model: the adapter has a head of its own
    assert ModelReward(folder).score_shift == 0.0


def test_a_critic_made_from_a_centred_reward_model_values_what_the_reward_says():
    model = classifier()
    model.config.score_shift = SHIFT
    critic = ValueModel(model)
    state = torch.randn(3, 32)
    with torch.no_grad():
        expected = model.score(state).squeeze(-1) - SHIFT
        assert torch.allclose(critic.head(state), expected, atol=1e-6)


@pytest.mark.parametrize("bad", ["1.5", None, math.inf, True])
def test_a_shift_that_is_no_number_is_refused(bad):
    model = classifier()
    model.config.score_shift = bad
    with pytest.raises(ValueError, match=r"score_shift=.*finite number"):
        ModelReward(model, tiny.tiny_tokenizer(), "judge")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "reward.json' line 1 is not JSON"),
        ("[1]", r"must hold \{\"score_shift\": a number\}, found \[1\]"),
        ('{"shift": 1}', "must hold"),
        ('{"score_shift": "x"}', "score_shift='x'.*finite number"),
    ],
)
def test_a_note_that_says_nothing_is_refused(tmp_path, text, words):
    folder = save_adapter(tmp_path / "judge", save_base(tmp_path / "base"))
    Path(folder, "reward.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        ModelReward(folder)


def test_a_shift_is_written_to_a_reward_model_or_refused(tmp_path, folder):
    with pytest.raises(ValueError, match="neither a model"):
        write_score_shift(tmp_path, 1.0)
    with pytest.raises(ValueError, match="finite"):
        write_score_shift(folder, math.nan)


def test_reward_test_says_that_a_reward_is_centred(folder):
    def shown():
        console = Console(width=120, file=io.StringIO())
        console.print(try_rewards(RewardMix([ModelReward(folder)]), prompts())[1])
        return console.file.getvalue()

    assert "centred" not in shown()
    write_score_shift(folder, SHIFT)
    assert "judge is centred: its score_shift of 1.75 is taken off" in shown()
