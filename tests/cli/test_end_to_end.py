"""`surefoot ppo` for real: a tiny model in a folder, prompts in a file, a reward function in a file."""

import json
from pathlib import Path

import pytest
import tiny

from surefoot.cli import main

SETTINGS = """\
model_name: model
dataset: prompts.jsonl
reward: judge.py:vowels
output_dir: runs/first
batch_size: 8
mini-batch-size: 4
max_new_tokens: 8
eval_prompts: 4
eval_every: 2
ppo_epochs: 2
steps: 3
learning_rate: 1e-3
save_every: 2
"""
JUDGE = "def vowels(completions, **columns):\n    return [sum(c in 'aeiou' for c in text) for text in completions]\n"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny.tiny_llama().save_pretrained("model")
    tiny.tiny_tokenizer().save_pretrained("model")
    rows = [{"prompt": f"Question {i}?", "topic": "x"} for i in range(20)]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("judge.py").write_text(JUDGE)
    Path("run.yaml").write_text(SETTINGS)
    return tmp_path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_from_files_trains_writes_its_folder_and_can_go_on(folder, capsys):
    assert main(["ppo", "--config", "run.yaml", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("prompts   prompts.jsonl: 20 of 20 rows")
    assert "The run ended after 3 steps: finished" in out
    assert "before (step 0)" in out
    assert "after (step 3)" in out
    assert "<|pad|>" not in out
    run = folder / "runs" / "first"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in steps] == [1, 2, 3]
    assert steps[0]["ppo/policy/first_ratio"] == pytest.approx(1)
    assert steps[0]["objective/kl_per_token"] == pytest.approx(0, abs=1e-5)
    assert "\nseed: 3\n" in (run / "config.yaml").read_text()
    assert (run / "report.html").is_file()
    assert (run / "model" / "config.json").is_file()

    assert main(["ppo", "--resume", "runs/first", "--steps", "4", "--quiet"]) == 0
    assert "The run ended after 4 steps" in capsys.readouterr().out
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("more", [[], ["--critic-warmup-steps", "3"]])
def test_a_dry_run_checks_and_writes_nothing(folder, capsys, more):
    before = sorted(folder.rglob("*"))
    code = main(["ppo", "--config", "run.yaml", "--dry-run", *more])
    out = capsys.readouterr().out
    assert "ok    KL to the reference is 0" in out
    assert "ok    first ratio is 1" in out
    assert "ok    gradients are finite" in out
    assert code == (1 if "FAIL" in out else 0)
    assert [p for p in sorted(folder.rglob("*")) if "__pycache__" not in p.parts] == before


REFUSED = [
    (["--model-name", "bare"], "model_name='bare' is a folder without a tokenizer"),
    (["--model-name", "org/nothing"], "model_name='org/nothing': the model does not load (neither a folder here nor"),
    (["--ref-model-name", "org/nothing"], "ref_model_name='org/nothing': the model does not load (neither a folder"),
    (["--ref-model-name", "./nowhere"], "ref_model_name='./nowhere': no such folder"),
    (["--critic", "model", "--value-model-name", "org/nothing"], "value_model_name='org/nothing': the model does"),
    (["--adapter-name", "nowhere"], "adapter_name='nowhere': the model does not load (neither a folder here"),
    (["--adapter-name", "bare"], "adapter_name='bare': the model does not load (in that folder)"),
    (["--reward", "syntax.py:score"], "syntax.py': importing it failed with SyntaxError: '(' was never closed"),
    (["--reward", "missing.py:score"], "missing.py': importing it failed with ModuleNotFoundError: No module"),
    (["--output-dir", "run.yaml"], "output_dir='run.yaml' is a file: choose a folder"),
    (["--output-dir", "run.yaml/deep/er"], "output_dir='run.yaml/deep/er' cannot be made (Not a directory)"),
    (["--log-with", "tensorbord"], "log_with='tensorbord' is not a tracker; known are"),
]


def test_what_cannot_be_loaded_or_made_is_named_by_its_option_before_anything_is_written(folder, capfd):
    tiny.tiny_llama().save_pretrained("bare")
    Path("syntax.py").write_text("def score(\n")
    Path("missing.py").write_text("import surely_not_installed\n")
    before = sorted(folder.rglob("*"))
    for given, message in REFUSED:
        assert main(["ppo", "--config", "run.yaml", *given]) == 2, given
        err = capfd.readouterr().err
        assert err.count("surefoot: error: ") == 1
        assert message in err
        assert "Traceback" not in err
    assert sorted(p for p in folder.rglob("*") if "__pycache__" not in p.parts) == before


def test_a_missing_model_and_a_missing_function_are_named(folder, capsys):
    assert main(["ppo", "--config", "run.yaml", "--model-name", "./nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert main(["ppo", "--config", "run.yaml", "--reward", "judge.py:vowel"]) == 2
    assert "vowel" in capsys.readouterr().err
    assert not (folder / "runs").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_is_profiled_where_that_is_asked_for(folder, capsys):
    assert main(["ppo", "--config", "run.yaml", "--profile", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "sampling" in out
    assert "one iteration" in out
    assert sorted(p.name for p in (folder / "runs" / "first" / "profile").iterdir()) == ["table.txt", "trace.json.gz"]
