"""docs/speed.md and README's table from a results file: every number where it belongs, hand-written parts kept."""

import json
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.figures import BARS
from benchmarks.side import STAGES

MACHINE = {
    "cpu": "Abacus", "cores": 2, "memory_gib": 8.0, "gpu": None, "cpu_bf16": True, "python": "3.11.7",
    "torch": "2.13.0", "transformers": "5.23.0",
}  # fmt: skip


def run(side: str, setting: str, seconds: float, peak_gib: float, workload: str = "small", **more) -> dict:
    stages = dict.fromkeys(STAGES, seconds / 5)
    return {
        "part": "iteration", "neighbour": False, "waiting": "", "workload": workload, "side": side,
        "setting": setting, "round": 0, "response_tokens": 2048, "prompt_tokens": 4096, "base_bytes": 2**29,
        "seconds": seconds, "peak_bytes": peak_gib * 2**30, **stages, **more,
    }  # fmt: skip


@pytest.fixture
def results() -> dict:
    rates = {"fp32": 1e11, "square_fp32": 2e11, "bf16": 5e11, "square_bf16": 4e11}
    return {
        "commit": "0123456789ab", "date": "2026-11-23T12:00:00+00:00", "machine": MACHINE, "threads": 2,
        "load_before": 0.04, "matmul": {"small": rates},
        "runs": [
            run("trl", "like", 16.0, 2.0), run("surefoot", "like", 10.0, 1.8), run("surefoot", "ours", 8.0, 1.0),
            run("surefoot", "ours", 8.0, 1.0, part="busy"),
            run("surefoot", "ours", 12.0, 1.0, part="busy", neighbour=True),
        ],
        "sampling": [{
            "workload": "ragged", "tokens": {"surefoot": 100, "generate": 100, "continuous": 100},
            "seconds": {"surefoot": [1.0, 1.0, 1.0], "generate": [2.5, 2.5, 2.5], "continuous": [4.0, 4.0, 4.0]},
        }],
        "vocabulary": [], "rows": [],
    }  # fmt: skip


def lines_with(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if all(word in line for word in words)]


def test_a_bar_is_shown_with_what_was_measured_and_whether_it_is_met(results):
    table = report.bars(results)
    assert lines_with(table, "like for like", "**1.60×** (≥ 1.30×: met)")
    assert lines_with(table, "faster, ours, fp32", "**2.00×** (≥ 2.20×: not met)")
    assert lines_with(table, "bf16", "- (≥ 4.00×: not measured)")
    assert lines_with(table, "peak memory", "**0.50** (≤ 0.75: met)")
    assert lines_with(table, "slow-down", "**1.50×** (≤ 2.20×: met)")
    assert lines_with(table, "`transformers.generate`", "**2.50×** (≥ 2.00×: met)")
    assert len(table.splitlines()) == 2 + len(BARS)


def test_an_iteration_shows_seconds_ratio_memory_and_tokens(results):
    [line] = lines_with(report.iterations(results), "| surefoot |")
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["small", "surefoot", "8.00 (8.00-8.00, n=1)", "2.00×", "1.00", "0.50", "0.50", "256"]


def test_every_stage_has_its_column(results):
    [line] = lines_with(report.stages(results), "TRL")
    assert line.count("3.20") == len(STAGES)
    assert line.endswith("| 640 | 7680 |")  # 2048 in 3.2 seconds, and four times 6144


def test_the_peers_share_of_the_rate_is_counted_in_the_same_way(results):
    theirs, like, _ = (line.split("|")[-2] for line in report.shares(results).splitlines()[2:])
    assert float(like.strip(" %")) / float(theirs.strip(" %")) == pytest.approx(1.6, rel=0.1)  # rounded to percents


def test_seconds_beside_a_busy_process_stand_by_those_alone(results):
    [line] = lines_with(report.neighbours(results), "small")
    assert [cell.strip() for cell in line.strip("|").split("|")] == ["small", "8.0 s, 12.0 s: 1.5×", "-", "-", "-"]


def test_parts_that_were_not_measured_have_no_heading(results):
    text = report.document(results)
    assert "### Sampling" in text
    assert "### Growth" not in text
    assert "out of memory" not in text
    assert "commit 0123456789ab" in text


def test_the_document_keeps_what_was_written_by_hand(results):
    text = report.speed_document([results], "## How\n\nSo.", "## Why\n\nTherefore.")
    assert text.index("## Measured") < text.index("Therefore.") < text.index("So.")
    assert text.endswith("So.\n")


def test_readme_changes_between_its_markers_alone(results):
    readme = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    text = report.readme_with(readme, [results])
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert lines_with(text, "| small |", "16.0 s", "10.0 s (1.6×)", "8.0 s (2.0×)", "0.50")
    assert report.readme_with(text, [results]) == text


def test_who_ran_out_of_memory_is_said(results):
    failed = {"workload": "real", "side": "trl", "setting": "like"}
    text = report.document(results | {"out_of_memory": [failed]})
    assert lines_with(text, "| real |", "TRL 1.12.0 |")
    assert "### Out of memory" in text
    results["runs"] = [run for run in results["runs"] if run["side"] == "surefoot"]
    failed = {"workload": "small", "side": "trl", "setting": "like"}
    assert lines_with(report.summary(results | {"out_of_memory": [failed]}), "| small |", "out of memory", "10.0 s |")


def test_a_gpu_has_no_bars_and_a_table_of_its_own_in_the_readme(results):
    other = results | {"machine": MACHINE | {"gpu": "Loom"}, "commit": "fedcba"}
    assert "### Bars" not in report.document(other)
    text = report.readme_with(f"{report.BEGIN}\n{report.END}", [results, other])
    assert text.count("| small |") == 2
    assert text.index("commit 0123456789ab") < text.index("Loom; Python")


def test_the_newest_results_of_each_machine_are_taken(tmp_path: Path, results):
    other = results | {"machine": MACHINE | {"gpu": "Loom"}, "date": "2026-11-20T12:00:00+00:00"}
    for name, found in {"a": results, "b": results | {"date": "2026-11-01T12:00:00+00:00"}, "c": other}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    assert [r["date"][:10] for r in report.newest(tmp_path)] == ["2026-11-23", "2026-11-20"]
