"""Autoregressive models whose guided laws are exact: sequences few enough to enumerate, and two Gaussian tokens.

Guided by the scale s = 1 + w, the joint is p(x) p(y | x)^s / Z. Token by token it is another law: log by token less log
joint is log E[p(y | x)^s] + sum_{t<T} s log p(y | x_<=t) - sum_{t<=T} log E_{x_t}[p(y | x_<=t)^s].
"""

import numpy as np


def random_model(vocabulary, length, independent=False, seed=0):
    """log p(x) of all sequences [V, ..., V], and log p(y | x) of two classes [2, V, ..., V].

    Where independent, p(x, y) is p(y) times a product over the tokens: given y they are independent, and p(x) is
    made to be a product as well, p(y | x) a product of factors that need not be normalised.
    """
    rng = np.random.default_rng(seed)
    if independent:
        tokens = rng.dirichlet(np.ones(vocabulary), length)
        evidence = rng.uniform(0.2, 0.9, (length, vocabulary))
        log_p = sum(shaped(np.log(tokens[t]), t, length) for t in range(length))
        log_y = sum(shaped(np.log(evidence[t]), t, length) for t in range(length))
        return log_p, log_y
    log_joint = rng.normal(0, 1.5, (2, *[vocabulary] * length))
    log_joint -= logsumexp(log_joint)
    log_p = np.logaddexp(*log_joint)
    return log_p, log_joint[1] - log_p


def shaped(values, axis, length):
    return np.broadcast_to(values.reshape([-1 if i == axis else 1 for i in range(length)]), [len(values)] * length)


def logsumexp(a, axis=None):
    top = a.max(axis=axis, keepdims=True)
    total = top + np.log(np.exp(a - top).sum(axis=axis, keepdims=True))
    return total if axis is not None else total.item()


def guided_joint(log_p, log_y, s):
    """log of p(x) p(y | x)^s / Z over all sequences."""
    log_q = log_p + s * log_y
    return log_q - logsumexp(log_q)


def guided_by_token(log_p, log_y, s):
    """log of what guided conditionals draw, and of each one's normaliser E_{x_t}[p(y | x_<=t)^s], one array a token.

    p(x_t | x_<t) p(y | x_<=t)^s / normaliser(x_<t), with p(y | x_<=t) the mean of p(y | x) over what may follow.
    """
    log_q, normalisers = np.zeros_like(log_p), []
    length = log_p.ndim
    for t in range(length):
        later, after = tuple(range(t + 1, length)), tuple(range(t, length))
        prefix = logsumexp(log_p, later) if later else log_p  # log p(x_<=t)
        of_y = (logsumexp(log_p + log_y, later) if later else log_p + log_y) - prefix  # log p(y | x_<=t)
        conditional = prefix - logsumexp(log_p, after)
        guided = conditional + s * of_y
        normaliser = logsumexp(guided, (t,))
        normalisers.append(normaliser)
        log_q = log_q + guided - normaliser
    return log_q, normalisers


def prefixes(log_p, log_y):
    """log p(y | x_<=t) of every t, arrays that broadcast to whole sequences."""
    out = []
    for t in range(log_p.ndim):
        later = tuple(range(t + 1, log_p.ndim))
        joint, prefix = (logsumexp(a, later) if later else a for a in (log_p + log_y, log_p))
        out.append(joint - prefix)
    return out


def tempered_by_token(log_p, g):
    """log of what conditionals to the power g draw."""
    log_q = np.zeros_like(log_p)
    for t in range(log_p.ndim):
        later, after = tuple(range(t + 1, log_p.ndim)), tuple(range(t, log_p.ndim))
        conditional = g * ((logsumexp(log_p, later) if later else log_p) - logsumexp(log_p, after))
        log_q = log_q + conditional - logsumexp(conditional, (t,))
    return log_q


def distance(log_a, log_b):
    """Total variation."""
    return np.abs(np.exp(log_a) - np.exp(log_b)).sum() / 2


def langevin(mean, precision, num=20_000, steps=1500, size=0.02, seed=0):
    """Samples of N(mean, precision^-1) by its score alone, from N(0, 1)."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((num, len(mean)))
    for _ in range(steps):
        x += -size / 2 * (x - mean) @ precision + size**0.5 * rng.standard_normal(x.shape)
    return x


def continuous(s, a=0.9, pull=(0.0, 1.0), noise=0.5):
    """Covariances of a continuous autoregressive model, x_1 ~ N(0, 1), x_2 ~ N(a x_1, 1 - a^2), y ~ N(pull x, noise).

    Guided at y = 0: of the joint, of the guided conditionals, and of Langevin on the joint's score.
    """
    prior = np.linalg.inv(np.array([[1, a], [a, 1]]))
    pull = np.array(pull)
    precision = prior + s * np.outer(pull, pull) / noise
    # p(y | x_1) = N(pull_1 x_1 + pull_2 a x_1, noise + pull_2^2 (1 - a^2)); then x_2 given x_1 by p(y | x)^s
    first = 1 + s * (pull[0] + pull[1] * a) ** 2 / (noise + pull[1] ** 2 * (1 - a**2))
    second = 1 / (1 - a**2) + s * pull[1] ** 2 / noise
    slope = (a / (1 - a**2) - s * pull[0] * pull[1] / noise) / second
    stepwise = np.array([[1 / first, slope / first], [slope / first, slope**2 / first + 1 / second]])
    return np.linalg.inv(precision), stepwise, np.cov(langevin(np.zeros(2), precision).T)
