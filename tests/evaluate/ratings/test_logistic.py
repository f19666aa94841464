"""The logistic regression: statsmodels' numbers, SciPy's optimum, and a clear no where there is none."""

import numpy as np
import pytest
import scipy.optimize
from ratings_golden import recorded

from surefoot.evaluate.ratings.logistic import NotIdentifiedError, fit_logistic


@pytest.mark.parametrize("case", recorded("logistic"), ids=["one-row-a-prompt", "many-rows-a-prompt", "few-rows"])
def test_coefficients_clustered_errors_and_likelihood_are_statsmodels(case):
    fit = fit_logistic(case["x"], [bool(y) for y in case["y"]], [str(c) for c in case["clusters"]])
    assert (fit.intercept, fit.slope) == pytest.approx(tuple(case["coefficients"]), rel=1e-7)
    assert (fit.intercept_error, fit.slope_error) == pytest.approx(tuple(case["errors"]), rel=1e-6)
    assert fit.log_likelihood == pytest.approx(case["log_likelihood"], rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_no_other_coefficients_fit_better(seed, scale):
    g = np.random.default_rng(seed)
    x = g.normal(size=40) * scale
    y = g.random(40) < 1 / (1 + np.exp(-(0.4 + 2.0 * x / scale)))

    def loss(beta):
        return np.logaddexp(0, -(2 * y - 1) * (beta[0] + beta[1] * x / scale)).sum()

    best = scipy.optimize.minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-9})
    fit = fit_logistic(x.tolist(), y.tolist(), [str(n) for n in range(40)])
    assert (fit.intercept, fit.slope * scale) == pytest.approx(tuple(best.x), abs=1e-5)


def test_with_a_two_valued_covariate_the_fit_is_the_log_odds_of_each_half():
    x = [0.0] * 10 + [1.0] * 10
    y = [True] * 6 + [False] * 4 + [True] * 8 + [False] * 2
    fit = fit_logistic(x, y, [str(n) for n in range(20)])
    assert fit.intercept == pytest.approx(np.log(6 / 4))
    assert fit.slope == pytest.approx(np.log(8 / 2) - np.log(6 / 4))
    assert fit.intercept_error == pytest.approx(np.sqrt(1 / 6 + 1 / 4))


@pytest.mark.parametrize(
    ("x", "y", "why"),
    [
        ([1.0, -1.0, 0.5], [True, True, True], "one side won every time"),
        ([0.2, 0.2, 0.2], [True, False, True], "the same in all pairs"),
        ([-1.0, -0.5, 0.5, 1.0], [False, False, True, True], "alone tells who wins"),
        ([-1.0, 0.5, 0.5, 1.0], [True, True, False, False], "alone tells who wins"),
    ],
)
def test_votes_that_fit_no_finite_coefficients_are_refused_with_the_reason(x, y, why):
    with pytest.raises(NotIdentifiedError, match=why):
        fit_logistic(x, y, [str(n) for n in range(len(x))])
