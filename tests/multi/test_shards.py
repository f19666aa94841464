"""Weights in shares give what whole ones give: gradients, whitening, statistics, KL price, weights, models, files."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from processes import outputs, start
from safetensors import safe_open
from shared_steps import KINDS, make, run, step, weights
from tiny import tiny_llama
from transformers import AutoModelForCausalLM

from surefoot.checkpoint import read_checkpoint, verify

pytestmark = [pytest.mark.multi, pytest.mark.scale, pytest.mark.slow]
SCRIPT = Path(__file__).with_name("shared_ranks.py")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes have left in a folder."""
    folder = tmp_path_factory.mktemp("two")
    said = outputs(start(SCRIPT, [folder]), timeout=600)
    assert (folder / "rank1.json").exists(), said
    return folder


@pytest.fixture(scope="module")
def one():
    """Trainer and numbers of one process, by kind."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = run(kind)
        return made[kind]

    return get


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_one_process_two_and_two_with_shares_give_the_same_numbers(two, one, kind, shard):
    expected = one(kind)[1]
    found = torch.load(two / f"{list(KINDS).index(kind)}-{shard}.pt")
    assert found.keys() == expected.keys()
    assert sum(".gradient." in name for name in found) > 3
    for name, value in expected.items():
        a, b = torch.as_tensor(value), torch.as_tensor(found[name])
        assert torch.allclose(a, b, atol=1e-6, rtol=1e-5), (name, (a - b).abs().max())


def test_each_process_holds_half_of_the_weights(two):
    for rank in (0, 1):
        said = json.loads((two / f"rank{rank}.json").read_text())
        for kind in KINDS:
            assert said[kind]["held"] == pytest.approx(said[kind]["all"] / 2, rel=0.02), kind


@pytest.mark.parametrize("kind", ["all weights", "tied weights, activations recomputed, passes of one row"])
def test_a_model_saved_from_shares_loads_in_transformers(two, one, kind):
    folder = two / str(list(KINDS).index(kind)) / "model"
    saved = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    for name, p in one(kind)[0].policy.state_dict().items():
        assert torch.allclose(saved[name], p, atol=1e-6), name


def test_an_adapter_saved_from_shares_is_merged_into_a_model_of_transformers(two, one):
    kind = "LoRA, critic an adapter, three prompts"
    policy = one(kind)[0].policy
    saved = AutoModelForCausalLM.from_pretrained(two / str(list(KINDS).index(kind)) / "model")
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        assert torch.allclose(saved(ids).logits, policy(ids).logits, atol=1e-5)
        assert not torch.allclose(saved(ids).logits, tiny_llama()(ids).logits, atol=1e-5), "it has learned"
    assert isinstance(policy, PeftModel)


def test_a_checkpoint_of_shares_has_a_file_a_process_and_no_pickle(two):
    verify(two / "same")
    names = sorted(p.name for p in (two / "same").iterdir())
    assert names == ["manifest.json", "state.json", "tensors-00001-of-00002.safetensors",
                     "tensors-00002-of-00002.safetensors"]  # fmt: skip
    assert sorted(p.name for p in (two / "cut").iterdir()) == ["manifest.json", "state.json", "tensors.safetensors"]
    sizes = []
    for name in names[2:]:
        with safe_open(two / "same" / name, "pt") as file:
            sizes.append(file.get_slice("policy.lm_head.weight").get_shape())
    assert sizes == [[131, 32], [131, 32]]
    parts, whole = read_checkpoint(two / "same")[0], read_checkpoint(two / "cut")[0]
    assert set(parts) == set(whole)
    for name in whole:
        assert torch.allclose(parts[name], whole[name], atol=1e-6), name


@pytest.mark.parametrize("case", ["same", "cut", "joined"])
def test_two_processes_go_on_from_a_checkpoint_in_shares_or_as_a_whole(two, case):
    for rank in (0, 1):
        apart = json.loads((two / f"rank{rank}.json").read_text())[case]
        assert apart <= (0 if case == "same" else 1e-6)


def test_one_process_goes_on_from_the_shares_of_two(two, one):
    trainer, queries = make("all weights")
    with pytest.raises(ValueError, match="the checkpoint is of 2 processes, this run has 1"):
        trainer.restore(two / "same")
    trainer.restore(two / "same", allow_topology_change=True)
    saved = read_checkpoint(two / "same")[0]
    for name, tensor in weights(trainer).items():
        assert torch.equal(tensor, saved[name]), name
    step(trainer, queries)
    for name, tensor in weights(trainer).items():
        assert torch.allclose(tensor, one("all weights")[1][f"weights.{name}"], atol=1e-6), name
