"""What ends one of two processes ends the other within seconds, and the other says why."""

import re
import time
from pathlib import Path

import pytest
from processes import outputs, start

SCRIPT = Path(__file__).with_name("failing_ranks.py")


SLOW = pytest.mark.slow


@pytest.mark.multi
@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (
            "raises in the reward",
            r"process 1 failed: RewardError: reward 'reward' at row \d+: raised RuntimeError: no ",
        ),
        pytest.param("raises in sampling", "process 1 failed: RuntimeError: no grader on this machine", marks=SLOW),
        pytest.param("raises in the update", "process 1 failed: RuntimeError: no grader on this machine", marks=SLOW),
        pytest.param("raises by hand", "process 1 failed: RuntimeError: no grader on this machine", marks=SLOW),
        pytest.param("leaves", "process 1 failed: SystemExit: 7", marks=SLOW),
        pytest.param("dies", "process 1 died without a word", marks=SLOW),
        pytest.param("killed", "process 1 died without a word", marks=SLOW),
        pytest.param("hangs", r"process 0 waited in vain for another, which lives but does not come", marks=SLOW),
        pytest.param("raises in scoring", "process 1 failed: RuntimeError: no grader on this machine", marks=SLOW),
        pytest.param(
            "raises in scoring, in shares", "process 1 failed: RuntimeError: no grader on this machine", marks=SLOW
        ),
        pytest.param(
            "raises in sampling, in shares", "process 1 failed: RuntimeError: no grader on this machine", marks=SLOW
        ),
        pytest.param(
            "raises in the reward, in shares", "process 1 failed: RewardError: reward 'reward' at row", marks=SLOW
        ),
        pytest.param("frozen", "process 1 shows no sign of life", marks=SLOW),
    ],
)
def test_the_end_of_one_process_is_the_end_of_the_other(tmp_path, trouble, said):
    first, second = start(SCRIPT, [trouble, tmp_path], SUREFOOT_TIMEOUT="5" if trouble == "hangs" else "600")
    try:
        text = first.communicate(timeout=120)[0]
        ended = time.time()
        if trouble == "frozen":  # the operating system would not let it end by itself
            second.kill()
        other = second.communicate(timeout=30)[0]
    finally:
        outputs([first, second])
    struck = tmp_path / "struck"
    assert struck.exists(), f"{text}\n----\n{other}"
    assert ended - float(struck.read_text()) < 30
    assert re.search(said, text), f"{text}\n----\n{other}"
    assert first.returncode not in (0, None)
    assert second.returncode not in (0, None)
    if trouble == "hangs":
        assert re.search(said, other), other
        assert "process 1 hangs here:" in other
        assert 'failing_ranks.py", line' in other, "the stack is shown"
        assert "in strike" in other
