"""Canaries in every place where a user could put a secret: none is found in what a run writes or says."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from fake_service import Service, honest, said

from surefoot.cli import main

CANARIES = {  # variable -> its secret
    "REWARD_BEARER": "canary-of-the-reward-1",
    "HF_TOKEN": "hf_canaryOfTheHubCanaryOfTheHub",
    "WANDB_API_KEY": "canary-of-the-tracker-3",
    "DATABASE_PASSWORD": "canary-of-the-shell-4",
}
HONEST_REQUESTS = 4
SETTINGS = """\
model_name: model
dataset: prompts.txt
output_dir: run
batch_size: 4
mini_batch_size: 4
max_new_tokens: 4
eval_prompts: 4
eval_every: 1
ppo_epochs: 1
steps: 9
save_every: 1
log_with: tensorboard
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    tiny.tiny_llama().save_pretrained("model")
    tiny.tiny_tokenizer().save_pretrained("model")
    Path("prompts.txt").write_text("".join(f"Question {i}?\n" for i in range(20)))
    Path("run.yaml").write_text(SETTINGS)
    return tmp_path


def leaks(*texts: bytes) -> set[str]:
    """The variables whose secret stands in any of the texts, as it is or in base64."""
    spelled = {n: (v.encode(), base64.b64encode(v.encode()).rstrip(b"=")) for n, v in CANARIES.items()}
    return {name for name, forms in spelled.items() for form in forms if any(form in text for text in texts)}


def test_a_run_whose_service_tells_all_it_knows_keeps_every_secret(folder):
    """The service is honest for two evaluations and a step; then it throws the token, and others, back at us."""

    def behave(request):
        if request.number < HONEST_REQUESTS:
            return honest(request)
        known = f"{request.headers['authorization']} {' '.join(CANARIES.values())} https://joe:canary@x/?key=canary"
        return said(known, 401, Location=known)

    with Service(behave) as service:
        address = f"openrlhf+{service.url}#token_env=REWARD_BEARER,batch_size=4,name=far"
        done = subprocess.run(
            [sys.executable, "-m", "surefoot.cli", "ppo", "--config", "run.yaml", "--reward", address, "--debug"],
            capture_output=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    assert {r.headers["authorization"] for r in service.requests} == {f"Bearer {CANARIES['REWARD_BEARER']}"}
    assert done.returncode != 0
    assert b"HTTP 401" in done.stderr
    assert b"Traceback" in done.stderr
    assert b"canary" not in done.stdout + done.stderr
    written = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder).parts[:2] for path in written}
    assert {
        ("run", "config.yaml"),
        ("run", "environment.json"),
        ("run", "metrics.jsonl"),
        ("run", "checkpoints"),
    } <= names
    assert any(path.name.startswith("events.out") for path in written)
    assert leaks(*(path.read_bytes() for path in written)) == set()
    assert main(["report", "run"]) == 0
    assert leaks((folder / "run" / "report.html").read_bytes()) == set()


PLACES = (
    ("--model-name", "https://joe:{}@example.org/model"),
    ("--ref-model-name", "https://joe:{}@example.org/model"),
    ("--value-model-name", "https://joe:{}@example.org/model"),
    ("--adapter-name", "https://joe:{}@example.org/model"),
    ("--dataset", "https://joe:{}@example.org/prompts.jsonl"),
    ("--dataset", "https://example.org/prompts.jsonl?access_token={}"),
    ("--dataset", "org/name?api_key={}"),
    ("--eval-dataset", "https://joe:{}@example.org/prompts.jsonl"),
    ("--chat-template", "https://joe:{}@example.org/template"),
    ("--reward", "openrlhf+https://joe:{}@example.org/get_reward"),
    ("--reward", "openrlhf+https://example.org/get_reward?api_key={}"),
    ("--reward", "openrlhf+https://example.org/get_reward#token={}"),
    ("--reward", "https://{}@example.org/"),
    ("--log-with", "wandb:api_key={}"),
    ("--critic", "key={}"),
    ("--config", "https://joe:{}@example.org/run.yaml"),
    ("--resume", "https://joe:{}@example.org/run"),
    ("--hf-token", "{}"),
    ("--api-key={}", ""),
    ("https://joe:{}@example.org/run.yaml", ""),
)


@pytest.mark.parametrize(("flag", "value"), PLACES, ids=[f"{flag} {value}" for flag, value in PLACES])
def test_a_secret_that_was_given_in_the_wrong_place_is_refused_and_not_repeated(folder, capfd, flag, value):
    before = sorted(folder.rglob("*"))
    given = [text.format("sesame-canary") for text in (flag, value) if text]
    reward = [] if flag == "--reward" else ["--reward", "builtins:len"]
    code = main(["ppo", "--config", "run.yaml", *reward, "--debug", *given])
    said = capfd.readouterr()
    assert code == 2
    assert "surefoot: error: " in said.err
    assert "canary" not in said.out + said.err
    assert sorted(folder.rglob("*")) == before


def test_a_defect_of_a_reward_is_told_without_the_secrets_in_its_traceback(folder, capfd):
    Path("judge.py").write_text(
        "import os\ndef score(completions):\n    raise KeyError(os.environ['WANDB_API_KEY'])\n"
    )
    assert main(["reward-test", "--config", "run.yaml", "--reward", "judge.py:score", "--debug"]) == 1
    said = capfd.readouterr()
    assert "KeyError" in said.err
    assert "canary" not in said.out + said.err
