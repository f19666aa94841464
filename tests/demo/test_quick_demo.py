"""The quick demo, as a person starts it: a toy learns, the table says so, and the report is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_quick_demo_makes_its_model_better_and_says_so(tmp_path):
    surefoot = Path(sys.executable).with_name("surefoot")
    command = [str(surefoot), "demo", "--quick", "--output-dir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "score (pleasant words) rose" in done.stdout
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    lines = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    first, last = (json.loads(lines[i])["metrics"] for i in (0, -1))
    assert last["eval/score"] > first["eval/score"] + 0.3  # scores lie between -1 and 1
    assert first["eval/kl"] == 0 < last["eval/kl"]
