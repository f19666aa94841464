"""What passes take, found without memory, against a count by hand of a Llama block and against real passes."""

import pytest
import torch
from peft import get_peft_model
from tiny import tiny_gpt2, tiny_llama
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from surefoot.arithmetic import arithmetic
from surefoot.assemble import lora_config
from surefoot.attention import packed_attention
from surefoot.networks import trunk_of
from surefoot.rehearsal import Skeleton, shapes_of

H, HEADS, KEY_HEADS, WIDTH, INNER, LAYERS, VOCABULARY = 64, 8, 4, 8, 176, 3, 262
A, K = HEADS * WIDTH, KEY_HEADS * WIDTH
SIZES = {"hidden_size": H, "num_attention_heads": HEADS, "num_key_value_heads": KEY_HEADS, "intermediate_size": INNER,
         "num_hidden_layers": LAYERS, "max_position_embeddings": 4096}  # fmt: skip
CPU = torch.device("cpu")


def a_pass(model, row=64, adapter=None, **options):
    return Skeleton(shapes_of(model, adapter), CPU).pass_(row, **({"bfloat16": False} | options))


def test_a_llama_block_keeps_in_float32_what_a_count_by_hand_says():
    norm = H + H + H  # what comes in, what is normalised, what goes out to the products
    attention = A + A + A + A + A  # query; key and value, repeated for every head; each row's answer; all rows' answer
    attention += HEADS  # the logarithms of the sums
    block = 2 * norm + attention + 4 * INNER  # gate, its activation, up, their product
    rotary = 2 * WIDTH  # cosines and sines
    root = 2 * LAYERS + 1  # the inverse root of each norm
    at_the_end = 3 * H  # the last norm: in, normalised, out
    ids = 8 / 4
    found = a_pass(tiny_llama(**SIZES)).kept
    assert found.each / 4 == pytest.approx(LAYERS * block + rotary + root + at_the_end + ids, rel=0.01)
    assert found.fixed == 0


def test_under_lora_frozen_weights_keep_less_and_adapters_keep_their_narrow_products():
    r = 4
    full = a_pass(tiny_llama(**SIZES)).kept.each
    adapted = a_pass(tiny_llama(**SIZES), adapter=lora_config(r, 8)).kept.each
    spared = LAYERS * 2 * H + H  # frozen norms do not keep what they normalised
    added = LAYERS * 7 * r  # seven adapted layers
    assert (adapted - full) / 4 == pytest.approx(added - spared, abs=2 * H)


def test_recomputed_activations_keep_what_enters_each_block():
    found = a_pass(tiny_llama(**SIZES), gradient_checkpointing=True)
    assert found.kept.each / 4 == pytest.approx(LAYERS * H + 3 * H + 2 * WIDTH + 3, rel=0.05)
    whole = a_pass(tiny_llama(**SIZES))
    assert found.backward.each > whole.kept.each / LAYERS  # a block is made again


def test_bfloat16_keeps_a_rounded_copy_of_every_linear_weight_for_the_way_back():
    model = tiny_llama(**SIZES)
    linear = sum(m.weight.numel() for m in trunk_of(model).modules() if isinstance(m, nn.Linear))
    found = a_pass(model, bfloat16=True).kept
    assert found.fixed == pytest.approx(2 * linear, rel=0.01)
    assert found.each < a_pass(model).kept.each


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_rehearsal_finds_what_a_real_pass_saves(make, lora):
    torch.manual_seed(0)
    model = make()
    adapter = lora_config(4, 8) if lora else None
    found = a_pass(model, row=64, adapter=adapter).kept
    real = get_peft_model(make(), lora_config(4, 8)) if lora else model.requires_grad_(True)
    known = {t.untyped_storage().data_ptr() for t in (*real.parameters(), *real.buffers())}
    saved = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in known:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    trunk, ids = trunk_of(real), torch.zeros(1, 32 * 64, dtype=torch.long)
    places = torch.arange(64).repeat(32)[None]
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with packed_attention(trunk), arithmetic(CPU, bfloat16=False), hooks:
        states = trunk(input_ids=ids, position_ids=places, row_lengths=[64] * 32, use_cache=False).last_hidden_state
    bytes_ = sum(storage.nbytes() for storage in saved.values()) + states.untyped_storage().nbytes()
    assert found.at(32 * 64) == pytest.approx(bytes_, rel=0.03)


def test_nothing_of_a_rehearsal_stays_in_the_model_it_is_of():
    model = get_peft_model(tiny_llama(), lora_config(4, 8))
    before = {n: (p.device, p.requires_grad, p.sum().item()) for n, p in model.named_parameters()}
    config, numbers = model.config.to_dict(), torch.get_rng_state()
    a_pass(model, adapter=model.peft_config["default"], gradient_checkpointing=True)
    assert {n: (p.device, p.requires_grad, p.sum().item()) for n, p in model.named_parameters()} == before
    assert model.config.to_dict() == config
    assert torch.equal(torch.get_rng_state(), numbers)


def test_a_cache_holds_keys_and_values_of_every_layer():
    bytes_, layers = Skeleton(shapes_of(tiny_llama(**SIZES)), CPU).cache_per_token(bfloat16=False)
    assert (bytes_, layers) == (LAYERS * 2 * K * 4, LAYERS)


def test_a_model_of_seventy_billion_is_rehearsed_on_a_small_machine():
    sizes = {"hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672,
             "num_hidden_layers": 2, "max_position_embeddings": 4096}  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    found = Skeleton(model, CPU)
    assert found.parameters > 1.7e9
    assert found.pass_(2048, bfloat16=True).kept.each > 2 * 4 * 28672 * 2  # layers x tensors x width x bytes
