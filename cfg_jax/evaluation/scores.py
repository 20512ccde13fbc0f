"""Scores of features and logits, in float64 on the host."""

import numpy as np


def frechet_distance(mu_a, cov_a, mu_b, cov_b):
    """|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2): FID when the features are Inception's."""
    mu_a, cov_a, mu_b, cov_b = (np.asarray(a, np.float64) for a in (mu_a, cov_a, mu_b, cov_b))
    values, vectors = np.linalg.eigh(cov_a)
    root_a = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.linalg.eigvalsh(root_a @ cov_b @ root_a)
    trace = np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    return float(np.square(mu_a - mu_b).sum() + trace)


def inception_score(logits, splits=10):
    """exp E_x KL(p(y|x) || p(y)) over `splits` consecutive parts of logits [N, K] -> (mean, std)."""
    log_p = log_softmax(logits)
    scores = []
    for part in np.array_split(log_p, splits):
        p = np.exp(part)
        with np.errstate(divide="ignore", invalid="ignore"):  # 0 log 0 is 0
            kl = np.where(p > 0, p * (part - np.log(p.mean(0))), 0).sum(1)
        scores.append(np.exp(kl.mean()))
    return float(np.mean(scores)), float(np.std(scores))


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))
