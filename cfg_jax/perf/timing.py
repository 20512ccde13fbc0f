"""How fast training and guided sampling run on the devices at hand, as numbers that say how they were taken.

peak_flops is the FLOP/s of all devices, None where it is not known: there is no utilisation (mfu) then.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cfg_jax import meshes, pinned
from cfg_jax.data import sources
from cfg_jax.perf import cost, programs
from cfg_jax.text import markdown
from cfg_jax.training import state as states

RATES = (
    "images/s", "estimated", "TFLOP/s", "of the peak", "ms, median", "least", "greatest", "compile s", "program GiB",
    "peak GiB",
)  # fmt: skip


def time_training(config: ConfigDict, repeats: int, peak_flops: float | None) -> dict:
    """Time one optimiser step on config.train.batch_size synthetic images."""
    mesh, data, batch_size = meshes.training_mesh(config.train), config.data, config.train.batch_size
    program = programs.training(config, mesh)
    compiled, compile_s = compile(program)
    source = sources.synthetic(data.image_size, data.channels, data.num_classes)
    index = np.arange(batch_size) % len(source)
    batch = meshes.put({"image": source.images[index], "label": source.labels[index]}, mesh)
    create = partial(states.create, config)
    state = jax.jit(create, out_shardings=meshes.shardings(jax.eval_shape(create), mesh))()
    constants = jax.device_put((pinned.key(config.seed), jnp.float32(config.p_uncond)), meshes.replicated(mesh))

    def step():
        nonlocal state
        state, metrics = compiled(state, batch, *constants)
        jax.block_until_ready((state, metrics))

    return {"batch_size": batch_size} | of_program(program, compiled, compile_s, step, repeats, peak_flops)


def time_sampling(config: ConfigDict, repeats: int, peak_flops: float | None) -> dict:
    """Time config.sampler at w = 1 for config.eval.batch_size images, rounded up to what the devices share equally."""
    program = programs.sampling(config, meshes.data_mesh())
    of = {"batch_size": program.images, "T": config.sampler.num_steps, "w": 1.0, "s": 2.0}
    of["passes"] = cost.passes_an_image(config, 1.0)
    return of | on_random(program, repeats, peak_flops)


def time_features(config: ConfigDict, batch_size: int, repeats: int) -> dict:
    """Time FID's Inception network up to its logits, in float32 with random weights, on images of the config's size.

    batch_size is rounded up as in time_sampling.
    """
    program = programs.features(config, meshes.data_mesh(), batch_size)
    return {"batch_size": program.images} | on_random(program, repeats, None)


def on_random(program: programs.Program, repeats: int, peak_flops: float | None) -> dict:
    """Compile a program and time it on random numbers."""
    compiled, compile_s = compile(program)
    args = programs.filled(program.args)
    call = lambda: jax.block_until_ready(compiled(*args))  # noqa: E731
    return of_program(program, compiled, compile_s, call, repeats, peak_flops)


def compile(program: programs.Program) -> tuple[Any, float]:
    """Return the compiled program and the seconds that lowering and compiling took."""
    began = time.perf_counter()
    compiled = program.traced.lower().compile()
    return compiled, time.perf_counter() - began


def of_program(
    program: programs.Program, compiled: Any, compile_s: float, run: Callable, repeats: int, peak_flops: float | None
) -> dict:
    """Return the rates of a compiled program, its FLOP, and the memory it takes. run: one call that waits for it."""
    measured = rates(run, repeats, program.images)
    median, memory = measured["seconds"]["median"], compiled.memory_analysis()
    return measured | {
        "gflop_per_image": program.flops / program.images / 1e9,
        "tflops": program.flops / median / 1e12,
        "mfu": program.flops / median / peak_flops if peak_flops else None,
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


def table(measured: dict) -> str:
    """Write markdown of what experiments.bench.speed measured, a row for each part."""
    rows = [["", "batch", *RATES]]
    for kind in ("training", "sampling", "features"):
        if of := measured.get(kind):
            times = [f"{1e3 * of['seconds'][name]:,.1f}" for name in ("median", "min", "max")]
            bytes_of = of["program_bytes_per_device"], of["peak_bytes_in_use"]
            memory = [f"{count / 2**30:.2f}" if count else "" for count in bytes_of]
            mfu = f"{of['mfu']:.1%}" if of["mfu"] else ""
            expected = f"{of['estimated_images_per_s']:,.4g}" if "estimated_images_per_s" in of else ""
            speed = [f"{of['images_per_s']:,.4g}", expected, f"{of['tflops']:.4g}", mfu]
            rows.append([kind, str(of["batch_size"]), *speed, *times, f"{of['compile_s']:.1f}", *memory])
    peak = measured["peak_tflops"]
    said = [
        f"{measured['device']}, jax {measured['jax']}, {measured['config']['model']['dtype']}; "
        f"{measured['parameters']:,} parameters, {measured['gflop_per_pass']:,.4g} GFLOP a pass",
        f"The peak is {peak:,.0f} TFLOP/s" if peak else "The peak is not known",
    ]
    if sampling := measured.get("sampling"):
        said.append(
            f"Sampling is guided at w = 1, {sampling['passes']} passes an image, T = {sampling['T']}: at a batch of "
            f"{sampling['batch_size']}, {sampling['T'] * sampling['images_per_s']:,.4g} guided steps/s"
        )
    return f"{'. '.join(said)}. Features are in float32.\n\n{markdown(rows)}"
