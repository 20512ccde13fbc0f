"""Images from a run. Image i is a function of (seed, i), its label and w: not of batch size or device count."""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from cfg_jax import config as configs
from cfg_jax.diffusion import guidance, samplers, schedule
from cfg_jax.errors import InputError
from cfg_jax.files import digest
from cfg_jax.images import to_uint8
from cfg_jax.models import unet
from cfg_jax.training import mesh as meshes
from cfg_jax.training import state as states
from cfg_jax.training import weights


@dataclass(frozen=True)
class Model:
    """A trained network: `eps_fn` for your own sampler, `sample` for the paper's."""

    config: ml_collections.ConfigDict
    params: dict
    step: int
    net: unet.UNet

    @cached_property
    def digest(self):
        return digest(*map(np.asarray, jax.tree.leaves(self.params)))

    @property
    def dtype(self):
        """What the network's body computes in."""
        return jnp.dtype(self.net.dtype).name

    def eps_fn(self, z, logsnr, c):
        """z [B, H, W, C], logsnr [B], c int32 [B], where num_classes is the null label -> eps [B, H, W, C]."""
        return unet.eps_of(self.net, self.params)(z, logsnr, c)

    def sample(
        self, labels, w=0.0, num_steps=256, seed=0, *, v=None, threshold=None, grid=None, batch_size=None, uncond=None,
        classifier=None, classifier_scale=1.0,
    ):  # fmt: skip
        """labels [N] ints, w a number or [N] (guidance scale s = 1 + w) -> uint8 [N, H, W, C].

        What is None is the run's own config's; `uncond` is another Model to take the unconditional eps from; the
        gradient of a Classifier is added. Raises InputError for a label, w or num_steps out of range.
        """
        settings = ml_collections.ConfigDict(self.config.sampler)
        overrides = {"num_steps": num_steps, "variance_interp": v, "threshold": threshold, "grid": grid}
        settings.update({name: value for name, value in overrides.items() if value is not None})
        batch_size = batch_size or min(len(labels), 256)
        batches = sample_batches(
            self, labels, w, settings, seed=seed, batch_size=batch_size, uncond=uncond, classifier=classifier,
            classifier_scale=classifier_scale,
        )  # fmt: skip
        return np.concatenate([to_uint8(x) for x in batches])


@dataclass(frozen=True)
class Classifier:
    """A classifier of noisy images, to guide a Model of the same image size."""

    config: ml_collections.ConfigDict
    params: dict
    net: unet.Encoder

    @cached_property
    def digest(self):
        return digest(*map(np.asarray, jax.tree.leaves(self.params)))

    def log_prob(self, z, logsnr, c):
        """log p(c | z): z [B, H, W, C], logsnr [B], c int32 [B] -> [B]."""
        return unet.log_prob_of(self.net, self.params)(z, logsnr, c)


@dataclass(frozen=True)
class Guides:
    """What the paper's guidance is replaced by: another run's unconditional eps, or a classifier's gradient.

    A classifier's cells take w for its scale, and no other guidance.
    """

    name: str = "classifier-free"
    uncond: Model | None = None
    classifier: Classifier | None = None

    @classmethod
    def load(cls, uncond_run=None, classifier_run=None, dtype=None):
        if uncond_run and classifier_run:
            raise InputError("--uncond_run and --classifier_run are two kinds of guidance: choose one")
        if uncond_run:
            model = load(uncond_run, dtype=dtype)
            return cls(f"uncond {Path(uncond_run).name} {model.digest}", uncond=model)
        if classifier_run:
            model = load_classifier(classifier_run)
            return cls(f"classifier {Path(classifier_run).name} {model.digest}", classifier=model)
        return cls()

    def check(self, w, model):
        """Raise InputError where the model cannot be guided so."""
        if self.classifier:
            configs.check_finite(w, "--w")
        else:
            configs.check_w(w, 0.5 if self.uncond else model.config.p_uncond, "--w")

    def at(self, w):
        """The arguments of sample_batches for a cell of w."""
        if self.classifier:
            return {"w": 0.0, "classifier": self.classifier, "classifier_scale": w}
        return {"w": w, "uncond": self.uncond}


def load(run_dir, step=None, params="ema", dtype=None):
    """The Model of a run directory or an exported file, on any number of devices.

    `params` is "ema" or "params" (not averaged); `dtype` is "float32" or "bfloat16", what the network's body computes
    in, and None the dtype it was trained in. Reads the config and those weights alone, and raises InputError where
    either is missing or damaged.
    """
    if params not in ("ema", "params"):
        raise InputError(f"params={params!r} is unknown: choose ema or params")
    if dtype not in (None, *configs.DTYPES):
        raise InputError(f"dtype={dtype!r} is unknown: choose {' or '.join(configs.DTYPES)}")
    config, step, arrays = weights.read(run_dir, step, params)
    net = states.network(config)
    return Model(config, arrays, step, net.clone(dtype=jnp.dtype(dtype)) if dtype else net)


def load_classifier(run_dir):
    """The Classifier of a run directory that experiments.import_adm wrote."""
    config, _, arrays = weights.read(run_dir, classifier=True)
    return Classifier(config, arrays, states.classifier(config))


def sample_batches(
    model, labels, w, settings, *, seed, batch_size, mesh=None, uncond=None, classifier=None, classifier_scale=1.0
):
    """Yield float images in [-1, 1], a batch at a time and in order; settings is a `config.sampler`.

    `uncond` is another Model for the unconditional eps. It sees no label where it was trained on none
    (p_uncond = 1, or no classes), else the same ones: autoguidance. A Classifier always sees the labels.
    """
    config = model.config
    labels = check_labels(labels, config.data.num_classes)
    configs.check_sampler(settings)
    w = np.asarray(w, np.float32)
    if w.ndim and w.shape != labels.shape:
        raise InputError(f"w has shape {w.shape}: give one number, or one for each of the {len(labels)} labels")
    for value in np.unique(w):
        if value or not classifier:
            configs.check_w(float(value), 0.5 if uncond else config.p_uncond)
    if classifier:
        check_labels(labels, classifier.config.data.num_classes)
        configs.check_finite(classifier_scale, "classifier_scale")
    for name, other in (("unconditional run", uncond), ("classifier", classifier)):
        if other and other.config.data.image_size != config.data.image_size:
            sizes = f"{other.config.data.image_size} and {config.data.image_size}"
            raise InputError(f"the {name} is of another image size ({sizes} pixels): give one of the same")

    mesh = mesh or meshes.data_mesh()
    batch_size = meshes.divided(batch_size, mesh)
    params = jax.device_put(model.params, meshes.replicated(mesh))
    logsnrs = schedule.grid(settings.num_steps, config.logsnr_min, config.logsnr_max, settings.grid)
    draw_batch = partial(
        draw,
        net=model.net,
        shape=(config.data.image_size, config.data.image_size, config.data.channels),
        threshold=configs.THRESHOLDS[settings.threshold],
        other_net=uncond and uncond.net,
        other_null=bool(uncond and uncond.config.p_uncond == 1),
        classifier_net=classifier and classifier.net,
    )
    other = jax.device_put(uncond.params, meshes.replicated(mesh)) if uncond else None
    guide = jax.device_put((classifier.params, classifier_scale), meshes.replicated(mesh)) if classifier else None
    for begin in range(0, len(labels), batch_size):
        # one shape for every batch: the last is filled up with repetitions of its own last image
        index = np.minimum(np.arange(begin, begin + batch_size), len(labels) - 1)
        of_index = (index, labels[index], np.broadcast_to(w, labels.shape)[index])
        index, c, w_index = (jax.device_put(a, meshes.split(mesh)) for a in of_index)
        w_index = w_index if w.any() else None
        x = draw_batch(params, index, c, w_index, logsnrs, seed, settings.variance_interp, other, guide)
        yield np.asarray(x)[: len(labels) - begin]


@partial(jax.jit, static_argnames=("net", "shape", "threshold", "other_net", "other_null", "classifier_net"))
def draw(
    params, index, c, w, logsnrs, seed, v, other=None, classifier=None, *, net, shape, threshold, other_net=None,
    other_null=False, classifier_net=None,
):  # fmt: skip
    """w is data, so a sweep over it compiles once; None is w = 0, one network pass. `other`: see sample_batches.

    classifier: (parameters, scale) of classifier_net.
    """
    keys, z = samplers.start(seed, index, shape)
    w = 0 if w is None else w
    eps_fn = unet.eps_of(net, params)
    if other_net is None:
        eps_fn = guidance.guided(eps_fn, w, null=net.num_classes)
    else:
        other_fn = unet.eps_of(other_net, other)
        null = jnp.full_like(c, other_net.num_classes)
        eps_fn = guidance.guided_by(eps_fn, lambda z, logsnr, c: other_fn(z, logsnr, null if other_null else c), w)
    if classifier is not None:
        classifier_params, scale = classifier
        eps_fn = guidance.guided_by_classifier(eps_fn, unet.log_prob_of(classifier_net, classifier_params), scale)
    return samplers.ancestral(keys, eps_fn, z, c, logsnrs, v=v, threshold=threshold)


def check_labels(labels, num_classes):
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or labels.dtype.kind not in "iu":
        raise InputError(f"labels must be a list of integers, got {labels.dtype} of shape {labels.shape}")
    if num_classes and (labels.min() < 0 or labels.max() >= num_classes):
        bad = labels[(labels < 0) | (labels >= num_classes)][0]
        raise InputError(f"label {bad} is out of range: this model has classes 0..{num_classes - 1}")
    return labels.astype(np.int32)


def labels_by_rule(rule, num_images, num_classes, seed):
    """int32 [num_images]: `random` as ADM's, each image's class uniform; `balanced`: class i mod num_classes."""
    if not num_classes:
        return np.zeros(num_images, np.int32)
    if rule == "balanced":
        return np.arange(num_images, dtype=np.int32) % num_classes
    return np.random.default_rng(seed).integers(num_classes, size=num_images, dtype=np.int32)
