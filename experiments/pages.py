"""Pages of results that are small enough to commit: a finished table, and what experiments.accelerator left."""

import shlex
import shutil
from pathlib import Path

import numpy as np

from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.files import read_json, write_atomic, write_json
from cfg_jax.perf import timing
from cfg_jax.sweep import report
from cfg_jax.text import markdown
from cfg_jax.training import records

PLOTS = ("curves.png", "curves.svg", "curves_T.png", "curves_T.svg")
COPIED = ("results.csv", *PLOTS, "samples.png", "config.json")
WRITTEN = (*COPIED, "runs.json", "speed.json", "peers.md", "profile.md")


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


def accelerator(directory: Path, bases: dict, out: Path | None) -> Path:
    """Write the pages of what experiments.accelerator left, and return where: README.md, and a directory a table.

    bases: {name of a rung: its configs/ file as it is}. out: default, experiments/results/ and the device's name.
    """
    queue_file, benchmark = directory / "queue.json", directory / "speed" / "benchmark.json"
    if not queue_file.exists():
        raise InputError(f"--accelerator={directory} has no queue.json: name the --out of experiments.accelerator")
    queue = read_json(queue_file)
    of = read_json(benchmark) if benchmark.exists() else {"device": "unknown", "jax": "unknown", "code": "unknown"}
    out = out or Path("experiments/results") / "_".join(of["device"].lower().split()).removeprefix("1_x_")
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"# {of['device']}\n", f"jax {of['jax']}, this code {of['code']}. {queue['used_s'] / 60:.1f} minutes of"]
    lines[-1] += " experiments.accelerator; the commands are at the end.\n"
    for name, title in (("doctor", "What is there"), ("exact", "What it computes")):
        log = directory / "logs" / f"{name}.txt"
        lines += [f"## {title}\n", "```", log.read_text().strip(), "```\n"] if log.exists() else []
    if measured := speeds(directory / "speed"):
        write_json(out / "speed.json", measured)
        lines += ["## How fast the paper's network is\n", timing.table(measured.values())]
    for name in ("peers", "profile"):
        if (directory / "speed" / f"{name}.md").exists():
            shutil.copyfile(directory / "speed" / f"{name}.md", out / f"{name}.md")
            lines.append(f"[{name}.md]({name}.md)\n")
    for sweep in sorted((directory / "runs").glob("*-sweep")):
        name = sweep.name.removesuffix("-sweep")
        scale = name.removesuffix("-more")
        if scale in bases and list((sweep / "cells").glob("*.json")):
            table(bases[scale], scale, sweep, directory / "runs", out / name)
            lines.append(f"## [{name}]({name}/README.md)\n\n![IS against FID]({name}/curves.png)\n")
    lines += ["## Commands\n", commands(queue["tasks"])]
    write_atomic(out / "README.md", "\n".join(lines))
    return out


def speeds(directory):
    """{file: what experiments.bench.speed wrote} of the paper's network."""
    names = ("benchmark", "training-*", "sampling-*", "features-*")
    return {path.stem: read_json(path) for name in names for path in sorted(directory.glob(f"{name}.json"))}


def commands(tasks):
    rows = [["", "", "s", "command"], ["---", "---", "---:", "---"]]
    for name, task in tasks.items():
        said = "" if task["status"] == "done" else f": {task.get('said', '')}"
        rows.append([name, task["status"] + said.replace("|", "/"), f"{task['seconds']:.0f}", f"`{task['command']}`"])
    return markdown(rows)
