"""Guidance token by token against guidance of the sequence, by enumeration."""

from functools import reduce

import numpy as np
import pytest

from experiments.studies import token_laws as study


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (8, 4)])
@pytest.mark.parametrize("s", [0.5, 2.0])
def test_the_identity_with_the_normalisers(shape, s):
    """log by token - joint = log E[p(y|x)^s] + sum_{t<T} s log p(y|x_<=t) - sum_{t<=T} log E_{x_t}[p(y|x_<=t)^s]."""
    log_p, log_y = study.random_model(*shape)
    by_token, normalisers, log_ys = study.guided_by_token(log_p, log_y, s)
    assert np.exp(by_token).sum() == pytest.approx(1)
    right = study.logsumexp(log_p + s * log_y) - sum(normalisers) + s * sum(log_ys[:-1])
    left = by_token - study.guided_joint(log_p, log_y, s)
    np.testing.assert_allclose(left, np.broadcast_to(right, left.shape), atol=1e-10)


def independent_model(vocabulary, length):
    """log p(x) and log p(y | x), both sums over the tokens: given y the tokens are independent as well."""
    rng = np.random.default_rng(0)
    tokens, evidence = rng.dirichlet(np.ones(vocabulary), length), rng.uniform(0.2, 0.9, (length, vocabulary))
    return [reduce(np.add.outer, np.log(shares)) for shares in (tokens, evidence)]


@pytest.mark.parametrize("shape", [(2, 2), (8, 4)])
def test_independent_tokens_are_guided_alike_and_others_are_not(shape):
    def distances(log_p, log_y):
        by_token = study.guided_by_token(log_p, log_y, 3.0)[0]
        yield study.distance(by_token, study.guided_joint(log_p, log_y, 3.0))
        yield study.distance(study.tempered_by_token(log_p, 2.0), study.normalised(2 * log_p))

    assert max(distances(*independent_model(*shape))) < 1e-12
    guided, tempered = distances(*study.random_model(*shape))
    assert guided > 0.01 and tempered > 1e-3


def test_without_guidance_both_are_the_model():
    log_p, log_y = study.random_model(8, 4)
    np.testing.assert_allclose(study.guided_by_token(log_p, log_y, 0.0)[0], log_p, atol=1e-12)
    np.testing.assert_allclose(study.tempered_by_token(log_p, 1.0), log_p, atol=1e-12)


def test_langevin_samples_the_guided_joint_of_a_continuous_model():
    joint, by_token, by_langevin = study.continuous(3.0)
    np.testing.assert_allclose(by_langevin, joint, atol=0.03)
    assert np.abs(by_token - joint).max() > 0.08
    np.testing.assert_allclose(study.continuous(0.0)[1], study.continuous(0.0)[0])
    # token by token, x_1 is guided by what is known of y then
    rng = np.random.default_rng(0)
    x_1 = rng.standard_normal(400_000)
    weight = np.exp(-0.5 * 3 * (0.9 * x_1) ** 2 / (0.5 + 1 - 0.9**2))
    assert np.average(x_1**2, weights=weight) == pytest.approx(by_token[0, 0], rel=0.01)
