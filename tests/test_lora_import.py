"""peft is loaded where LoRA is asked for, quietly, and nothing is fetched while that happens."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
KERNELS = "def get_kernel(*_, **__):\n    print('fetched')\n    raise ImportError('offline')\n"
"""The library that fetches kernels from a hub, as far as anybody asks it here."""


def loads(program, *folders):
    path = ":".join(str(p) for p in (*folders, TESTS, TESTS.parent / "src"))
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": path}, capture_output=True,
                          text=True, check=True)  # fmt: skip
    return done.stdout, done.stderr


def test_nothing_is_fetched_or_said(tmp_path):
    pytest.importorskip("bitsandbytes")
    (tmp_path / "kernels.py").write_text(KERNELS)
    program = "import surefoot.lora, sys; print(sorted({'peft', 'bitsandbytes'} & set(sys.modules)))"
    assert loads(program, tmp_path) == ("['bitsandbytes', 'peft']\n", "")


def test_without_lora_it_is_not_loaded():
    program = (
        "import sys; from surefoot import PPOConfig, PPOTrainer; from tiny import tiny_llama, tiny_tokenizer\n"
        "trainer = PPOTrainer(PPOConfig(batch_size=4, mini_batch_size=2, max_new_tokens=2), tiny_llama(), "
        "tokenizer=tiny_tokenizer())\n"
        "texts = ['a', 'b', 'c', 'd']\n"
        "trainer.step(texts, trainer.generate(texts), [1.0, 2.0, 3.0, 4.0])\n"
        "print('peft' in sys.modules)"
    )
    assert loads(program)[0].splitlines()[-1] == "False"
