"""The folder that vLLM loads: what AutoModelForCausalLM makes of it is the policy."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tiny import tiny_gpt2, tiny_llama, tiny_tokenizer
from transformers import AutoModelForCausalLM

from surefoot.engine.vllm.folder import make_home, write_weights
from surefoot.engine.vllm.worker import read_weights

IDS = torch.tensor([[5, 80, 90, 7, 200]])


def with_adapters(model):
    """LoRA that does something, and a second adapter that must not count."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        policy.add_adapter("critic", LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.3)
    policy.set_adapter("default")
    return policy


def tied():
    return tiny_llama(tie_word_embeddings=True)


@pytest.mark.parametrize("make", [tiny_llama, tied, tiny_gpt2, lambda: with_adapters(tiny_llama())])
@torch.no_grad()
def test_the_folder_holds_the_policy_and_leaves_it_alone(make, tmp_path):
    policy = make()
    before = {name: p.clone() for name, p in policy.named_parameters()}
    place = write_weights(tmp_path, 7, policy, tiny_tokenizer(), torch.float32)
    loaded = AutoModelForCausalLM.from_pretrained(place).eval()
    assert torch.allclose(loaded(IDS).logits, policy(IDS).logits, atol=1e-4)
    assert all(torch.equal(p, before[name]) for name, p in policy.named_parameters())
    assert json.loads((place / "surefoot.json").read_text())["version"] == 7
    assert [p.name for p in tmp_path.iterdir()] == ["weights_000007"]


@pytest.mark.parametrize(("make", "embedding"), [(tied, "model.embed_tokens"), (tiny_gpt2, "transformer.wte")])
def test_a_tied_output_matrix_is_handed_over_under_its_own_name(make, embedding, tmp_path):
    place = write_weights(tmp_path, 1, make(), tiny_tokenizer(), torch.float32)
    assert "lm_head.weight" not in load_file(place / "model.safetensors")
    weights = read_weights(str(place), load_file)
    assert torch.equal(weights["lm_head.weight"], weights[f"{embedding}.weight"])


def test_a_folder_for_bfloat16_holds_the_rounded_weights(tmp_path):
    policy = tiny_llama()
    place = write_weights(tmp_path, 1, policy, tiny_tokenizer(), torch.bfloat16)
    found = load_file(place / "model.safetensors")
    assert {x.dtype for x in found.values()} == {torch.bfloat16}
    assert torch.equal(found["model.embed_tokens.weight"], policy.model.embed_tokens.weight.bfloat16())


def test_the_place_for_weights_is_nobody_else_s():
    home = make_home(tiny_llama())
    assert home.stat().st_mode & 0o777 == 0o700
    home.rmdir()
