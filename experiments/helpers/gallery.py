"""What the studies share: where they write, and the page of all of them.

Not a command. A study writes NAME.png, NAME.svg and NAME.md, the table with its command, into one directory.
"""

import io
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image

from cfg_jax import checks, plots
from cfg_jax.diffusion import guidance, particles, samplers
from cfg_jax.errors import require
from cfg_jax.files import check_output, write_atomic
from cfg_jax.sweep import claims
from cfg_jax.sweep.score import Scorer
from experiments.helpers import cli

BEGAN = time.perf_counter()


def define_out(study):
    """--out of a study, in which nothing of its names may be another's: looked at as the flags are read."""
    out = flags.DEFINE_string("out", "runs/studies", "directory for the study's picture and table")
    flags.register_validator(out, lambda directory: directory is None or check_names(Path(directory), study))
    return out


def check_names(out, study):
    """Raise InputError for a page or picture of the study's names that this code did not write."""
    there = [path for path in out.glob(f"{study}*") if path.stem == study or path.stem.startswith(f"{study}_")]
    pages = [path for path in there if path.suffix == ".md"]
    for path in pages:
        check_output(path, ".md")
    for path in (path for path in there if path.suffix in (".png", ".svg")):
        page = next((page for page in pages if path.stem.startswith(page.stem)), None)
        check_output(path, path.suffix, page=page)
    return True


def weights(text, flag="w"):
    """ "0,1,4" -> guidance weights, each checked."""
    ws = cli.numbers(text, float, flag)
    for w in ws:
        checks.finite(w, f"--{flag}")
    return ws


def positive(text, flag, low=1, kind=int):
    """ "4,8" -> numbers of at least `low`."""
    values = cli.numbers(text, kind, flag)
    for value in values:
        require(value >= low, f"--{flag}={text}: {value} is below {low}")
    return values


def error(values):
    """The standard error of a mean."""
    return np.std(values, ddof=1) / np.sqrt(len(values))


def write(out, study, figure, table, about, of="", more=None):
    """Save the plot, and print and save the table with its command and seconds. of: the data, in the names.

    more: {NAME: a further picture}, saved beside it with NAME at the end of its name.
    """
    out, name = Path(out), f"{study}_{of}" if of else study
    out.mkdir(parents=True, exist_ok=True)
    if figure is not None:
        plots.save(out / name, figure)
    for last, further in (more or {}).items():
        png = io.BytesIO(plots.image(further, "png"))
        few = Image.open(png).convert("RGB").quantize(128, dither=Image.Dither.NONE)  # a quarter of the bytes
        few.save(out / f"{name}_{last}.png", optimize=True)
    seconds = time.perf_counter() - BEGAN
    title = f"{study}, {of}" if of else study
    text = f"# {title}\n\n    {cli.command_line(f'studies.{study}')}\n\n{about} It took {seconds:.0f} s.\n\n{table}"
    write_atomic(out / f"{name}.md", text + "\n")
    print(text)
    print(f"\n{out}/{name}.md" + (f", {out}/{name}.png" if figure is not None else ""))


def drawn(model, rule, sampler, logsnrs, num, dim=1, c=0):
    """Samples x [num, dim] of class c of a law whose eps is exact, and each group's effective size. Seed 0."""

    @jax.jit
    def run(rule, walk):
        keys, z = samplers.start(0, jnp.arange(num), (dim,))
        whole = guidance.Guidance(rule)
        return walk.weighed(keys, whole.on(model), z, jnp.full(num, c), whole.init(keys, z))

    x, effective = run(rule, particles.walk(sampler, logsnrs))
    return np.asarray(x), np.asarray(effective)


class Scored:
    """Frechet distance and IS of what a trained model samples, as a sweep takes them, with bootstrap errors."""

    def __init__(self, run, num_images, num_steps, out, bootstrap=20):
        self.scorer = scorer(run, out, num_images, num_steps, bootstrap=bootstrap, splits=1)
        self.name, num_classes = self.scorer.config.data.name, self.scorer.config.data.num_classes
        require(num_classes > 1, f"--run={run} has no classes to guide to")
        self.names = {}

    def __call__(self, rule, sampler):
        """{"fid": (value, standard error), "is": the same}; `names` has what they are called."""
        row = self.scorer(rule, sampler)
        self.names = {kind: claims.score_name(row, kind) for kind in ("fid", "is")}
        return {kind: (claims.score(row, kind), claims.spread(row, kind)) for kind in self.names}


def scorer(run, out, num_images, num_steps=None, *, bootstrap=100, splits=10):
    """A Scorer of classes in turn for models that share a run's data, with its feature network kept under `out`."""
    return Scorer(
        run, Path(out) / f"features-{Path(run).name}", num_steps, num_images=num_images, labels="balanced",
        batch_size=min(num_images, 256), splits=splits, bootstrap=bootstrap, neighbours=0, reference=None, seed=0,
    )  # fmt: skip


def over_runs(scorer, models, w, **sampler):
    """One row of the mean scores of several training seeds' models at w, drawn by these fields of config.sampler."""
    scorer.config.sampler.update(sampler)
    rows = []
    for model in models:
        scorer.model = model
        rows.append(scorer(model.rule(scorer.config.guidance, np.float32(w))))
    return claims.over_seeds(rows)


def said(row, kind="fid"):
    """ "9.57 ± 0.84", with the bootstrap standard error over images."""
    return f"{claims.score(row, kind):.2f} ± {claims.spread(row, kind):.2f}"


def gap(row, other, kind="fid"):
    """ "+1.20 ± 0.30": a row's score less another's of the same noise, and its error over the same resamples."""
    drawn = np.subtract(claims.resamples(row, kind), claims.resamples(other, kind))
    return f"{claims.score(row, kind) - claims.score(other, kind):+.2f} ± {np.std(drawn, ddof=1):.2f}"
