"""A plan's peak beside the one that a real run of two steps has, in a process of its own."""

import json
import subprocess
import sys

import pytest
import torch
from tiny import tiny_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

RUN = """
import json, sys, warnings
warnings.simplefilter("ignore")
from surefoot import PPOConfig, PPOTrainer
PPOTrainer.from_config(PPOConfig(**json.loads(sys.argv[1]))).train()
found = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print("BYTES", int(found[0]) * 1024)
"""
PLAN = """
import json, sys
from surefoot import PPOConfig
from surefoot.memory import peak
from surefoot.plan.gather import Reckoner, facts_of
c = PPOConfig(**json.loads(sys.argv[1]))
print("BYTES", peak(Reckoner(facts_of(c)).need(c)).total)
"""
CONFIGURATIONS = {
    "all weights in float32, a head for a critic": {"mini_batch_size": 16},
    "LoRA": {"mini_batch_size": 8, "lora_r": 16},
    "a critic of its own, bfloat16, four passes": {
        "critic": "model", "precision": "bfloat16", "mini_batch_size": 4, "max_tokens_per_microbatch": 512},
    "a critic of its own, activations recomputed": {
        "critic": "model", "gradient_checkpointing": True, "mini_batch_size": 16},
}  # fmt: skip


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """A Llama of 40 million numbers, 154 MiB, and prompts of 33 to 64 tokens."""
    folder = tmp_path_factory.mktemp("world")
    with torch.random.fork_rng(devices=[]):
        config = LlamaConfig(hidden_size=512, num_hidden_layers=8, intermediate_size=1408, vocab_size=16384,
                             num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=1024)  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder / "llama")
    tiny_tokenizer().save_pretrained(folder / "llama")
    (folder / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": "x" * (33 + i)}) for i in range(32)))
    (folder / "judge.py").write_text("def reward_func(text):\n    return float(len(text) % 7)\n")
    return {"model_name": f"{folder}/llama", "dataset": f"{folder}/prompts.jsonl", "reward": (f"{folder}/judge.py",),
            "batch_size": 16, "ppo_epochs": 1, "max_new_tokens": 64, "steps": 2, "eval_prompts": 0}  # fmt: skip


def bytes_of(program, options):
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(options)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.rpartition("BYTES ")[2])


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_peak_is_within_15_percent_of_the_measured_one(options, name, record_property):
    chosen = options | CONFIGURATIONS[name]
    planned, measured = bytes_of(PLAN, chosen), bytes_of(RUN, chosen)
    record_property("counts", f"{name}: {planned >> 20} MiB planned, {measured >> 20} MiB measured")
    assert planned == pytest.approx(measured, rel=0.15)
