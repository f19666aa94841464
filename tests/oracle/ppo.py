"""PPO's formulas with plain loops over rows and tokens, in float64: slow, and easy to check against the page.

Masked moments, whitening, GAE (Schulman et al. 2016, over the counted tokens only), token rewards and KL estimators
(Ziegler et al. 2019; Schulman 2020), clipped losses (Schulman et al. 2017; dual clip: Ye et al. 2020).
"""

import math

import numpy as np


def counted(x, mask):
    """The entries that count, as a flat list of floats."""
    return [float(v) for v, m in zip(np.ravel(x), np.ravel(mask), strict=True) if m]


def masked_mean(x, mask):
    entries = counted(x, mask)
    return sum(entries) / len(entries) if entries else 0.0


def masked_variance(x, mask):
    """Unbiased: squared deviations over n - 1; 0 where fewer than two entries count."""
    entries = counted(x, mask)
    if len(entries) < 2:
        return 0.0
    mean = sum(entries) / len(entries)
    return sum((v - mean) ** 2 for v in entries) / (len(entries) - 1)


def _where(mask, of):
    result = np.zeros(np.shape(mask))
    for place in np.ndindex(*np.shape(mask)):
        if mask[place]:
            result[place] = of(place)
    return result


def whiten(x, mask, eps=1e-8):
    if len(counted(x, mask)) < 2:
        return np.zeros(np.shape(mask))
    mean, deviation = masked_mean(x, mask), math.sqrt(masked_variance(x, mask) + eps)
    return _where(mask, lambda place: (float(x[place]) - mean) / deviation)


def scale(x, mask, eps=1e-8):
    if len(counted(x, mask)) < 2:
        return _where(mask, lambda place: float(x[place]))
    mean, deviation = masked_mean(x, mask), math.sqrt(masked_variance(x, mask) + eps)
    return _where(mask, lambda place: (float(x[place]) - mean) / deviation + mean)


def log_softmax(logits, temperature=1.0):
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    top = scaled.max(-1, keepdims=True)
    return scaled - top - np.log(np.exp(scaled - top).sum(-1, keepdims=True))


def token_logprobs(logits, ids, temperature=1.0):
    table = log_softmax(logits, temperature)
    return np.array(
        [[row[t][token] for t, token in enumerate(tokens)] for row, tokens in zip(table, ids, strict=True)]
    )


def entropy(logits, temperature=1.0):
    table = log_softmax(logits, temperature)
    return -(np.exp(table) * table).sum(-1)


def full_kl(logits, ref_logits, temperature=1.0):
    p, q = log_softmax(logits, temperature), log_softmax(ref_logits, temperature)
    return (np.exp(p) * (p - q)).sum(-1)


def kl_estimate(logprob, ref_logprob, estimator):
    d = logprob - ref_logprob
    return {"k1": d, "k2": d * d / 2, "k3": math.exp(-d) - 1 + d, "abs": abs(d)}[estimator]


def token_rewards(scores, kl, mask, kl_coef):
    rewards = _where(mask, lambda place: -kl_coef * float(kl[place]))
    for i, row in enumerate(mask):
        places = [t for t, counts in enumerate(row) if counts]
        if places:
            rewards[i, places[-1]] += float(scores[i])
    return rewards


def gae(rewards, values, mask, gamma, lam, last_values=None):
    """Each row's counted tokens are taken out, walked through on their own, and put back."""
    advantages, returns = np.zeros(np.shape(mask)), np.zeros(np.shape(mask))
    for i, row in enumerate(mask):
        places = [t for t, counts in enumerate(row) if counts]
        row_lam = float(lam[i]) if np.ndim(lam) else lam
        states = [float(values[i][t]) for t in places] + [0.0 if last_values is None else float(last_values[i])]
        deltas = [float(rewards[i][t]) + gamma * states[n + 1] - states[n] for n, t in enumerate(places)]
        for n, t in enumerate(places):
            advantages[i, t] = sum((gamma * row_lam) ** (k - n) * deltas[k] for k in range(n, len(places)))
            returns[i, t] = advantages[i, t] + states[n]
    return advantages, returns


def policy_loss(logprobs, old_logprobs, advantages, mask, low, high, dual=None):
    """Sum over tokens; beside it, how many tokens had the clipped branch decide."""
    total, clipped = 0.0, 0
    for place in zip(*np.nonzero(mask), strict=True):
        ratio, a = math.exp(float(logprobs[place]) - float(old_logprobs[place])), float(advantages[place])
        objective = min(ratio * a, min(max(ratio, 1 - low), 1 + high) * a)
        changed = objective < ratio * a
        if dual is not None and a < 0 and objective < dual * a:
            objective, changed = dual * a, True
        total -= objective
        clipped += changed
    return total, clipped


def value_loss(values, old_values, returns, mask, clip_range):
    """Sum over tokens; beside it, how many tokens had the clipped branch decide."""
    total, clipped = 0.0, 0
    for place in zip(*np.nonzero(mask), strict=True):
        v, old, target = float(values[place]), float(old_values[place]), float(returns[place])
        near = v if clip_range is None else min(max(v, old - clip_range), old + clip_range)
        total += max((v - target) ** 2, (near - target) ** 2) / 2
        clipped += (near - target) ** 2 > (v - target) ** 2
    return total, clipped


def eos_mask(ids, eos_ids):
    mask = np.zeros(np.shape(ids), dtype=bool)
    for i, row in enumerate(ids):
        for t, token in enumerate(row):
            mask[i, t] = True
            if int(token) in eos_ids:
                break
    return mask
