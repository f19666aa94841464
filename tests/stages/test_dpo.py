"""`surefoot dpo` on a tiny model: its reference is the model as it was, whether that is all weights or an adapter."""

import math

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from stage_folders import PAIRS, answer_logprob, evaluations, metrics, save_base, save_sft_adapter, write_rows
from transformers import AutoModelForCausalLM

from surefoot.cli import main
from surefoot.stages.dpo import dpo_trainer, load_dpo
from surefoot.stages.options import DPOOptions


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    return save_sft_adapter(tmp_path_factory.mktemp("sft"), base)


def command(base, folder, rows=PAIRS, **options):
    options = {"model_name": base, "dataset": write_rows(folder.parent / "pairs.jsonl", rows), "output_dir": folder,
               "batch_size": 4, "mini_batch_size": 2, "steps": 4, "learning_rate": 1e-3} | options  # fmt: skip
    flat = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value is not None]
    return ["dpo", *(text for pair in flat for text in pair)]


def start(kind, base, adapter):
    return {"all weights": {}, "a new adapter": {"lora_r": 4}, "an SFT adapter": {"adapter_name": adapter}}[kind]


KINDS = ["all weights", "a new adapter", "an SFT adapter"]


def load(kind, base, adapter):
    if kind == "an SFT adapter":
        return AutoPeftModelForCausalLM.from_pretrained(adapter).eval()
    return AutoModelForCausalLM.from_pretrained(base).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_at_log_2_and_ends_where_the_margins_of_the_saved_model_say(base, adapter, tmp_path, kind):
    run, held_out = tmp_path / "run", write_rows(tmp_path / "held_out.jsonl", PAIRS[8:10])
    given = start(kind, base, adapter)
    assert main(command(base, run, PAIRS[:8], eval_dataset=held_out, beta=0.2, **given)) == 0
    assert metrics(run)[0]["dpo/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert evaluations(run)[0]["step"] > 0  # before: every margin is 0, and no pair is right
    before = load(kind, base, adapter)
    after = (AutoModelForCausalLM if kind == "all weights" else AutoPeftModelForCausalLM).from_pretrained(
        run / "model"
    )
    margins = []
    for row in PAIRS[8:10]:
        gain = {
            name: answer_logprob(after, row["prompt"], row[name])[0]
            - answer_logprob(before, row["prompt"], row[name])[0]
            for name in ("chosen", "rejected")
        }
        margins.append(0.2 * (gain["chosen"] - gain["rejected"]))
    last = evaluations(run)[-1]["metrics"]
    assert last["eval/rewards/margins"] == pytest.approx(sum(margins) / 2, rel=1e-3)
    assert last["eval/loss"] == pytest.approx(sum(math.log1p(math.exp(-m)) for m in margins) / 2, rel=1e-4)
    assert sum(margins) > 0


def test_the_reference_under_an_sft_adapter_is_the_adapter_as_it_was_also_after_training(base, adapter, tmp_path):
    rows = write_rows(tmp_path / "pairs.jsonl", PAIRS[:2])
    few = {"steps": 2, "batch_size": 2, "mini_batch_size": 2, "learning_rate": 1e-2}
    options = DPOOptions(model_name=base, adapter_name=adapter, dataset=rows, **few).resolved()
    loaded = load_dpo(options)
    trainer = dpo_trainer(options, loaded, folder=tmp_path)
    trainer.train()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(2)])
    chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
    sft = AutoPeftModelForCausalLM.from_pretrained(adapter).eval()
    bare = AutoModelForCausalLM.from_pretrained(base).eval()
    for found, name in ((chosen, "chosen"), (rejected, "rejected")):
        expected = [answer_logprob(sft, row["prompt"], row[name])[0] for row in PAIRS[:2]]
        assert found.tolist() == pytest.approx(expected, rel=1e-5)
        assert expected != pytest.approx([answer_logprob(bare, r["prompt"], r[name])[0] for r in PAIRS[:2]], rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(base, adapter, tmp_path, kind):
    whole, cut, given = tmp_path / "whole", tmp_path / "cut", start(kind, base, adapter)
    for run in (whole, cut):
        assert main(command(base, run, save_every=2, **given)) == 0
    file = "model/model.safetensors" if kind == "all weights" else "model/adapter_model.safetensors"
    for name in ("result.json", file, "checkpoints/checkpoint-4/complete.json"):
        (cut / name).unlink()
    assert main(command(base, cut, save_every=2, **given)) == 0
    assert (whole / file).read_bytes() == (cut / file).read_bytes()
    assert [line["dpo/loss"] for line in metrics(whole)] == [line["dpo/loss"] for line in metrics(cut)]
    assert "with DPO, starting from" in (cut / "model/README.md").read_text()


def test_the_saved_adapter_is_one_adapter(base, adapter, tmp_path):
    run = tmp_path / "run"
    assert main(command(base, run, steps=1, adapter_name=adapter)) == 0
    assert not list((run / "model").rglob("ref"))
    assert list(AutoPeftModelForCausalLM.from_pretrained(run / "model").peft_config) == ["default"]


def test_a_file_without_chosen_is_told_before_any_training(base, tmp_path, capsys):
    rows = [{"prompt": r["prompt"], "rejected": r["rejected"]} for r in PAIRS]
    assert main(command(base, tmp_path / "run", rows)) == 2
    assert "chosen" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_another_loss_of_trl_is_taken_by_its_name(base, tmp_path):
    run = tmp_path / "run"
    assert main(command(base, run, steps=1, loss_type="ipo", beta=0.5)) == 0
    assert metrics(run)[0]["dpo/loss"] == pytest.approx(1.0, rel=1e-4)  # (0 - 1 / (2 beta))^2
    assert torch.isfinite(torch.tensor(metrics(run)[0]["dpo/grad_norm"]))
