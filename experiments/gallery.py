"""What the studies share: where they write, and the page of all of them.

Not a command. A study writes NAME.png and NAME.md, the table with its command, into one directory.
"""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import cfg_jax
from cfg_jax import checks
from cfg_jax.data import sources
from cfg_jax.diffusion import guidance, samplers
from cfg_jax.errors import require
from cfg_jax.evaluation import measure, references
from cfg_jax.evaluation.classifiers import features_of
from cfg_jax.files import write_atomic
from experiments import cli

BEGAN = time.perf_counter()


def define_out():
    return flags.DEFINE_string("out", "runs/studies", "directory for the study's picture and table")


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


def write(out, study, figure, table, about, of=""):
    """Save the picture, and print and save the table with its command and seconds. of: the data, in the names."""
    out, name = Path(out), f"{study}_{of}" if of else study
    out.mkdir(parents=True, exist_ok=True)
    if figure is not None:
        figure.savefig(out / f"{name}.png", dpi=110)
    seconds = time.perf_counter() - BEGAN
    text = f"    {cli.command_line(f'studies.{study}')}\n\n{about} It took {seconds:.0f} s.\n\n{table}"
    write_atomic(out / f"{name}.md", text + "\n")
    print(text)
    print(f"\n{out}/{name}.md" + (f", {out}/{name}.png" if figure is not None else ""))


def drawn(model, rule, sampler, logsnrs, num, dim=1, c=0):
    """Samples x [num, dim] of class c of a law whose eps is exact, and what Walk.weighed has beside them. Seed 0."""

    @jax.jit
    def run(rule, walk):
        keys, z = samplers.start(0, jnp.arange(num), (dim,))
        return walk.weighed(keys, guidance.Guidance(rule).on(model), z, jnp.full(num, c))

    x, effective = run(rule, samplers.Walk(sampler, logsnrs))
    return np.asarray(x), np.asarray(effective)


class Scored:
    """Frechet distance and IS of what a trained model samples, as a sweep takes them, with bootstrap errors."""

    def __init__(self, run, num_images, num_steps, out, bootstrap=20):
        self.model, self.num_steps, self.bootstrap = cfg_jax.load(run), num_steps, bootstrap
        source, self.config = sources.load(self.model.config)
        self.name, num_classes = self.config.data.name, self.config.data.num_classes
        require(num_classes > 1, f"--run={run} has no classes to guide to")
        self.labels = np.arange(num_images) % num_classes
        directory = Path(out) / f"features-{self.name}"
        directory.mkdir(parents=True, exist_ok=True)
        self.config.eval.update(neighbours=0, reference=None)
        self.features = features_of(self.config, source, directory)
        self.reference = references.of_config(self.config, self.features, source, directory)
        self.names = {}

    def images(self, rule, sampler):
        """uint8 [N, H, W, C] of the classes in turn."""
        return self.model.sample(self.labels, num_steps=self.num_steps, guidance=rule, sampler=sampler)

    def __call__(self, rule, sampler):
        """{"fid": (value, standard error), "is": the same}; `names` has what they are called."""
        uint8 = self.images(rule, sampler)
        tally = measure.Tally(len(uint8), self.labels, self.name, splits=1, bootstrap=self.bootstrap)
        tally.add(uint8, self.features(uint8))
        values, _ = tally.scores(self.reference)
        self.names = {
            kind: next(name for name in values if name.startswith(starts))
            for kind, starts in (("fid", ("fid_", "fd_")), ("is", "is_"))
        }
        return {kind: (values[name][0], np.std(values[name][1:], ddof=1)) for kind, name in self.names.items()}
