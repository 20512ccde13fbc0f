"""What the studies share: flags, samples of exact laws, scores of trained models, figures, tables and pages.

Not a command. A study writes NAME.png, NAME.svg and NAME.md, the table with its command, into one directory.
"""

import io
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from PIL import Image

import cfg_jax
from cfg_jax import checks, plots
from cfg_jax.diffusion import guidance, particles, samplers
from cfg_jax.errors import require
from cfg_jax.files import check_output, write_atomic
from cfg_jax.sampling import asked
from cfg_jax.sampling.model import Model
from cfg_jax.sweep import claims
from cfg_jax.sweep.score import Scorer
from cfg_jax.text import escaped
from cfg_jax.training import trainer
from experiments.helpers import cli

flags.disclaim_key_flags()  # --help shows flags defined here as the study's
BEGAN = time.perf_counter()
log = logging.getLogger("cfg_jax")


def define_out(study: str) -> flags.FlagHolder:
    """Define --out of a study. What is there under the study's names is checked as the flags are read."""
    out = cli.define_path("out", "runs/studies", "directory for the study's picture and table", writes="directory")
    flags.register_validator(out, lambda directory: directory is None or check_names(Path(directory), study))
    return out


def define_runs(about: str) -> flags.FlagHolder:
    return cli.define_path(
        "runs", None, f"run directories: training seeds of one {about}", hub=True, many=True, required=True
    )


def check_names(out: Path, study: str) -> bool:
    """Raise InputError for a page or picture of the study's names that this code did not write, else return True."""
    there = [path for path in out.glob(f"{study}*") if path.stem == study or path.stem.startswith(f"{study}_")]
    pages = [path for path in there if path.suffix == ".md"]
    for path in pages:
        check_output(path, ".md")
    for path in (path for path in there if path.suffix in (".png", ".svg")):
        page = next((page for page in pages if path.stem.startswith(page.stem)), None)
        check_output(path, path.suffix, page=page)
    return True


def drawn(model: Any, rule: Any, sampler: Any, logsnrs: Any, num: int, dim: int = 1, c: int = 0) -> list[np.ndarray]:
    """Return samples x [num, dim] of class c of a law whose eps is exact, and effective sizes. The seed is 0."""

    @jax.jit
    def run(rule: Any, walk: samplers.Walk) -> tuple[jax.Array, jax.Array]:
        keys, z = samplers.start(0, jnp.arange(num), (dim,))
        whole = guidance.Guidance(rule)
        return walk.weighed(keys, whole.on(model), z, jnp.full(num, c), whole.init(keys, z))

    return [*map(np.asarray, run(rule, particles.walk(sampler, logsnrs)))]


def load(
    run: str, ws: Iterable[float], params: str | float = "ema", dtype: str | None = None, *,
    both_halves: bool = False, most: float = math.inf,
) -> Model:  # fmt: skip
    """Load a run, and check that it takes these guidance weights.

    both_halves: whether it must have classes and an unconditional eps. most: dimensions that its images may have.
    """
    model = cfg_jax.load(run, params=params, dtype=dtype)
    dim = math.prod(model.image_shape)
    for w in ws:
        asked.guidance_weight(w, model.config, "--w")
    if both_halves:
        require(model.config.data.num_classes > 1, f"--run={run} has no classes: name one with labels")
        require(model.config.p_uncond, f"--run={run} has no unconditional eps: name one with p_uncond above 0")
    require(dim <= most, f"--run={run} has {dim} dimensions, and {most} can be traced")
    log.info("measuring %s at step %d", run, model.step)
    return model


def trained(config: ConfigDict, workdir: str | Path) -> Model:
    """Train a model, or go on from what is there, and load it."""
    trainer.train(config, workdir)
    return cfg_jax.load(workdir)


def trained_seeds(
    out: str, study: str, config: ConfigDict, objectives: Mapping[str, Mapping], seeds: Sequence[int],
    ws: Iterable[float], num_images: int,
) -> tuple[dict[str, list[Model]], Scorer]:  # fmt: skip
    """Train a model of each objective and seed, or go on from what is there. Return them by name, and their scorer.

    objectives: {name: fields of config.objective}. The config is checked first, and that its models take these ws.
    """
    checks.everything(config)
    for w in ws:
        asked.guidance_weight(w, config, "--w")
    runs = Path(out) / f"{study}-{config.data.name}"

    def model(name: str, seed: int) -> Model:
        changed = config.copy_and_resolve_references()
        changed.objective.update(objectives[name])
        changed.seed = seed
        return trained(changed, runs / f"{name}-seed{seed}")

    models = {name: [model(name, seed) for seed in seeds] for name in objectives}
    return models, scorer(runs / f"{next(iter(models))}-seed{seeds[0]}", out, num_images)


def scorer(
    run: str | Path, out: str, num_images: int, num_steps: int | None = None, *, bootstrap: int = 100, splits: int = 10
) -> Scorer:
    """Return a Scorer of classes in turn for models that share a run's data. It keeps its networks under `out`."""
    return Scorer(
        run, Path(out) / f"features-{Path(run).name}", num_steps, num_images=num_images, labels="balanced",
        batch_size=min(num_images, 256), splits=splits, bootstrap=bootstrap, neighbours=0, reference=None, seed=0,
    )  # fmt: skip


def over_runs(scorer: Scorer, models: Iterable[Model], w: float, **sampler: Any) -> dict:
    """Return one row of the mean scores of several training seeds' models at w. sampler: fields of config.sampler."""
    scorer.config.sampler.update(sampler)
    rows = []
    for model in models:
        scorer.model = model
        rows.append(scorer(model.rule(scorer.config.guidance, np.float32(w))))
    return claims.over_seeds(rows)


def fids(rows: Iterable[dict]) -> list[float]:
    return [claims.score(row, "fid") for row in rows]


def gap(row: dict, other: dict) -> str:
    """Return a row's FID less another's of the same noise, and its error over the same resamples: "+1.20 ± 0.30"."""
    ours, theirs = ((claims.score(of, "fid"), claims.resamples(of, "fid")) for of in (row, other))
    return claims.difference(*ours, *theirs).text(2)


def subplots(columns: int = 1, size: tuple[float, float] | None = None, sharey: bool = False) -> tuple[Figure, Any]:
    """Return a figure and the axes of its one row. size: in inches."""
    figure = Figure(figsize=size)
    return figure, figure.subplots(1, columns, squeeze=False, sharey=sharey)[0]


def curves(x: Sequence[float], lines: Mapping[str, Sequence[float]], title: str, **labels: str) -> Figure:
    """Return a figure of one plot, with a line for each name. labels: of the axes, and their scales."""
    figure, [axes] = subplots()
    for name, y in lines.items():
        axes.plot(x, y, "o-", label=name)
    axes.set(title=title, **labels)
    axes.legend()
    return figure


def write(
    out: str, study: str, figure: Figure | None, table: str, about: str, data: str = "",
    more: Mapping[str, Figure] | None = None,
) -> None:  # fmt: skip
    """Save the plot, and print and save the table with its command and seconds.

    data: the name of the data, for the names of the files. more: {NAME: a further picture}, saved with NAME at the end
    of its name.
    """
    directory, name = Path(out), f"{study}_{data}" if data else study
    directory.mkdir(parents=True, exist_ok=True)
    if figure is not None:
        plots.save(directory / name, figure)
    for last, further in (more or {}).items():
        png = io.BytesIO(plots.image(further, "png"))
        few = Image.open(png).convert("RGB").quantize(128, dither=Image.Dither.NONE)  # a quarter of the bytes
        few.save(directory / f"{name}_{last}.png", optimize=True)
    title, seconds = f"{study}, {data}" if data else study, time.perf_counter() - BEGAN
    command = cli.command_line(f"studies.{study}")
    text = f"# {escaped(title)}\n\n    {command}\n\n{about} It took {seconds:.0f} s.\n\n{table}"
    write_atomic(directory / f"{name}.md", text + "\n")
    print(text)
    print(f"\n{out}/{name}.md" + (f", {out}/{name}.png" if figure is not None else ""))
