"""Every option of PPOConfig changes something: two whole runs that differ in it alone end differently."""

import dataclasses
import json
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import CHAT_TEMPLATE, byte_id, tiny_gpt2, tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.faults import NonFiniteError

TEXTS = [f"{'a longer one, ' * (i % 3)}prompt {i}" for i in range(16)]
VOWELS = "def reward_func(text):\n    return sum(text.count(v) for v in 'aeiou') + 0.1 * len(text)\n"
GIANT = """calls = iter(range(1000))
def reward_func(text):
    return 1e30 if next(calls) in (12, 13) else float(len(text))
"""  # in the second step: the squared error of these values is infinite
FALLING = """calls = iter(range(1000))
def reward_func(completions, **_):
    return [-float(next(calls))] * len(completions)
"""  # one less at every evaluation
CONSTANT = "def reward_func(text):\n    return 1.0\n"

# option -> (what both runs have beside the base, the value that only the second run has); {folder} is filled in
ACTS = {
    "model_name": ({}, "{folder}/gpt2"),
    "ref_model_name": ({}, "{folder}/other"),
    "adapter_name": ({}, "{folder}/adapter"),
    "lora_r": ({}, 4),
    "lora_alpha": ({"lora_r": 4}, 64),
    "critic": ({}, "model"),
    "value_model_name": ({"critic": "model"}, "{folder}/other"),
    "precision": ({}, "bfloat16"),
    "chat_template": ({"dataset": "{folder}/chats.jsonl"}, "{folder}/template.jinja"),
    "dataset": ({}, "{folder}/others.jsonl"),
    "eval_dataset": ({}, "{folder}/others.jsonl"),
    "eval_prompts": ({}, 3),
    "prompt_column": ({"dataset": "{folder}/columns.jsonl", "prompt_column": "prompt"}, "note"),
    "prompt_template": ({}, "{prompt} please"),
    "max_prompt_tokens": ({}, 20),
    "overlong_prompts": ({"max_prompt_tokens": 20}, "truncate_left"),
    "num_generations": ({}, 2),
    "max_new_tokens": ({}, 4),
    "temperature": ({}, 0.7),
    "stop_strings": ({}, ("e", "a", "i", "t", " ")),
    "stop_token_ids": ({}, tuple(byte_id(c) for c in "abcdefghijklmnop")),
    "importance_cap": ({}, 0.5),
    "importance_level": ({"importance_cap": 2.0}, "sequence"),
    "reward": ({}, ("{folder}/constant.py",)),
    "reward_weights": ({}, (2.0,)),
    "gold": ({}, ("{folder}/constant.py",)),
    "reward_ensemble": ({"reward": ("{folder}/vowels.py", "{folder}/constant.py")}, "min"),
    "uncertainty_coef": (
        {"reward": ("{folder}/vowels.py", "{folder}/constant.py"), "reward_ensemble": "uncertainty"},
        2.0,
    ),
    "reward_shaping": ({}, "sigmoid"),
    "length_penalty": ({}, 0.5),
    "missing_eos_penalty": ({"stop_token_ids": tuple(range(6, 90))}, 1.0),
    "overlong_filter": ({}, True),
    "use_score_scaling": ({}, True),
    "use_score_norm": ({"use_score_scaling": True}, True),
    "score_clip": ({}, 0.5),
    "whiten_rewards": ({}, True),
    "init_kl_coef": ({}, 0.5),
    "kl_penalty": ({}, "abs"),
    "kl_placement": ({}, "loss"),
    "kl_controller": ({}, "fixed"),
    "target_kl": ({}, 0.01),
    "final_target_kl": ({}, 0.001),
    "final_kl_coef": ({"kl_controller": "linear", "final_kl_coef": 0.05}, 0.001),
    "horizon": ({}, 50.0),
    "early_stop_kl": ({}, 1e-6),
    "kl_ceiling": ({}, 1e-9),
    "batch_size": ({}, 4),
    "mini_batch_size": ({}, 2),
    "gradient_accumulation_steps": ({}, 2),
    "ppo_epochs": ({}, 1),
    "cliprange": ({}, 0.01),
    "cliprange_high": ({}, 0.01),
    "dual_clip": ({"cliprange": 0.001}, 1.001),
    "cliprange_value": ({}, 0.001),
    "vf_coef": ({}, 0.5),
    "entropy_coef": ({}, 0.1),
    "ratio_threshold": ({}, 1.0000001),
    "critic_warmup_steps": ({}, 1),
    "critic_epochs": ({}, 2),
    "gamma": ({}, 0.9),
    "lam": ({}, 0.5),
    "lam_critic": ({}, 1.0),
    "lam_length_alpha": ({}, 0.5),
    "bootstrap_truncated": ({}, True),
    "whiten_advantages": ({}, False),
    "learning_rate": ({}, 2e-3),
    "critic_learning_rate": ({}, 5e-3),
    "lr_schedule": ({}, "linear"),
    "warmup_steps": ({}, 2),
    "eight_bit_adam": ({}, True),
    "max_grad_norm": ({}, 0.01),
    "on_fault": ({"reward": ("{folder}/giant.py",), "on_fault": "skip"}, "drop_sample"),
    "max_skipped_updates": ({"reward": ("{folder}/giant.py",), "on_fault": "skip"}, 0),
    "total_episodes": ({}, 8),
    "steps": ({}, 1),
    "eval_every": ({}, 1),
    "target_reward": ({}, -100.0),
    "target_reward_evals": ({"target_reward": -100.0, "eval_every": 1}, 3),
    "patience": ({"reward": ("{folder}/constant.py",), "eval_every": 1}, 1),
    "watch": ({"gold": ("{folder}/falling.py",), "eval_prompts": 8, "eval_every": 1}, "stop_and_restore"),
    "save_every": ({}, 1),
    "keep_checkpoints": ({"save_every": 1}, 3),
    "log_with": ({}, "tensorboard"),
    "seed": ({}, 8),
}
SAME_NUMBERS = {
    "max_tokens_per_microbatch",
    "gradient_checkpointing",
    "offload_frozen",
    "shard",
}  # they may change time and memory only
ELSEWHERE = {"output_dir"}  # every run here has one; that None writes nothing is tested below
ELSEWHERE |= {"engine", "vllm_python"}  # tests/engine/vllm runs another engine by either
ELSEWHERE |= {"overlap"}  # goes with engine: tests/test_overlap.py


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    tokenizer = tiny_tokenizer(pad="eos", chat=True)
    for name, model in {"llama": tiny_llama(), "gpt2": tiny_gpt2(), "other": tiny_llama(seed=5)}.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    with torch.random.fork_rng(devices=[]):
        adapted = get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.3)
    adapted.save_pretrained(folder / "adapter")
    (folder / "vowels.py").write_text(VOWELS)
    (folder / "giant.py").write_text(GIANT)
    (folder / "falling.py").write_text(FALLING)
    (folder / "constant.py").write_text(CONSTANT)
    (folder / "template.jinja").write_text(CHAT_TEMPLATE.replace("<|im_start|>", "@"))
    rows = {
        "prompts": [{"prompt": t} for t in TEXTS],
        "others": [{"prompt": f"another {t}"} for t in TEXTS],
        "columns": [{"prompt": t, "note": f"note on {t}"} for t in TEXTS],
        "chats": [{"prompt": [{"role": "user", "content": t}]} for t in TEXTS],
    }
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def run(world, folder, **changes):
    """Everything that a run leaves behind, times and memory left out."""
    base = {
        "model_name": "{folder}/llama",
        "dataset": "{folder}/prompts.jsonl",
        "reward": ("{folder}/vowels.py",),
        "learning_rate": 1e-3,
        "batch_size": 8,
        "mini_batch_size": 4,
        "ppo_epochs": 2,
        "max_new_tokens": 8,
        "steps": 3,
        "eval_prompts": 2,
        "eval_every": 2,
        "seed": 7,
        "output_dir": str(folder),
    }
    options = {name: _filled(value, world) for name, value in (base | changes).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values far from the recommended ones are the point here
        trainer = PPOTrainer.from_config(PPOConfig(**options))
        try:
            reason = trainer.train().reason
        except NonFiniteError as error:
            reason = str(error)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    numbers = [{k: v for k, v in line.items() if not k.startswith(("time/", "memory/"))} for line in lines]
    return {
        "weights": {n: p.detach().clone() for n, p in trainer.policy.named_parameters()},
        "critic": {n: p.detach().clone() for n, p in trainer.critic.named_parameters()},
        "numbers": numbers,
        "evaluations": (folder / "evaluations.jsonl").read_text(),
        "reason": reason,
        "files": sorted({p.relative_to(folder).parts[0] if "tensorboard" in str(p) else str(p.relative_to(folder))
                         for p in folder.rglob("*") if "model" not in str(p.relative_to(folder))}),
    }  # fmt: skip


def _filled(value, world):
    if isinstance(value, tuple):
        return tuple(_filled(v, world) for v in value)
    return value.replace("{folder}", str(world)) if isinstance(value, str) and "{folder}" in value else value


def same(a, b):
    weights = all(
        a[p].keys() == b[p].keys() and all(torch.equal(a[p][n], b[p][n]) for n in a[p]) for p in ("weights", "critic")
    )
    return weights and all(a[part] == b[part] for part in ("numbers", "evaluations", "reason", "files"))


def test_every_option_is_shown_to_act():
    assert {f.name for f in dataclasses.fields(PPOConfig)} == set(ACTS) | SAME_NUMBERS | ELSEWHERE
    assert len(dataclasses.fields(PPOConfig)) <= 100


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory):
    """Runs by their changes, each made once."""
    made = {}

    def get(changes):
        key = json.dumps(changes, sort_keys=True)
        if key not in made:
            made[key] = run(world, tmp_path_factory.mktemp("run"), **changes)
        return made[key]

    return get


def test_two_runs_with_the_same_options_leave_the_same_behind(world, runs, tmp_path):
    assert same(runs({}), run(world, tmp_path))


@pytest.mark.parametrize("option", ACTS)
def test_the_option_acts(runs, option):
    if option == "eight_bit_adam":
        pytest.importorskip("bitsandbytes")
    both, value = ACTS[option]
    assert not same(runs(both), runs(both | {option: value}))


@pytest.mark.parametrize(
    "changes",
    [
        {"max_tokens_per_microbatch": 90},
        {"max_tokens_per_microbatch": "auto"},
        {"gradient_checkpointing": True},
        {"offload_frozen": True},
    ],
)
def test_what_changes_time_and_memory_changes_no_number(runs, changes):
    plain, other = runs({}), runs(changes)
    for name, tensor in plain["weights"].items():
        assert torch.allclose(tensor, other["weights"][name], atol=1e-5)


def test_without_a_folder_nothing_is_written(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"model_name": f"{world}/llama", "dataset": f"{world}/prompts.jsonl", "reward": (f"{world}/vowels.py",)}
    PPOTrainer.from_config(
        PPOConfig(**options, batch_size=4, mini_batch_size=4, steps=1, eval_prompts=0, max_new_tokens=2)
    ).train()
    assert list(tmp_path.iterdir()) == []
