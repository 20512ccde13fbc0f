"""Autoregressive models whose guided laws are exact: sequences few enough to enumerate, and two Gaussian tokens.

Guided by the scale s = 1 + w, the joint is p(x) p(y | x)^s / Z. Token by token it is another law: log by token less log
joint is log E[p(y | x)^s] + sum_{t<T} s log p(y | x_<=t) - sum_{t<=T} log E_{x_t}[p(y | x_<=t)^s].
"""

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

Log = Float[np.ndarray, "*v"]  # of a probability of each sequence, an axis a token


def random_model(vocabulary: int, length: int, seed: int = 0) -> tuple[Log, Log]:
    """Return log p(x) of all sequences [V, ..., V], and log p(y | x) of one of two classes [V, ..., V]."""
    log_joint = np.random.default_rng(seed).normal(0, 1.5, (2, *[vocabulary] * length))
    log_joint -= logsumexp(log_joint)
    log_p = np.logaddexp(*log_joint)
    return log_p, log_joint[1] - log_p


def normalised(log_q: Log) -> Log:
    return log_q - logsumexp(log_q)


def guided_joint(log_p: Log, log_y: Log, s: float) -> Log:
    """Return the log of p(x) p(y | x)^s / Z over all sequences."""
    return normalised(log_p + s * log_y)


def prefixes(log_p: Log) -> list[Log]:
    """Return the log of p(x_<=t) for t = 0, the empty sequence, to T. They broadcast to whole sequences."""
    axes = range(log_p.ndim + 1)
    return [logsumexp(log_p, tuple(range(t, log_p.ndim)), keepdims=True) if t < log_p.ndim else log_p for t in axes]


def guided_by_token(log_p: Log, log_y: Log, s: float) -> tuple[Log, list[Log], list[Log]]:
    """Return logs of what guided conditionals draw, of each one's normaliser E_{x_t}[p(y | x_<=t)^s], of p(y | x_<=t).

    They are p(x_t | x_<t) p(y | x_<=t)^s / normaliser(x_<t); p(y | x_<=t) is the mean of p(y | x) over what may follow.
    """
    log_q, normalisers, prefix = np.zeros_like(log_p), [], prefixes(log_p)
    log_ys = [joint - alone for joint, alone in zip(prefixes(log_p + log_y), prefix, strict=True)][1:]
    for t, of_y in enumerate(log_ys):
        guided = prefix[t + 1] - prefix[t] + s * of_y
        normalisers.append(logsumexp(guided, t, keepdims=True))
        log_q = log_q + guided - normalisers[-1]
    return log_q, normalisers, log_ys


def tempered_by_token(log_p: Log, g: float) -> Log:
    """Return the log of what conditionals to the power g draw."""
    log_q, prefix = np.zeros_like(log_p), prefixes(log_p)
    for t in range(log_p.ndim):
        conditional = g * (prefix[t + 1] - prefix[t])
        log_q = log_q + conditional - logsumexp(conditional, t, keepdims=True)
    return log_q


def distance(log_a: Log, log_b: Log) -> float:
    """Return the total variation."""
    return np.abs(np.exp(log_a) - np.exp(log_b)).sum() / 2


def langevin(precision: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "num d"]:
    """Return samples of N(0, precision^-1) by its score alone, from N(0, 1)."""
    rng, size = np.random.default_rng(0), 0.02
    x = rng.standard_normal((20_000, len(precision)))
    for _ in range(1500):
        x += -size / 2 * x @ precision + size**0.5 * rng.standard_normal(x.shape)
    return x


def continuous(s: float, a: float = 0.9, noise: float = 0.5) -> tuple[Float[np.ndarray, "2 2"], ...]:
    """Return covariances of a continuous autoregressive model, guided at y = 0.

    x_1 ~ N(0, 1), x_2 ~ N(a x_1, 1 - a^2), y ~ N(x_2, noise). Of the joint, of the guided conditionals, and of Langevin
    on the joint's score.
    """
    precision = np.linalg.inv(np.array([[1, a], [a, 1]])) + s * np.diag([0, 1]) / noise
    # p(y | x_1) = N(a x_1, noise + 1 - a^2); then x_2 given x_1 by p(y | x)^s
    first = 1 + s * a**2 / (noise + 1 - a**2)
    second = 1 / (1 - a**2) + s / noise
    slope = a / (1 - a**2) / second
    stepwise = np.array([[1 / first, slope / first], [slope / first, slope**2 / first + 1 / second]])
    return np.linalg.inv(precision), stepwise, np.cov(langevin(precision).T)
