"""Collect a finished table in a directory small enough to commit: README.md, pictures, CSV, configs, command.

python -m experiments.results --config=configs/tiny_imagenet.py --sweep=runs/tiny_imagenet-sweep \
    --out=experiments/results/tiny_imagenet
"""

import shlex
import shutil
from pathlib import Path

import numpy as np

from cfg_jax import config as configs
from cfg_jax.data import cards
from cfg_jax.errors import InputError
from cfg_jax.files import check_output, write_atomic, write_json
from cfg_jax.inputs import check, read_json, reading
from cfg_jax.sweep import read, report
from cfg_jax.text import escaped, markdown
from cfg_jax.training import records
from experiments.helpers import cli

CONFIG = cli.define_config(required=True)
SWEEP = cli.define_path("sweep", None, "directory with cells of experiments.paper", required=True)
RUNS = cli.define_path("runs", "runs", "directory with the runs that were scored")
OUT = cli.define_path("out", None, "directory to write", writes="page", required=True)
COPIED = (
    "results.csv", "curves.png", "curves.svg", "curves_T.png", "curves_T.svg", "samples.png", "config.json",
)  # fmt: skip


def main():
    out, sweep, runs = Path(OUT.value), Path(SWEEP.value), Path(RUNS.value)
    for name in ("README.md", "runs.json", *COPIED):
        check_output(out / name, Path(name).suffix, page=out / "README.md")
    text = report.write(sweep)
    rows = []
    for path in sorted((sweep / "cells").glob("*.json")):
        rows.append(read.read_row(path))
        with reading(path, "is damaged", "remove it and run the sweep again"):
            check(rows[-1], {"step": int, "device": str})
    steps = {row["run"]: row["step"] for row in rows}
    trained = {name: training(runs / name, step) for name, step in sorted(steps.items())}
    card = cards.load(runs / rows[0]["run"] / "data.json")
    readme = page(out.name, text, rows, trained, card, configs.load(sweep / "config.json"))
    out.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (sweep / name).exists():
            shutil.copyfile(sweep / name, out / name)
    write_json(out / "runs.json", trained)
    write_atomic(out / "README.md", readme)
    print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


def training(run, step):
    """Return how a run was trained up to a step. Its hours are of the steps alone, without compiling and saving."""
    if not (run / "metrics.jsonl").exists():
        raise InputError(f"{run} has no metrics.jsonl: name the directory of the runs that were scored with --runs")
    config = configs.load(run / "config.json")
    rows = [row for _, row in records.read(run / "metrics.jsonl") if row["step"] <= step]
    machine = dict.fromkeys(("device", "jax", "python", "code"), str)
    with reading(run / "metrics.jsonl", f"has no whole records up to step {step}", "name the run that was scored"):
        steps = np.diff([0, *(row["step"] for row in rows)])
        seconds = float(steps @ [config.train.batch_size / row["images_per_s"] for row in rows])
        return {
            "p_uncond": config.p_uncond,
            "steps": rows[-1]["step"],
            "batch_size": config.train.batch_size,
            "hours": round(seconds / 3600, 4),
            "images_per_s": round(float(np.median([row["images_per_s"] for row in rows])), 1),
            "mfu": round(float(np.median([row["mfu"] for row in rows])), 4) if "mfu" in rows[-1] else None,
            "loss": [row["loss"] for row in (rows[0], rows[-1])],
            **records.troubles(run, rows[-1]["step"]),
            **read_json(run / "machine.json", machine, "is damaged", "train the run further, which writes it anew"),
        }


def command(config, seeds):
    """Return the command that makes the table: the --config.FIELD=VALUE that differ from the config's file."""
    old, new = configs.flat(CONFIG.value), configs.flat(config)
    fields = [f for f in new if f not in ("data.card", "data.root") and old.get(f) != new[f]]
    parts = [f"python -m experiments.paper --table=1 --scale={Path(cli.given('config')).stem}"]
    parts += [] if seeds == [config.eval.seed] else [f"--seeds={','.join(map(str, seeds))}"]
    parts += [shlex.quote(f"--config.{field}={new[field]}") for field in fields]
    return " \\\n        ".join(parts)


def page(title, text, rows, runs, card, config):
    lines = [["run", "p_uncond", "steps", "batch", "hours", "images/s", "MFU", "first and last loss", "on"]]
    for name, run in runs.items():
        lines.append([
            name, str(run["p_uncond"]), f"{run['steps']:,}", str(run["batch_size"]), str(run["hours"]),
            f"{run['images_per_s']:,}", "not known" if run["mfu"] is None else f"{run['mfu']:.1%}",
            ", ".join(f"{loss:.4f}" for loss in run["loss"]), run["device"],
        ])  # fmt: skip
    first, shape = next(iter(runs.values())), "x".join(map(str, card.image_shape))
    seconds, images = sum(row["seconds"] for row in rows), sum(row["N"] for row in rows)
    parts = [
        f"# {escaped(title)}\n",
        f"    {command(config, sorted({row['seed'] for row in rows}))}\n",
        f"Data: {escaped(card.name)} ({escaped(card.source)}), {card.counts['train']:,} training pictures of {shape}, "
        f"resize {card.resize}, card {card.digest}.\n",
        f"{len(rows)} cells with {images:,} images in total took {seconds / 3600:.3g} hours, {images / seconds:,.1f} "
        f"images/s with their scores, on {rows[0]['device']}; jax {first['jax']}, Python {first['python']}, this code "
        f"{first['code']}. The hours of training exclude compiling and saving.\n",
        markdown(lines, (0, 8)),
        text,
        "![IS against FID as w grows](curves.png)\n",
        "![Samples of one model over w, all of one noise](samples.png)\n",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    cli.run(main)
