"""Ranks and their correlation are SciPy's."""

import math

import numpy as np
import pytest
import scipy.stats

from surefoot.ranks import ranks, spearman


def test_ranks_are_scipys():
    values = np.random.default_rng(0).integers(0, 6, size=40).astype(float)
    assert ranks(values).tolist() == scipy.stats.rankdata(values).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_spearman_agrees_with_scipy_ties_included(seed):
    x, y = np.random.default_rng(seed).integers(0, 5, size=(2, 30)).astype(float)
    assert spearman(list(x), list(y)) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)


def test_there_is_no_correlation_where_one_side_never_changes():
    assert math.isnan(spearman([1, 2, 3], [5, 5, 5]))
