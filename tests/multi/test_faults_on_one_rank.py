"""What is not finite on one process alone is everybody's: both stop, skip or drop together, and stay equal."""

import json
from pathlib import Path

import pytest
from processes import outputs, start
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("faulty_ranks.py")


@pytest.mark.multi
@pytest.mark.parametrize(
    ("on_fault", "broken", "wanted", "more"),
    [
        ("stop", "loss", "the loss is not finite", []),
        pytest.param("stop", "gradient", "the gradient is not finite", [], marks=pytest.mark.slow),
        pytest.param("skip", "loss", [0, 1, 0], [], marks=pytest.mark.slow),
        pytest.param("skip", "gradient", [0, 1, 0], [], marks=pytest.mark.slow),
        pytest.param("drop_sample", "loss", [1, 0, 1], [], marks=pytest.mark.slow),
        pytest.param("drop_sample", "gradient", "no single answer is to blame", [], marks=pytest.mark.slow),
        pytest.param("skip", "loss", [0, 1, 0], ["shares"], marks=pytest.mark.slow),
        pytest.param("drop_sample", "loss", [1, 0, 1], ["shares"], marks=pytest.mark.slow),
    ],
)
def test_both_processes_do_the_same_about_it(tmp_path, on_fault, broken, wanted, more):
    said = outputs(start(SCRIPT, [on_fault, broken, tmp_path, *more]))
    found = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    for steps in found:
        first, second, third = steps
        assert first["counts"] == third["counts"] == [1, 0, 0], said
        assert all(step["finite"] for step in steps)
        assert not first["same"]
        assert not third["same"]
        if isinstance(wanted, str):
            assert wanted in second["error"]
        else:
            assert second["counts"] == wanted
        assert second["same"] == (wanted != [1, 0, 1])
        if second["same"]:
            assert second["kl_coef"] == first["kl_coef"]
    assert found[0] == found[1]
    (bundle,) = (tmp_path / "faults").iterdir()
    about = json.loads((bundle / "fault.json").read_text())
    tensors = load_file(bundle / "rows.safetensors")
    rows = [(row["process"], row["row"]) for row in about["rows"]]
    if on_fault == "drop_sample" and broken == "loss":
        assert rows == [(1, 0)]
        assert float(tensors["process1/scores"][0]) == pytest.approx(1e30)
    else:
        assert len(rows) == 8
        assert sum(tensors[f"process{rank}/scores"].numel() for rank in (0, 1)) == 8
