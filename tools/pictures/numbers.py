"""What the pictures show, as plain numbers: one function a picture, from the toy run to a part of pictures.json."""

import dataclasses
import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import Any

import torch

from surefoot import ops
from surefoot.callbacks import Evaluation
from surefoot.minibatches import orders_of_rows
from surefoot.ops.seeds import derive_seed
from tools.pictures.chain import curve
from tools.pictures.toy import (
    CANDIDATES,
    SEED,
    WATCHED_STEP,
    Pair,
    Toy,
    ids_of,
    judged,
    margins,
    rule,
)

Numbers = dict[str, Any]
SURE = NormalDist().inv_cdf(0.975)
CASES = Path(__file__).parents[2] / "tests" / "data" / "cases.json"


def numbers_of(toy: Toy) -> Numbers:
    found = {
        "seed": SEED,
        "stages": stages(toy),
        "models": models(toy),
        "judge": judge(toy),
        "row": row(toy),
        "gae": gae(toy),
        "white": white(toy),
        "clip": clip(toy),
        "batch": batch(toy),
        "kl": kl(toy),
        "controller": controller(toy),
        "frontier": frontier(toy),
        "exact": exact(),
    }
    rounded: Numbers = _rounded(found)
    return rounded


def _rounded(x: Any) -> Any:
    """Five digits of every number: what anybody reads, and small files."""
    if isinstance(x, dict):
        return {key: _rounded(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_rounded(value) for value in x]
    return float(f"{x:.5g}") if isinstance(x, float) else x


# ------------------------------------------------------------------------------------------------- the whole
def stages(toy: Toy) -> Numbers:
    c, last = toy.config, toy.evaluations[-1]
    shown = next(pair for pair in toy.pairs if telling(pair))
    order = (shown.first, shown.second) if shown.first_chosen else (shown.second, shown.first)
    sample = max(last.samples, key=lambda s: (s["score"], -s["row"]))
    return {
        "texts": len(toy.corpus),
        "example_text": toy.corpus[0],
        "tokens_read": toy.reading.tokens,
        "first_loss": toy.reading.first_loss,
        "last_loss": toy.reading.last_loss,
        "pairs": len(toy.pairs),
        "held_out_pairs": len(toy.held_out_pairs),
        "pair": {"prompt": shown.prompt, "chosen": order[0], "rejected": order[1]},
        "prompts": len(toy.openings.training),
        "held_out_prompts": len(toy.openings.held_out),
        "steps": len(toy.watcher.steps),
        "answers": int(toy.watcher.steps[-1]["episode"]),
        "batch_size": c.batch_size,
        "answer": {"prompt": sample["prompt"], "response": sample["response"], "score": sample["score"]},
        "score_before": toy.evaluations[0].score,
        "score_after": last.score,
        "kl_per_token": last.metrics["eval/kl_per_token"],
    }


def telling(pair: Pair) -> bool:
    """Whether a reader sees at once which answer the rule likes, in two short texts."""
    short = max(len(pair.first), len(pair.second)) < 56
    return short and abs(rule([pair.first])[0] - rule([pair.second])[0]) >= 2


def models(toy: Toy) -> Numbers:
    policy, critic, reward = toy.trainer.policy, toy.trainer.critic, toy.judge.model
    weights, head, reading = (sum(p.numel() for p in m.parameters()) for m in (policy, critic, reward))
    config = policy.config
    return {
        "policy": weights,
        "critic": head,
        "reference": weights,
        "reward": reading,
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "vocabulary": config.vocab_size,
        # float32: a trained weight has a gradient and Adam's two moments beside it
        "policy_mib": 16 * (weights + head) / 2**20,
        "reference_mib": 4 * weights / 2**20,
        "reward_mib": 4 * reading / 2**20,
    }


# ------------------------------------------------------------------------------------------------- the reward model
def judge(toy: Toy) -> Numbers:
    """Accuracy and calibration on pairs of answers to prompts that no stage was trained on."""
    pairs = toy.held_out_pairs
    with torch.no_grad():
        parts = [margins(toy.judge.model, toy.judge.tokenizer, pairs[i : i + 100]) for i in range(0, len(pairs), 100)]
    margin = torch.cat(parts).tolist()
    right = sum((m > 0) == pair.first_chosen for m, pair in zip(margin, pairs, strict=True))
    low, high = wilson(right, len(pairs))
    longer = sum(_credit(len(p.first) - len(p.second), p) for p in pairs) / len(pairs)
    known = sum(_credit(rule([p.first])[0] - rule([p.second])[0], p) for p in pairs) / len(pairs)
    chances = [1 / (1 + math.exp(-m)) for m in margin]
    return {
        "pairs": len(pairs),
        "accuracy": right / len(pairs),
        "low": low,
        "high": high,
        "longer": longer,
        "rule": known,
        "bins": bins(chances, [p.first_chosen for p in pairs]),
    }


def _credit(difference: float, pair: Pair) -> float:
    """1 where a difference points to the answer that was chosen, a half where it points to neither."""
    return 0.5 if difference == 0 else float((difference > 0) == pair.first_chosen)


def bins(chances: Sequence[float], happened: Sequence[bool], count: int = 8) -> list[Numbers]:
    """As many pairs in each bin: what was said on average, how often it came true, and its Wilson interval."""
    ordered = sorted(zip(chances, happened, strict=True))
    edges = [len(ordered) * i // count for i in range(count + 1)]
    found = []
    for start, end in pairwise(edges):
        part = ordered[start:end]
        hits = sum(h for _, h in part)
        low, high = wilson(hits, len(part))
        said = fmean(c for c, _ in part)
        found.append({"said": said, "came_true": hits / len(part), "low": low, "high": high, "pairs": len(part)})
    return found


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    share, z2 = hits / count, SURE**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    reach = SURE / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return middle - reach, middle + reach


# ------------------------------------------------------------------------------------------------- one step's batch
def shown_row(toy: Toy) -> int:
    """Of the answers that ended, are short enough for a table and scored well: where the policy has moved most."""
    r = toy.watcher.experience.rollout
    fit = [i for i, n in enumerate(r.lengths.tolist()) if 6 <= n <= 10 and not r.truncated[i]]
    if not fit:
        raise ValueError("no answer of the watched step is short enough to be shown: choose another WATCHED_STEP")
    good = [i for i in fit if float(toy.watcher.samples[i]["score"]) > 0.5]
    moved = (r.old_logprobs - r.ref_logprobs).abs().amax(-1)
    return max(good or fit, key=lambda i: float(moved[i]))


def row(toy: Toy) -> Numbers:
    """One answer, token by token."""
    i, e = shown_row(toy), toy.watcher.experience
    n = int(e.rollout.lengths[i])
    r, sample = e.rollout, toy.watcher.samples[i]
    ids = r.response_ids[i, :n].tolist()
    kl_values = (r.old_logprobs[i, :n] - r.ref_logprobs[i, :n]).tolist()
    return {
        "step": WATCHED_STEP,
        "prompt": sample["prompt"],
        "response": sample["response"],
        "tokens": [toy.tokenizer.decode([t]) for t in ids],
        "logprobs": r.old_logprobs[i, :n].tolist(),
        "ref_logprobs": r.ref_logprobs[i, :n].tolist(),
        "kl": kl_values,
        "kl_sum": sum(kl_values),
        "rewards": e.rewards[i, :n].tolist(),
        "values": r.old_values[i, :n].tolist(),
        "advantages": (e.returns - r.old_values)[i, :n].tolist(),
        "returns": e.returns[i, :n].tolist(),
        "whitened": e.advantages[i, :n].tolist(),
        "score": sample["score"],
        "coefficient": toy.watcher.coefficient,
        "lam": toy.config.lam,
    }


def gae(toy: Toy) -> Numbers:
    """The same answer under three lambdas, and how much of a score at the end reaches the first token."""
    i, e = shown_row(toy), toy.watcher.experience
    lams = [0.0, toy.config.lam, 1.0]
    n = int(e.rollout.lengths[i])
    mask = e.rollout.response_mask
    found = [ops.gae(e.rewards, e.rollout.old_values, mask, 1.0, lam)[0][i, :n].tolist() for lam in lams]
    lengths = [1, *range(5, 101, 5)]
    return {
        "lams": lams,
        "advantages": found,
        "lengths": lengths,
        "reach": {str(lam): [lam ** (n - 1) for n in lengths] for lam in (0.9, 0.95, 0.99)},
        "reach_at_50": 0.95**49,
    }


def white(toy: Toy) -> Numbers:
    """All advantages of a batch, before and after whitening."""
    e = toy.watcher.experience
    mask = e.rollout.response_mask
    raw, whitened = (e.returns - e.rollout.old_values)[mask].tolist(), e.advantages[mask].tolist()
    sides = [{"mean": fmean(x), "sd": stdev(x), **_histogram(x, 25)} for x in (raw, whitened)]
    turned = sum((a > 0) != (b > 0) for a, b in zip(raw, whitened, strict=True))
    return {"tokens": len(raw), "raw": sides[0], "white": sides[1], "turned": turned / len(raw)}


def _histogram(values: Sequence[float], count: int, span: tuple[float, float] | None = None) -> Numbers:
    """Counts in bins of equal width; what lies outside the span counts into its outermost bins."""
    low, high = span or (min(values), max(values))
    width = (high - low) / count
    counts = [0] * count
    for value in values:
        counts[min(count - 1, max(0, int((value - low) / width)))] += 1
    return {"low": low, "high": high, "counts": counts}


def clip(toy: Toy) -> Numbers:
    """The policy loss by the ratio, and the ratios of one batch when its update was done."""
    e, c = toy.watcher.experience, toy.config
    mask = e.rollout.response_mask
    ratio = (toy.watcher.logprobs_after - e.rollout.old_logprobs)[mask].exp()
    advantage = e.advantages[mask]
    sides = {}
    for name, chosen, sign in (("good", advantage > 0, 1.0), ("bad", advantage < 0, -1.0)):
        ratios = ratio[chosen].tolist()
        beyond = sum(r > 1 + c.cliprange if sign > 0 else r < 1 - c.cliprange for r in ratios)
        grid = [0.4 + 0.02 * i for i in range(61)]
        sides[name] = {
            "tokens": len(ratios),
            "beyond": beyond / len(ratios),
            "mean_ratio": fmean(ratios),
            "histogram": _histogram(ratios, 30, (0.4, 1.6)),
            "losses": [_loss(x, sign, c.cliprange) for x in grid],
        }
    stats = toy.watcher.steps[WATCHED_STEP - 1]
    return {"range": c.cliprange, "grid": grid, "share": stats["ppo/policy/clipfrac"], "step": WATCHED_STEP, **sides}


def _loss(ratio: float, advantage: float, reach: float) -> float:
    """The product's own loss of a single token."""
    loss, _ = ops.policy_loss(
        torch.tensor([math.log(ratio)], dtype=torch.float64),
        torch.zeros(1, dtype=torch.float64),
        torch.tensor([advantage], dtype=torch.float64),
        torch.ones(1, dtype=torch.bool),
        clip_low=reach,
        clip_high=reach,
    )
    return float(loss)


def batch(toy: Toy) -> Numbers:
    """The arithmetic of a step, and where each answer of the watched one was in each epoch."""
    c, stats = toy.config, toy.watcher.steps[WATCHED_STEP - 1]
    orders = orders_of_rows(c.batch_size, derive_seed(c.seed, "order", WATCHED_STEP - 1))
    tokens = int(toy.watcher.experience.rollout.response_mask.sum())
    return {
        "answers": c.batch_size,
        "minibatch": c.mini_batch_size,
        "minibatches": c.batch_size // c.mini_batch_size,
        "epochs": c.ppo_epochs,
        "optimizer_steps": int(stats["ppo/optimizer_steps"]),
        "all_optimizer_steps": sum(int(s["ppo/optimizer_steps"]) for s in toy.watcher.steps),
        "steps": len(toy.watcher.steps),
        "all_answers": int(toy.watcher.steps[-1]["episode"]),
        "tokens": tokens,
        "orders": [next(orders) for _ in range(c.ppo_epochs)],
        "shown": shown_row(toy),
    }


# ------------------------------------------------------------------------------------------------- divergence
def kl(toy: Toy) -> Numbers:
    """The trained policy's divergence from the reference: exact, and as three estimators say from the same tokens."""
    prompts = toy.openings.held_out * 4
    queries = [toy.tokenizer(p)["input_ids"] for p in prompts]
    answers = ids_of(toy.trainer.generate(prompts))
    sampled = judged(toy.trainer, queries, answers)
    mask = sampled.response_mask
    exact_kl = judged(toy.trainer, queries, answers, "full").kl[mask].tolist()
    difference = (sampled.old_logprobs - sampled.ref_logprobs)[mask]
    rows = {"exact": exact_kl}
    for name in ("k1", "k2", "k3"):
        rows[name] = ops.kl_estimate(difference, torch.zeros_like(difference), name).tolist()
    found = {name: {"mean": fmean(x), "sd": stdev(x), "reach": _reach(x)} for name, x in rows.items()}
    spread = sorted(difference.tolist())
    return {
        "tokens": len(spread),
        "negative": sum(d < 0 for d in spread) / len(spread),
        "quantiles": [spread[int(q * (len(spread) - 1) / 200)] for q in range(201)],
        **found,
    }


def _reach(values: Sequence[float]) -> float:
    """Half the 95 % interval of a mean."""
    return SURE * stdev(values) / math.sqrt(len(values))


def controller(toy: Toy) -> Numbers:
    steps = toy.watcher.steps
    return {
        "target": toy.config.target_kl,
        "first": toy.config.init_kl_coef,
        "horizon": int(toy.config.horizon),
        "answers": toy.config.batch_size,
        "most": 0.2 * toy.config.batch_size / toy.config.horizon,
        "kl": [s["objective/kl_per_token"] for s in steps],
        "coefficient": [s["objective/kl_coef"] for s in steps],
        "after": toy.trainer.kl_controller.value,
    }


# ------------------------------------------------------------------------------------------------- what it comes to
def frontier(toy: Toy) -> Numbers:
    """Score and rule against divergence: the run's evaluations, and the best of n answers of the SFT model."""
    return {
        "ppo": [evaluated(evaluation) for evaluation in toy.evaluations],
        "best_of_n": [best_of(toy, n) for n in (1, 2, 4, CANDIDATES)],
        "candidates": CANDIDATES,
    }


def evaluated(evaluation: Evaluation) -> Numbers:
    true = rule([str(s["response"]) for s in evaluation.samples])
    scores = [float(s["score"]) for s in evaluation.samples]
    return {"step": evaluation.step, "kl": evaluation.metrics["eval/kl"], **_both(scores, true)}


def best_of(toy: Toy, n: int) -> Numbers:
    """The reward model takes the best of n; over all groups of n among each prompt's candidates."""
    scores, true = [], []
    for prompt, answers in zip(toy.openings.held_out, toy.candidates, strict=True):
        texts = [str(a) for a in answers]
        said, liked = toy.judge.scores([prompt] * len(texts), texts), rule(texts)
        best = [max(range(k, k + n), key=said.__getitem__) for k in range(0, len(texts), n)]
        scores.append(fmean(said[b] for b in best))
        true.append(fmean(liked[b] for b in best))
    return {"n": n, "kl": math.log(n) - (n - 1) / n, **_both(scores, true)}


def _both(scores: Sequence[float], true: Sequence[float]) -> Numbers:
    return {"score": fmean(scores), "score_reach": _reach(scores), "rule": fmean(true), "rule_reach": _reach(true)}


def exact() -> Numbers:
    """The chains of chain.py, whose reward model was fitted to choices of which a quarter were turned round."""
    case = json.loads(CASES.read_text(encoding="utf-8"))["B8"]
    problem = case["inputs_arr"]["seed1"]
    betas = [4 * 0.0075 ** (i / 60) for i in range(61)]  # down to 0.03
    found = {}
    for name, noise in (("noisy", "N1000_noise0.25"), ("clean", "N1000_noise0.0")):
        points = curve(problem, noise, betas)
        peak = max(points, key=lambda p: p.gold)
        found[name] = {
            "accuracy": case[f"seed1_{noise}"]["rm_pair_acc"],
            "points": [dataclasses.astuple(p) for p in points],
            "peak_kl": peak.kl,
            "peak": peak.gold,
            "peak_proxy": peak.proxy,
            "end_kl": points[-1].kl,
            "end": points[-1].gold,
            "end_proxy": points[-1].proxy,
        }
    return {"pairs": 1000, "turned": 0.25, **found}
