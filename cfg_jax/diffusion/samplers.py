"""Samplers walk z from noise (logsnrs[0]) up to clean (logsnrs[-1]) with any eps_fn.

Image i's randomness is its own key, so it depends neither on the batch it is in nor on w.

The contract. A sampler is a frozen pytree dataclass: its numbers are leaves. `init(z)` is a state of its own (() where
there is none). `step(predict, z, state, logsnr, logsnr_next, noise) -> z at logsnr_next, x, state` is one step of the
scan that all share; noise is N(0, I) of this step. `predict(z, logsnr, state) -> Predicted, state` is a guided network
pass; a step may ask for several. state is a pair, the sampler's own and the guidance's, which a step hands on. All is
in float32. A class says what else it can do: `goes_back`, from a clean z to a noisier one; `takes_shift`, noise put
back with another eps (CFG++); `takes_push`, a classifier's gradient on the mean; `twice`, a step makes two passes, at
logsnr and at logsnr_next, instead of one at logsnr.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from cfg_jax import pinned
from cfg_jax.diffusion import process, struct
from cfg_jax.diffusion.guidance import STATELESS, Guided, Stateless


class Predicted(NamedTuple):
    x: Array  # [B, ...], after the threshold
    eps: Array  # [B, ...], the noise that is added back to x; z = alpha x + sigma eps unless the guidance shifts it
    push: Array  # [B, ...], as of Guided


class State(NamedTuple):
    sampler: Any
    guidance: Any


@struct.dataclass
class Ancestral(Stateless):
    """Algorithm 2, with v = variance_interp between the two variances of Equation 4.

    particles: the number of consecutive images in a group, which is resampled by its weights. 0: no groups, as in the
    paper.
    """

    variance_interp: Any = 0.3
    particles: int = struct.optional(int, default=0, static=True)

    limits: ClassVar = {"variance_interp": (0, 1), "particles": (0, 4096)}
    goes_back: ClassVar = True
    takes_push: ClassVar = True

    def step(self, predict, z, state, logsnr, logsnr_next, noise):
        out, state = predict(z, logsnr, state)
        std = process.reverse_std(logsnr, logsnr_next, self.variance_interp)
        mean = process.reverse_mean(z, out.x, logsnr, logsnr_next) + std**2 * out.push
        return mean + std * noise, out.x, state


@struct.dataclass
class DDIM(Stateless):
    """z' = alpha' x + sqrt(sigma'^2 - s^2) eps + s noise, s = eta times the smaller standard deviation of Equation 3.

    Song et al. 2021, Equation 12. eta = 0 is the probability-flow ODE's step, eta = 1 Algorithm 2 with v = 0.
    """

    eta: Any = 0.0

    limits: ClassVar = {"eta": (0, 1)}
    goes_back: ClassVar = True
    takes_shift: ClassVar = True

    def step(self, predict, z, state, logsnr, logsnr_next, noise):
        (x, eps, _), state = predict(z, logsnr, state)
        std = self.eta * process.reverse_std(logsnr, logsnr_next, 0.0)
        # sigma'^2 - s^2 as a product, because a difference of nearly equal numbers loses digits
        kept = process.sigma(logsnr_next) * jnp.sqrt(1 + self.eta**2 * jnp.expm1(logsnr - logsnr_next))
        return process.alpha(logsnr_next) * x + kept * eps + std * noise, x, state


@struct.dataclass
class DPMpp2M:
    """DPM-Solver++(2M): DDIM's step, and x goes on to change as in the last one. Lu et al. 2022b, Algorithm 2.

    h is half a step in lambda. The published weight h / 2 h_last is at most 1/2 here: where steps grow, as they do at
    the clean end of the paper's grid, it would carry x far beyond anything seen.
    """

    def init(self, z):
        return z, jnp.float32(0)  # x and h of the last step: there is none, and the first step is DDIM's

    def step(self, predict, z, state, logsnr, logsnr_next, noise):
        (x, eps, _), state = predict(z, logsnr, state)
        x_last, h_last = state.sampler
        h = (logsnr_next - logsnr) / 2
        ahead = jnp.where(h_last > 0, jnp.minimum(h / jnp.where(h_last > 0, h_last, 1), 1) / 2, 0)
        alpha, sigma = process.alpha(logsnr_next), process.sigma(logsnr_next)
        correction = alpha * -jnp.expm1(-h) * ahead * (x - x_last)
        return alpha * x + sigma * eps + correction, x, State((x, h), state.guidance)


@struct.dataclass
class Heun(Stateless):
    """The probability-flow ODE to second order: DDIM's step, and again with the mean of eps at both of its ends.

    In y = z / alpha and s = sigma / alpha the ODE is dy/ds = eps. Karras et al. 2022, Algorithm 1. Two passes a step.
    """

    twice: ClassVar = True

    def step(self, predict, z, state, logsnr, logsnr_next, noise):
        (x, eps, _), state = predict(z, logsnr, state)
        alpha, sigma = process.alpha(logsnr_next), process.sigma(logsnr_next)
        (_, eps_next, _), state = predict(alpha * x + sigma * eps, logsnr_next, state)
        # alpha' (s' - s), without what float32 loses of it where a step is short
        length = sigma * -jnp.expm1((logsnr_next - logsnr) / 2)
        return alpha * x + sigma * eps + length * (eps_next - eps) / 2, x, state


@struct.dataclass
class Langevin(Stateless):
    """DDIM's step, then a step of Langevin dynamics at the new noise level: z + delta/2 score + sqrt(delta) noise.

    delta is `size` times the variance that Algorithm 2 with v = 0 would have added. size = 0 is DDIM. Song et al. 2021,
    predictor and corrector. Two passes a step.
    """

    size: Any = 1.0

    twice: ClassVar = True
    limits: ClassVar = {"size": (0, 10)}

    def step(self, predict, z, state, logsnr, logsnr_next, noise):
        (x, eps, _), state = predict(z, logsnr, state)
        sigma = process.sigma(logsnr_next)
        z = process.alpha(logsnr_next) * x + sigma * eps
        (_, eps, _), state = predict(z, logsnr_next, state)
        delta = self.size * process.reverse_std(logsnr, logsnr_next, 0.0) ** 2
        return z - delta / 2 * eps / sigma + jnp.sqrt(delta) * noise, x, state


@struct.dataclass
class FlowHeun(Stateless):
    """The same ODE to second order in flow matching's time: DDIM's step, and again with the mean of both velocities.

    On the straight path z_t = z / (alpha + sigma) the ODE is dz_t/dt = x - eps, and Euler's step along it is DDIM's.
    Two passes a step.
    """

    twice: ClassVar = True

    def step(self, predict, z, state, logsnr, logsnr_next, noise):
        (x, eps, _), state = predict(z, logsnr, state)
        alpha, sigma = process.alpha(logsnr_next), process.sigma(logsnr_next)
        (x_next, eps_next, _), state = predict(alpha * x + sigma * eps, logsnr_next, state)
        # (alpha' + sigma') (t' - t), without what float32 loses of it where a step is short
        share = process.sigma(logsnr) / (process.alpha(logsnr) + process.sigma(logsnr))
        length = alpha * share * -jnp.expm1((logsnr - logsnr_next) / 2)
        return alpha * x + sigma * eps + length * (x_next - eps_next - x + eps) / 2, x, state


SAMPLERS = {
    "ancestral": Ancestral,
    "ddim": DDIM,
    "dpmpp_2m": DPMpp2M,
    "flow_heun": FlowHeun,
    "heun": Heun,
    "langevin": Langevin,
}


@struct.dataclass
class Walk:
    """A sampler on its grid: logsnrs [T]; threshold: x -> x, after guidance.

    They increase. Where the next one is smaller, x is noised to it anew: Equation 1.
    """

    sampler: Any
    logsnrs: Any
    threshold: Callable | None = struct.static(default=None)

    group: ClassVar = 0  # images that depend on each other, which particles.py has

    def __call__(self, keys, guided, z, c, state=STATELESS):
        """keys [B], z [B, ...] ~ N(0, I), c [B], guided as Guidance.on gives it, state as its init -> x [B, ...]."""

        def predict(z, logsnr, state):
            out, of_guidance = guided(z, logsnr, c, state.guidance)
            return self.predicted(out, z, logsnr), State(state.sampler, of_guidance)

        def step(carry, inputs):
            z, _, state = carry
            t, logsnr, logsnr_next = inputs
            noise = noise_of(keys, t, z.shape[1:])
            z, x, state = self.sampler.step(predict, z, state, logsnr, logsnr_next, noise)
            z = jnp.where(logsnr_next < logsnr, process.diffuse(x, noise, logsnr_next), z)
            return (z, x, state), None

        z = jnp.asarray(z, jnp.float32)
        (_, x, _), _ = jax.lax.scan(step, (z, z, State(self.sampler.init(z), state)), self.steps())
        return x

    def weighed(self, *args) -> tuple[Array, Array]:
        """Return x [B, ...] and each group's effective size: none, since these images stand alone."""
        return self(*args), jnp.zeros(0, jnp.float32)

    def steps(self) -> tuple[Array, Array, Array]:
        """Return the number of each step, from 1, its log-SNR and the next one, [T] each.

        The last step leads from its log-SNR to the same one, which moves nothing: its x is the sample.
        """
        logsnrs = jnp.asarray(self.logsnrs, jnp.float32)
        return jnp.arange(1, len(logsnrs) + 1), logsnrs, jnp.append(logsnrs[1:], logsnrs[-1])

    def predicted(self, out: Guided, z, logsnr) -> Predicted:
        """Return what a sampler steps by: a guided pass after the threshold."""
        out = out.whole(z, logsnr)
        x, eps = out.x, out.eps
        if self.threshold:
            x = self.threshold(x)
            eps = process.predict_eps(z, x, logsnr)
        return Predicted(x, eps + out.shift, out.push)

    @property
    def levels(self) -> np.ndarray:
        """The noise levels at which an image goes through the network, float32, in order."""
        logsnrs = np.asarray(self.logsnrs, np.float32)
        if not getattr(self.sampler, "twice", False):
            return logsnrs
        return np.stack([logsnrs, np.append(logsnrs[1:], logsnrs[-1])], axis=1).ravel()


def start(seed, indices: Int[ArrayLike, " b"], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return (keys [B], z_1 ~ N(0, I) [B, *shape]) for the images `indices` [B] of a seed.

    Raises InputError for a seed that is no int32, or negative.
    """
    key = pinned.key(seed)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(indices))
    return keys, noise_of(keys, 0, shape)


def ancestral(keys, eps_fn, z, c, logsnrs, *, v, threshold=None) -> Float[Array, "b ..."]:
    """Algorithm 2. keys [B]; z [B, ...] ~ N(0, I); logsnrs increasing [T]; threshold: x -> x, after guidance."""
    return Walk(Ancestral(v), logsnrs, threshold)(keys, plain(eps_fn), z, c)


def plain(eps_fn: Callable) -> Callable:
    """Wrap an eps_fn, guided or not, as a Walk takes it."""
    return lambda z, logsnr, c, state: (Guided.of(eps_fn(z, jnp.broadcast_to(logsnr, z.shape[:1]), c)), state)


def clip(x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
    """Clip x to [-1, 1]: the static threshold."""
    return jnp.clip(x, -1, 1)


def dynamic_threshold(x: Float[Array, "b ..."], quantile=0.995) -> Float[Array, "b ..."]:
    """Clip to [-s, s] and divide by s, s = max(1, the image's quantile of |x|). Saharia et al. 2022."""
    s = jnp.quantile(jnp.abs(x), quantile, axis=tuple(range(1, x.ndim)), keepdims=True)
    s = jnp.maximum(s, 1)
    return jnp.clip(x, -s, s) / s


THRESHOLDS = {"none": None, "static": clip, "dynamic": dynamic_threshold}


def noise_of(keys, t, shape):
    """N(0, I) [B, *shape] of step t, each image from its own key."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, t), shape, jnp.float32))(keys)
