"""Records what statsmodels, SciPy and krippendorff say of made-up ratings, in numbers.json beside this file.

    python -m venv other && other/bin/pip install statsmodels==0.15.0 scipy==1.17.1 krippendorff==0.9.0
    other/bin/python tests/data/ratings/record_ratings.py

surefoot is not imported.
"""

import importlib.metadata
import json
from pathlib import Path

import krippendorff
import numpy as np
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

SHARES = [(0, 1), (1, 1), (0, 20), (8, 10), (62, 100), (33, 66), (399, 400), (7, 13), (1234, 2345)]
LEVELS = [0.95, 0.9]


def wilson():
    return [
        {"successes": k, "count": n, "level": level, "interval": proportion_confint(k, n, 1 - level, method="wilson")}
        for k, n in SHARES
        for level in LEVELS
    ]


def fair_coin():
    return [{"heads": k, "count": n, "p": stats.binomtest(k, n, 0.5).pvalue} for k, n in SHARES]


def logistic(seed, rows, clusters, intercept, slope):
    g = np.random.default_rng(seed)
    cluster = g.integers(clusters, size=rows)
    shared = g.normal(scale=0.8, size=clusters)[cluster]
    x = g.normal(scale=1.3, size=rows)
    y = (g.random(rows) < 1 / (1 + np.exp(-(intercept + slope * x + shared)))).astype(int)
    options = {"cov_type": "cluster", "cov_kwds": {"groups": cluster, "use_correction": False}}
    fit = sm.Logit(y, sm.add_constant(x)).fit(disp=0, tol=1e-13, maxiter=200, **options)
    return {"x": x.tolist(), "y": y.tolist(), "clusters": cluster.tolist(), "coefficients": fit.params.tolist(),
            "errors": fit.bse.tolist(), "log_likelihood": fit.llf}  # fmt: skip


def kappa(seed, rows, categories, agree):
    g = np.random.default_rng(seed)
    first = g.choice(categories, size=rows, p=g.dirichlet(np.full(categories, 3.0)))
    second = np.where(g.random(rows) < agree, first, g.integers(categories, size=rows))
    table = np.zeros((categories, categories))
    np.add.at(table, (first, second), 1)
    return {"first": first.tolist(), "second": second.tolist(), "categories": categories,
            "kappa": cohens_kappa(table, return_results=False)}  # fmt: skip


def alpha(seed, raters, items, categories, agree, missing):
    g = np.random.default_rng(seed)
    truth = g.integers(categories, size=items)
    said = np.where(g.random((raters, items)) < agree, truth, g.integers(categories, size=(raters, items)))
    said = np.where(g.random((raters, items)) < missing, np.nan, said)
    found = {
        level: krippendorff.alpha(said, level_of_measurement=level, value_domain=list(range(categories)))
        for level in ("nominal", "ordinal")
    }
    answers = [[int(v) for v in column if not np.isnan(v)] for column in said.T]
    return {"answers": answers, "categories": categories} | found


def main():
    recorded = {
        "versions": {name: importlib.metadata.version(name) for name in ("statsmodels", "scipy", "krippendorff")},
        "wilson": wilson(),
        "fair_coin": fair_coin(),
        "logistic": [logistic(0, 60, 60, 0.3, 0.8), logistic(1, 200, 40, -0.5, 0.2), logistic(2, 25, 9, 1.5, -2.0)],
        "kappa": [kappa(0, 30, 4, 0.6), kappa(1, 200, 4, 0.2), kappa(2, 50, 2, 0.9)],
        "alpha": [alpha(0, 2, 40, 4, 0.7, 0.2), alpha(1, 5, 60, 3, 0.5, 0.5), alpha(2, 3, 25, 3, 0.05, 0.0)],
    }
    text = json.dumps(recorded, default=float)
    (Path(__file__).parent / "numbers.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
