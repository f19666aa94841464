"""Logistic regression on one covariate, by Newton's method, with errors that allow for rows of one prompt to agree.

    P(y = 1) = sigmoid(β₀ + β₁ x)        Newton: β ← β + (Xᵀ W X)⁻¹ Xᵀ (y - p),  W = diag p(1 - p)

The covariance is the sandwich A⁻¹ (Σ_g s_g s_gᵀ) A⁻¹ with A = Xᵀ W X and s_g the sum of the scores (y - p) x over the
rows of cluster g (Liang and Zeger 1986), without a small-sample factor.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_STEPS = 100
CONVERGED = 1e-10
"""Largest component of the gradient, a row."""


class NotIdentifiedError(ValueError):
    """The rows do not say what the coefficients are: no finite ones fit best."""


@dataclass(frozen=True, slots=True)
class LogisticFit:
    """Coefficients (intercept, slope), their standard errors, and the log-likelihood at them."""

    intercept: float
    slope: float
    intercept_error: float
    slope_error: float
    log_likelihood: float


def fit_logistic(x: Sequence[float], y: Sequence[bool], clusters: Sequence[str]) -> LogisticFit:
    """The fit of maximal likelihood.

    Raises:
        NotIdentifiedError: y is all one thing, x never differs, or x tells the two apart without fault.
    """
    covariate, won = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    _check_identified(covariate, won > 0)
    design = np.column_stack([np.ones_like(covariate), covariate])
    beta = np.zeros(2)
    for _ in range(MAX_STEPS):
        p = 1 / (1 + np.exp(-design @ beta))
        gradient = design.T @ (won - p)
        information = (design * (p * (1 - p))[:, None]).T @ design
        if np.abs(gradient).max() <= CONVERGED * len(won):
            return _fitted(design, won, beta, information, clusters)
        beta = _climb(design, won, beta, np.linalg.solve(information, gradient))
    raise NotIdentifiedError(f"no fit after {MAX_STEPS} steps: the length difference nearly decides who wins")


def log_likelihood(design: np.ndarray, won: np.ndarray, beta: np.ndarray) -> float:
    """Σ log P(y): -log(1 + exp(-m)) of the margin m, positive where the fit leans to what happened."""
    margin = (2 * won - 1) * (design @ beta)
    return float(-np.logaddexp(0, -margin).sum())


def _climb(design: np.ndarray, won: np.ndarray, beta: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Newton's step, halved until it does not descend: far from the optimum a whole one may overshoot."""
    before = log_likelihood(design, won, beta)
    while log_likelihood(design, won, beta + step) < before and np.abs(step).max() > CONVERGED:
        step = step / 2
    reached: np.ndarray = beta + step
    return reached


def _fitted(
    design: np.ndarray, won: np.ndarray, beta: np.ndarray, information: np.ndarray, clusters: Sequence[str]
) -> LogisticFit:
    p = 1 / (1 + np.exp(-design @ beta))
    scores = design * (won - p)[:, None]
    names, which = np.unique(list(clusters), return_inverse=True)
    of_cluster = np.zeros((len(names), 2))
    np.add.at(of_cluster, which, scores)
    bread = np.linalg.inv(information)
    errors = np.sqrt(np.diag(bread @ (of_cluster.T @ of_cluster) @ bread))
    return LogisticFit(
        float(beta[0]), float(beta[1]), float(errors[0]), float(errors[1]), log_likelihood(design, won, beta)
    )


def _check_identified(x: np.ndarray, won: np.ndarray) -> None:
    if won.all() or not won.any():
        raise NotIdentifiedError("one side won every time")
    if x.min() == x.max():
        raise NotIdentifiedError("the length difference is the same in all pairs")
    if x[won].min() >= x[~won].max() or x[won].max() <= x[~won].min():
        raise NotIdentifiedError("the length difference alone tells who wins in every pair")
