"""A Gaussian mixture, one isotropic component a class, with its exact eps: the truth to test and draw against.

Diffused by Equation 1, component k is N(alpha m_k, (alpha^2 s_k^2 + sigma^2) I), so that
eps(z) = -sigma grad log p(z) is closed, for one component as for the mixture.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cfg_jax.diffusion import process


@dataclass(frozen=True)
class Mixture:
    means: jax.Array  # [K, D]
    stds: jax.Array  # [K]
    weights: jax.Array  # [K], sum to 1

    @property
    def null(self) -> int:
        """The label K, which stands for no class."""
        return len(self.weights)

    def log_joint(self, z: Float[Array, "*b d"], logsnr: Float[Array, ""]) -> Float[Array, "*b k"]:
        """log p(z_lambda, c = k) of every class k."""
        alpha, sigma = process.alpha(logsnr), process.sigma(logsnr)
        variance = jnp.square(alpha * self.stds) + jnp.square(sigma)
        distance = jnp.square(z[..., None, :] - alpha * self.means).sum(-1)
        dim = self.means.shape[-1]
        return jnp.log(self.weights) - 0.5 * (distance / variance + dim * jnp.log(2 * jnp.pi * variance))

    def log_density(self, z: Float[Array, "*b d"], logsnr: Float[Array, ""], c: Int[Array, ""]) -> Float[Array, "*b"]:
        """log p(z | c), or log p(z) where c is null."""
        joint = self.log_joint(z, logsnr)
        given = joint[..., jnp.minimum(c, self.null - 1)] - jnp.log(self.weights)[jnp.minimum(c, self.null - 1)]
        return jnp.where(c == self.null, jax.nn.logsumexp(joint, axis=-1), given)

    def eps_fn(self, z: Float[Array, "b d"], logsnr: Float[Array, " b"], c: Int[Array, " b"]) -> Float[Array, "b d"]:
        """eps(z, lambda, c) = -sigma grad_z log p(z | c). Where c is null it is the unconditional eps."""
        score = jax.vmap(jax.grad(self.log_density))(z, logsnr, c)
        return -process.sigma(logsnr)[:, None] * score

    def sample(self, key: Array, num: int) -> tuple[Float[Array, "num d"], Int[Array, " num"]]:
        """Draw points x and their classes."""
        c_key, x_key = jax.random.split(key)
        c = jax.random.categorical(c_key, jnp.log(self.weights), shape=(num,))
        return self.means[c] + self.stds[c][:, None] * jax.random.normal(x_key, (num, self.means.shape[1])), c
