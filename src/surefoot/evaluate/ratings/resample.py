"""The bootstrap by cluster: votes on one prompt stand and fall together, so prompts are drawn again, not votes."""

from collections.abc import Sequence

import numpy as np

from surefoot.evaluate.ratings.proportions import Estimate

DRAWS = 2000


def redraw(*labels: Sequence[str], draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """[draws + 1, rows]: how often each row counts in each draw; the first row of the result is all ones.

    With one list of labels its clusters are drawn with replacement. With two, say prompts and raters, each is drawn by
    itself and a row counts as often as the product says (the pigeonhole bootstrap, Owen 2007): the interval then also
    says what other raters would have found. A list with one cluster only has nothing to draw and is left alone; where
    that is so of all lists every draw is NaN, as nothing is known about how far chance reaches.
    """
    generator = np.random.default_rng(seed)
    rows = len(labels[0])
    weights = np.ones((draws + 1, rows))
    if all(len(set(of_rows)) < 2 for of_rows in labels):
        weights[1:] = np.nan
    for of_rows in labels:
        names, which = np.unique(list(of_rows), return_inverse=True)
        if len(names) > 1:
            drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
            weights[1:] *= drawn[:, which]
    return weights


def between(values: np.ndarray, count: int, level: float = 0.95) -> Estimate:
    """The first value with the percentile interval of the others.

    A draw may have nothing to make a value of (NaN); no interval is given where more than one in twenty have not.
    """
    known = values[1:][np.isfinite(values[1:])]
    if len(known) < 0.95 * (len(values) - 1) or len(known) == 0:
        return Estimate(float(values[0]), np.nan, np.nan, count)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(values[0]), float(low), float(high), count)


def weighted_share(hits: Sequence[float], weights: np.ndarray) -> np.ndarray:
    """[draws + 1]: the mean of the hits in each draw; NaN in a draw that holds no row."""
    total = weights.sum(1)
    with np.errstate(invalid="ignore"):
        share: np.ndarray = (weights @ np.asarray(hits, dtype=float)) / np.where(total > 0, total, np.nan)
    return share
