"""The three programs that cost time, traced from shapes alone for the devices of a mesh: nothing is computed."""

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cfg_jax import meshes, pinned
from cfg_jax.config import image_shape
from cfg_jax.models import build, inception
from cfg_jax.perf import cost
from cfg_jax.sampling import draw
from cfg_jax.training import state as states
from cfg_jax.training import step as steps


@dataclass(frozen=True)
class Program:
    traced: jax.stages.Traced
    args: tuple  # shapes with their shardings, of what it is called with
    images: int  # of a call
    flops: float  # of a call, the network's convolutions and matrix products, all devices together


def training(config: ConfigDict, mesh: Mesh) -> Program:
    """Trace a step on config.train.batch_size images, as experiments.train runs it."""
    count = config.train.batch_size
    image = (count, *image_shape(config.data))
    with pinned.pinned():
        state = meshes.placed(jax.eval_shape(partial(states.create, config)), mesh)
        key = jax.eval_shape(lambda: pinned.key(config.seed))
        batch = {"image": jax.ShapeDtypeStruct(image, jnp.uint8), "label": jax.ShapeDtypeStruct((count,), jnp.int32)}
        constants = on(meshes.replicated(mesh), (key, jax.ShapeDtypeStruct((), jnp.float32)))
        args = (state, on(meshes.split(mesh), batch), *constants)
        traced = steps.trace(config, mesh, *args)
    return Program(traced, args, count, cost.training_flops(config, cost.forward_flops(config), 1))


def sampling(config: ConfigDict, mesh: Mesh) -> Program:
    """Trace the drawing of config.eval.batch_size images at w = 1, as a sweep does it, rounded up to the devices."""
    count = meshes.divided(config.eval.batch_size, mesh)
    everywhere, shared_out = meshes.replicated(mesh), meshes.split(mesh)
    with pinned.pinned():
        params = on(everywhere, build.shapes(config))
        guidance = cost.guidance_of(config, np.ones(count, np.float32))
        walk = draw.on_grid(build.walk(config), guidance)
        guidance = dataclasses.replace(guidance, rule=draw.per_image(guidance.rule, partial(on, shared_out)))
        of_image = on(shared_out, jax.ShapeDtypeStruct((count,), jnp.int32))
        args = build.denoiser(config, params).on(mesh), guidance, walk, 0, of_image, of_image
        traced = draw.draw.trace(*args, shape=image_shape(config.data))
    return Program(traced, args, count, cost.passes_an_image(config, 1.0) * count * cost.forward_flops(config))


def features(config: ConfigDict, mesh: Mesh, batch_size: int) -> Program:
    """Trace Inception's features and logits of images of the config's size, in float32, rounded up to the devices."""
    count, side = meshes.divided(batch_size, mesh), config.data.image_size
    images = on(meshes.split(mesh), jax.ShapeDtypeStruct((count, side, side, 3), jnp.uint8))
    params = on(meshes.replicated(mesh), inception.shapes("logits"))
    network = jax.jit(lambda params, images: inception.Inception().apply({"params": params}, images))
    traced = network.trace(params, images)
    return Program(traced, (params, images), count, cost.matmul_flops(traced.jaxpr.jaxpr))


def on(place: Any, tree: Any) -> Any:
    """Return the shapes of arrays, or of what has shapes, placed by a sharding."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), tree)


def filled(args: Any) -> Any:
    """Return arrays for shapes: He's normal weights, so that nothing vanishes, random pixels, and labels 0."""
    rng = np.random.default_rng(0)

    def fill(a):
        if not isinstance(a, jax.ShapeDtypeStruct):
            return a
        if jnp.issubdtype(a.dtype, jnp.floating):
            array = rng.standard_normal(a.shape, np.float32) * (2 / max(1, math.prod(a.shape[:-1]))) ** 0.5
        else:
            array = rng.integers(0, 256 if a.dtype == jnp.uint8 else 1, a.shape, a.dtype)
        return jax.device_put(array, a.sharding)

    return jax.tree.map(fill, args)
