"""Ranks and Spearman's correlation. NumPy alone."""

import math
from collections.abc import Sequence

import numpy as np


def ranks(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Ranks from 1, ties at their mean rank."""
    _, which, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    found: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return found


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation; NaN where one side never changes."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan
    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])
