"""Two processes that each draw ahead: one engine may fail for itself, and both go on exactly after a stop."""

import json
from pathlib import Path

import pytest
from processes import outputs, start
from stopped_runs import differences, left_by

from surefoot.checkpoint import read_checkpoint

SCRIPT = Path(__file__).with_name("overlap_ranks.py")


@pytest.mark.slow
@pytest.mark.multi
def test_the_engine_of_one_process_fails_and_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for arguments in ([whole, 9], [parts, 1], [parts, 9]):
        said = outputs(start(SCRIPT, arguments))
        found = [Path(f"{arguments[0]}_{arguments[1]}_{rank}.json") for rank in (0, 1)]
        assert all(path.exists() for path in found), said
    first, second = (json.loads(Path(f"{whole}_9_{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["steps"] == [[0, [0, 0, 0, 0]], [0.5, [0, 0, 1, 1]], [1, [1, 1, 1, 1]], [1, [2, 2, 2, 2]]]
    asked = read_checkpoint(parts / "checkpoints" / "step_000001")[1]["ahead"]
    assert [state["answers"] is None for state in asked] == [False, True]
    assert differences(left_by(whole), left_by(parts)) == []
