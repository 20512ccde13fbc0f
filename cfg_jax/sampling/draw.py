"""Images from a model. Image i is a function of (seed, i), its label and w: not of batch size or device count."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax import meshes, pinned
from cfg_jax.diffusion import rules, samplers
from cfg_jax.diffusion.guidance import Guidance, Halves, SecondModel
from cfg_jax.errors import InputError, require
from cfg_jax.models.denoiser import Denoiser, NoisyClassifier


@partial(jax.jit, static_argnames="shape")
def draw(
    denoiser: Denoiser, guidance: Guidance, walk: samplers.Walk, seed, index: jax.Array, c: jax.Array, *, shape
) -> tuple[jax.Array, jax.Array]:
    """Return x [B, *shape] of the images `index` [B] of a seed with labels c int32 [B], and effective sizes [groups].

    All numbers are data: a sweep over w, v, or a bound compiles once. The program is that of the networks, the kinds of
    rule and sampler, T and the batch.
    """
    keys, z = samplers.start(seed, index, shape)
    return walk.weighed(keys, guidance.on(denoiser), z, c, guidance.init(keys, z))


def batches(
    denoiser: Denoiser,
    labels: np.ndarray,
    guidance: Guidance,
    walk: samplers.Walk,
    *,
    shape,
    seed,
    batch_size,
    mesh=None,
    effective: list[float] | None = None,
) -> Iterator[np.ndarray]:
    """Yield float images in [-1, 1], a batch at a time and in order, for int32 labels [N].

    The fields of guidance.rule that its class names in `per_image` may be numbers for each of the N images. mesh:
    default, this process's devices. effective is given each group's least effective size, a share of its particles,
    where the sampler has particles. Raises InputError for a seed that is no int32, and for a field of another length.
    """
    pinned.check_seed(seed)
    check_per_image(guidance.rule, len(labels))
    mesh = mesh or meshes.data_mesh()
    group = walk.group or 1
    whole = math.lcm(group, mesh.size)  # groups and devices
    batch_size = -(-min(batch_size, len(labels)) // whole) * whole
    everywhere, shared_out = meshes.replicated(mesh), meshes.split(mesh)
    denoiser, guidance = jax.device_put(on(mesh, denoiser, guidance), everywhere)
    walk = on_grid(walk, guidance)
    for begin in range(0, len(labels), batch_size):
        # one shape for every batch: the last is filled up with repetitions of its own last image
        index = np.minimum(np.arange(begin, begin + batch_size), len(labels) - 1)
        with pinned.pinned():
            of_image = lambda a: jax.device_put(np.asarray(a)[index], shared_out)  # noqa: B023, E731
            of_batch = dataclasses.replace(guidance, rule=per_image(guidance.rule, of_image))
            index_and_c = (jax.device_put(a, shared_out) for a in (index, labels[index]))
            x, of_groups = draw(denoiser, of_batch, walk, seed, *index_and_c, shape=shape)
        if effective is not None:
            effective += np.asarray(of_groups)[: (len(labels) - begin) // group].tolist()
        yield np.asarray(x)[: len(labels) - begin]


def on(mesh: jax.sharding.Mesh, denoiser: Denoiser, guidance: Guidance) -> tuple[Denoiser, Guidance]:
    """Return the models of a walk with the mesh over which their batches are split."""

    def told(model):
        return model.on(mesh) if isinstance(model, Denoiser | NoisyClassifier) else model

    second = guidance.second
    if isinstance(second, SecondModel):
        second = dataclasses.replace(second, model=told(second.model))
    return told(denoiser), dataclasses.replace(guidance, second=second, classifier=told(guidance.classifier))


def per_image(rule, change: Callable):
    """Change the fields of a rule, and of the rules that it wraps, that hold one number for each image."""
    names = [name for name in getattr(rule, "per_image", ("w",)) if np.ndim(getattr(rule, name, 0))]
    fields = {name: change(getattr(rule, name)) for name in names}
    if hasattr(rule, "rule"):
        fields["rule"] = per_image(rule.rule, change)
    return dataclasses.replace(rule, **fields) if fields else rule


def check_per_image(rule, count: int) -> None:
    """Raise InputError where such a field of the rule has not `count` numbers."""
    for part in rules.parts(rule):
        for name in getattr(part, "per_image", ("w",)):
            shape = np.shape(getattr(part, name, 0))
            each = f"one for each of the {count} images"
            require(shape in ((), (count,)), f"{name} has shape {shape}: give one number, or {each}")


def asks_uncond(rule, image_shape: tuple[int, int, int]) -> bool:
    """Return whether a rule asks for the unconditional half. It is traced once; nothing is computed."""
    asked = []

    def both(z, logsnr, c):
        asked.append(True)
        return z, z

    def step(z):
        halves = Halves(lambda z, *_: z, both, lambda z, *_: both(z, None, None)[0], perturbed=lambda kind, z, *_: z)
        alone = per_image(rule, lambda values: values[:1])
        return alone(halves, z, jnp.float32(0), jnp.zeros(1, jnp.int32), alone.init(z))

    jax.eval_shape(step, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    return bool(asked)


def on_grid(walk: samplers.Walk, guidance: Guidance) -> samplers.Walk:
    """Return the walk on the rule's own grid, where the rule has one."""
    grid = getattr(guidance.rule, "grid", None)
    return dataclasses.replace(walk, logsnrs=grid(np.asarray(walk.logsnrs))) if grid else walk


def passes(guidance: Guidance, walk: samplers.Walk) -> int:
    """Return the network passes of one image in a walk, a second model's included, as rule and sampler declare them."""
    return int(guidance.counts(on_grid(walk, guidance).levels).sum())


def check_labels(labels, num_classes: int) -> np.ndarray:
    """Return labels as int32 [N]. Raises InputError unless they are integers in range; num_classes 0 takes any."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or labels.dtype.kind not in "iu":
        raise InputError(f"labels must be a list of integers, got {labels.dtype} of shape {labels.shape}")
    if num_classes and (labels.min() < 0 or labels.max() >= num_classes):
        bad = labels[(labels < 0) | (labels >= num_classes)][0]
        raise InputError(f"label {bad} is out of range: this model has classes 0..{num_classes - 1}")
    return labels.astype(np.int32)


def labels_by_rule(rule: str, num_images: int, num_classes: int, seed: int, group: int = 1) -> np.ndarray:
    """Return int32 [num_images]: uniform classes for `random`, as in ADM; class i mod num_classes for `balanced`.

    group: this many consecutive images share a label; it divides num_images.
    """
    if group > 1:
        return np.repeat(labels_by_rule(rule, num_images // group, num_classes, seed), group)
    if not num_classes:
        return np.zeros(num_images, np.int32)
    if rule == "balanced":
        return np.arange(num_images, dtype=np.int32) % num_classes
    return np.random.default_rng(seed).integers(num_classes, size=num_images, dtype=np.int32)
