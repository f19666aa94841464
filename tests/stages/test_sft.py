"""`surefoot sft` on a tiny model: what it learns, what it leaves, how it goes on, and what it refuses."""

import json
import math
import os
import signal
from pathlib import Path

import pytest
import tiny
import torch
from peft import AutoPeftModelForCausalLM
from stage_folders import ANSWERS, answer_logprob, byte_ids, evaluations, metrics, save_base, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from surefoot.cli import main
from surefoot.stages.view import StageView


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def nothing_phones_home(monkeypatch):
    def called(*_, **__):
        pytest.fail("telemetry")

    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", called)


def command(base, folder, rows=ANSWERS, **options):
    options = {"model_name": base, "dataset": write_rows(folder.parent / "rows.jsonl", rows), "output_dir": folder,
               "batch_size": 4, "mini_batch_size": 2, "steps": 4, "learning_rate": 1e-3} | options  # fmt: skip
    flat = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value is not None]
    return ["sft", *(text for pair in flat for text in pair)]


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_loss_of_the_first_step_is_that_of_the_answers_alone(base, tmp_path):
    rows = ANSWERS[:4]
    assert main(command(base, tmp_path / "run", rows, steps=1)) == 0
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    sums, counts = zip(*(answer_logprob(model, r["prompt"], r["completion"]) for r in rows), strict=True)
    assert metrics(tmp_path / "run")[0]["sft/loss"] == pytest.approx(-sum(sums) / sum(counts), rel=1e-5)


@pytest.mark.parametrize("recomputes", ["true", "false"])
def test_the_first_gradient_in_bfloat16_is_near_the_one_in_float32(base, tmp_path, recomputes):
    """Attention has a way back of its own there, except where activations are made again."""
    for precision in ("bfloat16", "float32"):
        options = {"precision": precision, "gradient_checkpointing": recomputes, "steps": 1}
        assert main(command(base, tmp_path / precision, **options)) == 0
    half, full = (metrics(tmp_path / precision)[0]["sft/grad_norm"] for precision in ("bfloat16", "float32"))
    assert half != full
    assert half == pytest.approx(full, rel=0.02)


def test_a_run_leaves_a_model_for_plain_transformers_and_every_file_of_a_run(base, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(command(base, run, eval_rows=3, eval_every=3)) == 0
    assert not same(weights(run / "model"), weights(base))
    assert AutoTokenizer.from_pretrained(run / "model")("a")["input_ids"] == byte_ids("a")
    lines = metrics(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["episode"] for line in lines] == [4, 8, 12, 16]
    assert [line["sft/learning_rate"] for line in lines] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    assert lines[-1]["sft/loss"] < lines[0]["sft/loss"]
    assert [e["step"] for e in evaluations(run)] == [0, 3, 4]
    assert evaluations(run)[-1]["metrics"]["eval/loss"] < evaluations(run)[0]["metrics"]["eval/loss"]
    assert json.loads((run / "result.json").read_text())["reason"] == "finished: all 4 steps are done"
    assert "<svg" in (run / "report.html").read_text(encoding="utf-8")
    assert not (run / "checkpoints" / "README.md").exists()
    out, err = capsys.readouterr()
    assert err == ""
    assert "9 rows to learn from, 3 held out" in out
    assert "evaluation at step 0: held-out loss" in out


def test_the_loss_of_held_out_rows_is_that_of_the_answers_alone(base, tmp_path):
    rows = ANSWERS[4:7]
    held_out = write_rows(tmp_path / "held_out.jsonl", rows)
    assert main(command(base, tmp_path / "run", ANSWERS[:4], steps=1, eval_dataset=held_out)) == 0
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    sums, counts = zip(*(answer_logprob(model, r["prompt"], r["completion"]) for r in rows), strict=True)
    found = evaluations(tmp_path / "run")[0]["metrics"]["eval/loss"]
    pairs = [(-sum(sums[:2]) / sum(counts[:2]), 2), (-sums[2] / counts[2], 1)]  # TRL weighs a pass by its rows
    assert found == pytest.approx(sum(loss * n for loss, n in pairs) / 3, rel=1e-5)


def test_an_adapter_is_loaded_by_plain_peft_on_a_base_that_is_found_from_anywhere(base, tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.chdir(Path(base).parent)
    assert main(command(Path(base).name, run, lora_r=4)) == 0
    assert not (run / "model" / "config.json").exists()
    monkeypatch.chdir("/")
    model = AutoPeftModelForCausalLM.from_pretrained(run / "model")
    assert model.peft_config["default"].r == 4
    ids = torch.tensor([byte_ids("say ash:")])
    with torch.no_grad(), model.disable_adapter():
        bare = model(input_ids=ids).logits
    plain = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        assert torch.equal(bare, plain(input_ids=ids).logits)
        assert not torch.allclose(model(input_ids=ids).logits, bare, atol=1e-4)


def test_an_adapter_is_trained_further(base, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(command(base, first, lora_r=4)) == 0
    assert main(command(base, second, adapter_name=first / "model")) == 0
    assert metrics(second)[0]["sft/loss"] < metrics(first)[0]["sft/loss"]
    assert AutoPeftModelForCausalLM.from_pretrained(second / "model").peft_config["default"].r == 4


@pytest.mark.parametrize("lora_r", [0, 2])
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(base, tmp_path, capsys, lora_r):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(command(base, whole, lora_r=lora_r, save_every=2)) == 0
    assert main(command(base, cut, lora_r=lora_r, save_every=2)) == 0
    for name in (
        "result.json",
        "model/model.safetensors",
        "model/adapter_model.safetensors",
        "checkpoints/checkpoint-4/complete.json",
    ):
        (cut / name).unlink(missing_ok=True)
    capsys.readouterr()
    assert main(command(base, cut, lora_r=lora_r, save_every=2)) == 0
    out, err = capsys.readouterr()
    assert "checkpoint-4 is not whole" in err
    assert "goes on from checkpoint-2" in out
    file = "adapter_model.safetensors" if lora_r else "model.safetensors"
    assert (whole / "model" / file).read_bytes() == (cut / "model" / file).read_bytes()
    assert [line["sft/loss"] for line in metrics(whole)] == [line["sft/loss"] for line in metrics(cut)]


def test_ctrl_c_saves_and_the_same_command_goes_on(base, tmp_path, capsys, monkeypatch):
    shown = StageView.step

    def pressed(view, record):
        shown(view, record)
        if record["step"] == 2 and not capsys_seen:
            capsys_seen.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    capsys_seen = []
    monkeypatch.setattr(StageView, "step", pressed)
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert main(command(base, run)) == 130
    _, err = capsys.readouterr()
    assert "stopped and saved after step 3" in err
    assert f"surefoot sft --resume {run}" in err
    assert not (run / "model").exists()
    assert main(["sft", "--resume", str(run)]) == 0
    assert main(command(base, whole)) == 0
    assert same(weights(run / "model"), weights(whole / "model"))


def test_a_run_that_has_ended_says_so_and_fresh_begins_anew(base, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(command(base, run, steps=1)) == 0
    capsys.readouterr()
    assert main(command(base, run, steps=1)) == 0
    assert "has ended: finished: all 1 steps are done" in capsys.readouterr().out
    assert main([*command(base, run, steps=1), "--fresh"]) == 0
    assert (tmp_path / "run.old" / "model").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rate": 1e-4}, "learning_rate: 0.001 -> 0.0001"),
        ({"steps": 6}, "steps: 4 -> 6"),  # the learning rate follows the run's length
        ({"packing": "true"}, "packing: not given -> True"),
    ],
)
def test_a_run_is_not_gone_on_with_under_other_options(base, tmp_path, capsys, changed, message):
    run = tmp_path / "run"
    assert main(command(base, run)) == 0
    capsys.readouterr()
    assert main(command(base, run, **changed)) == 2
    assert message in capsys.readouterr().err


def test_a_run_is_not_gone_on_with_on_other_rows(base, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(command(base, run, lr_schedule="constant")) == 0
    assert main(command(base, run, ANSWERS[:8], lr_schedule="constant", steps=5)) == 2
    assert "the rows are not those" in capsys.readouterr().err
    assert main(command(base, run, lr_schedule="constant", steps=5)) == 0
    assert metrics(run)[-1]["step"] == 5


def test_an_option_of_trl_acts(base, tmp_path):
    plain, decayed = tmp_path / "plain", tmp_path / "decayed"
    assert main(command(base, plain, steps=2)) == 0
    assert main(command(base, decayed, steps=2, weight_decay=10)) == 0
    assert not same(weights(plain / "model"), weights(decayed / "model"))
    assert "weight_decay: 10" in (decayed / "config.yaml").read_text()


def test_a_loss_that_is_not_finite_ends_the_run(base, tmp_path, capsys):
    model = tiny.tiny_llama()
    model.lm_head.weight.data[5, 0] = math.nan
    broken = tmp_path / "broken"
    model.save_pretrained(broken)
    tiny.tiny_tokenizer().save_pretrained(broken)
    assert main(command(str(broken), tmp_path / "run")) == 1
    assert "the loss of step 1 is nan" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model").exists()


def refused(capsys, arguments):
    assert main(arguments) == 2
    return capsys.readouterr().err


def test_what_is_missing_or_does_not_fit_is_told_before_any_training(base, tmp_path, capsys):
    run = tmp_path / "run"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "model_name is missing" in refused(capsys, command(None, run))
    assert "no such folder" in refused(capsys, command("./nothing/here", run))
    assert "it holds no model" in refused(capsys, command(str(empty), run))
    assert "rows.jsonl" in refused(capsys, command(base, run, []))
    assert "eval_rows=12:" in refused(capsys, command(base, run, eval_rows=12))
    assert "more than the 256 tokens of the model's context" in refused(capsys, command(base, run, max_tokens=300))
    assert "dataset is missing" in refused(capsys, command(base, run, dataset=None))
    chat = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    assert "no chat template" in refused(capsys, command(base, run, chat))
    assert not run.exists()


def test_a_tokenizer_of_another_model_is_told_before_any_training(tmp_path, capsys):
    small = save_base(tmp_path / "small", vocab_size=100)
    assert "the tokenizer has 262 tokens but the model only 100" in refused(capsys, command(small, tmp_path / "run"))


def test_an_adapter_in_the_place_of_a_model_is_told_where_it_belongs(base, tmp_path, capsys):
    assert main(command(base, tmp_path / "first", lora_r=2, steps=1)) == 0
    message = refused(capsys, command(str(tmp_path / "first" / "model"), tmp_path / "second"))
    assert "is an adapter: give its base as model_name, and this folder as adapter_name" in message
    assert "is no adapter" in refused(capsys, command(base, tmp_path / "third", adapter_name=base))
