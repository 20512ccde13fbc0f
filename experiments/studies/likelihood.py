"""Compute log p(x) and log p(x | c) of real and guided images by a model's probability-flow ODE. Claim 5.

The trace is exact up to 64 dimensions. Above that it is Hutchinson's, with its standard error. Bits per dimension are
of uint8 values: uniform noise of one level is added first. The bound is the variational one.

python -m experiments.studies.likelihood --out=runs/studies --run=runs/digits-p0.1
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from cfg_jax import plots
from cfg_jax.data import sources
from cfg_jax.diffusion import likelihood, schedule
from cfg_jax.errors import require
from cfg_jax.images import to_float
from cfg_jax.sweep import claims
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery

OUT = gallery.define_out("likelihood")
RUN = cli.define_path("run", None, "run directory or exported file, with p_uncond above 0", hub=True, required=True)
W = cli.define_numbers("w", "0,0.5,1,2,4", "guidance weights of the samples", low=-1)
NUM_IMAGES = cli.define_count("num_images", 64, "of each row", low=4)
SAMPLE_STEPS = cli.define_count("sample_steps", 64, "T of the samples", low=2)
NUM_STEPS = cli.define_count("num_steps", 24, "of the ODE, four evaluations each", low=4)
PROBES = cli.define_count("probes", None, "directions of the trace; default: all of 64 dimensions or fewer, else 8")

CLEAN = 10.0  # log-SNR at which the ODE starts: a pixel's noise is 0.7 % of its range there


@plots.styled
def main() -> None:
    ws = list(dict.fromkeys(W.value))
    require(len(ws) > 1, f"--w={cli.listed(ws)} compares nothing: give two weights or more")
    model = gallery.load(RUN.value, ws, both_halves=True)
    source, _ = sources.load(model.config)
    dim, classes = math.prod(model.image_shape), model.config.data.num_classes
    counts = np.bincount(source.labels, minlength=classes)
    most = f"class {counts.argmin()} has {counts.min()} pictures: give at most {classes * counts.min()}"
    require(NUM_IMAGES.value <= classes * counts.min(), f"--num_images={NUM_IMAGES.value} is too many, {most}")
    probes = PROBES.value or (0 if dim <= likelihood.EXACT_UP_TO else 8)
    logsnrs = schedule.grid(NUM_STEPS.value, -12.0, CLEAN, "logsnr")

    bound_logsnrs = schedule.grid(64, -12.0, CLEAN, "logsnr")
    log_p = jax.jit(lambda x, c, key: likelihood.log_likelihood(model.eps_fn, x, c, key, logsnrs, probes))
    bound = jax.jit(lambda x, c, key: likelihood.lower_bound(model.eps_fn, x, c, key, bound_logsnrs))
    c = jnp.arange(NUM_IMAGES.value) % classes
    index = [np.flatnonzero(source.labels == k)[i // classes] for i, k in enumerate(np.asarray(c))]
    sets = {"training images": source.images[np.array(index)]}
    sets |= {f"samples, w = {w:g}": model.sample(np.asarray(c), w, SAMPLE_STEPS.value) for w in ws}
    rows = [["", "log p(x given c)", "log p(x)", "difference", "bits per dimension", "bound on log p(x given c)"]]
    both, worst = {}, 0.0
    for name, uint8 in sets.items():
        key = jax.random.key(0)  # the same noise for all
        x = to_float(uint8) + jax.random.uniform(key, uint8.shape, minval=-1, maxval=1) / 255
        (given, error), (alone, _) = log_p(x, c, key), log_p(x, jnp.full_like(c, classes), key)
        both[name], worst = (np.asarray(given), np.asarray(alone)), max(worst, float(error.mean()))
        bits = likelihood.bits_per_dimension(given, dim)
        columns = given, alone, given - alone, bits, bound(x, c, key)
        rows.append([name, *(f"{np.mean(a):.2f} ± {stats.sem(np.asarray(a)):.2f}" for a in columns)])
        print(rows[-1][0], rows[-1][1:], flush=True)
    figure, [axes] = gallery.subplots()
    at_w = {w: both[f"samples, w = {w:g}"] for w in ws}
    for i, label in enumerate(("log p(x | c)", "log p(x)")):
        means, errors = zip(*((pair[i].mean(), 2 * stats.sem(pair[i])) for pair in at_w.values()), strict=True)
        axes.errorbar([*at_w], means, errors, fmt="o-", label=label)
        axes.axhline(both["training images"][i].mean(), color=f"C{i}", ls=":")
    axes.set(xlabel="w", ylabel="nats")
    axes.set_title(
        f"{model.config.data.name}: N = {NUM_IMAGES.value} images a point, T = {SAMPLE_STEPS.value}, seed 0\n"
        "bars are ± two standard errors, dotted: training images"
    )
    axes.legend()
    trace = (
        "The trace is exact" if not probes else f"{probes} probes, whose standard error is {worst:.2f} nats an image"
    )
    about = (
        f"{RUN.value}, {NUM_IMAGES.value} images a row, samples at T = {SAMPLE_STEPS.value}, {NUM_STEPS.value} steps "
        f"of the ODE from a log-SNR of {CLEAN:g}. {trace}; ± is the standard error over images. {verdict(at_w)}"
    )
    gallery.write(OUT.value, "likelihood", figure, markdown(rows), about, model.config.data.name)


def verdict(at_w: dict[float, tuple[np.ndarray, np.ndarray]]) -> str:
    """Judge claim 5 by the pairs of images of one noise: the least w against every other.

    at_w: log p(x | c) and log p(x) of the images, by w.
    """
    (least, base), *others = sorted(at_w.items(), key=lambda item: item[0])
    texts, signs = [], []
    for w, pair in others:
        changes = [after - before for before, after in zip(base, pair, strict=True)]
        (given, given_error), (alone, alone_error) = ((d.mean(), stats.sem(d)) for d in changes)
        texts.append(f"{given:+.2f} ± {given_error:.2f} and {alone:+.2f} ± {alone_error:.2f} at w = {w:g}")
        signs += [given / given_error, -alone / alone_error]
    word = claims.SUPPORTED if min(signs) > 2 else claims.REFUTED if min(signs) < -2 else claims.OPEN
    return (
        f"Claim 5, that guidance raises log p(x | c) and lowers log p(x), is {word}: from w = {least:g} they "
        f"change by {'; '.join(texts)}."
    )


if __name__ == "__main__":
    cli.run(main)
