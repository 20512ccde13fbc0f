"""Whether a model's guidance is the gradient of a classifier: the antisymmetric share of its Jacobian. Claim 7.

eps(z, c) - eps(z) would be -sigma grad_z log p(c | z) of an implicit classifier, and a gradient's Jacobian is
symmetric; a network is not bound to that. The share is |J - J^T| / 2|J| in Frobenius norms: 0 for a gradient, as for
the exact eps of a mixture (test_guidance), 0.71 for a matrix of independent entries. Taken at diffused training
pictures of class c.

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
from cfg_jax.evaluation.fields import antisymmetric
from cfg_jax.images import to_float
from cfg_jax.text import markdown
from experiments import cli

RUN = flags.DEFINE_string("run", None, "run directory or exported file")
LOGSNRS = flags.DEFINE_string("logsnrs", "-4,-2,0,2,4,6", "lambda, a row each")
W = flags.DEFINE_float("w", 1.0, "of the guided eps in the last column")
NUM_IMAGES = flags.DEFINE_integer("num_images", 64, "training pictures", lower_bound=2)
PROBES = flags.DEFINE_integer("probes", 8, "random directions at each", lower_bound=1)
flags.mark_flags_as_required(["run"])


def main():
    model = cfg_jax.load(RUN.value)
    require(model.config.p_uncond, f"--run={RUN.value} has no unconditional eps: name one with p_uncond above 0")
    checks.guidance_weight(W.value, model.config.p_uncond, "--w")
    source, _ = sources.load(model.config)
    index = np.random.default_rng(0).permutation(len(source))[: NUM_IMAGES.value]
    x, c = to_float(source.images[index]), jnp.asarray(source.labels[index])
    null = jnp.full_like(c, model.config.data.num_classes)
    print(f"{RUN.value}: antisymmetric share of the Jacobian, {len(index)} pictures, {PROBES.value} directions each\n")
    guided = guidance.guided(model.eps_fn, W.value, model.config.data.num_classes)
    rows = [["lambda", "eps(z, c) - eps(z)", "eps(z, c)", f"guided, w = {W.value:g}"], ["---:"] * 4]

    @jax.jit
    def shares(logsnr, key):
        noise, directions = jax.random.split(key)
        z = process.diffuse(x, jax.random.normal(noise, x.shape), logsnr)
        at = jnp.broadcast_to(logsnr, c.shape)
        fields = (
            lambda z: model.eps_fn(z, at, c) - model.eps_fn(z, at, null),
            lambda z: model.eps_fn(z, at, c),
            lambda z: guided(z, at, c),
        )
        return [antisymmetric(field, z, directions, PROBES.value) for field in fields]

    for i, logsnr in enumerate(cli.numbers(LOGSNRS.value, float, "logsnrs")):
        found = shares(logsnr, jax.random.key(i))
        rows.append([f"{logsnr:g}", *(f"{share:.3f} ± {error:.3f}" for share, error in found)])
    print(markdown(rows))
    print("± is the standard error over the pictures. A gradient has 0.")


if __name__ == "__main__":
    cli.run(main)
