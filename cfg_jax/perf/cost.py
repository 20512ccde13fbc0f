"""What a config costs, counted from its program and not from a formula: parameters, FLOP, bytes."""

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr
from ml_collections import ConfigDict

from cfg_jax.config import image_shape
from cfg_jax.diffusion.guidance import Guidance
from cfg_jax.models import build, network
from cfg_jax.sampling import draw
from cfg_jax.sampling.model import Guides


def abstract(config: ConfigDict, batch_size: int) -> tuple[Any, Any, tuple]:
    """Return (network, shapes of its parameters, shapes of its inputs z, logsnr and c for a batch)."""
    z = jax.ShapeDtypeStruct((batch_size, *image_shape(config.data)), jnp.float32)
    logsnr, c = (jax.ShapeDtypeStruct((batch_size,), dtype) for dtype in (jnp.float32, jnp.int32))
    return build.network(config), build.shapes(config), (z, logsnr, c)


def num_parameters(config: ConfigDict) -> int:
    return sum(math.prod(a.shape) for a in jax.tree.leaves(build.shapes(config)))


def forward_flops(config: ConfigDict) -> int:
    """Return the FLOP of one network pass for one image, two for each product of its convolutions and matrices."""
    net, params, inputs = abstract(config, 1)
    net = net.clone(dtype=jnp.float32)  # in which attention is made of products that can be counted, on every device
    return matmul_flops(
        jax.make_jaxpr(lambda params, *args: net.apply({"params": params}, *args))(params, *inputs).jaxpr
    )


def training_flops(config: ConfigDict, forward: int, num_steps: int) -> int:
    """Return the FLOP of `num_steps` steps. `forward` is forward_flops(config); the backward pass takes twice that."""
    return 3 * forward * config.train.batch_size * num_steps


def sampling_flops(config: ConfigDict, forward: int, ws: Iterable[float], num_images: int) -> int:
    """Return the FLOP of `num_images` for each w, by the passes of the config's rule and sampler."""
    return sum(forward * num_images * passes_an_image(config, w) for w in ws)


def passes_an_image(config: ConfigDict, w: float) -> int:
    """Return how often an image goes through the network in a walk at w: counted in one, see draw.passes."""
    return draw.passes(guidance_of(config, w), build.walk(config))


def guidance_of(config: ConfigDict, w: Any) -> Guidance:
    """Return the config's own guidance at w, a number or one for each image."""
    return Guides().beside(build.rule(config.guidance, w, network.takes_w(config)), config.guidance)


def written(hours: float) -> str:
    """Write two digits below ten, and whole hours from ten on."""
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def matmul_flops(jaxpr: Jaxpr) -> int:
    """Return the FLOP of all convolutions and matrix products in a jaxpr and what it calls; padding counts as work."""
    total = 0
    for equation in jaxpr.eqns:
        total += equation_flops(equation)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            inner = value.jaxpr if isinstance(value, ClosedJaxpr) else value
            if isinstance(inner, Jaxpr):
                total += times * matmul_flops(inner)
    return total


def equation_flops(equation: Any) -> int:
    """Return the FLOP of one operation of a jaxpr if it is a convolution or a matrix product, else 0."""
    name, out = equation.primitive.name, equation.outvars[0].aval
    if name == "conv_general_dilated":
        kernel, dims = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
        return 2 * math.prod(out.shape) * math.prod(kernel) // kernel[dims.rhs_spec[0]]
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2 * math.prod(out.shape) * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
    return 0


def activation_bytes(config: ConfigDict, batch_size: int) -> int:
    """Return the bytes that a forward pass of a batch keeps for the backward pass, without the parameters.

    Their casts to the body's dtype are left out as well: they do not grow with the batch.
    """
    net, params, (z, logsnr, c) = abstract(config, batch_size)

    def backward(params, z, logsnr, c, key):
        eps = lambda params: net.apply({"params": params}, z, logsnr, c, train=True, rngs={"dropout": key})  # noqa: E731
        return jax.vjp(eps, params)[1]

    kept = jax.eval_shape(backward, params, z, logsnr, c, jax.eval_shape(lambda: jax.random.key(0)))
    weights = {a.shape for a in jax.tree.leaves(params)}
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(kept) if a.shape not in weights)


def state_bytes(config: ConfigDict, devices: int = 1) -> float:
    """Return a device's bytes of parameters, averages, moments and gradient in float32, split over `devices`."""
    return (5 + len(config.train.averages)) * 4 * num_parameters(config) / devices
