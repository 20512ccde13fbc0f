"""The family of guidance rules, each one value by the contract of guidance.py.

A config names a direction of RULES, and sets the fields of the WRAPPERS that go around it. They compose from the inside
out: w as a function of logsnr (Scheduled), the direction, its magnitude (Rescaled), the log-SNR where it holds
(Interval), the rounds of the walk (Rounds). Where eps_u comes from is Guidance.second; the threshold of x is the
Walk's. Outside of the interval, and before the first of the rounds, there is no guidance: a step takes one pass, with
the image's label, or with the null label for the direction `unconditional`.

Of a class, `limits` are the ranges of its fields, and `problem(config)` says what is wrong with the fields of a config
together, or None. `unguided_at_0` is False where w = 0 is not the conditional model by itself. `sampler_has` is what a
sampler must declare to walk by the rule, with the remedy. `limits_where` is True for a wrapper that decides at which
noise levels there is guidance.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cfg_jax.diffusion import directions, process, struct
from cfg_jax.diffusion.guidance import (
    ClassifierFree,
    Guided,
    Stateless,
    Unconditional,
    Unguided,
    guide,
    inner,
    passes_of,
    projection,
)
from cfg_jax.diffusion.loss import PREDICTIONS
from cfg_jax.errors import require


@struct.dataclass
class PowerLaw(Stateless):
    """eps_c + w |d|^power d with d = eps_c - eps_u, |d| over an image's elements. power = 0 is Equation 6.

    Pavasovic et al. 2025, whose d is the difference of scores, d / sigma: their weight is sigma^-power times this one,
    and has no bound where sigma goes to 0. No w compares with theirs. A power above 0 guides more where the halves
    differ more; |d| and so w depend on the size of the images.
    """

    w: Any  # scalar or [B]
    power: Any = 0.9

    limits: ClassVar = {"power": (-1, 4)}

    def __call__(self, halves, z, logsnr, c, state):
        own = halves.native
        cond, uncond = own.both(z, logsnr, c)
        d = cond - uncond
        # eps changes by -alpha / sigma of what x does
        of_eps = 1 if own.predicts == "eps" else PREDICTIONS[own.predicts].slope(logsnr) * jnp.exp(logsnr / 2)
        length = jnp.sqrt(jnp.maximum(inner(d, d) * of_eps**2, 1e-24))
        return own.guided(cond + process.per_image(self.w, z) * length**self.power * d, z, logsnr), state


@struct.dataclass
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
        own = halves.native
        cond, uncond = own.both(z, logsnr, c)
        slope = PREDICTIONS[own.predicts].slope(logsnr)  # the change of x with what is predicted
        x = own.to("x", cond, z, logsnr)
        total = slope * (cond - uncond) + self.momentum * before
        norm = jnp.sqrt(inner(total, total))
        d = total * jnp.minimum(1, self.radius / jnp.maximum(norm, 1e-12))
        d = d - (1 - self.parallel) * projection(d, x)
        return own.guided(cond + process.per_image(self.w, z) * d / slope, z, logsnr), total


@struct.dataclass
class ZeroStar(Stateless):
    """CFG-Zero*, in the velocity of the straight path: v~ = (1 + w) v_c - w k v_u, k v_u the projection of v_c on v_u.

    Fan et al. 2025. Where logsnr < zero_below the velocity is 0, so that x equals eps. The paper's first 4 % of the
    path correspond to zero_below = 2 log(0.04 / 0.96) = -6.4. k = 1 would be Equation 6.
    """

    w: Any  # scalar or [B]
    zero_below: Any = struct.optional(float, default=-np.inf)  # log-SNR

    limits: ClassVar = {"zero_below": (-np.inf, np.inf)}

    def __call__(self, halves, z, logsnr, c, state):
        own = halves.native
        cond, uncond = (own.to("velocity", half, z, logsnr) for half in own.both(z, logsnr, c))
        v = guide(cond, projection(cond, uncond), self.w)
        v = jnp.where(logsnr < self.zero_below, 0, v)
        return Guided.of(process.eps_of_velocity(z, v, logsnr), x=process.x_of_velocity(z, v, logsnr)), state


@struct.dataclass
class PlusPlus(Stateless):
    """CFG++: x by eps_u + w (eps_c - eps_u), and noise is put back with eps_u. Chung et al. 2024, whose lambda is w.

    A step of DDIM from lambda to lambda' is Equation 6's where 1 + its w = w / (1 - exp((lambda - lambda') / 2)), which
    grows with T: no w compares between two T. w lies in [0, 1], and w = 0 is the unconditional model.
    """

    w: Any  # scalar or [B]

    unguided_at_0: ClassVar = False
    sampler_has: ClassVar = ("takes_shift", "name=cfg_pp is a step of DDIM: set config.sampler.name=ddim")

    @staticmethod
    def problem(config):
        if config.guidance.rescale is not None:
            return "name=cfg_pp puts noise back with eps_u, which config.guidance.rescale would change: leave that out"
        return None

    def __call__(self, halves, z, logsnr, c, state):
        own = halves.native
        cond, uncond = own.both(z, logsnr, c)
        found = guide(cond, uncond, jnp.asarray(self.w) - 1)
        shift = own.to("eps", uncond, z, logsnr) - own.to("eps", found, z, logsnr)
        return own.guided(found, z, logsnr, shift=shift), state


@struct.dataclass
class TwoLabels(Stateless):
    """eps_c + w (eps_c - eps_u) + other_w (eps_other - eps_u): a label beside the image's own, or away from it.

    Liu et al. 2022, Composable Diffusion, whose weights of the two labels are 1 + w and other_w. Three passes a step.
    """

    w: Any  # scalar or [B]
    other_label: Any = struct.optional(int, default=None)  # or [B]
    other_w: Any = 1.0

    passes: ClassVar = 3
    unguided_at_0: ClassVar = False
    per_image: ClassVar = ("w", "other_label")
    limits: ClassVar = {"other_w": (-100, 100)}

    @staticmethod
    def problem(config):
        label, count = config.guidance.other_label, config.data.num_classes
        if label is None or label not in range(count):
            return f"other_label={label} must be one of the {count} classes, 0 to {count - 1}, for name=two_labels"
        return None

    def __call__(self, halves, z, logsnr, c, state):
        own = halves.native
        cond, uncond = own.both(z, logsnr, c)
        other = own.cond(z, logsnr, jnp.broadcast_to(jnp.asarray(self.other_label, jnp.int32), c.shape))
        found = guide(cond, uncond, self.w) + process.per_image(self.other_w, z) * (other - uncond)
        return own.guided(found, z, logsnr), state


class Around:
    """A rule around another, `rule`, whose state it carries."""

    rule: Any

    def init(self, z):
        return self.rule.init(z)

    def counts(self, logsnrs):
        return passes_of(self.rule, logsnrs)


# w over the cosine schedule's time u, 0 at the clean end and 1 at the noise: w times a factor whose mean over u is 1
SCHEDULES = {
    "linear": lambda u: 2 * (1 - u),  # Wang et al. 2024
    "cosine": lambda u: 1 + jnp.cos(jnp.pi * u),  # Wang et al. 2024
    "c2fg": lambda u: jnp.exp(1 - u) / (jnp.e - 1),  # arXiv 2603.08155 with an exponent of 1
    # (1 - alpha^2) alpha / beta of DG-CFG, arXiv 2607.19725: sigma alpha^2 where beta = pi tan(pi u / 2)
    "dg": lambda u: 3 * jnp.pi / 2 * jnp.sin(jnp.pi * u / 2) * jnp.cos(jnp.pi * u / 2) ** 2,
}


@struct.dataclass
class Scheduled(Around):
    """Another rule with w times a factor: one of SCHEDULES, or schedule_w at the points schedule_logsnr.

    schedule_w is linear between the points, and constant beyond.
    """

    rule: Any
    schedule_logsnr: Any = struct.optional(tuple, default=(0.0,))
    schedule_w: Any = struct.optional(tuple, default=(1.0,))
    schedule: str = struct.optional(str, default="points", static=True)

    @staticmethod
    def problem(config):
        at, factors, name = (config.guidance[f] for f in ("schedule_logsnr", "schedule_w", "schedule"))
        if name not in {None, *SCHEDULES}:
            return f"schedule={name} is unknown: choose one of {', '.join(SCHEDULES)}"
        if at is None and factors is None:
            return None
        if name is not None:
            return f"schedule={name} says by itself how w changes: leave out schedule_logsnr and schedule_w"
        if not at or not factors or len(at) != len(factors) or not np.all(np.diff(at) > 0):
            return f"schedule_logsnr={at} must increase, and have as many numbers as schedule_w={factors}"
        return None

    def __call__(self, halves, z, logsnr, c, state):
        if self.schedule == "points":
            factor = jnp.interp(logsnr, jnp.asarray(self.schedule_logsnr), jnp.asarray(self.schedule_w))
        else:
            factor = SCHEDULES[self.schedule](2 / jnp.pi * jnp.arctan(jnp.exp(-logsnr / 2)))
        return dataclasses.replace(self.rule, w=factor * self.rule.w)(halves, z, logsnr, c, state)


@struct.dataclass
class Rescaled(Around):
    """Another rule's x~ <- rescale x~ std(x_c) / std(x~) + (1 - rescale) x~, std over an image's elements.

    Lin et al. 2023, with rescale = 0.7. It is done in x, whatever the network predicts. rescale = 0 changes nothing.
    """

    rule: Any
    rescale: Any = struct.optional(float, default=0.7)

    limits: ClassVar = {"rescale": (0, 1)}

    elsewhere: ClassVar = "rescale gives its rule the prediction at z, and this rule asks for others: leave rescale out"

    @staticmethod
    def problem(config):
        asks = getattr(RULES[config.guidance.name], "predicts_elsewhere", False)
        return Rescaled.elsewhere if config.guidance.rescale and asks else None

    def __call__(self, halves, z, logsnr, c, state):
        require(not any(getattr(part, "predicts_elsewhere", False) for part in parts(self.rule)), self.elsewhere)
        own = halves.native
        both = own.both(z, logsnr, c)  # once: the rule is given the same
        eps_both = tuple(own.to("eps", half, z, logsnr) for half in both)
        known = halves._replace(both=lambda *_: eps_both, own=halves.own and own._replace(both=lambda *_: both))
        out, state = self.rule(known, z, logsnr, c, state)
        x_cond, x = own.to("x", both[0], z, logsnr), out.whole(z, logsnr).x
        wide = spread(x) > 0  # of a flat image there is nothing to scale
        ratio = jnp.where(wide, spread(x_cond) / jnp.where(wide, spread(x), 1), 1)
        x = (self.rescale * ratio + 1 - self.rescale) * x
        return out._replace(eps=process.predict_eps(z, x, logsnr), x=x), state


@struct.dataclass
class Interval(Around):
    """Another rule where low <= logsnr < high, and elsewhere no guidance and no second pass.

    Kynkaanniemi et al. 2024, whose noise level sigma / alpha = exp(-logsnr / 2) lies in (sigma_lo, sigma_hi].
    """

    rule: Any
    logsnr_low: Any = struct.optional(float, default=-np.inf)
    logsnr_high: Any = struct.optional(float, default=np.inf)

    limits_where: ClassVar = True
    limits: ClassVar = {"logsnr_low": (-np.inf, np.inf), "logsnr_high": (-np.inf, np.inf)}

    @staticmethod
    def problem(config):
        low, high = config.guidance.logsnr_low, config.guidance.logsnr_high
        return None if None in (low, high) or low < high else f"logsnr_low={low} must be below logsnr_high={high}"

    def inside(self, logsnr):
        return (self.logsnr_low <= logsnr) & (logsnr < self.logsnr_high)

    def counts(self, logsnrs):
        return np.where(self.inside(logsnrs), passes_of(self.rule, logsnrs), 1)

    def __call__(self, halves, z, logsnr, c, state):
        return only_where(self.inside(logsnr), self.rule, halves, z, logsnr, c, state)


@struct.dataclass
class Rounds:
    """Gibbs-like guidance: sample at w = 0, then `rounds` times add noise up to renoise_logsnr and denoise by a rule.

    Moufad et al. 2025. The walk's grid is longer by the steps above renoise_logsnr in each round, see `grid`. The
    rule's state begins anew with each round: a momentum of the clean end says nothing at noisier levels.
    """

    rule: Any
    rounds: int = struct.optional(int, default=1, static=True)
    renoise_logsnr: Any = struct.optional(float, default=0.0)

    unguided_at_0: ClassVar = False  # the rounds of w = 0 make another image
    limits_where: ClassVar = True
    sampler_has: ClassVar = (
        "goes_back",
        "rounds go back on the grid, where sampler {} cannot: set config.sampler.name to ancestral or ddim",
    )
    limits: ClassVar = {"rounds": (1, 64)}

    @staticmethod
    def problem(config):
        rounds, level = config.guidance.rounds, config.guidance.renoise_logsnr
        if rounds is None and level is None:
            return None
        if not isinstance(rounds, int) or level is None or not config.logsnr_min < level < config.logsnr_max:
            inside = f"({config.logsnr_min:g}, {config.logsnr_max:g})"
            return f"rounds={rounds} and renoise_logsnr={level} go together: a count, and a log-SNR in {inside}"
        return None

    def grid(self, logsnrs):
        """Return logsnrs [T], followed by those above renoise_logsnr once for each round."""
        again = np.append(np.float32(self.renoise_logsnr), logsnrs[logsnrs > self.renoise_logsnr])
        return np.concatenate([logsnrs, *[again] * self.rounds])

    def counts(self, logsnrs):
        again = np.logical_or.accumulate(np.diff(logsnrs, prepend=-np.inf) < 0)
        return np.where(again, passes_of(self.rule, logsnrs), 1)

    def init(self, z):
        return self.rule.init(z), jnp.float32(-np.inf), jnp.bool_(False)

    def __call__(self, halves, z, logsnr, c, state):
        state, before, again = state
        back = logsnr < before
        again |= back
        state = jax.tree.map(lambda new, old: jnp.where(back, new, old), self.rule.init(z), state)
        out, state = only_where(again, self.rule, halves, z, logsnr, c, state)
        return out, (state, logsnr, again)


def only_where(holds, rule, *args):
    """Apply the rule where `holds`, a traced bool [], and take one unguided pass elsewhere. args: of a rule's call."""
    _, z, logsnr, *_ = args
    plain = Unconditional() if isinstance(parts(rule)[-1], Unconditional) else Unguided()

    def by(rule):
        out, state = rule(*args)
        return out.whole(z, logsnr), state

    return jax.lax.cond(holds, lambda: by(rule), lambda: by(plain))


def parts(rule) -> list:
    """Return a rule and the rules that it wraps, from the outermost to the innermost."""
    return [rule, *(parts(rule.rule) if hasattr(rule, "rule") else [])]


def spread(x: Float[Array, "b ..."]) -> Array:
    """Return the standard deviation over each image's elements, [B, 1, ...]."""
    return x.std(axis=tuple(range(1, x.ndim)), keepdims=True)


RULES = {
    "classifier-free": ClassifierFree,
    "power_law": PowerLaw,
    "apg": APG,
    "cfg_zero": ZeroStar,
    "cfg_pp": PlusPlus,
    "two_labels": TwoLabels,
    "feedback": directions.Feedback,
    "fdg": directions.FrequencyDecoupled,
    "rectified_cfg_pp": directions.LookAhead,
    "mambo_g": directions.MagnitudeAware,
    "tcfg": directions.Tangential,
    "reg": directions.Rectified,
    "beside_perturbed": directions.BesidePerturbed,
    "unconditional": Unconditional,
}
# around any of them, where a config sets one of their fields, the innermost first
WRAPPERS = (Scheduled, Rescaled, Interval, Rounds)
