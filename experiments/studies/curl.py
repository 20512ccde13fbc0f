"""Test whether a model's guidance is the gradient of a classifier: the antisymmetric share of its Jacobian. Claim 7.

eps(z, c) - eps(z) would be -sigma grad_z log p(c | z) of an implicit classifier, and a gradient's Jacobian is
symmetric; a network is not bound to that. The share is |J - J^T| / 2|J| in Frobenius norms: 0 for a gradient, as for
the exact eps of a mixture (test_guidance), 0.71 for a matrix of independent entries. It is taken at diffused training
pictures of class c. The last columns are of a mixture of one Gaussian a class, with the data's means and spread, whose
eps is exact, and of the gradient of its exact classifier.

python -m experiments.studies.curl --run=runs/digits-p0.1
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cfg_jax.data import sources
from cfg_jax.diffusion import guidance, process
from cfg_jax.images import to_float
from cfg_jax.models.mixture import Mixture
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery
from experiments.studies.fields import antisymmetric

RUN = cli.define_run()
LOGSNRS = cli.define_numbers("logsnrs", "-4,-2,0,2,4,6", "lambda, a row each")
W = cli.define_float("w", 1.0, "of the guided eps in the last column", low=-1)
NUM_IMAGES = cli.define_count("num_images", 64, "training pictures", low=2)
PROBES = cli.define_count("probes", 8, "random directions at each")
OUT = gallery.define_out("curl")


def main() -> None:
    model = gallery.load(RUN.value, [W.value], both_halves=True)
    num_classes = model.config.data.num_classes
    source, _ = sources.load(model.config)
    index = np.random.default_rng(0).permutation(len(source))[: NUM_IMAGES.value]
    x, c = to_float(source.images[index]), jnp.asarray(source.labels[index])
    null, mixture = jnp.full_like(c, num_classes), of_classes(source, num_classes)
    guided = guidance.guided(model.eps_fn, W.value, num_classes)
    columns = "eps(z, c) - eps(z)", "eps(z, c)", f"guided, w = {W.value:g}", "of the mixture", "its classifier's"
    rows = [["lambda", *columns]]

    @jax.jit
    def shares(logsnr: jax.Array, key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        noise, directions = jax.random.split(key)
        z = process.diffuse(x, jax.random.normal(noise, x.shape), logsnr)
        at = jnp.broadcast_to(logsnr, c.shape)
        fields = (
            lambda z: model.eps_fn(z, at, c) - model.eps_fn(z, at, null),
            lambda z: model.eps_fn(z, at, c),
            lambda z: guided(z, at, c),
            lambda z: mixture.eps_fn(flat(z), at, c) - mixture.eps_fn(flat(z), at, null),
            lambda z: -process.sigma(logsnr) * jax.grad(lambda z: mixture.log_prob(z, at, c).sum())(flat(z)),
        )
        return [antisymmetric(as_picture(field), z, directions, PROBES.value) for field in fields]

    for i, logsnr in enumerate(LOGSNRS.value):
        cells = [f"{share:.3f} ± {error:.3f}" for share, error in shares(logsnr, jax.random.key(i))]
        rows.append([f"{logsnr:g}", *cells])
    about = (
        f"{RUN.value}: antisymmetric share of the Jacobian, {len(index)} pictures, {PROBES.value} directions each; "
        "± is the standard error over the pictures. A gradient has 0."
    )
    gallery.write(OUT.value, "curl", None, markdown(rows, ()), about, model.config.data.name)


def flat(z: jax.Array) -> jax.Array:
    return z.reshape(len(z), -1)


def as_picture(field: Callable) -> Callable:
    return lambda z: field(z).reshape(z.shape)


def of_classes(source: sources.Source, num_classes: int) -> Mixture:
    """Return one Gaussian a class: the mean of its pictures, and the root mean square of their deviation from it."""
    x, labels = flat(np.asarray(to_float(source.images[:]))), np.asarray(source.labels)
    means = np.stack([x[labels == k].mean(0) for k in range(num_classes)])
    stds = np.array([(x[labels == k] - mean).std() for k, mean in enumerate(means)])
    weights = np.bincount(labels, minlength=len(means)) / len(labels)
    return Mixture(*(jnp.asarray(a, jnp.float32) for a in (means, stds, weights)))


if __name__ == "__main__":
    cli.run(main)
