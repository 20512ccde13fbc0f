"""How fast training and guided sampling run on the devices at hand, as numbers that say how they were taken.

peak_flops is the FLOP/s of all devices, None where it is not known: there is no utilisation (mfu) then.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cfg_jax.data import sources
from cfg_jax.diffusion.guidance import Guidance
from cfg_jax.models import build, inception
from cfg_jax.sampling import draw
from cfg_jax.training import mesh as meshes
from cfg_jax.training import state as states
from cfg_jax.training import step as steps


def time_training(config: ConfigDict, repeats: int, peak_flops: float | None) -> dict:
    """Time one optimiser step on config.train.batch_size synthetic images."""
    mesh, data, batch_size = meshes.training_mesh(config.train), config.data, config.train.batch_size
    source = sources.synthetic(data.image_size, data.channels, data.num_classes)
    index = np.arange(batch_size) % len(source)
    batch = meshes.put({"image": source.images[index], "label": source.labels[index]}, mesh)
    create = partial(states.create, config)
    state = jax.jit(create, out_shardings=meshes.shardings(jax.eval_shape(create), mesh))()
    constants = jax.random.key(config.seed), jnp.float32(config.p_uncond)
    step_fn, flops, compile_s = steps.compile_step(config, mesh, state, batch, *constants)

    def step():
        nonlocal state
        state, metrics = step_fn(state, batch, *constants)
        jax.block_until_ready((state, metrics))

    return {"batch_size": batch_size} | of_program(step, repeats, batch_size, flops, peak_flops, compile_s, step_fn)


def time_sampling(config: ConfigDict, repeats: int, peak_flops: float | None) -> dict:
    """Time Algorithm 2 at w = 1, two network passes a step, for config.eval.batch_size images and config.sampler's T.

    The number of images is rounded up to one that the devices can share equally.
    """
    mesh, data = meshes.data_mesh(), config.data
    batch_size = meshes.divided(config.eval.batch_size, mesh)
    params = jax.jit(lambda: states.create(config).ema, out_shardings=meshes.replicated(mesh))()
    denoiser, walk = build.denoiser(config, params), build.walk(config)
    shape = (data.image_size, data.image_size, data.channels)
    index, c, w = (
        jax.device_put(a, meshes.split(mesh))
        for a in (np.arange(batch_size), np.arange(batch_size) % data.num_classes, np.ones(batch_size, np.float32))
    )
    args = denoiser, Guidance(build.rule(config.guidance, w)), walk, 0, index, c

    began = time.perf_counter()
    compiled = draw.draw.lower(*args, shape=shape).compile()
    compile_s = time.perf_counter() - began
    # the cost of a loop's body is counted once: take one guided pass and count the steps here
    eps_fn = jax.jit(lambda denoiser, *args: denoiser.eps_fn(*args))
    inputs = ((shape, "float32"), ((), "float32"), ((), "int32"))
    both_halves = [jax.ShapeDtypeStruct((2 * batch_size, *rest), dtype) for rest, dtype in inputs]
    flops = meshes.flops(eps_fn.lower(denoiser, *both_halves)) * config.sampler.num_steps

    def sample():
        jax.block_until_ready(compiled(*args))

    measured = of_program(sample, repeats, batch_size, flops, peak_flops, compile_s, compiled)
    return {"batch_size": batch_size, "T": config.sampler.num_steps, "w": 1.0, "s": 2.0} | measured


def time_features(config: ConfigDict, batch_size: int, repeats: int) -> dict:
    """Time FID's Inception network up to its logits, in float32 with random weights, on images of the config's size.

    The number of images is rounded up to one that the devices can share equally.
    """
    mesh, side = meshes.data_mesh(), config.data.image_size
    batch_size = meshes.divided(batch_size, mesh)
    rng = np.random.default_rng(0)

    def filled(a):  # He's scale: nothing vanishes on the way
        return rng.standard_normal(a.shape, np.float32) * (2 / math.prod(a.shape[:-1])) ** 0.5

    params = jax.device_put(jax.tree.map(filled, inception.shapes("logits")), meshes.replicated(mesh))
    images = jax.device_put(rng.integers(0, 256, (batch_size, side, side, 3), np.uint8), meshes.split(mesh))
    network = jax.jit(lambda params, images: inception.Inception().apply({"params": params}, images))
    began = time.perf_counter()
    lowered = network.lower(params, images)
    compiled = lowered.compile()
    compile_s = time.perf_counter() - began

    def extract():
        jax.block_until_ready(compiled(params, images))

    measured = of_program(extract, repeats, batch_size, meshes.flops(lowered), None, compile_s, compiled)
    return {"batch_size": batch_size} | measured


def of_program(
    run: Callable[[], None],
    repeats: int,
    images: int,
    flops: float,
    peak_flops: float | None,
    compile_s: float,
    compiled: Any,
) -> dict:
    """Return the rates of a compiled program, its FLOP, and the memory it takes.

    run() makes one synchronised call of it on `images` images, which takes `flops` FLOP.
    """
    measured = rates(run, repeats, images)
    median, memory = measured["seconds"]["median"], compiled.memory_analysis()
    return measured | {
        "gflop_per_image": flops / images / 1e9,
        "tflops": flops / median / 1e12,
        "mfu": flops / median / peak_flops if peak_flops else None,
        "compile_s": compile_s,
        "program_bytes_per_device": memory.argument_size_in_bytes + memory.temp_size_in_bytes if memory else None,
        "peak_bytes_in_use": (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
    }


def rates(run: Callable[[], None], repeats: int, images: int) -> dict:
    """Return the median, least and greatest seconds of `repeats` calls after one to warm up, and images a second."""
    run()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    median = float(np.median(seconds))
    return {
        "seconds": {"median": median, "min": min(seconds), "max": max(seconds), "repeats": repeats},
        "images_per_s": images / median,
    }
