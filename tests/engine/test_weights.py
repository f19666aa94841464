"""What decoding reads instead of the weights is the same numbers, and the weights are there again afterwards."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import tiny_gpt2, tiny_llama
from torch import nn

from surefoot.engine.weights import ready_for_decoding

IDS = torch.tensor([[5, 6, 7], [8, 9, 10]])


def lora_llama():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter)
    return model.eval()


MODELS = {
    "llama": tiny_llama,
    "tied": lambda: tiny_llama(tie_word_embeddings=True),
    "gpt2": tiny_gpt2,
    "lora": lora_llama,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_pass_gives_the_same_logits_and_the_weights_are_the_same_objects_afterwards(make, bfloat16):
    model = make()
    before = dict(model.named_parameters(remove_duplicate=False))
    values = copy.deepcopy(model.state_dict())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        plain = model(IDS).logits
        with ready_for_decoding(model):
            ready = model(IDS).logits
    assert torch.allclose(plain, ready, atol=1e-5, rtol=0)
    assert all(parameter is before[name] for name, parameter in model.named_parameters(remove_duplicate=False))
    assert all(torch.equal(tensor, values[name]) for name, tensor in model.state_dict().items())


def test_linear_weights_stand_column_by_column_in_the_precision_of_the_products():
    model = tiny_llama(tie_word_embeddings=True)
    with torch.autocast("cpu", torch.bfloat16), ready_for_decoding(model):
        for module in model.modules():
            if isinstance(module, nn.Linear):
                assert module.weight.dtype == torch.bfloat16
                assert module.weight.stride(0) == 1
        assert model.get_input_embeddings().weight.dtype == torch.float32


def test_the_weights_are_there_again_after_an_error():
    model = tiny_llama()
    head = model.lm_head.weight

    with pytest.raises(IndexError), ready_for_decoding(model):
        model(torch.tensor([[100_000]]))
    assert model.lm_head.weight is head


def test_a_layer_of_a_kind_of_its_own_keeps_its_weight():
    class Packed(nn.Linear):
        pass

    model = nn.Sequential(Packed(3, 3), nn.Linear(3, 3))
    weights = [layer.weight for layer in model]
    with ready_for_decoding(model):
        assert model[0].weight is weights[0]
        assert model[1].weight is not weights[1]
