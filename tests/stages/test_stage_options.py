"""Options of SFT, reward models and DPO: ours by PPO's names, TRL's by TRL's names, nothing twice and nothing idle."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

import surefoot
from surefoot.config import PPOConfig
from surefoot.settings import load_settings, to_yaml
from surefoot.stages.manual import stages_reference
from surefoot.stages.names import RETIRED, SYNONYMS
from surefoot.stages.options import STAGES, DPOOptions, RewardOptions, SFTOptions
from surefoot.stages.passed import plain_kind, trl_kinds

CLASSES = list(STAGES.values())


@pytest.mark.parametrize("cls", CLASSES)
def test_an_option_that_ppo_has_too_takes_the_same_there(cls):
    ppo = PPOConfig.kinds()
    for name, kind in cls.kinds().items():
        if name in ppo and name not in ("learning_rate", "eval_rows"):
            assert kind == ppo[name], name


@pytest.mark.parametrize(
    ("options", "rate", "epochs", "held_out"),
    [
        (SFTOptions(), 2e-5, 1.0, 0),
        (SFTOptions(lora_r=4), 2e-4, 1.0, 0),
        (SFTOptions(adapter_name="x", steps=3), 2e-4, None, 0),
        (RewardOptions(), 1e-5, 1.0, 128),
        (RewardOptions(eval_dataset="x"), 1e-5, 1.0, 0),
        (RewardOptions(eval_rows=0, learning_rate=0.5), 0.5, 1.0, 0),
        (DPOOptions(lora_r=2, epochs=2), 1e-5, 2.0, 0),
    ],
)
def test_what_depends_on_other_options_is_written_out(options, rate, epochs, held_out):
    done = options.resolved()
    assert (done.learning_rate, done.epochs, done.eval_rows) == (pytest.approx(rate), epochs, held_out)
    assert done.resolved() == done


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (SFTOptions, {"batch_size": 12, "mini_batch_size": 8}, "is not a multiple of mini_batch_size=8"),
        (SFTOptions, {"epochs": 1, "steps": 5}, "epochs=1.0 and steps=5 both say"),
        (SFTOptions, {"epochs": 1, "num_train_epochs": 5}, "epochs is given twice, once as num_train_epochs"),
        (SFTOptions, {"lora_r": 4, "adapter_name": "a"}, "lora_r makes a new adapter"),
        (RewardOptions, {"eval_dataset": "a", "eval_rows": 5}, "eval_rows=5 holds rows out"),
        (DPOOptions, {"beta": 0}, "beta=0.0 must be greater than 0"),
        (DPOOptions, {"max_length": 1}, "max_tokens=1 must be at least 2"),
        (SFTOptions, {"packing": "perhaps"}, "packing='perhaps' must be true or false"),
        (DPOOptions, {"label_smoothing": "x"}, "label_smoothing='x' must be a number"),
        (
            RewardOptions,
            {"train_sampling_strategy": "by_size"},
            "train_sampling_strategy='by_size' must be .*'random'",
        ),
    ],
)
def test_options_that_contradict_each_other_or_fit_nothing_are_refused(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls(**options)


@pytest.mark.parametrize(
    ("cls", "name", "message"),
    [
        (SFTOptions, "bf16", "is retired here; use precision='bfloat16'"),
        (DPOOptions, "gradient_accumulation_steps", r"use batch_size \(rows of an optimizer step\)"),
        (SFTOptions, "packin", "unknown option 'packin'; did you mean 'packing'?"),
        (RewardOptions, "betta", "unknown option 'betta'; see `surefoot reward --help`"),
        (SFTOptions, "learning_rat", "did you mean 'learning_rate'"),
        (SFTOptions, "kl_coef", "unknown option 'kl_coef'; see `surefoot sft --help`"),
    ],
)
def test_unknown_and_retired_names_are_refused_with_the_name_to_use(cls, name, message):
    with pytest.raises(TypeError, match=message):
        cls(**{name: 1})


def test_options_of_trl_keep_their_names_through_a_file(tmp_path):
    given = SFTOptions(
        model_name="m", packing=True, weight_decay=1, lr_scheduler_kwargs={"num_cycles": 1}, num_train_epochs=2
    )
    assert given.trl == {"packing": True, "weight_decay": 1, "lr_scheduler_kwargs": '{"num_cycles": 1}'}
    assert given.epochs == 2.0
    (tmp_path / "config.yaml").write_text(to_yaml(given), encoding="utf-8")
    assert load_settings([tmp_path / "config.yaml"], {}, SFTOptions) == given
    assert given.replace(seed=1).trl == given.trl


def test_a_list_of_trl_and_a_text_from_the_command_line_become_what_it_takes(tmp_path):
    (tmp_path / "a.yaml").write_text("loss_type: [sigmoid, sft]\nloss_weights: [1, 0.5]\n", encoding="utf-8")
    made = load_settings(
        [tmp_path / "a.yaml"], {"label_smoothing": "0.1", "precompute_ref_log_probs": "true"}, DPOOptions
    )
    assert made.trl["loss_type"] == ("sigmoid", "sft")
    assert made.trl["loss_weights"] == (1, 0.5)
    assert made.trl["label_smoothing"] == 0.1
    assert made.trl["precompute_ref_log_probs"] is True


def test_every_name_in_the_tables_is_one_of_trl_and_every_synonym_leads_to_an_option():
    of_trl = {field.name for cls in CLASSES for field in dataclasses.fields(_config(cls))}
    elsewhere = {
        "model_name_or_path",
        "dataset_name",
        "lora_target_modules",
        "warmup_ratio",
    }  # of TRL's scripts, or older
    assert set(SYNONYMS) | set(RETIRED) <= of_trl | elsewhere
    assert set(SYNONYMS.values()) <= {name for cls in CLASSES for name in cls.kinds()}
    assert not set(SYNONYMS) & set(RETIRED)


def _config(cls):
    from surefoot.stages.trl import config_class

    return config_class(cls.TRL_CONFIG)


@pytest.mark.parametrize("cls", CLASSES)
def test_no_option_of_trl_is_out_of_reach_without_a_reason(cls):
    reached = set(trl_kinds(cls.TRL_CONFIG)) | set(SYNONYMS) | set(RETIRED) | set(cls.kinds())
    lost = {field.name for field in dataclasses.fields(_config(cls)) if field.init} - reached
    assert lost <= {"parallelism_config", "liger_kernel_config", "debug"}


def test_types_of_trl_are_put_in_our_words():
    assert plain_kind(bool | None) == bool | None
    assert plain_kind(list[str] | None) == tuple[str, ...] | None
    assert plain_kind(dict[str, int] | str | None) == str | None
    assert plain_kind(object) is None
    assert plain_kind(None) is None


def test_the_committed_page_of_the_stages_is_current():
    page = Path(__file__).parents[2] / "docs" / "stages.md"
    assert page.read_text(encoding="utf-8") == stages_reference(), (
        "run: python -m surefoot.stages.manual > docs/stages.md"
    )


@pytest.mark.parametrize("command", STAGES)
def test_help_of_a_stage_imports_neither_torch_nor_trl(command):
    program = (
        "import sys; from surefoot.cli import main; code = main([sys.argv[1], '--help']); "
        "assert code == 0; assert not {'torch', 'trl', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "surefoot " + command in done.stdout
    assert "TRL's " + STAGES[command].TRL_CONFIG in done.stdout


def test_trl_is_imported_by_one_file():
    source = Path(surefoot.__file__).parent
    files = [
        p for p in source.rglob("*.py") if re.search(r"^\s*(import|from) trl\b", p.read_text("utf-8"), re.MULTILINE)
    ]
    assert [str(path.relative_to(source)) for path in files] == ["stages/trl.py"]
