"""Compare the samples of guided DDIM with their exact density, and with the density p(x | c)^(1 + w) p(x)^-w.

The exact one is by cfg_jax.diffusion.likelihood.guided_loss, arXiv 2607.19725. Mixtures in one and two dimensions have
an exact eps, and both densities are summed over the cells of a histogram of the samples. With --run the study takes a
model's guided images instead, and compares the formula with the likelihood by their own ODE.

python -m experiments.studies.density --out=runs/studies
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.diffusion import guidance, likelihood, samplers, schedule
from cfg_jax.errors import require
from cfg_jax.images import to_float
from cfg_jax.models.mixture import Mixture
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery
from experiments.studies import plane

OUT = gallery.define_out("density")
RUN = cli.define_path("run", None, "run directory or exported file, with p_uncond above 0: its guided images", hub=True)
W = cli.define_numbers("w", "0,1,3", "guidance weights, a column each")
NUM_SAMPLES = cli.define_count("num_samples", 20_000, "of class 0 of each mixture", low=100)
NUM_STEPS = cli.define_count("num_steps", 256, "T of the samples", low=2)
NUM_IMAGES = cli.define_count("num_images", 32, "of --run, of each w", low=4)

# one of the two components of class 0 lies on class 1
LINE = Mixture(
    jnp.float32([[-1.0], [1.0], [1.2]]), jnp.float32([0.4, 0.4, 0.5]), jnp.float32([0.25, 0.25, 0.5]), (0, 0, 1)
)
EXTENT, CLEAN = 3.0, 16.0
CELLS = {1: 60, 2: 30}  # of a histogram's side, by dimension
FINE = 4  # points of the densities in a cell's side


def masses(law: Mixture, w: float) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Return the exact and the tilted density's mass of class 0 in each cell of the histogram, each summing to 1."""
    dim = law.means.shape[1]
    points = CELLS[dim] * FINE
    axis = (np.arange(points) + 0.5) / points * 2 * EXTENT - EXTENT
    x = jnp.float32(np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), -1).reshape(-1, dim))
    of = lambda c: law.log_density(x, jnp.float32(40.0), jnp.int32(c))  # noqa: E731
    tilted = (1 + w) * of(0) - w * of(law.null)
    grid = schedule.grid(128, -CLEAN, CLEAN, "logsnr")
    lost = jax.jit(lambda x: likelihood.guided_loss(law.eps_fn, x, jnp.zeros(len(x), int), w, law.null, grid))(x)
    found = []
    for log_density in (tilted - lost, tilted):
        mass = np.exp(np.float64(log_density) - float(log_density.max())).reshape([CELLS[dim], FINE] * dim)
        mass = mass.sum(axis=tuple(range(1, 2 * dim, 2)))
        found.append(mass / mass.sum())
    return found[0], found[1]


def histogram(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "..."]:
    dim = x.shape[1]
    counts, _ = np.histogramdd(np.clip(x, -EXTENT, EXTENT), CELLS[dim], [(-EXTENT, EXTENT)] * dim)
    return counts / len(x)


def apart(p: Float[np.ndarray, "..."], q: Float[np.ndarray, "..."]) -> float:
    """Total variation: the largest difference of the probabilities of any set of cells, in [0, 1]."""
    return float(np.abs(p - q).sum() / 2)


@plots.styled
def main() -> None:
    if RUN.value:
        return of_a_run()
    ws, num, steps = W.value, NUM_SAMPLES.value, NUM_STEPS.value
    figure, panels = gallery.subplots(len(ws), (2.4 * len(ws), 2.6))
    squares = {}
    columns = "samples and exact density", "as many of its own samples", "samples and tilted density"
    rows = [["dimensions", "w", *columns]]
    for dim, law in ((1, LINE), (2, plane.three_gaussians())):
        for i, w in enumerate(ws):
            grid = schedule.grid(steps, -CLEAN, CLEAN)
            x = gallery.drawn(law, guidance.ClassifierFree(w), samplers.DDIM(0.0), grid, num, dim)[0]
            exact, tilted = masses(law, w)
            seen = histogram(x)
            of_itself = np.random.default_rng(0).multinomial(num, exact.ravel()).reshape(exact.shape) / num
            pairs = (seen, exact), (of_itself, exact), (seen, tilted)
            rows.append([str(dim), f"{w:g}", *(f"{apart(*pair):.3f}" for pair in pairs)])
            if dim == 1:
                centres, width = (np.arange(CELLS[1]) + 0.5) / CELLS[1] * 2 * EXTENT - EXTENT, 2 * EXTENT / CELLS[1]
                ax = panels[i]
                ax.bar(centres, seen / width, width, alpha=0.35, label="samples of guided DDIM")
                ax.plot(centres, exact / width, label="their exact density")
                ax.plot(centres, tilted / width, "--", label="p(x | c)$^{1+w}$ p(x)$^{-w}$")
                ax.set(title=f"w = {w:g}", yticks=[], xlabel="x")
            else:
                squares[i] = (seen, exact, tilted)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle("Class 0, whose right half lies on class 1")
    maps = Figure(figsize=(2.1 * len(ws), 6.4))
    for axes, w, kinds in zip(maps.subplots(3, len(ws), squeeze=False).T, ws, squares.values(), strict=True):
        for ax, mass, name in zip(axes, kinds, ("samples", "exact density", "tilted density"), strict=True):
            ax.imshow(mass.T, origin="lower", extent=[-EXTENT, EXTENT] * 2)
            ax.set(title=f"w = {w:g}: {name}", xticks=[], yticks=[])
    about = (
        f"Class 0 of each mixture, N = {num:,}, T = {steps} of DDIM, seed 0. The numbers are total variations over "
        f"{CELLS[1]} cells of a line and {CELLS[2]} x {CELLS[2]} of a square."
    )
    gallery.write(OUT.value, "density", figure, markdown(rows, ()), about, more={"plane": maps})


def of_a_run() -> None:
    """Compare both likelihoods of a model's guided images. They agree up to a constant where eps is exact."""
    ws, num = [w for w in W.value if w], NUM_IMAGES.value
    require(ws, "--w=0 is no guidance: give another weight")
    model = gallery.load(RUN.value, ws, both_halves=True, most=likelihood.EXACT_UP_TO)
    classes = model.config.data.num_classes
    logsnrs, key = schedule.grid(32, -12.0, 10.0, "logsnr"), jax.random.key(0)
    c = jnp.arange(num) % classes

    @jax.jit
    def both(x: Array, w: float) -> tuple[Array, Array, Array]:
        log_p = lambda eps_fn, c: likelihood.log_likelihood(eps_fn, x, c, key, logsnrs)[0]  # noqa: E731
        given, alone = log_p(model.eps_fn, c), log_p(model.eps_fn, jnp.full_like(c, classes))
        tilted = (1 + w) * given - w * alone
        own = log_p(guidance.guided(model.eps_fn, w, classes), c)
        return own, tilted - likelihood.guided_loss(model.eps_fn, x, c, w, classes, logsnrs), tilted

    rows = [["w", "spread of log p", "exact less log p", "tilted less log p", "correlation, exact", "tilted"]]
    for w in ws:
        uint8 = model.sample(np.asarray(c), w, NUM_STEPS.value, sampler="ddim")
        x = to_float(uint8) + jax.random.uniform(key, uint8.shape, minval=-1, maxval=1) / 255
        own, exact, tilted = map(np.asarray, both(x, jnp.float32(w)))
        spreads = (f"{values.std(ddof=1):.2f}" for values in (own, exact - own, tilted - own))
        rows.append([f"{w:g}", *spreads, *(f"{np.corrcoef(own, other)[0, 1]:.3f}" for other in (exact, tilted))])
    about = (
        f"{RUN.value}, {num} images of each w by DDIM at T = {NUM_STEPS.value}. log p is by the guided ODE itself, in "
        "nats. Spreads are standard deviations over images, so that the unknown constant is left out."
    )
    gallery.write(OUT.value, "density", None, markdown(rows, ()), about, model.config.data.name)


if __name__ == "__main__":
    cli.run(main)
