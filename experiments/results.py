"""A finished table as a directory small enough to commit: README.md, pictures, CSV, configs, and how it was made.

python -m experiments.results --config=configs/tiny_imagenet.py --sweep=runs/tiny_imagenet-sweep \
    --out=experiments/results/tiny_imagenet
"""

import shlex
import shutil
from pathlib import Path

import numpy as np
from absl import flags

from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.files import check_directory, check_output, read_json, write_atomic, write_json
from cfg_jax.sweep import report
from cfg_jax.text import markdown
from cfg_jax.training import records
from experiments.helpers import cli

CONFIG = cli.define_config()
SWEEP = flags.DEFINE_string("sweep", None, "the directory of experiments.paper's or experiments.sweep's cells")
RUNS = flags.DEFINE_string("runs", "runs", "where the runs are that it scored")
OUT = flags.DEFINE_string("out", None, "the directory to write")
flags.mark_flags_as_required(["config", "sweep", "out"])
COPIED = (
    "results.csv", "curves.png", "curves.svg", "curves_T.png", "curves_T.svg", "samples.png", "config.json",
)  # fmt: skip


def main():
    out = Path(OUT.value)
    check_directory(out, "page")
    for name in ("README.md", "runs.json", *COPIED):
        check_output(out / name, Path(name).suffix, page=out / "README.md")
    table(CONFIG.value, Path(cli.given("config")).stem, Path(SWEEP.value), Path(RUNS.value), out)
    print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


def table(base, scale: str, sweep: Path, runs: Path, out: Path) -> None:
    """Write the page of a sweep's cells: README.md, pictures, CSV, config. base: configs/SCALE.py as it is."""
    text = report.write(sweep)
    rows = [read_json(path) for path in sorted((sweep / "cells").glob("*.json"))]
    steps = {row["run"]: row["step"] for row in rows}
    of_runs = {name: training(runs / name, step) for name, step in sorted(steps.items())}
    config = configs.load(sweep / "config.json")
    flag_list = changed(base, config)
    seeds = sorted({row["seed"] for row in rows})
    if seeds != [config.eval.seed]:
        flag_list = [f"--seeds={','.join(map(str, seeds))}", *flag_list]
    out.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (sweep / name).exists():
            shutil.copyfile(sweep / name, out / name)
    write_json(out / "runs.json", of_runs)
    card = read_json(runs / rows[0]["run"] / "data.json")
    write_atomic(out / "README.md", page(out.name, scale, text, rows, of_runs, card, flag_list))


def training(run, step):
    """What a run took up to a step, from its records: hours of its steps alone, without compiling and saving."""
    if not (run / "metrics.jsonl").exists():
        raise InputError(f"{run} has no metrics.jsonl: name the directory of the runs that were scored with --runs")
    config = configs.load(run / "config.json")
    rows = [row for _, row in records.read(run / "metrics.jsonl") if row["step"] <= step]
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
        **read_json(run / "machine.json"),
    }


def changed(base, config):
    """The --config.FIELD=VALUE that make one config of another's file."""
    old, new = configs.flat(base), configs.flat(config)
    fields = [f for f in new if f not in ("data.card", "data.root") and old.get(f) != new[f]]
    return [shlex.quote(f"--config.{field}={new[field]}") for field in fields]


def page(title, scale, text, rows, runs, card, flag_list):
    lines = [["run", "p_uncond", "steps", "batch", "hours", "images/s", "MFU", "first and last loss", "on"]]
    lines.append(["---", *["---:"] * 7, "---"])
    for name, run in runs.items():
        mfu = "not known" if run["mfu"] is None else f"{run['mfu']:.1%}"
        numbers = [
            run["p_uncond"],
            f"{run['steps']:,}",
            run["batch_size"],
            run["hours"],
            f"{run['images_per_s']:,}",
            mfu,
        ]
        lines.append([name, *map(str, numbers), ", ".join(f"{loss:.4f}" for loss in run["loss"]), run["device"]])
    of = next(iter(runs.values()))
    seconds = sum(row["seconds"] for row in rows)
    images = sum(row["N"] for row in rows)
    return "\n".join(
        [
            f"# {title}\n",
            "    python -m experiments.paper --table=1 "
            + " \\\n        ".join([f"--scale={scale}", *flag_list])
            + "\n",
            f"Data: {card['name']} ({card['source']}), {card['counts']['train']:,} training pictures of "
            f"{'x'.join(map(str, card['image_shape']))}, resize {card['resize']}, card {card['digest']}.\n",
            f"{len(rows)} cells of {images:,} images in all took {seconds / 3600:.3g} hours, {images / seconds:,.1f} "
            f"images/s with their scores, on {rows[0]['device']}; jax {of['jax']}, Python {of['python']}, this code "
            f"{of['code']}. Hours of training are of its steps alone.\n",
            markdown(lines),
            text,
            "![IS against FID as w grows](curves.png)\n",
            "![Samples of one model over w, one noise a picture](samples.png)\n",
        ]
    )


if __name__ == "__main__":
    cli.run(main)
