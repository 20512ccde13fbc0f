"""Laws whose eps is exact, to test and draw against: a Gaussian mixture, and Gaussians of any kind for each label.

Diffused by Equation 1, component k is N(alpha m_k, (alpha^2 s_k^2 + sigma^2) I), so that
eps(z) = -sigma grad log p(z) is closed, for one component as for the mixture.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int

from cfg_jax.diffusion import process, struct


@struct.dataclass
class Mixture:
    """Each component is a class, unless `classes` says of which class it is one of several."""

    means: jax.Array  # [K, D]
    stds: jax.Array  # [K]
    weights: jax.Array  # [K], sum to 1
    classes: tuple[int, ...] | None = struct.static(default=None)  # [K], from 0 without a gap

    @property
    def null(self) -> int:
        """The number of classes, a label which stands for no class."""
        return len(self.weights) if self.classes is None else max(self.classes) + 1

    def log_joint(self, z: Float[Array, "*b d"], logsnr: Float[Array, ""]) -> Float[Array, "*b k"]:
        """log p(z_lambda, c = k) of every class k."""
        alpha, sigma = process.alpha(logsnr), process.sigma(logsnr)
        variance = jnp.square(alpha * self.stds) + jnp.square(sigma)
        distance = jnp.square(z[..., None, :] - alpha * self.means).sum(-1)
        dim = self.means.shape[-1]
        joint = jnp.log(self.weights) - 0.5 * (distance / variance + dim * jnp.log(2 * jnp.pi * variance))
        return self.by_class(joint)

    def by_class(self, log_weights: Float[Array, "*b n"]) -> Float[Array, "*b k"]:
        """The log of what the components of each class sum to."""
        if self.classes is None:
            return log_weights
        of = jax.nn.one_hot(jnp.array(self.classes), self.null, axis=0)
        return jax.nn.logsumexp(log_weights[..., None, :], axis=-1, b=of)

    def log_density(self, z: Float[Array, "*b d"], logsnr: Float[Array, ""], c: Int[Array, ""]) -> Float[Array, "*b"]:
        """log p(z | c), or log p(z) where c is null."""
        joint, of = self.log_joint(z, logsnr), jnp.minimum(c, self.null - 1)
        given = joint[..., of] - self.by_class(jnp.log(self.weights))[of]
        return jnp.where(c == self.null, jax.nn.logsumexp(joint, axis=-1), given)

    def log_prob(self, z: Float[Array, "b d"], logsnr: Float[Array, " b"], c: Int[Array, " b"]) -> Float[Array, " b"]:
        """log p(c | z_lambda): the exact classifier."""
        joint = jax.vmap(self.log_joint)(z, logsnr)
        return jnp.take_along_axis(jax.nn.log_softmax(joint), c[:, None], axis=-1)[:, 0]

    def eps_fn(self, z: Float[Array, "b d"], logsnr: Float[Array, " b"], c: Int[Array, " b"]) -> Float[Array, "b d"]:
        """eps(z, lambda, c) = -sigma grad_z log p(z | c). Where c is null it is the unconditional eps."""
        score = jax.vmap(jax.grad(self.log_density))(z, logsnr, c)
        return -process.sigma(logsnr)[:, None] * score

    def sample(self, key: Array, num: int) -> tuple[Float[Array, "num d"], Int[Array, " num"]]:
        """Draw points x and their classes."""
        c_key, x_key = jax.random.split(key)
        k = jax.random.categorical(c_key, jnp.log(self.weights), shape=(num,))
        x = self.means[k] + self.stds[k][:, None] * jax.random.normal(x_key, (num, self.means.shape[1]))
        return x, k if self.classes is None else jnp.array(self.classes)[k]


@dataclass(frozen=True)
class Gaussians:
    """One isotropic Gaussian a label, the last for the null label, which need not be the mixture of the others."""

    means: jax.Array  # [K + 1, D]
    stds: jax.Array  # [K + 1]

    @property
    def null(self) -> int:
        return len(self.stds) - 1

    def eps_fn(self, z: Float[Array, "b d"], logsnr: Float[Array, " b"], c: Int[Array, " b"]) -> Float[Array, "b d"]:
        """eps = sigma (z - alpha m) / (alpha^2 s^2 + sigma^2)."""
        alpha, sigma = process.alpha(logsnr)[:, None], process.sigma(logsnr)[:, None]
        return sigma * (z - alpha * self.means[c]) / (jnp.square(alpha * self.stds[c][:, None]) + jnp.square(sigma))


class Uniforms:
    """Uniform x in one dimension: class 0 on [-1, 0], class 1 on [0, 1], the null label, 2, on [-1, 1]."""

    null = 2

    def eps_fn(self, z: Float[Array, "b 1"], logsnr: Float[Array, " b"], c: Int[Array, " b"]) -> Float[Array, "b 1"]:
        """eps = sigma (density of z at the low end less at the high end) / the mass of x that is between."""
        alpha, sigma = process.alpha(logsnr), process.sigma(logsnr)
        a, b = ((z[:, 0] - alpha * jnp.float32(end)[c]) / sigma for end in ((0, 1, 1), (-1, 0, -1)))
        # far out on the right a difference of ones is lost: take it on the left, where eps is the same but for its sign
        right = a + b > 0
        low, high = jnp.where(right, -b, a), jnp.where(right, -a, b)
        narrow = high - low < 0.02  # the density is as good as constant between them
        low_cdf, high_cdf = norm.logcdf(low), norm.logcdf(jnp.where(narrow, low + 1, high))
        log_mass = high_cdf + jnp.log(-jnp.expm1(low_cdf - high_cdf))
        eps = jnp.exp(norm.logpdf(low) - log_mass) - jnp.exp(norm.logpdf(high) - log_mass)
        return (jnp.where(narrow, (low + high) / 2, eps) * jnp.where(right, -1, 1))[:, None]
