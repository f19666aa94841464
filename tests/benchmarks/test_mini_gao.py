"""The small exact problems: the recorded numbers come out, and sampling agrees with what is computed exactly."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import mini_gao

CASE = json.loads((Path(__file__).parents[1] / "data" / "cases.json").read_text())["B8"]
NAMES = sorted(name for name in CASE if name.startswith("seed"))


@pytest.mark.parametrize("name", NAMES)
def test_divergence_proxy_and_gold_at_every_price_are_those_recorded(name):
    seed = int(name[4])
    problem, given = mini_gao.recorded(CASE, seed, name[6:]), CASE["inputs_arr"][name[:5]]
    betas, kl, proxy, gold = zip(*CASE[name]["beta_KL_proxySD_goldSD"], strict=True)
    policies = [mini_gao.optimum(problem, beta) for beta in betas]
    assert [policy.kl for policy in policies] == pytest.approx(kl, abs=2e-3)
    found = [mini_gao.mean_gold(policy, problem) for policy in policies]
    in_units = (np.array(found) - given["gold_ref_mean"]) / given["gold_ref_sd"]
    assert in_units == pytest.approx(np.array(gold), abs=2e-3)
    found = [mini_gao.mean_of_pairs(policy, problem.proxy) for policy in policies]
    slope, start = np.polyfit(proxy, found, 1)  # the proxy's units were those of a sample that is not on record
    assert np.polyval((slope, start), proxy) == pytest.approx(np.array(found), abs=2e-3 * slope)
    assert slope == pytest.approx(mini_gao.spread_of_proxy(problem), rel=0.03)
    assert start == pytest.approx(mini_gao.mean_of_pairs(mini_gao.reference(problem), problem.proxy), abs=0.03 * slope)


def test_samples_agree_with_the_exact_means():
    problem = mini_gao.recorded(CASE, 0, "N1000_noise0.25")
    policy = mini_gao.optimum(problem, 0.35)
    texts = mini_gao.sample(policy, 20_000, np.random.default_rng(0))
    for found, exact in ((mini_gao.proxy_of(texts, problem), mini_gao.mean_of_pairs(policy, problem.proxy)),
                         (mini_gao.gold_of(texts, problem), mini_gao.mean_gold(policy, problem))):  # fmt: skip
        assert found.mean() == pytest.approx(exact, abs=4 * found.std() / np.sqrt(len(texts)))


def test_at_a_high_price_nothing_moves():
    problem = mini_gao.made(1)
    assert mini_gao.optimum(problem, 1e6).kl == pytest.approx(0, abs=1e-6)


def test_flips_make_a_proxy_worse_on_the_same_world():
    clean, noisy = mini_gao.made(3, flipped=0.0), mini_gao.made(3)
    assert (clean.triple_gold == noisy.triple_gold).all()
    assert (clean.proxy != noisy.proxy).any()
