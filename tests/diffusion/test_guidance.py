import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.diffusion import guidance
from cfg_jax.models.mixture import Mixture
from cfg_jax.models.unet import UNet
from experiments.studies.fields import antisymmetric
from tests.conftest import fill

NULL = 10


def recording(calls):
    """eps = z times the label, and the batch size of each evaluation noted."""

    def eps_fn(z, logsnr, c):
        assert logsnr.shape == c.shape == z.shape[:1]
        calls.append(len(z))
        return z * c[:, None].astype(z.dtype)

    return eps_fn


def test_labels_drop_at_the_binomial_rate_each_alone():
    c = jnp.arange(40_000) % NULL
    dropped = np.asarray(guidance.drop_labels(jax.random.key(0), c, 0.2, NULL) == NULL)
    assert abs(dropped.mean() - 0.2) < 4 * np.sqrt(0.2 * 0.8 / len(c))
    neighbours = np.corrcoef(dropped[1:], dropped[:-1])[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(len(c))
    kept = guidance.drop_labels(jax.random.key(0), c, 0.2, NULL)[~dropped]
    np.testing.assert_array_equal(kept, c[~dropped])
    np.testing.assert_array_equal(guidance.drop_labels(jax.random.key(0), c, 0.0, NULL), c)
    assert np.all(guidance.drop_labels(jax.random.key(0), c, 1.0, NULL) == NULL)


def test_w_is_the_papers():
    cond, uncond = jnp.float32([[2.0], [2.0], [2.0]]), jnp.float32([[1.0], [1.0], [1.0]])
    np.testing.assert_allclose(guidance.guide(cond, uncond, 3.0), 5 * jnp.ones((3, 1)))
    per_image = guidance.guide(cond, uncond, jnp.float32([0, -1, 1]))
    np.testing.assert_allclose(per_image, [[2], [1], [3]])


@pytest.mark.parametrize(("w", "evaluated"), [(0, 2), (0.0, 2), (np.zeros(2), 2), (1.0, 4), (-1.0, 4)])
def test_w_0_runs_half_the_evaluations(w, evaluated):
    calls, z, c = [], jnp.float32([[1.0], [2.0]]), jnp.int32([3, 4])
    eps = guidance.guided(recording(calls), w, NULL)(z, jnp.zeros(2), c)
    assert sum(calls) == evaluated
    w = float(np.max(w))
    np.testing.assert_allclose(eps[:, 0], z[:, 0] * ((1 + w) * np.float32(c) - w * NULL), rtol=1e-6)


def test_a_traced_w_of_0_takes_both_halves_and_gives_the_same():
    z, logsnr, c = jnp.float32([[1.0], [2.0]]), jnp.zeros(2), jnp.int32([3, 4])
    traced = jax.jit(lambda w: guidance.guided(recording([]), w, NULL)(z, logsnr, c))(0.0)
    np.testing.assert_allclose(traced, guidance.guided(recording([]), 0, NULL)(z, logsnr, c), rtol=1e-6)


@pytest.mark.slow
def test_an_exact_classifier_turns_the_unconditional_eps_into_the_conditional(rng):
    """-sigma grad log p(c | z) is the difference of the two, so scale 1 is Bayes' rule and others lie on their line."""
    mixture = Mixture(
        jnp.float32([[1, 0], [-1, 0.5], [0, -2]]), jnp.float32([0.3, 0.5, 1]), jnp.float32([0.2, 0.3, 0.5])
    )
    z, logsnr = jnp.float32(rng.standard_normal((6, 2))), jnp.float32([-6, -2, -1, 0, 1, 3])
    c = jnp.int32([0, 1, 2, 0, 1, 2])

    def log_prob(z, logsnr, c):
        posterior = jax.nn.log_softmax(jax.vmap(mixture.log_joint)(z, logsnr))
        return posterior[jnp.arange(len(c)), c]

    def uncond_fn(z, logsnr, c):
        return mixture.eps_fn(z, logsnr, jnp.full_like(c, mixture.null))

    cond, uncond = mixture.eps_fn(z, logsnr, c), uncond_fn(z, logsnr, c)
    assert np.abs(cond - uncond).max(1).min() > 1e-3
    for scale in (1.0, 0.5, 3.0):
        eps = jax.jit(lambda scale: guidance.guided_by_classifier(uncond_fn, log_prob, scale)(z, logsnr, c))(scale)
        np.testing.assert_allclose(eps, uncond + scale * (cond - uncond), rtol=1e-4, atol=1e-5)
    assert guidance.guided_by_classifier(uncond_fn, log_prob, 0.0) is uncond_fn


@pytest.mark.slow
def test_the_null_label_has_an_embedding_that_learns():
    net = UNet(32, (1,), 1, (), num_classes=NULL, out_channels=1, num_heads=1)
    z, logsnr, c = jnp.ones((2, 4, 4, 1)), jnp.zeros(2), jnp.int32([1, NULL])
    params = fill(jax.eval_shape(net.init, jax.random.key(0), z, logsnr, c))
    gradient = jax.jit(jax.grad(lambda p: jnp.square(net.apply(p, z, logsnr, c)).sum()))(params)
    rows = np.abs(gradient["params"]["label_emb"]["embedding"]).sum(1)
    assert rows.shape == (NULL + 1,)
    np.testing.assert_array_equal(rows > 0, np.isin(np.arange(NULL + 1), c))


def test_the_antisymmetric_share_is_the_matrix_s_own_and_a_gradient_has_none():
    matrix = jnp.array([[1.0, 2.0], [0.0, 1.0]])
    z = jax.random.normal(jax.random.key(0), (4096, 2))
    share, error = antisymmetric(lambda z: z @ matrix.T, z, jax.random.key(1), 16)
    wanted = np.linalg.norm(matrix - matrix.T) / 2 / np.linalg.norm(matrix)
    assert 0 < error < 0.005 and abs(share - wanted) < 4 * error

    mixture = Mixture(jnp.array([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]]), jnp.full(3, 0.5), jnp.full(3, 1 / 3))
    logsnr, c = jnp.zeros(32), jnp.arange(32) % 3
    difference = lambda z: mixture.eps_fn(z, logsnr, c) - mixture.eps_fn(z, logsnr, jnp.full_like(c, 3))  # noqa: E731
    assert antisymmetric(difference, z[:32], jax.random.key(1), 8)[0] < 1e-5
