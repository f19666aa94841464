"""docs/troubleshooting.md: all metrics, options, commands and flags that it names exist; its table leads on."""

import dataclasses
import re
from pathlib import Path

import pytest

from surefoot.cli import COMMANDS, main
from surefoot.config import PPOConfig
from surefoot.dryrun import checklist
from surefoot.rewards.address import RemoteOptions
from surefoot.settings import load_settings
from surefoot.types import Sampling

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
METRICS = set(re.findall(r"^\| `([^`]+)`", (DOCS / "metrics.md").read_text(encoding="utf-8"), re.M))
OPTIONS = {field.name for field in dataclasses.fields(PPOConfig)}
REMOTE = {field.name for field in dataclasses.fields(RemoteOptions)}
SAMPLING = {field.name for field in dataclasses.fields(Sampling)} | {"do_sample"}
ELSEWHERE = {"PPOConfig.recommended", "generate", "step", "metrics.jsonl", "environment.json", "samples/", "torch",
             "surefoot", "reward-test", "OMP_NUM_THREADS", "OMP_WAIT_POLICY=PASSIVE", "torchrun --tee 3",
             "<|im_end|>", "<|endoftext|>", "do_sample=False", "none",
             "faults/step_000012/fault.json"}  # fmt: skip
CODE = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.S))
FIRST_HALF, SECTIONS = PAGE.split("\n## ", 1)


def known(code: str) -> bool:
    """Whether it is a metric, an option, a setting, a flag, a command, or something named above."""
    if code.startswith("surefoot "):
        return code.split()[1] in COMMANDS
    name, colon, _ = code.partition(": ")
    return (
        code in METRICS | OPTIONS | REMOTE | SAMPLING | ELSEWHERE
        or code == "rewards/<name>/retries"  # an example of rewards/<name>/<metric>, told on the page of metrics
        or code.startswith(("--", "#"))
        or (bool(colon) and name in OPTIONS)
    )


def test_everything_that_is_named_exists():
    assert len(CODE) > 150
    assert sorted({code for code in CODE if not known(code)}) == []


def test_metrics_are_named_as_they_are():
    named = {code for code in CODE if "/" in code and not code.startswith(("surefoot ", "samples", "faults"))}
    assert len(named) > 30
    assert named - METRICS <= {"rewards/<name>/retries"}


@pytest.mark.parametrize("setting", sorted({c for c in CODE if c.partition(": ")[0] in OPTIONS and ": " in c}))
def test_every_setting_is_one_that_can_be_made(setting, tmp_path):
    (tmp_path / "run.yaml").write_text(f"{setting}\n" + ("lora_r: 8\n" if setting == "critic: adapter" else ""))
    name, _, value = setting.partition(": ")
    assert str(getattr(load_settings([tmp_path / "run.yaml"]), name)).lower().removesuffix(".0") == value.removesuffix(
        ".0"
    )


def test_every_flag_is_a_flag_of_the_command(capsys):
    flags = {word for command in re.findall(r"surefoot ppo ([^`#\n]+)", PAGE) for word in command.split()} | set(CODE)
    assert main(["ppo", "--help"]) == 0
    told = capsys.readouterr().out
    assert [flag for flag in flags if re.fullmatch(r"--[a-z-]+", flag) and f" {flag} " not in told] == []


def test_options_of_a_service_are_known():
    for code in CODE:
        if code.startswith("#"):
            assert {part.partition("=")[0] for part in code[1:].split(",")} <= REMOTE


def test_checks_of_the_dry_run_are_called_what_the_page_calls_them():
    stats = dict.fromkeys(
        ("objective/kl_per_token", "objective/kl_k3", "ppo/policy/first_ratio", "tokens/eos_rate", "objective/scores",
         "tokens/truncated_rate", "ppo/std_scores", "ppo/grad_norm", "ppo/loss/total"), 0.0,
    )  # fmt: skip
    names = {check.name for check in checklist(stats, rough=False)}
    quoted = {q for q in re.findall(r'"([^"\n]+)"', SECTIONS) if "KL to" in q or "scores" in q or "answers" in q}
    assert quoted == {"KL to the reference is 0", "scores differ", "some answers end"}
    assert quoted <= names


def test_the_table_leads_to_every_section_and_each_section_has_cause_check_and_fix():
    targets = re.findall(r"\]\(#([^)]+)\)", FIRST_HALF)
    titles = re.findall(r"^## (.+)$", PAGE, re.M)
    slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
    assert targets == slugs
    assert len(titles) >= 20
    assert set(re.findall(r"\]\(#([^)]+)\)", SECTIONS)) <= set(slugs)
    for body in SECTIONS.split("\n## ")[:-1]:
        assert all(word in body for word in ("**Likely:**", "**Check:**", "**Fix")), body.splitlines()[0]
