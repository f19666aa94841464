"""docs/reliability.md: every file, option, flag, command, variable, metric and exit code that it names exists."""

import dataclasses
import re
from pathlib import Path

from surefoot import interrupt, terminal
from surefoot.changes import MAY_CHANGE
from surefoot.cli import COMMANDS, main
from surefoot.config import PPOConfig

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "surefoot"
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
CODE = sorted(set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.S))))
OPTIONS = {field.name for field in dataclasses.fields(PPOConfig)}
METRICS = set(re.findall(r"^\| `([^`]+)`", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"), re.M))
TEXTS = {path: path.read_text(encoding="utf-8") for path in [*SOURCE.rglob("*.py"), ROOT / "Makefile"]}
TARGETS = {f"make {name}" for name in re.findall(r"^([a-z-]+):", TEXTS[ROOT / "Makefile"], re.M)}
IN_THE_SOURCE = {"OMP_NUM_THREADS", "SUREFOOT_TIMEOUT", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE",
                 "metrics.jsonl", "manifest.json", "state.json", "tensors.safetensors", "rows.safetensors",
                 "trust_remote_code", "checkpoints/step_000100/", "faults/step_000012/fault.json"}  # fmt: skip
"""What the source spells as the page does."""
METHODS = {"trainer.restore(path)": "restore", "train()": "train", "PPOTrainer.load(path)": "load",
           "PPOTrainer.load": "load", "step": "step", "generate": "generate"}  # fmt: skip
ELSEWHERE = {"torchrun", "tensors-00001-of-00002.safetensors", "<output_dir>.old", "aside_..."}


def known(code: str) -> bool:
    """Whether it is a file, an option, a setting, a command, a metric or something listed above."""
    name, colon, _ = code.partition(": ")
    if code.endswith(".py"):
        return (ROOT / code).is_file() if code.startswith("tests/") else (SOURCE / code).is_file()
    if code.startswith("surefoot "):
        return code.split()[1] in COMMANDS
    if code in IN_THE_SOURCE:
        return any(code in text for text in TEXTS.values())
    if code in METHODS:
        return f"def {METHODS[code]}(" in TEXTS[SOURCE / "trainer.py"]
    return (
        code in OPTIONS | METRICS | TARGETS | ELSEWHERE or (bool(colon) and name in OPTIONS) or code.startswith("--")
    )


def test_everything_that_is_named_exists():
    assert len(CODE) > 100
    assert [code for code in CODE if not known(code)] == []


def test_every_flag_is_a_flag_of_the_command(capsys):
    flags = set(re.findall(r"--[a-z][a-z-]+", PAGE))
    assert len(flags) > 3
    assert main(["ppo", "--help"]) == 0
    told = capsys.readouterr().out
    assert [flag for flag in sorted(flags) if f" {flag} " not in told] == []


def test_the_exit_codes_are_those_of_the_program():
    table = PAGE.split("## Exit codes")[1].split("\n## ")[0]
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.M)}
    of_signals = set(interrupt._EXIT_CODES.values())
    assert (
        codes == {terminal.EXIT_OK, terminal.EXIT_FAILED, terminal.EXIT_USAGE, terminal.EXIT_INTERRUPTED} | of_signals
    )


def test_the_options_that_may_change_are_all_told():
    (row,) = re.findall(r"^\| allowed, and told \| (.+) \|$", PAGE, re.M)
    assert set(re.findall(r"`(\w+)`", row)) == set(MAY_CHANGE)


def test_promises_and_faults_are_numbered_without_a_gap_and_each_fault_has_a_test_or_is_not_built():
    promises = PAGE.split("## The eight promises")[1].split("\n## ")[0]
    assert re.findall(r"^\*\*(\d)\. ", promises, re.M) == [str(n) for n in range(1, 9)]
    for promise in re.split(r"^\*\*\d\. ", promises, flags=re.M)[1:]:
        assert "`tests/" in promise, promise
    rows = re.findall(r"^\| (\d+) \| .+ \| (.+) \| (.+) \|$", PAGE.split("## Forty faults")[1], re.M)
    assert [int(number) for number, _, _ in rows] == list(range(1, 41))
    assert [n for n, what, test in rows if ("`tests/" in test) == what.startswith("not built yet")] == []


def test_links_within_the_page_and_to_it_lead_to_its_sections():
    slugs = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^## (.+)$", PAGE, re.M)
    }
    others = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(#([^)]+)\)", PAGE) + re.findall(r"reliability\.md#([^)]+)\)", others)
    assert len(targets) > 2
    assert set(targets) <= slugs


def test_the_counts_in_the_tests_are_those_of_the_page():
    """Numbers of kills, resumes and faults, short and long."""
    for file, counts in {
        "tests/faults/test_checkpoint_files.py": (20, 120, 500),
        "tests/faults/test_resume_command.py": (5, 15, 50, 300),
        "tests/soak/test_reward_faults.py": (15, 200),
    }.items():
        told = next(p for p in PAGE.split("\n\n") if f"`{file}` (" in p).split(f"`{file}` (")[1].split("`tests/")[0]
        marked = re.findall(r"param\((?:\[[^]]*\], )?(\d+), marks=", (ROOT / file).read_text(encoding="utf-8"))
        assert {int(n) for n in marked} <= set(counts)
        assert all(re.search(rf"\b{count}\b", told) for count in counts), told
