"""Classifier-free guidance: Algorithm 1's label dropout, Equation 6, and every other way to guide as a value.

w is the paper's: w = 0 is no guidance, w = -1 the unconditional model. Others' scale is s = 1 + w.

The contract. A rule is a frozen pytree dataclass: its numbers are leaves, so that one compiled program serves all of
their values, and what changes the program is static. `init(z)` is its state, a pytree that the sampler carries from
step to step (() where there is none). `rule(halves, z, logsnr, c, state) -> Guided, state` is one step, at a scalar
logsnr: a rule that needs one network pass asks for `halves.cond`, one that needs both for `halves.both`, and may choose
between them by lax.cond. Where eps_u comes from (the null label, another model) is none of a rule's business. `Guided`
says what x is predicted with, what noise is put back with, if that is another eps, and by how much a particle's log
weight grows; what a rule does not set is zero, and costs nothing.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cfg_jax.diffusion import process


def drop_labels(key: Array, c: Int[Array, " b"], p_uncond, null: int) -> Int[Array, " b"]:
    """c -> null with probability p_uncond, each example alone. Algorithm 1, line 3."""
    return jnp.where(jax.random.bernoulli(key, p_uncond, c.shape), null, c)


def guide(eps_cond: Float[Array, "b ..."], eps_uncond: Float[Array, "b ..."], w) -> Float[Array, "b ..."]:
    """eps~ = (1 + w) eps(z, c) - w eps(z), w scalar or [B]. Equation 6."""
    w = process.per_image(w, eps_cond)
    return (1 + w) * eps_cond - w * eps_uncond


def log_weight_rate(eps_cond: Float[Array, "b ..."], eps_uncond: Float[Array, "b ..."], w) -> Float[Array, " b"]:
    """w (1 + w) / 2 |eps(z, c) - eps(z)|^2: what log p(z | c)^(1 + w) p(z)^-w gains on the guided process, per log-SNR.

    Skreta et al. 2025, whose scale is 1 + w.
    """
    d = eps_cond - eps_uncond
    return jnp.asarray(w) * (1 + jnp.asarray(w)) / 2 * inner(d, d).reshape(len(d))


def guided(eps_fn: Callable, w, null: int) -> Callable:
    """eps_fn -> guided eps_fn: both halves in one batch of 2B. A concrete w = 0 needs, and runs, one half."""
    if is_zero(w):
        return eps_fn

    def guided_eps(z, logsnr, c):
        eps_cond, eps_uncond = both_halves(eps_fn, null, z, logsnr, c)
        return guide(eps_cond, eps_uncond, w)

    return guided_eps


def guided_by_classifier(eps_fn: Callable, log_prob: Callable, scale) -> Callable:
    """eps~ = eps - scale sigma grad_z log p(c | z, lambda). Dhariwal & Nichol 2021.

    log_prob: z [B, ...], logsnr [B], c [B] -> [B], each of its own image alone. scale 1 on the unconditional eps is
    Bayes' rule.
    """
    if is_zero(scale):
        return eps_fn

    def guided_eps(z, logsnr, c):
        logsnr = jnp.broadcast_to(logsnr, c.shape)
        gradient = jax.grad(lambda z: log_prob(z, logsnr, c).sum())(z)
        return eps_fn(z, logsnr, c) - scale * process.per_image(process.sigma(logsnr), z) * gradient

    return guided_eps


def both_halves(eps_fn: Callable, null: int, z, logsnr, c) -> tuple[Array, Array]:
    """(eps(z, c), eps(z)), the network run once on both.

    An image's two halves stand side by side: where the batch is split over devices, none is sent to another.
    """
    logsnr = jnp.repeat(jnp.broadcast_to(logsnr, c.shape), 2)
    labels = jnp.stack([c, jnp.full_like(c, null)], axis=1).ravel()
    eps = eps_fn(jnp.repeat(z, 2, axis=0), logsnr, labels).reshape(len(z), 2, *z.shape[1:])
    return eps[:, 0], eps[:, 1]


def is_zero(w) -> bool:
    """Whether w is known, while a program is traced, to be 0 for every image."""
    return not isinstance(w, jax.core.Tracer) and bool(np.all(np.asarray(w) == 0))


class Halves(NamedTuple):
    """A model as a rule sees it, both of (z [B, ...], scalar logsnr, c [B])."""

    cond: Callable  # -> eps_c
    both: Callable  # -> (eps_c, eps_u)


class Guided(NamedTuple):
    eps: Array  # [B, ...], x is predicted with it
    shift: Array  # [B, ...], added to eps where noise is put back
    log_weight: Array  # [B], a particle's gain per log-SNR

    @classmethod
    def of(cls, eps, shift=None, log_weight=None):
        shift = jnp.zeros_like(eps) if shift is None else shift
        return cls(eps, shift, jnp.zeros(len(eps)) if log_weight is None else log_weight)


class Stateless:
    """A rule, or a sampler, that carries nothing from step to step."""

    def init(self, z):
        return ()


@flax.struct.dataclass
class Unguided(Stateless):
    """w = 0: one pass."""

    def __call__(self, halves, z, logsnr, c, state):
        return Guided.of(halves.cond(z, logsnr, c)), state


@flax.struct.dataclass
class ClassifierFree(Stateless):
    """The paper's. Equation 6."""

    w: Any  # scalar or [B]

    def __call__(self, halves, z, logsnr, c, state):
        eps_cond, eps_uncond = halves.both(z, logsnr, c)
        eps = guide(eps_cond, eps_uncond, self.w)
        return Guided.of(eps, log_weight=log_weight_rate(eps_cond, eps_uncond, self.w)), state


@flax.struct.dataclass
class Interval(Stateless):
    """Another rule where low < logsnr <= high, and elsewhere no guidance and no second pass.

    Kynkaanniemi et al. 2024; a noise level of theirs is sigma / alpha = exp(-logsnr / 2).
    """

    rule: Any
    logsnr_low: Any = -np.inf
    logsnr_high: Any = np.inf

    limits: ClassVar = {"logsnr_low": (-np.inf, np.inf), "logsnr_high": (-np.inf, np.inf)}

    @staticmethod
    def problem(section):
        """What is wrong with the fields of a config together, or None."""
        low, high = section.logsnr_low, section.logsnr_high
        return None if None in (low, high) or low < high else f"logsnr_low={low} must be below logsnr_high={high}"

    def init(self, z):
        return self.rule.init(z)

    def __call__(self, halves, z, logsnr, c, state):
        inside = (self.logsnr_low < logsnr) & (logsnr <= self.logsnr_high)
        by = lambda rule: lambda: rule(halves, z, logsnr, c, state)  # noqa: E731
        return jax.lax.cond(inside, by(self.rule), by(Unguided()))


@flax.struct.dataclass
class APG:
    """Adaptive projected guidance, in x: momentum, a bound on the norm, and less of what is parallel to x_c.

    d = x_c - x_u + momentum d_before; d <- d min(1, radius / |d|); x~ = x_c + w (d_orthogonal + parallel d_parallel).
    Sadat et al. 2024, whose scale is 1 + w and momentum -0.5; momentum 0, radius inf and parallel 1 are Equation 6. d
    of noisier steps is larger by far, so that with few of them a momentum other than 0 is the greater part.
    """

    w: Any  # scalar or [B]
    momentum: Any = 0.0
    radius: Any = 2.5  # in norms of x, over an image's elements
    parallel: Any = 0.0  # their eta

    limits: ClassVar = {"momentum": (-1, 1), "radius": (0, np.inf), "parallel": (0, 1)}

    def init(self, z):
        return jnp.zeros_like(z)

    def __call__(self, halves, z, logsnr, c, before):
        cond, uncond = halves.both(z, logsnr, c)
        x_of_eps = -process.sigma(logsnr) / process.alpha(logsnr)  # the change of x with eps
        x = process.predict_x(z, cond, logsnr)
        total = x_of_eps * (cond - uncond) + self.momentum * before
        norm = jnp.sqrt(inner(total, total))
        d = total * jnp.minimum(1, self.radius / jnp.maximum(norm, 1e-12))
        along = inner(d, x) / jnp.maximum(inner(x, x), 1e-12) * x
        d = d - (1 - self.parallel) * along
        return Guided.of(cond + process.per_image(self.w, z) * d / x_of_eps), total


def inner(a: Float[Array, "b ..."], b: Float[Array, "b ..."]) -> Array:
    """Of each image, [B, 1, ...]."""
    return (a * b).sum(axis=tuple(range(1, a.ndim)), keepdims=True)


RULES = {"classifier-free": ClassifierFree, "apg": APG}
WRAPPERS = (Interval,)  # around any of them, where a config sets one of their fields


@flax.struct.dataclass
class SecondModel:
    """eps_u by another model: a separately trained pair, or autoguidance.

    It sees no label where it was trained on none, else the same ones. model: has eps_fn and null.
    """

    model: Any
    unlabelled: bool = flax.struct.field(pytree_node=False)

    def eps_fn(self, z, logsnr, c):
        return self.model.eps_fn(z, logsnr, jnp.full_like(c, self.model.null) if self.unlabelled else c)


@flax.struct.dataclass
class Guidance:
    """A rule, and what it guides with: the null label if `second` is None, and a classifier's gradient beside it."""

    rule: Any
    second: SecondModel | None = None
    classifier: Any = None  # has log_prob
    classifier_scale: Any = 1.0

    def on(self, model) -> Callable:
        """model: has eps_fn and null -> (z, scalar logsnr, c, state) -> Guided, state."""

        def cond(z, logsnr, c):
            return model.eps_fn(z, jnp.broadcast_to(logsnr, c.shape), c)

        def both(z, logsnr, c):
            if self.second is None:
                return both_halves(model.eps_fn, model.null, z, logsnr, c)
            return cond(z, logsnr, c), self.second.eps_fn(z, jnp.broadcast_to(logsnr, c.shape), c)

        def step(z, logsnr, c, state):
            guided, state = self.rule(Halves(cond, both), z, logsnr, c, state)
            if self.classifier is not None:
                eps_fn = lambda *_, eps=guided.eps: eps  # noqa: E731
                shifted = guided_by_classifier(eps_fn, self.classifier.log_prob, self.classifier_scale)
                guided = guided._replace(eps=shifted(z, logsnr, c))
            return guided, state

        return step
