"""From answers to the table, the differences and the place of equal KL, by hand."""

import numpy as np
import pytest

from surefoot.evaluate.answers import Answers
from surefoot.evaluate.results import Method, Point, best_of, matched, pairs_of, paths_of, rows_of, trained


def method(name, kl, gold, seeds=1):
    """Two prompts, of which the second is worth 2 more; seeds alike."""
    values = {"kl": [[kl, kl]], "length": [[10.0, 10.0]], "gold/g": [[gold, gold + 2]]}
    return Method(name, {n: np.repeat(np.array(x), seeds, axis=0) for n, x in values.items()}, (None,) * seeds)


def point(label, kl, gold):
    return Point(label, kl, {"gold/g": np.array([gold, gold + 2]), "kl": np.array([kl, kl])})


def said(**values):
    return Answers((), {name.replace("__", "/"): np.array(x, dtype=float) for name, x in values.items()})


def test_the_families_are_compared_at_the_largest_kl_that_all_reached():
    sft = method("SFT", 0, 0)
    paths = paths_of([sft, method("ppo", 9, 6), method("dpo", 4, 1)], {("ppo", 0): [point("step 1", 1, 3)]})
    found = matched(paths, sft, seed=0)
    assert found.kl == 4
    # PPO went from 1 nat with gold 3 to 9 with 6: at 4 nats, half the way from 1 to 3 on the root's axis
    assert found.changes["ppo"]["gold/g"].value == pytest.approx(4.5)
    assert found.changes["dpo"]["gold/g"].value == pytest.approx(1)
    assert found.families["ppo"]["gold/g"].value == pytest.approx(4.5 + 1)
    assert found.pairs[0].differences["gold/g"].value == pytest.approx(3.5)


def test_strengths_of_one_method_share_a_path_from_the_weakest_on():
    sft = method("SFT", 0, 0)
    strong, weak = method("dpo/0.1", 16, 2), method("dpo/1", 4, 4)
    (path,) = paths_of([sft, strong, weak], {})
    assert [(p.label, p.kl) for p in path.points] == [("SFT", 0), ("dpo/1", 4), ("dpo/0.1", 16)]
    assert path.at(9, "gold/g") == pytest.approx([3, 5])
    assert path.at(1, "gold/g") == pytest.approx([2, 4])


def test_every_seed_must_have_reached_the_equal_kl():
    sft, dpo = method("SFT", 0, 0), method("dpo", 16, 1)
    ppo = method("ppo", 4, 1, seeds=2)
    ppo.values["kl"][1] = 9
    assert matched(paths_of([sft, ppo, dpo], {}), sft, seed=0).kl == 4


def test_one_family_alone_and_one_that_never_left_have_no_equal_kl():
    sft = method("SFT", 0, 0)
    assert matched(paths_of([sft, method("ppo", 4, 1)], {}), sft, 0) is None
    assert matched(paths_of([sft, method("ppo", 0, 0), method("dpo", 4, 1)], {}), sft, 0) is None


def test_best_of_n_chooses_by_the_proxy_and_is_judged_by_gold():
    baseline = said(proxy=[[0, 0]], gold__g=[[1, 3]], kl=[[0, 0]], length=[[5, 5]])
    pool = said(proxy=[[3, 1, 2]], gold__g=[[2, 9, 4]], kl=[[0, 0, 0]], length=[[6, 1, 2]])
    found = best_of(2, pool, baseline)
    # of the pairs (3, 1), (3, 2) and (1, 2) the best have gold 2, 2 and 4
    assert found.values["gold/g"].tolist() == [[pytest.approx(8 / 3)]]
    assert found.values["length"].tolist() == [[pytest.approx(14 / 3)]]
    assert found.values["wins/gold/g"].tolist() == [[pytest.approx((0.5 + 0.5 + 1) / 3)]]
    assert found.values["kl"].tolist() == [[pytest.approx(np.log(2) - 0.5)]]


def test_a_row_has_means_differences_and_wins():
    baseline = said(gold__g=[[0, 1], [2, 2]], kl=[[0, 0], [0, 0]], length=[[4, 4], [4, 4]])
    run = said(gold__g=[[1, 1], [2, 4]], kl=[[1, 3], [2, 2]], length=[[10, 10], [5, 15]])
    own = Method("SFT", {name: x.mean(1)[None] for name, x in baseline.values.items()})
    first, row = rows_of([own, trained("ppo", [run], baseline)], seed=0)
    assert (first.changes, first.win_rates) == ({}, {})
    assert row.means["gold/g"].value == 2
    assert row.means["kl_per_token"].value == pytest.approx(8 / 40)
    assert row.changes["gold/g"].value == pytest.approx(2 - 1.25)
    assert row.win_rates["gold/g"].value == pytest.approx(((0.75 + 0.75) / 2 + (0.5 + 1) / 2) / 2)


def test_pairs_leave_out_the_baseline_and_best_of_n_among_themselves():
    methods = [method(name, 1, 1) for name in ("SFT", "ppo", "dpo", "best of/2", "best of/4")]
    assert [(pair.first, pair.second) for pair in pairs_of(methods, 0)] == [
        ("ppo", "dpo"), ("ppo", "best of/2"), ("ppo", "best of/4"), ("dpo", "best of/2"), ("dpo", "best of/4"),
    ]  # fmt: skip
