"""Classifier-free guidance: Algorithm 1's label dropout, Equation 6, and every other way to guide as a value.

w is the paper's: w = 0 is no guidance, w = -1 the unconditional model. Others' scale is s = 1 + w.

The contract. A rule is a frozen pytree dataclass: its numbers are leaves, so that one compiled program serves all of
their values, and what changes the program is static. `init(z)` is its state, a pytree that the sampler carries from
step to step (() where there is none). `rule(halves, z, logsnr, c, state) -> Guided, state` is one step, at a scalar
logsnr: a rule that needs one network pass asks for `halves.cond`, one that needs both for `halves.both`, and may choose
between them by lax.cond. Where eps_u comes from (the null label, another label or model) is none of a rule's business.
`Guided` says what x is predicted with, what noise is put back with, if that is another eps, by how much a particle's
log weight grows, and what a classifier pushes; what is not set is zero, and costs nothing. rules.py has the family.
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
        gradient = log_prob_gradient(log_prob, z, logsnr, c)
        return eps_fn(z, logsnr, c) - scale * process.per_image(process.sigma(logsnr), z) * gradient

    return guided_eps


def log_prob_gradient(log_prob: Callable, z, logsnr, c) -> Array:
    """grad_z log p(c | z, lambda) of each image, [B, ...]."""
    logsnr = jnp.broadcast_to(logsnr, c.shape)
    return jax.grad(lambda z: log_prob(z, logsnr, c).sum())(z)


def both_halves(eps_fn: Callable, uncond, z, logsnr, c) -> tuple[Array, Array]:
    """(eps(z, c), eps(z, uncond)), the network run once on both. uncond: the null label, or a label for each image [B].

    An image's two halves stand side by side: where the batch is split over devices, none is sent to another.
    """
    logsnr = jnp.repeat(jnp.broadcast_to(logsnr, c.shape), 2)
    labels = jnp.stack([c, jnp.broadcast_to(uncond, c.shape)], axis=1).ravel()
    eps = eps_fn(jnp.repeat(z, 2, axis=0), logsnr, labels).reshape(len(z), 2, *z.shape[1:])
    return eps[:, 0], eps[:, 1]


def is_zero(w) -> bool:
    """Whether w is known, while a program is traced, to be 0 for every image."""
    return not isinstance(w, jax.core.Tracer) and bool(np.all(np.asarray(w) == 0))


class Halves(NamedTuple):
    """A model as a rule sees it, all of (z [B, ...], scalar logsnr, c [B])."""

    cond: Callable  # -> eps_c; of a student of guidance with w [B] as a fourth argument
    both: Callable  # -> (eps_c, eps_u)
    uncond: Callable | None = None  # -> eps of the null label


class Guided(NamedTuple):
    eps: Array  # [B, ...], x is predicted with it
    shift: Array  # [B, ...], added to eps where noise is put back
    log_weight: Array  # [B], a particle's gain per log-SNR
    push: Array  # [B, ...], times the variance of Algorithm 2's step, added to its mean. Dhariwal & Nichol 2021, Alg. 1

    @classmethod
    def of(cls, eps, shift=None, log_weight=None):
        shift = jnp.zeros_like(eps) if shift is None else shift
        return cls(eps, shift, jnp.zeros(len(eps)) if log_weight is None else log_weight, jnp.zeros_like(eps))


class Stateless:
    """A rule, or a sampler, that carries nothing from step to step."""

    def init(self, z):
        return ()


STATELESS = (), None  # what Guidance.init gives where nothing is carried


@flax.struct.dataclass
class Unguided(Stateless):
    """w = 0: one pass."""

    def __call__(self, halves, z, logsnr, c, state):
        return Guided.of(halves.cond(z, logsnr, c)), state


@flax.struct.dataclass
class Unconditional(Stateless):
    """eps_u: one pass, for a classifier to guide. w is not looked at."""

    w: Any = -1.0

    unguided_at_0: ClassVar = False

    def __call__(self, halves, z, logsnr, c, state):
        return Guided.of(halves.uncond(z, logsnr, c)), state


@flax.struct.dataclass
class ClassifierFree(Stateless):
    """The paper's. Equation 6."""

    w: Any  # scalar or [B]

    def __call__(self, halves, z, logsnr, c, state):
        eps_cond, eps_uncond = halves.both(z, logsnr, c)
        eps = guide(eps_cond, eps_uncond, self.w)
        return Guided.of(eps, log_weight=log_weight_rate(eps_cond, eps_uncond, self.w)), state


@flax.struct.dataclass
class InOnePass(Stateless):
    """Equation 6 by a student that takes w as an input: one pass. Meng et al. 2023."""

    w: Any  # scalar or [B]

    def __call__(self, halves, z, logsnr, c, state):
        return Guided.of(halves.cond(z, logsnr, c, jnp.broadcast_to(self.w, c.shape))), state


def inner(a: Float[Array, "b ..."], b: Float[Array, "b ..."]) -> Array:
    """Of each image, [B, 1, ...]."""
    return (a * b).sum(axis=tuple(range(1, a.ndim)), keepdims=True)


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
class OtherLabel:
    """eps_u by the model itself with a random other label, anew at each step: independent condition guidance.

    Sadat et al. 2024b. It guides models without a null label. On average over labels it is not eps(z), which weighs the
    labels by p(c | z).
    """

    def labels(self, keys: Array, c: Int[Array, " b"], num_classes: int) -> Int[Array, " b"]:
        """Each image's by its own key, uniform over the others."""
        ahead = jax.vmap(lambda key: jax.random.randint(key, (), 1, num_classes))(keys)
        return (c + ahead) % num_classes


@flax.struct.dataclass
class Guidance:
    """A rule, and what it guides with: the null label if `second` is None, and a classifier's gradient beside it."""

    rule: Any
    second: SecondModel | OtherLabel | None = None
    classifier: Any = None  # has log_prob
    classifier_scale: Any = 1.0
    as_mean: bool = flax.struct.field(pytree_node=False, default=False)  # ADM's form, see Guided.push

    def init(self, keys, z):
        """What a walk carries from step to step: the rule's state, and each image's key where labels are drawn."""
        return self.rule.init(z), (keys if isinstance(self.second, OtherLabel) else None)

    def on(self, model) -> Callable:
        """model: has eps_fn and null -> (z, scalar logsnr, c, state) -> Guided, state."""

        def cond(z, logsnr, c, *w):
            return model.eps_fn(z, jnp.broadcast_to(logsnr, c.shape), c, *w)

        def uncond(z, logsnr, c):
            return cond(z, logsnr, jnp.full_like(c, model.null))

        def step(z, logsnr, c, state):
            state, keys = state
            if keys is not None:
                keys = jax.vmap(lambda key: jax.random.fold_in(key, 2))(keys)

            def both(z, logsnr, c):
                if isinstance(self.second, SecondModel):
                    return cond(z, logsnr, c), self.second.eps_fn(z, jnp.broadcast_to(logsnr, c.shape), c)
                of_u = self.second.labels(keys, c, model.null) if self.second else model.null
                return both_halves(model.eps_fn, of_u, z, logsnr, c)

            out, state = self.rule(Halves(cond, both, uncond), z, logsnr, c, state)
            if self.classifier is not None:
                gradient = self.classifier_scale * log_prob_gradient(self.classifier.log_prob, z, logsnr, c)
                if self.as_mean:
                    out = out._replace(push=gradient)
                else:
                    out = out._replace(eps=out.eps - process.sigma(logsnr) * gradient)
            return out, (state, keys)

        return step
