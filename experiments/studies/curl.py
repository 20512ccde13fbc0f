"""Whether a model's guidance is the gradient of a classifier: the antisymmetric share of its Jacobian. Claim 7.

eps(z, c) - eps(z) would be -sigma grad_z log p(c | z) of an implicit classifier, and a gradient's Jacobian is
symmetric; a network is not bound to that. The share is |J - J^T| / 2|J| in Frobenius norms: 0 for a gradient, as for
the exact eps of a mixture (test_guidance), 0.71 for a matrix of independent entries. Taken at diffused training
pictures of class c. Beside the network stand a mixture of one Gaussian a class, with the data's means and spread, whose
eps is exact, and the gradient of its classifier.

python -m experiments.studies.curl --run=runs/digits-p0.1
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import cfg_jax
from cfg_jax import checks
from cfg_jax.data import sources
from cfg_jax.diffusion import guidance, process
from cfg_jax.errors import require
from cfg_jax.images import to_float
from cfg_jax.models.mixture import Mixture
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery
from experiments.studies.fields import antisymmetric

RUN = flags.DEFINE_string("run", None, "run directory or exported file")
LOGSNRS = flags.DEFINE_string("logsnrs", "-4,-2,0,2,4,6", "lambda, a row each")
W = flags.DEFINE_float("w", 1.0, "of the guided eps in the last column")
NUM_IMAGES = flags.DEFINE_integer("num_images", 64, "training pictures", lower_bound=2)
PROBES = flags.DEFINE_integer("probes", 8, "random directions at each", lower_bound=1)
OUT = gallery.define_out("curl")
flags.mark_flags_as_required(["run"])


def main():
    model = cfg_jax.load(RUN.value)
    require(model.config.data.num_classes, f"--run={RUN.value} has no classes: name one with labels")
    require(model.config.p_uncond, f"--run={RUN.value} has no unconditional eps: name one with p_uncond above 0")
    checks.guidance_weight(W.value, model.config, "--w")
    source, _ = sources.load(model.config)
    index = np.random.default_rng(0).permutation(len(source))[: NUM_IMAGES.value]
    x, c = to_float(source.images[index]), jnp.asarray(source.labels[index])
    null = jnp.full_like(c, model.config.data.num_classes)
    mixture = of_classes(source, model.config.data.num_classes)
    guided = guidance.guided(model.eps_fn, W.value, model.config.data.num_classes)
    columns = "eps(z, c) - eps(z)", "eps(z, c)", f"guided, w = {W.value:g}", "of the mixture", "its classifier's"
    rows = [["lambda", *columns], ["---:"] * 6]

    @jax.jit
    def shares(logsnr, key):
        noise, directions = jax.random.split(key)
        z = process.diffuse(x, jax.random.normal(noise, x.shape), logsnr)
        at = jnp.broadcast_to(logsnr, c.shape)
        fields = (
            lambda z: model.eps_fn(z, at, c) - model.eps_fn(z, at, null),
            lambda z: model.eps_fn(z, at, c),
            lambda z: guided(z, at, c),
            lambda z: mixture.eps_fn(flat(z), at, c) - mixture.eps_fn(flat(z), at, null),
            lambda z: -process.sigma(logsnr) * jax.grad(log_prob)(flat(z), logsnr),
        )
        as_picture = lambda field: lambda z: field(z).reshape(z.shape)  # noqa: E731
        return [antisymmetric(as_picture(field), z, directions, PROBES.value) for field in fields]

    def log_prob(z, logsnr):
        return jnp.take_along_axis(jax.nn.log_softmax(mixture.log_joint(z, logsnr)), c[:, None], 1).sum()

    for i, logsnr in enumerate(cli.numbers(LOGSNRS.value, float, "logsnrs")):
        found = shares(logsnr, jax.random.key(i))
        rows.append([f"{logsnr:g}", *(f"{share:.3f} ± {error:.3f}" for share, error in found)])
    about = (
        f"{RUN.value}: antisymmetric share of the Jacobian, {len(index)} pictures, {PROBES.value} directions each; "
        "± is the standard error over the pictures. A gradient has 0."
    )
    gallery.write(OUT.value, "curl", None, markdown(rows), about, model.config.data.name)


def flat(z):
    return z.reshape(len(z), -1)


def of_classes(source, num_classes):
    """One Gaussian a class: the mean of its pictures, and the root mean square of their deviation from it."""
    x, labels = flat(np.asarray(to_float(source.images[:]))), np.asarray(source.labels)
    classes = range(num_classes)
    means = np.stack([x[labels == k].mean(0) for k in classes])
    stds = np.array([(x[labels == k] - means[k]).std() for k in classes])
    weights = np.bincount(labels, minlength=len(means)) / len(labels)
    return Mixture(*(jnp.asarray(a, jnp.float32) for a in (means, stds, weights)))


if __name__ == "__main__":
    cli.run(main)
