"""Results as text: `python -m benchmarks.report` writes docs/speed.md and the table in README.md.

Every number comes from a file in benchmarks/results/, the newest of each machine. What was measured and how stands in
benchmarks/method.md, where the time goes in benchmarks/notes.md; both are written by hand and copied in.
"""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.figures import (
    BARS,
    Bar,
    Results,
    busy_seconds,
    median,
    memory_ratio,
    precision_of,
    runs_of,
    share_of_rate,
    slowdown,
    speedup,
)
from benchmarks.launch import ROOT
from benchmarks.side import STAGES
from benchmarks.workloads import WORKLOADS

FOLDER = ROOT / "benchmarks"
BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"
SIDES = (
    ("trl", "like", "TRL 1.12.0"),
    ("surefoot", "like", "surefoot, like for like"),
    ("surefoot", "ours", "surefoot"),
    ("surefoot", "bf16", "surefoot, bf16"),
    ("surefoot", "lean", "surefoot, frozen models offloaded"),
)
"""Side, setting, and what a line about them is called."""


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def number(value: float | None, form: str = ".2f", unit: str = "") -> str:
    """A number, or a dash where it was not measured."""
    return "-" if value is None else f"{value:{form}}{unit}"


def workloads_in(results: Results) -> list[str]:
    """The workloads with iterations, in the order they ran in."""
    return list(dict.fromkeys(run["workload"] for run in results["runs"] if run["part"] == "iteration"))


# ---------------------------------------------------------------------------------------------- tables
def bar_cell(bar: Bar, results: Results, workload: str) -> str:
    """Measured, needed, and whether that is met."""
    if workload not in bar.needed:
        return ""
    form = (lambda x: f"{100 * x:.0f} %") if bar.unit == "%" else (lambda x: f"{x:.2f}{bar.unit}")
    needed = f"{'≥' if bar.at_least else '≤'} {form(bar.needed[workload])}"
    value = bar.measured(results, workload)
    if value is None:
        return f"- ({needed}: not measured)"
    return f"**{form(value)}** ({needed}: {'met' if bar.met(value, workload) else 'not met'})"


def failures(results: Results) -> str:
    """Who ran out of memory where."""
    titles = {(side, setting): title for side, setting, title in SIDES}
    lines = [[f["workload"], titles[f["side"], f["setting"]]] for f in results.get("out_of_memory", [])]
    return table(["workload", "out of memory"], lines)


def bars(results: Results) -> str:
    """Every bar beside what was measured."""
    names = ("small", "ragged", "real")
    return table(["bar", *names], ([bar.name, *(bar_cell(bar, results, w) for w in names)] for bar in BARS))


def iterations(results: Results) -> str:
    """Seconds, ratios, memory and tokens a second of every workload and side."""
    lines = []
    for workload in workloads_in(results):
        for side, setting, title in SIDES:
            runs = runs_of(results, workload, setting, side)
            if not runs:
                continue
            ours, seconds = side == "surefoot", median(runs, "seconds") or 0.0
            spread = f"{min(r['seconds'] for r in runs):.2f}-{max(r['seconds'] for r in runs):.2f}"
            above = median([{"above": r["peak_bytes"] - r["base_bytes"]} for r in runs], "above") or 0.0
            lines.append(
                [
                    workload,
                    title,
                    f"{seconds:.2f} ({spread}, n={len(runs)})",
                    number(speedup(results, workload, setting), unit="×") if ours else "",
                    f"{(median(runs, 'peak_bytes') or 0) / 2**30:.2f}",
                    number(memory_ratio(results, workload, setting)) if ours else "",
                    f"{above / 2**30:.2f}",
                    f"{runs[0]['response_tokens'] / seconds:.0f}",
                ]
            )
    head = ["workload", "", "s an iteration", "faster", "peak GiB", "of TRL's", "above imports", "response tokens/s"]
    return table(head, lines)


def stages(results: Results) -> str:
    """Seconds of each stage, and tokens a second of sampling and update."""
    lines = []
    for workload in workloads_in(results):
        for side, setting, title in SIDES:
            runs = runs_of(results, workload, setting, side)
            if runs:
                drawn, seen = runs[0]["response_tokens"], runs[0]["response_tokens"] + runs[0]["prompt_tokens"]
                speeds = [  # tokens drawn, and tokens learnt from, epochs counted
                    drawn / (median(runs, "sampling") or math.inf),
                    WORKLOADS[workload].epochs * seen / (median(runs, "update") or math.inf),
                ]
                seconds = [number(median(runs, stage)) for stage in STAGES]
                lines.append([workload, title, *seconds, *(number(speed, ".0f") for speed in speeds)])
    return table(["workload", "", *STAGES, "tokens/s, sampling", "tokens/s, update"], lines)


def shares(results: Results) -> str:
    """The machine's matmul rate, and what part of it the useful operations reach."""
    lines = []
    for workload in workloads_in(results):
        rates = results["matmul"].get(workload)
        if rates is None:
            continue
        for side, setting, title in SIDES:
            if not runs_of(results, workload, setting, side):
                continue
            kind = precision_of(workload, setting)
            lines.append(
                [
                    workload,
                    title,
                    f"{rates[kind] / 1e9:.0f} / {rates[f'square_{kind}'] / 1e9:.0f}",
                    *(
                        number(share_of_rate(results, workload, setting, stage, side), ".0%")
                        for stage in ("sampling", "scoring", "reward", "update", "iteration")
                    ),
                ]
            )
    head = ["workload", "", "GFLOP/s, its shapes / squares", "sampling", "scoring", "reward", "update", "iteration"]
    return table(head, lines)


def neighbours(results: Results) -> str:
    """Seconds alone and beside a busy process, and their ratio."""
    names = list(dict.fromkeys(run["workload"] for run in results["runs"] if run["part"] == "busy"))
    columns = {
        "surefoot": ("surefoot", ""),
        "surefoot, threads spinning": ("surefoot", "spinning"),
        "TRL 1.12.0": ("trl", ""),
        "TRL 1.12.0, threads asleep": ("trl", "asleep"),
    }

    def cell(workload: str, side: str, waiting: str) -> str:
        quiet, beside = (busy_seconds(results, workload, side, waiting, neighbour=n) for n in (False, True))
        ratio = slowdown(results, workload, side, waiting)
        return "-" if ratio is None else f"{quiet:.1f} s, {beside:.1f} s: {ratio:.1f}×"

    return table(["workload", *columns], ([name, *(cell(name, *who) for who in columns.values())] for name in names))


def samplers(results: Results) -> str:
    """Sampling alone."""
    lines = []
    for found in results["sampling"]:
        tokens = found["tokens"]
        medians = {name: sorted(times)[len(times) // 2] for name, times in found["seconds"].items()}
        cells = [f"{medians[name]:.2f} s, {tokens[name] / medians[name]:.0f} tokens/s" for name in medians]
        lines.append([found["workload"], str(tokens["surefoot"]), *cells])
    return table(["workload", "tokens", "surefoot", "`generate`", "continuous batching of transformers"], lines)


def growth(results: Results) -> str:
    """Memory with the vocabulary, time and memory with the rows."""
    named = [(f"{f['workload']}, vocabulary of {f['vocab']}", f) for f in results["vocabulary"]]
    named += [(f"{f['workload']}, {f['rows']} rows", f) for f in results["rows"]]
    lines = [[name, number(f["seconds"]), f"{f['step_bytes'] / 2**20:.0f}"] for name, f in named]
    return table(["", "s an iteration", "MiB that a step needs"], lines)


# ---------------------------------------------------------------------------------------------- documents
def heading(results: Results) -> str:
    """What was measured, where and when."""
    m = results["machine"]
    device = m["gpu"] or f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, {results['threads']} threads"
    return (
        f"{device}; Python {m['python']}, torch {m['torch']}, "
        f"transformers {m['transformers']}, TRL 1.12.0; commit {results['commit']}, {results['date'][:10]}, "
        f"at a load of {results['load_before']:.1f}."
    )


def document(results: Results) -> str:
    """All tables of one results file; those without numbers are left out."""
    parts = (
        ("Bars", bars, not results["machine"]["gpu"]),
        ("Iterations", iterations, bool(workloads_in(results))),
        ("Out of memory", failures, bool(results.get("out_of_memory"))),
        ("Seconds per stage", stages, bool(workloads_in(results))),
        ("Share of the matmul rate", shares, bool(workloads_in(results) and results["matmul"])),
        ("Beside a busy process", neighbours, any(run["part"] == "busy" for run in results["runs"])),
        ("Sampling", samplers, bool(results["sampling"])),
        ("Growth", growth, bool(results["vocabulary"] or results["rows"])),
    )
    return "\n\n".join(
        [heading(results), *(f"### {title}\n\n{make(results)}" for title, make, there in parts if there)]
    )


def summary(results: Results) -> str:
    """The few numbers that README shows."""
    lines, sides = [], SIDES[:4]
    for workload in workloads_in(results):
        cells = [summary_cell(results, workload, side, setting) for side, setting, _ in sides]
        lines.append([workload, *cells, number(memory_ratio(results, workload, "ours"))])
    return table(["one iteration", *(title for _, _, title in sides), "peak memory, of TRL's"], lines)


def summary_cell(results: Results, workload: str, side: str, setting: str) -> str:
    """Seconds, and of ours how many times faster that is."""
    if {"workload": workload, "side": side, "setting": setting} in results.get("out_of_memory", []):
        return "out of memory"
    seconds = number(median(runs_of(results, workload, setting, side), "seconds"), ".1f", " s")
    ratio = speedup(results, workload, setting) if side == "surefoot" else None
    return seconds if ratio is None else f"{seconds} ({ratio:.1f}×)"


def newest(folder: Path) -> list[Results]:
    """The newest results of each machine: first those without a GPU, the newest machine first."""
    found: dict[str, Results] = {}
    for path in folder.glob("*.json"):
        results = json.loads(path.read_text())
        name = f"{results['machine']['gpu'] or results['machine']['cpu']} {results['machine']['cores']}"
        if name not in found or results["date"] > found[name]["date"]:
            found[name] = results
    return sorted(found.values(), key=lambda results: (not results["machine"]["gpu"], results["date"]), reverse=True)


def speed_document(all_results: Sequence[Results], method: str, notes: str) -> str:
    """docs/speed.md as a whole."""
    measured = "\n\n".join(f"## Measured: {r['date'][:10]}\n\n{document(r)}" for r in all_results)
    opening = (
        "# Speed\n\nWritten by `python -m benchmarks.report` from `benchmarks/results/`; measure it anew with "
        "`make bench`.\n"
    )
    return f"{opening}\n{measured}\n\n{notes.strip()}\n\n{method.strip()}\n"


def readme_with(readme: str, all_results: Sequence[Results]) -> str:
    """README's text with its tables made anew, one for each machine."""
    head, rest = readme.split(BEGIN)
    tables = [f"{summary(results)}\n\n{heading(results)}" for results in all_results]
    told = "How it was measured, and every bar: [docs/speed.md](docs/speed.md)."
    return head + "\n".join([BEGIN, "\n\n".join(tables), "", told, END]) + rest.split(END)[1]


def main() -> None:
    found = newest(FOLDER / "results")
    if not found:
        raise SystemExit("benchmarks/results/ holds nothing yet: run `make bench`")
    texts = [(FOLDER / name).read_text() for name in ("method.md", "notes.md")]
    (ROOT / "docs" / "speed.md").write_text(speed_document(found, *texts))
    readme = ROOT / "README.md"
    readme.write_text(readme_with(readme.read_text(), found))


if __name__ == "__main__":
    main()
