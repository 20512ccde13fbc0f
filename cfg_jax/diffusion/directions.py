"""Rules of 2025, by the contract of guidance.py: they bend d = eps_c - eps_u, look ahead, or find w themselves."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cfg_jax.diffusion import flow, process, struct
from cfg_jax.diffusion.guidance import Guided, Stateless, guide, inner, projection


@struct.dataclass
class Feedback:
    """Feedback guidance: 1 + w is found for each image from how likely its path is without the label.

    l is the log of p(path | c) / p(path), from 0. Each step adds -temperature / (2 S) (|z' - mu_c|^2 - |z' - mu_u|^2) +
    offset, with the means mu and the variance S of Equation 3. The strength is 1 + w_l = e^l / (e^l - (1 - prior)). l
    is kept between the value at which w_l is w, and 3. Koulischer et al. 2025 (arXiv 2506.06085), whose example has
    prior 0.999 and w = 9; `published` has the rest of it.
    """

    w: Any  # scalar or [B]: the largest
    prior: Any = 0.999  # how much of the model's density is the conditional one's; 1 is no guidance
    temperature: Any = 1.0
    offset: Any = 0.0  # added to l at each step

    limits: ClassVar = {"prior": (0, 1), "temperature": (0, np.inf), "offset": (-np.inf, np.inf)}

    @staticmethod
    def published(num_steps: int) -> tuple[float, float]:
        """Return the example's offset and temperature for T steps, to three digits.

        They are ln(1.5 (1 - prior)) / ((1 - t_0) T) and |2 S offset / 10|, with S of the step at t_1.
        """
        prior, t_0, t_1 = 0.999, 0.556, 0.429
        offset = np.log(1.5 * (1 - prior)) / ((1 - t_0) * num_steps)
        # (sigma / alpha)^2 of the cosine schedule before the step and after it
        before, after = (np.tan(np.pi / 2 * t) ** 2 for t in (t_1, max(0, t_1 - 1 / num_steps)))
        variance = (before - after) * after / before
        return float(f"{offset:.3g}"), float(f"{abs(2 * variance * offset / 10):.3g}")

    def init(self, z):
        still = jnp.zeros_like(z)
        return jnp.zeros(len(z), jnp.float32), still, still, still, jnp.float32(-np.inf)

    def __call__(self, halves, z, logsnr, c, state):
        ratio = self.gained(z, logsnr, *state)
        own = halves.native
        cond, uncond = own.both(z, logsnr, c)
        found = guide(cond, uncond, self.strength(ratio))
        x_cond, x_uncond = (own.to("x", half, z, logsnr) for half in (cond, uncond))
        return own.guided(found, z, logsnr), (ratio, z, x_cond, x_uncond, logsnr)

    def gained(self, z, logsnr, ratio, before, x_cond, x_uncond, logsnr_before) -> Float[Array, " b"]:
        """Return l [B] at z: what it was at `before`, and what the step from there says. The first step has none."""
        first = ~jnp.isfinite(logsnr_before)
        at = jnp.where(first, logsnr - 1, jnp.minimum(logsnr_before, logsnr))
        mean_cond, mean_uncond = (process.reverse_mean(before, x, at, logsnr) for x in (x_cond, x_uncond))
        variance = jnp.maximum(process.reverse_std(at, logsnr, 0.0) ** 2, 1e-30)
        # |z - mu_c|^2 - |z - mu_u|^2, as a product that does not cancel
        apart = inner(mean_uncond - mean_cond, 2 * z - mean_cond - mean_uncond).reshape(len(z))
        gain = jnp.where(at < logsnr, -self.temperature / (2 * variance) * apart + self.offset, 0)
        return jnp.where(first, ratio, jnp.clip(ratio + gain, self.least(), 3))

    def least(self):
        """Return the l at which w_l is w."""
        w = jnp.maximum(jnp.asarray(self.w, jnp.float32), 1e-6)
        return jnp.log1p(-jnp.asarray(self.prior, jnp.float32)) + jnp.log1p(1 / w)

    def strength(self, ratio) -> Float[Array, " b"]:
        """w_l = (1 - prior) / (e^l - (1 - prior)), at most w."""
        rest = 1 - jnp.asarray(self.prior, jnp.float32)
        return rest / (jnp.exp(jnp.maximum(ratio, self.least())) - rest)


@struct.dataclass
class FrequencyDecoupled(Stateless):
    """c + w (d - low) + coarse w low, where low is what of d is left at 1/2^levels of the resolution.

    Sadat et al. 2025 (arXiv 2506.19713), whose pyramid has a strength for each level. coarse = 1 is Equation 6. Below 1
    the coarse half, which holds composition and colour, is guided less than the details.
    """

    w: Any  # scalar or [B]
    coarse: Any = 0.5
    levels: int = struct.static(default=1)

    limits: ClassVar = {"coarse": (0, 10), "levels": (1, 8)}

    def __call__(self, halves, z, logsnr, c, state):
        own = halves.native
        cond, uncond = own.both(z, logsnr, c)
        d = cond - uncond
        b, height, width, channels = d.shape
        small = b, -(-height // 2**self.levels), -(-width // 2**self.levels), channels
        low = jax.image.resize(jax.image.resize(d, small, "linear"), d.shape, "linear")
        return own.guided(cond + process.per_image(self.w, z) * (d - (1 - self.coarse) * low), z, logsnr), state


@struct.dataclass
class LookAhead(Stateless):
    """v~ = v_c(z) + w (v_c - v_u)(z'), z' a step of v_c along the straight path, `ahead` in its time t in [0, 1].

    Saini et al. 2025 (arXiv 2510.07631), Rectified-CFG++, whose `ahead` is the sampler's own step: 1/T with
    config.sampler.grid=t. ahead = 0 is Equation 6. Three passes a step.
    """

    w: Any  # scalar or [B]
    ahead: Any = 0.03

    passes: ClassVar = 3
    predicts_elsewhere: ClassVar = True
    limits: ClassVar = {"ahead": (0, 1)}

    def __call__(self, halves, z, logsnr, c, state):
        own = halves.native
        v = own.to("velocity", own.cond(z, logsnr, c), z, logsnr)
        t = flow.time_of(logsnr)
        t_next = jnp.minimum(t + self.ahead, jnp.maximum(t, 1 - 1e-4))
        logsnr_next = jnp.where(t_next > t, 2 * (jnp.log(t_next) - jnp.log1p(-t_next)), logsnr)
        x, eps = process.x_of_velocity(z, v, logsnr), process.eps_of_velocity(z, v, logsnr)
        there = process.diffuse(x, eps, logsnr_next)
        cond, uncond = (own.to("velocity", half, there, logsnr_next) for half in own.both(there, logsnr_next, c))
        v = v + process.per_image(self.w, z) * (cond - uncond)
        return Guided.of(process.eps_of_velocity(z, v, logsnr), x=process.x_of_velocity(z, v, logsnr)), state


@struct.dataclass
class MagnitudeAware(Stateless):
    """c + w exp(-damping |d| / |u|) d, the norms over an image's elements, of what the network predicts.

    MAMBO-G (arXiv 2508.03442), whose damping is 8 and whose networks predict the velocity. damping = 0 is Equation 6.
    """

    w: Any  # scalar or [B]
    damping: Any = 8.0

    limits: ClassVar = {"damping": (0, np.inf)}

    def __call__(self, halves, z, logsnr, c, state):
        own = halves.native
        cond, uncond = own.both(z, logsnr, c)
        d = cond - uncond
        share = jnp.sqrt(inner(d, d) / jnp.maximum(inner(uncond, uncond), 1e-12))
        return own.guided(cond + process.per_image(self.w, z) * jnp.exp(-self.damping * share) * d, z, logsnr), state


@struct.dataclass
class Tangential(Stateless):
    """Equation 6 with u projected on the first right singular vector of the matrix of the two rows c and u.

    TCFG (arXiv 2503.18137), of what the network predicts. Where c and u are parallel it is Equation 6.
    """

    w: Any  # scalar or [B]

    def __call__(self, halves, z, logsnr, c, state):
        own = halves.native
        cond, uncond = own.both(z, logsnr, c)
        rows = jnp.stack([cond, uncond], 1).reshape(len(z), 2, -1)
        # the singular vector is a sum of both rows, whose weights are an eigenvector of their 2x2 products
        _, weights = jnp.linalg.eigh(jnp.einsum("bix,bjx->bij", rows, rows, precision="highest"))
        first = jnp.einsum("bi,bix->bx", weights[..., -1], rows).reshape(z.shape)
        return own.guided(guide(cond, projection(uncond, first), self.w), z, logsnr), state


@struct.dataclass
class Rectified(Stateless):
    """x_c + w g (x_c - x_u) elementwise, g = the gradient by z / alpha of the sum over x_c's elements.

    REG, Gao et al. 2025 (arXiv 2501.18865). A backward pass costs about two more passes, and is counted as one.
    Where x_c is z / alpha, at the clean end, g is 1 and the rule Equation 6.
    """

    w: Any  # scalar or [B]

    passes: ClassVar = 3
    predicts_elsewhere: ClassVar = True

    def __call__(self, halves, z, logsnr, c, state):
        own = halves.native

        def total(z):
            cond, uncond = own.both(z, logsnr, c)
            return own.to("x", cond, z, logsnr).sum(), (cond, uncond)

        gradient, (cond, uncond) = jax.grad(total, has_aux=True)(z)
        gradient = process.alpha(logsnr) * gradient
        return own.guided(cond + process.per_image(self.w, z) * gradient * (cond - uncond), z, logsnr), state


@struct.dataclass
class BesidePerturbed(Stateless):
    """Equation 6, and perturbation_w (c - c_perturbed) on top, c_perturbed with the attention made worse.

    perturbation: pag, seg or tpg, of cfg_jax.models.attention. perturbation_w = 0 is Equation 6. Three passes a step.
    With Perturbed as the source of eps_u, every rule takes a perturbed pass in place of the null label's.
    """

    w: Any  # scalar or [B]
    perturbation: str = struct.static(default="pag")
    perturbation_w: Any = 1.0

    passes: ClassVar = 3
    unguided_at_0: ClassVar = False
    limits: ClassVar = {"perturbation_w": (-100, 100)}

    def __call__(self, halves, z, logsnr, c, state):
        own = halves.native
        cond, uncond = own.both(z, logsnr, c)
        worse = own.perturbed(self.perturbation, z, logsnr, c)
        found = guide(cond, uncond, self.w) + process.per_image(self.perturbation_w, z) * (cond - worse)
        return own.guided(found, z, logsnr), state
