"""Laws of the plane whose eps is exact, and a small network of their velocity, trained, rectified, distilled.

The network learns two classes, each a ring of twelve Gaussians. The rings stand apart ("separate") or are linked
("overlapping").
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from cfg_jax.diffusion import flow, guidance, loss, process, struct
from cfg_jax.models.mixture import Mixture

RINGS = {"separate": (1.4, 0.8), "overlapping": (0.6, 1.0)}  # a centre's distance from 0, and the radius
BATCH, P_UNCOND = 256, 1 / 3
OBJECTIVE = loss.Objective(predicts="velocity", error="velocity", density="uniform_t")


def rings(name: str, num: int = 12, std: float = 0.2) -> Mixture:
    """Return class 0 on the left and class 1 on the right, of `num` Gaussians each."""
    (centre, radius), angles = RINGS[name], 2 * np.pi * np.arange(num) / num
    ring, aside = radius * np.stack([np.cos(angles), np.sin(angles)], 1), np.array([centre, 0])
    means = np.concatenate([ring - aside, ring + aside])
    return Mixture(jnp.float32(means), jnp.full(2 * num, std), jnp.full(2 * num, 0.5 / num), (0,) * num + (1,) * num)


def three_gaussians() -> Mixture:
    """Return means on the unit circle 120 degrees apart, with standard deviation 1/2 and equal weights."""
    angles = np.pi / 2 + 2 * np.pi / 3 * np.arange(3)
    means = np.stack([np.cos(angles), np.sin(angles)], 1)
    return Mixture(jnp.float32(means), jnp.full(3, 0.5), jnp.full(3, 1 / 3))


class MLP(nn.Module):
    """Predicts the velocity at z, log-SNR, label c (num_classes is the null label) and weight w."""

    num_classes: int = 2
    width: int = 96
    depth: int = 3

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], logsnr: Float[Array, " b"], c: Int[Array, " b"], w: Float[Array, " b"]
    ) -> Float[Array, "b d"]:
        on_path = z / process.per_image(process.alpha(logsnr) + process.sigma(logsnr), z)
        angles = np.pi * flow.time_of(logsnr)[:, None] * jnp.array([0.5, 1.0, 2.0, 4.0])
        waves = jnp.concatenate([angles, on_path, 2 * on_path], axis=1)
        label = jax.nn.one_hot(c, self.num_classes + 1)
        h = jnp.concatenate([on_path, jnp.sin(waves), jnp.cos(waves), label, w[:, None]], axis=1)
        for _ in range(self.depth):
            h = nn.silu(nn.Dense(self.width)(h))
        return nn.Dense(z.shape[1])(h)


@struct.dataclass
class Field:
    """A network of the velocity with its parameters. w: the guidance weight of one that takes w, scalar or [B]."""

    params: Any
    net: MLP = struct.static()
    w: Any = 0.0
    takes_w: bool = struct.static(default=False)

    @property
    def null(self) -> int:
        return self.net.num_classes

    def predict(self, z: Float[Array, "b d"], logsnr: Float[Array, " b"], c: Int[Array, " b"]) -> Float[Array, "b d"]:
        w: Array = jnp.broadcast_to(jnp.float32(self.w), c.shape)
        return self.net.apply({"params": self.params}, z, logsnr, c, w)  # type: ignore[return-value]

    def eps_fn(self, z: Float[Array, "b d"], logsnr: Float[Array, " b"], c: Int[Array, " b"]) -> Float[Array, "b d"]:
        return loss.convert(self.predict(z, logsnr, c), z, logsnr, "velocity", "eps")


def untrained() -> Field:
    net, one = MLP(), jnp.zeros(1)
    return Field(jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 2)), one, jnp.zeros(1, int), one)["params"], net)


@partial(jax.jit, static_argnames="num_steps")
def fit(key: Array, loss_fn: Partial, field: Field, num_steps: int) -> Field:
    """Return a field after num_steps of Adam; the learning rate is a cosine down to 0.

    loss_fn: one of the losses below with its first arguments, a pytree: laws of one shape share a program.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(8e-3, num_steps))

    def step(carry: tuple[Field, Any], key: Array) -> tuple[tuple[Field, Any], None]:
        field, state = carry
        grads = jax.grad(lambda params: loss_fn(dataclasses.replace(field, params=params), key).mean())(field.params)
        updates, state = optimizer.update(grads, state)
        return (dataclasses.replace(field, params=optax.apply_updates(field.params, updates)), state), None

    return jax.lax.scan(step, (field, optimizer.init(field.params)), jax.random.split(key, num_steps))[0][0]


def data_loss(law: Mixture, field: Field, key: Array) -> Float[Array, " b"]:
    """Return the loss of Algorithm 1 on draws of a law, which trains both halves of a field."""
    x_key, drop_key, key = jax.random.split(key, 3)
    x, c = law.sample(x_key, BATCH)
    z, logsnr, eps = OBJECTIVE.noised(key, x)
    c = guidance.drop_labels(drop_key, c, P_UNCOND, law.null)
    return OBJECTIVE.loss(field.predict, z, logsnr, c, x, eps)


def pair_loss(
    eps: Float[Array, "n d"], x: Float[Array, "n d"], c: Int[Array, " n"], w: Float[Array, " n"], field: Field,
    key: Array,
) -> Float[Array, " b"]:  # fmt: skip
    """Return the loss of reflow: x - eps of a flow's beginnings and ends, guided at w. Liu et al. 2023, Equation 1."""
    index_key, key = jax.random.split(key)
    i = jax.random.randint(index_key, (BATCH,), 0, len(x))
    z, logsnr, noise = OBJECTIVE.noised(key, x[i], eps[i])
    return OBJECTIVE.loss(dataclasses.replace(field, w=w[i]).predict, z, logsnr, c[i], x[i], noise)


def teacher_loss(law: Mixture, teacher: Field, w_max: float, field: Field, key: Array) -> Float[Array, " b"]:
    """Return the loss to the teacher's Equation 6 at w ~ U[0, w_max], of a field that takes w. Meng et al. 2023."""
    x_key, w_key, key = jax.random.split(key, 3)
    x, c = law.sample(x_key, BATCH)
    z, logsnr, _ = OBJECTIVE.noised(key, x)
    w = w_max * jax.random.uniform(w_key, c.shape)
    target = guidance.guided(teacher.predict, w, teacher.null)(z, logsnr, c)
    return OBJECTIVE.distance(dataclasses.replace(field, w=w).predict(z, logsnr, c), z, logsnr, target)


def velocity(model: Any, w: Any = 0.0) -> Callable:
    """Return the guided velocity of a law or a field: (z_t, t, c) -> [B, D]. One that takes w needs one pass."""
    if getattr(model, "takes_w", False):
        model, w = model.replace(w=w), 0.0
    return flow.velocity_fn(guidance.guided(model.eps_fn, w, model.null))


def diffused(law: Mixture, key: Array, num: int, t: float) -> tuple[Float[Array, "n d"], Int[Array, " n"]]:
    """Return points z_t of the straight path from noise to draws of the law, and their classes."""
    x_key, key = jax.random.split(key)
    x, c = law.sample(x_key, num)
    return (1 - t) * jax.random.normal(key, x.shape) + t * x, c


def tilted(law: Mixture, points: Float[Array, "n d"], t: Any, c: Any, w: Any) -> Float[Array, " n"]:
    """Return p(z_t | c)^(1 + w) p(z_t)^-w at points of a grid, with the sum 1 over them. w = 0 is p(z_t | c)."""
    logsnr = flow.logsnr_of(t)
    z = points * (process.alpha(logsnr) + process.sigma(logsnr))
    cond, uncond = (law.log_density(z, logsnr, jnp.array(label)) for label in (c, law.null))
    return jax.nn.softmax((1 + w) * cond - w * uncond)


def labelled(model: Any, label: Any) -> Callable:
    """Return a model's eps_fn of one label, which takes no notice of c."""
    return lambda z, logsnr, c: model.eps_fn(z, logsnr, jnp.full_like(c, label))
