"""The training objective, Equation 5 and Algorithm 1, as a value: what is predicted, at which noise, and its error.

An objective is (predicts, error, density). `predicts` is what the network's output is called: eps, x, v or velocity.
`error` is which of them the squared error is taken of; at one z each is linear in each, so that this is a weight of
the log-SNR. `density` is how training's log-SNR are drawn. The paper's is (eps, eps, sech).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cfg_jax.diffusion import process, schedule


class Prediction(NamedTuple):
    """How a prediction p relates to x and eps. At one z each is linear in p, and v and velocity tell both exactly."""

    of: Callable  # (x, eps, logsnr) -> p
    to_eps: Callable  # (z, p, logsnr) -> eps
    to_x: Callable  # (z, p, logsnr) -> x
    slope: Callable  # logsnr -> dx / dp


def _same(z, p, logsnr):
    return p


PREDICTIONS = {
    "eps": Prediction(
        lambda x, eps, logsnr: eps, _same, process.predict_x, lambda at: -process.sigma(at) / process.alpha(at)
    ),
    "x": Prediction(lambda x, eps, logsnr: x, process.predict_eps, _same, jnp.ones_like),
    "v": Prediction(process.v_of, process.eps_of_v, process.x_of_v, lambda at: -process.sigma(at)),
    "velocity": Prediction(
        process.velocity_of,
        process.eps_of_velocity,
        process.x_of_velocity,
        lambda at: process.sigma(at) / (process.alpha(at) + process.sigma(at)),
    ),
}
DENSITIES = {"sech": schedule.logsnr, "uniform_t": schedule.logsnr_of_t, "logit_normal": schedule.logsnr_of_logit}


@dataclass(frozen=True)
class Objective:
    """How a network is trained; the defaults are the paper's."""

    predicts: str = "eps"
    error: str = "eps"
    density: str = "sech"
    logit_mean: float = 0.0  # of logit_normal
    logit_std: float = 1.0
    logsnr_min: float = -20.0
    logsnr_max: float = 20.0
    omega: float = 0.0  # of model guidance, see distill.py

    def noised(self, key: Array, x: Float[Array, "b ..."], eps: Float[Array, "b ..."] | None = None):
        """Every image at a log-SNR of its own -> z [B, ...], logsnr [B], eps [B, ...]. Algorithm 1, lines 4 to 6.

        eps: the noise of each image where they come in pairs, as those of rectified flow; else it is drawn.
        """
        u_key, eps_key = jax.random.split(key)
        u = jax.random.uniform(u_key, x.shape[:1], jnp.float32)
        logit = (self.logit_mean, self.logit_std) if self.density == "logit_normal" else ()
        logsnr = DENSITIES[self.density](u, self.logsnr_min, self.logsnr_max, *logit)
        eps = jax.random.normal(eps_key, x.shape, jnp.float32) if eps is None else eps
        return process.diffuse(x, eps, logsnr), logsnr, eps

    def loss(self, predict: Callable, z, logsnr, c: Int[Array, " b"], x, eps) -> Float[Array, " b"]:
        """|| eps_theta(z, lambda, c) - eps ||^2, the mean over each image's elements. Equation 5.

        predict: (z [B, ...], logsnr [B], c [B]) -> what the network predicts, [B, ...].
        """
        return self.distance(predict(z, logsnr, c), z, logsnr, self.target(x, eps, logsnr))

    def target(self, x: Float[Array, "b ..."], eps: Float[Array, "b ..."], logsnr) -> Float[Array, "b ..."]:
        """What `error` is taken of, where x and eps are known."""
        return PREDICTIONS[self.error].of(x, eps, logsnr)

    def distance(self, predicted: Float[Array, "b ..."], z, logsnr, target) -> Float[Array, " b"]:
        """The squared error of a network's output to a target, the mean over each image's elements."""
        off = convert(predicted, z, logsnr, self.predicts, self.error) - target
        return jnp.square(off).mean(axis=tuple(range(1, z.ndim)))


def convert(predicted: Float[Array, "b ..."], z, logsnr, source: str, target: str) -> Float[Array, "b ..."]:
    """One prediction as another, both names of PREDICTIONS, at z [B, ...] and logsnr, a scalar or [B]."""
    if source == target:
        return predicted
    given = PREDICTIONS[source]
    return PREDICTIONS[target].of(given.to_x(z, predicted, logsnr), given.to_eps(z, predicted, logsnr), logsnr)
