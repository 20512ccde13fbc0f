"""Classifier-free guidance: Algorithm 1's label dropout, Equation 6, and every other way to guide as a value.

w is the paper's: w = 0 is no guidance, w = -1 the unconditional model. Others' scale is s = 1 + w.

The contract. A rule is a frozen pytree dataclass: its numbers are leaves, so that one compiled program serves all of
their values, and what changes the program is static. Its fields named in `per_image`, by default w alone, may be a
number for each image [B]; no other field is cut into batches. `init(z)` is its state, a pytree that the sampler carries
from step to step (() where there is none). `rule(halves, z, logsnr, c, state) -> Guided, state` is one step, at a
scalar logsnr: a rule that needs one network pass asks for `halves.cond`, one that needs both for `halves.both`, and may
choose between them by lax.cond. Where eps_u comes from (the null label, another label or model) is not its business.
`passes` is the number of network passes of a step, 2 by default. A rule for which it changes with the noise level
defines `counts(logsnrs)` instead, which returns the number at each level of a walk. rules.py has the family. `Guided`
has eps, from which x is predicted, and x itself where the rule knows it more exactly; the shift of the noise that is
put back; the gain of a particle's log weight; and a classifier's push. What is not set costs nothing.

z and every prediction are float32: what a model gives in another dtype is converted. eps loses x where noise is nearly
all, since x = (z - sigma eps) / alpha. So a rule that is linear asks `halves.native`, which gives the predictions as
the network makes them (loss.PREDICTIONS), and answers by its `guided`, which tells x and eps without that detour.

A classifier's gradient is added to what the rule gives: after w's schedule, the direction and the rescaling, but within
the interval and the rounds. Elsewhere it is not computed.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from cfg_jax.diffusion import process, struct
from cfg_jax.diffusion.loss import convert


def drop_labels(key: Array, c: Int[Array, " b"], p_uncond, null: int) -> Int[Array, " b"]:
    """c -> null with probability p_uncond, each example alone. Algorithm 1, line 3."""
    return jnp.where(jax.random.bernoulli(key, jnp.float32(p_uncond), c.shape), null, c)


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
    """Return whether w is known to be 0 for every image while a program is traced."""
    return not isinstance(w, Tracer) and bool(np.all(np.asarray(w) == 0))


class Halves(NamedTuple):
    """A model as a rule sees it. Every field is a function of (z [B, ...], scalar logsnr, c [B])."""

    cond: Callable  # -> eps_c; of a student of guidance with w [B] as a fourth argument
    both: Callable  # -> (eps_c, eps_u)
    uncond: Callable | None = None  # -> eps of the null label
    predicts: str = "eps"  # what the three give, a name of loss.PREDICTIONS
    own: Any = None  # the Halves of what the network predicts, None where that is eps
    perturbed: Callable | None = None  # (kind, z, logsnr, c) -> eps_c with worse attention

    @property
    def native(self) -> "Halves":
        """Return the same model, in terms of what its network predicts."""
        return self.own or self

    def to(self, target: str, predicted, z, logsnr) -> Array:
        """Convert a prediction [B, ...] of this model to another one of loss.PREDICTIONS."""
        return convert(predicted, z, logsnr, self.predicts, target)

    def guided(self, predicted, z, logsnr, **more) -> "Guided":
        """Return what a rule answers, given its guided prediction [B, ...]. more: further arguments of Guided.of."""
        x = None if self.predicts == "eps" else self.to("x", predicted, z, logsnr)
        return Guided.of(self.to("eps", predicted, z, logsnr), x=x, **more)


class Guided(NamedTuple):
    eps: Array  # [B, ...], x is predicted with it
    shift: Array  # [B, ...], added to eps where noise is put back
    log_weight: Array  # [B], a particle's gain per log-SNR
    push: Array  # [B, ...], times the variance of Algorithm 2's step, added to its mean. Dhariwal & Nichol 2021, Alg. 1
    x: Array | None = None  # [B, ...], the x that belongs to eps, where it is known better than eps tells it

    @classmethod
    def of(cls, eps, shift=None, log_weight=None, x=None):
        shift = jnp.zeros_like(eps) if shift is None else shift
        log_weight = jnp.zeros(len(eps), jnp.float32) if log_weight is None else log_weight
        return cls(eps, shift, log_weight, jnp.zeros_like(eps), x)

    def whole(self, z, logsnr) -> "Guided":
        """Return the same in float32, with x filled in."""
        out = jax.tree.map(jnp.float32, self)
        return out if out.x is not None else out._replace(x=process.predict_x(z, out.eps, logsnr))


class Stateless:
    """A rule, or a sampler, that carries nothing from step to step."""

    def init(self, z):
        return ()


LABELS = 2**31 - 1  # folded into an image's key for its random labels: no walk has so many steps
STATELESS = (), None  # what Guidance.init gives where nothing is carried


@struct.dataclass
class Unguided(Stateless):
    """w = 0: one pass."""

    passes: ClassVar = 1
    weighs: ClassVar = True

    def __call__(self, halves, z, logsnr, c, state):
        return halves.native.guided(halves.native.cond(z, logsnr, c), z, logsnr), state


@struct.dataclass
class Unconditional(Stateless):
    """eps_u: one pass, for a classifier to guide. w is not looked at."""

    w: Any = -1.0

    passes: ClassVar = 1
    unguided_at_0: ClassVar = False

    def __call__(self, halves, z, logsnr, c, state):
        return halves.native.guided(halves.native.uncond(z, logsnr, c), z, logsnr), state


@struct.dataclass
class ClassifierFree(Stateless):
    """The paper's. Equation 6."""

    w: Any  # scalar or [B]

    weighs: ClassVar = True  # gives particles their log weights

    def __call__(self, halves, z, logsnr, c, state):
        own = halves.native
        cond, uncond = own.both(z, logsnr, c)
        eps_cond, eps_uncond = (own.to("eps", half, z, logsnr) for half in (cond, uncond))
        log_weight = log_weight_rate(eps_cond, eps_uncond, self.w)
        return own.guided(guide(cond, uncond, self.w), z, logsnr, log_weight=log_weight), state


@struct.dataclass
class InOnePass(Stateless):
    """Equation 6 by a student that takes w as an input: one pass. Meng et al. 2023."""

    w: Any  # scalar or [B]

    passes: ClassVar = 1

    def __call__(self, halves, z, logsnr, c, state):
        own = halves.native
        return own.guided(own.cond(z, logsnr, c, jnp.broadcast_to(self.w, c.shape)), z, logsnr), state


@struct.dataclass
class ByClassifier:
    """Another rule, and eps - scale sigma grad_z log p(c | z, lambda). Dhariwal & Nichol 2021.

    as_mean is ADM's own form: the gradient moves the mean of Algorithm 2's step, see Guided.push.
    """

    rule: Any
    classifier: Any  # has log_prob
    scale: Any = 1.0
    as_mean: bool = struct.static(default=False)

    def __call__(self, halves, z, logsnr, c, state):
        out, state = self.rule(halves, z, logsnr, c, state)
        out = out.whole(z, logsnr)
        gradient = self.scale * log_prob_gradient(self.classifier.log_prob, z, logsnr, c)
        if self.as_mean:
            return out._replace(push=gradient), state
        eps = out.eps - process.sigma(logsnr) * gradient
        return out._replace(eps=eps, x=process.predict_x(z, eps, logsnr)), state


def passes_of(rule: Any, logsnrs: np.ndarray) -> np.ndarray:
    """Return how often a rule sends an image through a network at each noise level of a walk, int [len(logsnrs)].

    A classifier is no such network.
    """
    if hasattr(rule, "counts"):
        return rule.counts(logsnrs)
    return np.full(len(logsnrs), getattr(rule, "passes", 2))


def inner(a: Float[Array, "b ..."], b: Float[Array, "b ..."]) -> Array:
    """Return the inner product of each image of a with that of b, [B, 1, ...]."""
    return (a * b).sum(axis=tuple(range(1, a.ndim)), keepdims=True)


def projection(a: Float[Array, "b ..."], b: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
    """Project each image of a onto the same image of b."""
    return inner(a, b) / jnp.maximum(inner(b, b), 1e-12) * b


@struct.dataclass
class SecondModel:
    """eps_u by another model: a separately trained pair, or autoguidance.

    It gets the null label if it was trained without labels, otherwise the images' labels. model: has eps_fn and null.
    """

    model: Any
    unlabelled: bool = struct.static()

    def labels(self, c: Int[Array, " b"]) -> Int[Array, " b"]:
        return jnp.full_like(c, self.model.null) if self.unlabelled else c


@struct.dataclass
class OtherLabel:
    """eps_u by the model itself with a random other label, anew at each step: independent condition guidance.

    Sadat et al. 2024b. It guides models without a null label. On average over labels it is not eps(z), which weighs the
    labels by p(c | z).
    """

    def labels(self, keys: Array, c: Int[Array, " b"], num_classes: int) -> Int[Array, " b"]:
        """Draw a label for each image by its own key, uniform over the other classes."""
        ahead = jax.vmap(lambda key: jax.random.randint(key, (), 1, num_classes, jnp.int32))(keys)
        return (c + ahead) % num_classes


@struct.dataclass
class Perturbed:
    """eps_u by the model itself with its own label and worse attention: it guides without a null label.

    kind: one of the network's `perturbations`, such as those of cfg_jax.models.attention.
    """

    kind: str = struct.static()


@struct.dataclass
class InnerHead:
    """eps_u by the inner head of the model, in the same pass: Internal Guidance (arXiv 2512.24176)."""


@struct.dataclass
class Guidance:
    """A rule, where eps_u comes from (the null label if `second` is None), and a noisy-image classifier or None."""

    rule: Any
    second: SecondModel | OtherLabel | Perturbed | InnerHead | None = None
    classifier: Any = None  # has log_prob
    classifier_scale: Any = 1.0
    as_mean: bool = struct.static(default=False)  # ADM's form, see Guided.push

    def init(self, keys, z):
        """What a walk carries from step to step: the rule's state, and each image's key where labels are drawn.

        These are keys of their own: a walk's noises are drawn by fold_in(key, step).
        """
        of_labels = jax.vmap(lambda key: jax.random.fold_in(key, LABELS))
        return self.rule.init(z), (of_labels(keys) if isinstance(self.second, OtherLabel) else None)

    def counts(self, logsnrs: np.ndarray) -> np.ndarray:
        """Return the passes at each noise level. With an inner head, both halves take one pass."""
        each = passes_of(self.rule, logsnrs)
        return np.maximum(1, each - 1) if isinstance(self.second, InnerHead) else each

    def on(self, model) -> Callable:
        """model: has eps_fn and null -> (z, scalar logsnr, c, state) -> Guided, state."""
        rule, predicts = self.rule, getattr(model, "predicts", "eps")
        if self.classifier is not None:
            rule = within(rule, lambda rule: ByClassifier(rule, self.classifier, self.classifier_scale, self.as_mean))

        def halves(target, keys):
            def cond(z, logsnr, c, *w, of=model):
                return predicted(of, target, z, jnp.broadcast_to(logsnr, c.shape), c, *w)

            def uncond(z, logsnr, c):
                return cond(z, logsnr, jnp.full_like(c, model.null))

            def perturbed(kind, z, logsnr, c):
                return cond(z, logsnr, c, of=model.perturbed(kind))

            def both(z, logsnr, c):
                if isinstance(self.second, SecondModel):
                    return cond(z, logsnr, c), cond(z, logsnr, self.second.labels(c), of=self.second.model)
                if isinstance(self.second, InnerHead):
                    heads = model.heads(z, jnp.broadcast_to(logsnr, c.shape), c)
                    return tuple(convert(jnp.float32(head), z, logsnr, predicts, target) for head in heads)
                if isinstance(self.second, Perturbed):
                    return cond(z, logsnr, c), perturbed(self.second.kind, z, logsnr, c)
                of_u = self.second.labels(keys, c, model.null) if self.second else model.null
                return both_halves(cond, of_u, z, logsnr, c)

            return Halves(cond, both, uncond, target, perturbed=perturbed)

        def step(z, logsnr, c, state):
            state, keys = state
            if keys is not None:
                keys = jax.vmap(lambda key: jax.random.fold_in(key, 2))(keys)
            own = None if predicts == "eps" else halves(predicts, keys)
            out, state = rule(halves("eps", keys)._replace(own=own), z, logsnr, c, state)
            return out, (state, keys)

        return step


def predicted(model, target: str, z, logsnr, c, *w) -> Float[Array, "b ..."]:
    """What a model says, as one of loss.PREDICTIONS in float32. It has eps_fn, or predicts another one by `predict`."""
    predicts = getattr(model, "predicts", "eps")
    out = (model.eps_fn if predicts == "eps" else model.predict)(z, logsnr, c, *w)
    return convert(jnp.asarray(out, jnp.float32), z, logsnr, predicts, target)


def within(rule, change: Callable):
    """Change what lies inside a rule's interval and rounds, which are the classes with `limits_where`."""
    if getattr(rule, "limits_where", False):
        return dataclasses.replace(rule, rule=within(rule.rule, change))
    return change(rule)
