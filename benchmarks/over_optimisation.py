"""Does a policy get better, or only better scored, and what helps? Where the truth is known.

    python -m benchmarks.over_optimisation [--seeds 12] [--steps 40] [--draw-only]

Two parts. *Exact*: the worlds of mini_gao.py, walked along the exact optima of a proxy as watch_calibration.py does;
the rule of `surefoot.watch` is chosen on some and tried on others. *Trained*: real PPO runs in such worlds
(letters.py) with a reward model fitted to few, noisy comparisons, and controls with one fitted to many without noise;
each with every policy of the watch and every mitigation. All numbers go into benchmarks/results/over-optimisation/,
and from there into docs/over-optimisation.md and its picture; --draw-only leaves the runs out.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import mini_gao
from benchmarks.over_optimisation_page import split, write_page
from benchmarks.watch_calibration import CONTROL, OVER, Walk, _first, walk, worlds
from surefoot.watch import gold_alarm, gold_fall
from surefoot.watch.rules import GAIN_LOST, GOLD_FELL

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "over-optimisation" / "worlds.json"
CASES = ROOT / "tests" / "data" / "cases.json"
LABELS = (8, 16, 32, 64)
ERRORS, LOST = (3.0, 4.0, 5.0), (0.0, 0.1, 0.2)
FALSE_ALARMS = 0.1
WORLDS = 60
LENGTH_WORLDS = 3
RECORDED = ("N1000_noise0.25", "N1000_noise0.0")


# ---------------------------------------------------------------------------------------------- exact
def stopped(w: Walk, labels: int, errors: float, lost: float) -> tuple[int, bool]:
    """The look whose model is kept, and whether the rule stopped: at the first alarm the best look by gold so far."""
    looks = [_first(look, labels) for look in w.looks]
    for place in range(1, len(looks)):
        if gold_alarm(looks[: place + 1], errors=errors, lost=lost) is not None:
            return gold_fall(looks[: place + 1]).best, True
    return len(looks) - 1, False


def tried(walks: Sequence[Walk], labels: int, errors: float, lost: float) -> dict[str, list[Any]]:
    """Of each world: gold kept over its peak, and whether there was an alarm."""
    found = [stopped(w, labels, errors, lost) for w in walks]
    kept = [float(w.truth[place] / w.truth.max()) for w, (place, _) in zip(walks, found, strict=True)]
    return {"kept": kept, "alarm": [alarm for _, alarm in found]}


def chosen(over: Sequence[Walk], controls: Sequence[Walk], labels: int) -> tuple[float, float]:
    """The thresholds that keep most gold with few enough false alarms."""
    found = {}
    for errors in ERRORS:
        for lost in LOST:
            if np.mean(tried(controls, labels, errors, lost)["alarm"]) <= FALSE_ALARMS:
                found[errors, lost] = float(np.mean(tried(over, labels, errors, lost)["kept"]))
    return max(found, key=found.__getitem__)


def exact() -> dict[str, Any]:
    """The rule on exact worlds, the recorded problems, and an ensemble's mean."""
    first, second = worlds(range(WORLDS)), worlds(range(1000, 1000 + WORLDS))
    rules = [
        {
            "labels": labels,
            "chosen": chosen(*first, labels),
            "over": tried(second[0], labels, GOLD_FELL, GAIN_LOST),
            "controls": tried(second[1], labels, GOLD_FELL, GAIN_LOST),
        }
        for labels in LABELS
    ]
    return {
        "worlds": {"calibrated": [len(part) for part in first], "tried": [len(part) for part in second]},
        "rule": [GOLD_FELL, GAIN_LOST],
        "rules": rules,
        "unwatched": [float(w.truth[-1] / w.truth.max()) for w in second[0]],
        "recorded": [recorded(seed, proxy) for proxy in RECORDED for seed in range(3)],
        "ensemble": [ensemble(seed) for seed in range(1000, 1000 + WORLDS)],
    }


def recorded(seed: int, proxy: str) -> dict[str, Any]:
    """One problem of case B8, with the rule at 64 labels."""
    case = json.loads(CASES.read_text())["B8"]
    w = walk(mini_gao.recorded(case, seed, proxy), seed)
    place, alarm = stopped(w, 64, GOLD_FELL, GAIN_LOST)
    kl = [look.kl[0] for look in w.looks]
    peak = int(w.truth.argmax())
    return {"seed": seed, "proxy": proxy, "peak": float(w.truth[peak]), "peak_kl": kl[peak], "end": float(w.truth[-1]),
            "end_kl": kl[-1], "stopped": float(w.truth[place]), "stopped_kl": kl[place], "alarm": alarm}  # fmt: skip


def ensemble(seed: int, pairs: int = 150, flipped: float = 0.25, members: int = 4) -> dict[str, Any]:
    """Gold along the optima of one proxy, and of the mean of four that were fitted to resampled comparisons."""
    problem = mini_gao.world(seed)
    x, prefers = mini_gao.comparisons(problem, seed, pairs=pairs, flipped=flipped)
    g = np.random.default_rng([seed, 2])
    drawn = [g.integers(pairs, size=pairs) for _ in range(members)]
    mean = np.mean([mini_gao.bradley_terry(x[rows], prefers[rows]) for rows in drawn], axis=0)
    spread = mini_gao.gold_of(mini_gao.sample(mini_gao.reference(problem), 20_000, g), problem).std()
    start = mini_gao.mean_gold(mini_gao.reference(problem), problem)
    found: dict[str, Any] = {"seed": seed}
    for name, proxy in (("one", mini_gao.bradley_terry(x, prefers)), ("mean", mean)):
        policies = [mini_gao.optimum(replace(problem, proxy=proxy), beta) for beta in mini_gao.BETAS]
        gains = [(mini_gao.mean_gold(policy, problem) - start) / spread for policy in policies]
        found[name] = {"peak": max(0.0, *gains), "end": gains[-1], "end_kl": policies[-1].kl}
    return found


# ---------------------------------------------------------------------------------------------- trained
def trained(seeds: Sequence[int], steps: int) -> Iterator[list[dict[str, Any]]]:
    """World by world the runs of `in_world` on a noisy and on a clean reward model, and some that pay for length."""
    import torch

    from benchmarks.letters import CLEAN, NOISY, make_world, run_of_lengths

    torch.set_num_threads(1)
    for seed in seeds:
        made = make_world(seed)
        found = in_world(made, "noisy", NOISY, steps) + in_world(made, "clean", CLEAN, steps)
        if seed < LENGTH_WORLDS:
            ending = make_world(seed, ends=True)
            for name, fined in (("no watch", False), ("length_penalty", True)):
                found.append(_told({"kind": "length", "arm": name, **run_of_lengths(ending, steps, fined=fined)}))
        yield found


def in_world(made: Any, kind: str, quality: dict[str, Any], steps: int) -> list[dict[str, Any]]:
    """A run without a watch; and, where it is what is wanted, noisy and over-optimised or clean and not, all arms.

    What the watch does not touch is not run twice: see `stopped_run`, and a price that was never raised.
    """
    from benchmarks.letters import ARMS, run

    unwatched = {"kind": kind, "arm": "no watch", **run(made, quality, ARMS["no watch"], steps)}
    found = [unwatched, stopped_run(unwatched)]
    alarmed = any("gold" in look["signs"] for look in unwatched["looks"])
    arms = [name for name, arm in ARMS.items() if name != "no watch" and (kind == "noisy" or arm.rewards == 1)]
    for name in arms if any(split(found, OVER, CONTROL)) else []:
        same = name == "raise_kl" and not alarmed
        found.append(unwatched | {"arm": name} if same else
                     {"kind": kind, "arm": name, **run(made, quality, ARMS[name], steps)})  # fmt: skip
    return [_told(one) for one in found]


def stopped_run(unwatched: dict[str, Any]) -> dict[str, Any]:
    """What `stop_and_restore` makes of a run: the same up to the first alarm, bit for bit (tests/watch hold that), and
    then the best model by the gold that the watch sees."""
    looks = unwatched["looks"]
    end = next((place for place, look in enumerate(looks) if "gold" in look["signs"]), len(looks) - 1)
    best = max(looks[: end + 1], key=lambda look: (look["gold"], -look["step"]))
    return unwatched | {"arm": "stop_and_restore", "looks": looks[: end + 1], "steps": looks[end]["step"],
                        "model_step": best["step"]}  # fmt: skip


def _told(run: dict[str, Any]) -> dict[str, Any]:
    """The run, after a line about it."""
    end = next(look for look in run["looks"] if look["step"] == run["model_step"])
    peak = max(look["truth"] for look in run["looks"])
    print(f"seed {run['seed']} {run['kind']:6} {run['arm']:24} {run['seconds']:5.1f} s  gold at most {peak:5.2f}, "
          f"kept {end['truth']:5.2f} at KL {end['kl']:5.1f}, {end['length']:.1f} tokens", flush=True)  # fmt: skip
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12, help="worlds in which models are trained")
    parser.add_argument("--steps", type=int, default=40, help="of each run")
    parser.add_argument("--draw-only", action="store_true", help="write page and picture from the last results")
    given = parser.parse_args()
    if not given.draw_only:
        began = time.monotonic()
        found = {"over": OVER, "control": CONTROL, "exact": exact()}
        print(f"exact worlds: {time.monotonic() - began:.0f} s", flush=True)
        found |= {"steps": given.steps, "trained": []}
        RESULTS.parent.mkdir(exist_ok=True)
        for of_world in chain([[]], trained(range(given.seeds), given.steps)):  # kept as it is found
            found["trained"] += of_world
            found["seconds"] = round(time.monotonic() - began)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    write_page(json.loads(RESULTS.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
