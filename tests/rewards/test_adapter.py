"""Reward models that are adapters, on a base of their own. The oracle is peft's model on one row without padding."""

import json
from pathlib import Path

import pytest
import tiny
from reward_adapters import alone, save_adapter, save_base
from safetensors.torch import load_file, save_file
from tiny_classifier import TEXTS, prompts, said

from surefoot.rewards import ModelReward, make_reward


def ids_of(texts, end=()):
    return [[tiny.byte_id(c) for c in "Q: " + text] + list(end) for text in texts]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("pad", ["own", "eos", "none"])
def test_an_adapters_folder_is_a_reward_model(tmp_path, kind, pad):
    base = save_base(tmp_path / "base", kind, pad)
    folder = save_adapter(tmp_path / "judge", base)
    scores = make_reward(folder)(prompts(), said(*TEXTS)).parts["judge"]
    expected = alone(folder, base, ids_of(TEXTS))
    assert scores == pytest.approx(expected, abs=1e-5)
    assert len({round(s, 3) for s in expected}) == len(TEXTS)


def test_an_adapter_brings_its_tokenizer_or_takes_its_bases(tmp_path):
    base = save_base(tmp_path / "base")
    without = save_adapter(tmp_path / "without", base)
    own = save_adapter(tmp_path / "own", base, tokenizer=tiny.tiny_tokenizer(adds_eos=True))
    assert ModelReward(without)(prompts(), said(*TEXTS)).scores == pytest.approx(
        alone(without, base, ids_of(TEXTS)), abs=1e-5
    )
    assert ModelReward(own)(prompts(), said(*TEXTS)).scores == pytest.approx(
        alone(own, base, ids_of(TEXTS, end=[tiny.EOS_ID])), abs=1e-5
    )


def test_an_adapter_of_a_base_that_is_gone_is_refused_with_both_names(tmp_path):
    folder = save_adapter(tmp_path / "judge", save_base(tmp_path / "base"))
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"judge.*adapter of .*base.*base_model_name_or_path"):
        make_reward(folder)


def test_an_adapter_of_another_task_is_refused(tmp_path):
    folder = save_adapter(tmp_path / "judge", save_base(tmp_path / "base"))
    path = Path(folder, "adapter_config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"task_type": "CAUSAL_LM"}))
    with pytest.raises(ValueError, match=r"task_type CAUSAL_LM.*SEQ_CLS"):
        make_reward(folder)


def test_an_adapter_without_its_head_is_refused_since_scores_would_be_random(tmp_path):
    folder = save_adapter(tmp_path / "judge", save_base(tmp_path / "base"))
    file = Path(folder, "adapter_model.safetensors")
    save_file({k: t for k, t in load_file(file).items() if "score" not in k}, file)
    with pytest.raises(ValueError, match=r"without a head.*random"):
        make_reward(folder)


def test_an_adapter_with_two_outputs_is_refused(tmp_path):
    folder = save_adapter(tmp_path / "judge", save_base(tmp_path / "base"), labels=2)
    with pytest.raises(ValueError, match="num_labels=2"):
        make_reward(folder)
