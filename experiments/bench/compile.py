"""Compile a config's programs for a TPU or a GPU that is not there: what they need, and the compilers' time estimates.

python -m experiments.bench.compile --config=configs/imagenet64.py --target=v5e:4x4 --target=h100:8

Training is a step of the whole batch, sampling a batch of guided images at T, features a batch through Inception.
--fit looks for settings that fit a device, and for the largest batch that does. Programs of ImageNet-64 take minutes.
"""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from cfg_jax import checks, meshes
from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.files import MARKED, check_output, write_atomic, write_json
from cfg_jax.perf import estimate, programs, targets
from cfg_jax.sweep import spec
from cfg_jax.text import markdown
from experiments.helpers import cli

CONFIG = cli.define_config()
PROGRAMS = ("training", "sampling", "features")
TARGETS = flags.DEFINE_multi_string("target", None, f"what to compile for, as {targets.EXAMPLES}; may be repeated")
PARTS = flags.DEFINE_multi_enum("program", ["training", "sampling"], PROGRAMS, "what to compile; may be repeated")
FEATURES_BATCH = cli.define_count("features_batch", 64, "images a device in a call of Inception")
FIT = flags.DEFINE_bool("fit", False, "look for settings that fit, and for the largest batch that does")
OUT = cli.define_path("out", "runs/compile.md", "Markdown to write, and JSON of the same name", writes=".md")
TEXT = cli.define_path("text", None, "a folder to write the compiled programs' text to", writes="directory")
flags.mark_flags_as_required(["config", "target"])
log = logging.getLogger("cfg_jax")
STEP, NEAR, TRIES = 8, 1 / 16, 6  # of the largest batch a device: what it is a multiple of, its precision, and tries
Row = dict[str, Any]


def main() -> None:
    out, config = Path(OUT.value), CONFIG.value
    check_output(out.with_suffix(".json"), ".json", page=out)
    checks.everything(config)
    if config.teacher.how:
        raise InputError(f"config.teacher.how={config.teacher.how}: compile the config of the teacher")
    jax.config.update("jax_enable_compilation_cache", False)  # a program from the cache has no compile time
    about = {"command": cli.command_line("bench.compile"), "jax": jax.__version__, "config": configs.to_json(config)}
    rows = []
    for target in [targets.target(name) for name in dict.fromkeys(TARGETS.value)]:
        for part in dict.fromkeys(PARTS.value):
            for row in fitted(config, part, target) if FIT.value else [compiled(config, part, target)]:
                rows.append(row)
                write_json(out.with_suffix(".json"), MARKED | about | {"rows": rows})
                write_atomic(out, page(config, rows))
    print(out.read_text())


def compiled(config: ConfigDict, part: str, target: targets.Target) -> Row:
    """Return a row of the table: a program of the config compiled for a target."""
    count = len(target.devices)
    settings = {name: getattr(config, group)[name] for group, name in SETTINGS[part]}
    log.info("compiling %s for %s: %s", part, target.name, written(settings))
    with target.told():
        if part == "training":
            program = programs.training(config, meshes.training_mesh(config.train, target.devices))
        elif part == "sampling":
            program = programs.sampling(config, meshes.data_mesh(target.devices))
        else:
            program = programs.features(config, meshes.data_mesh(target.devices), FEATURES_BATCH.value * count)
    row = {"program": part, "target": target.name, "device": target.devices[0].device_kind, "devices": count}
    row |= {"images": program.images // count, "settings": settings}
    name = re.sub(r"[^\w.=]+", "-", f"{part} {target.name} {program.images} {written(settings)}").rstrip("-")
    text_file = TEXT.value and Path(TEXT.value, f"{name}.txt")
    if text_file:
        check_output(text_file, ".txt", flag="--text")
    try:
        found, text = estimate.estimate(program, target)
    except estimate.TooLarge as error:
        return row | {"fits": False, "refused": str(error)}
    if text_file:
        write_atomic(text_file, text)
    return row | found


# the fields (group, field) of the config on which a program's memory depends
SETTINGS = {
    "training": [("train", "batch_size"), ("model", "remat"), ("train", "fsdp"), ("train", "accumulate")],
    "sampling": [("eval", "batch_size"), ("sampler", "num_steps")],
    "features": [],
}


def fitted(config: ConfigDict, part: str, target: targets.Target) -> Iterator[Row]:
    """Yield rows: of the config, of settings that need less memory in turn until one fits, and of its largest batch."""
    row = compiled(config, part, target)
    yield row
    count, group = row["devices"], "train" if part == "training" else "eval"
    for changes in smaller(config, part, group, count):
        if row["fits"]:
            break
        config = spec.changed(config, changes)
        row = compiled(config, part, target)
        yield row
    if not row["fits"] or part == "features":
        return
    fits, too_many = row, None
    for _ in range(TRIES):  # where memory would end if it grew with the batch, then between what fits and what does not
        left = (fits["memory"] - fits["arguments"]) / (fits["peak"] - fits["arguments"])
        images = (fits["images"] + too_many) / 2 if too_many else fits["images"] * left
        images = int(images) // STEP * STEP
        if images < fits["images"] * (1 + NEAR):
            break
        row = compiled(spec.changed(config, {f"{group}.batch_size": images * count}), part, target)
        yield row
        fits, too_many = (row, too_many) if row["fits"] else (fits, images)


def smaller(config: ConfigDict, part: str, group: str, count: int) -> Iterator[dict[str, Any]]:
    """Yield changes of a config, one after another, that make it need less memory: at the end, smaller batches."""
    batch_size, parts, share = config[group].batch_size, config.train.accumulate, min(count, targets.HOST)
    if part == "training":
        if not config.model.remat:
            yield {"model.remat": True}
        if config.train.fsdp < share and count % share == 0:
            yield {"train.fsdp": share}
        while batch_size % (2 * parts * count) == 0:
            parts *= 2
            yield {"train.accumulate": parts}
        yield from ({"train.accumulate": 1, "train.batch_size": size} for size in halves(batch_size, count))
    elif part == "sampling":
        yield from ({"eval.batch_size": size} for size in halves(batch_size, count))


def halves(batch_size: int, count: int) -> Iterator[int]:
    while batch_size % (2 * count) == 0:
        batch_size //= 2
        yield batch_size


def page(config: ConfigDict, rows: list[Row]) -> str:
    """Return the Markdown of all rows."""
    head = ["", "images a device", "settings", "arguments, GiB", "temporaries", "of", "fits", "TFLOP", "GB moved"]
    head += ["kernels", "compile s", "images/s", "of the peak"]
    parts = [
        "# Compilers' estimates",
        f"    {cli.command_line('bench.compile')}",
        f"jax {jax.__version__}, {config.model.dtype}. Nothing was run. Memory and work are those of one device. "
        "Images/s are those of all devices, by the compiler's estimate of the time, without communication. The share "
        "of the peak counts the network's own convolutions and matrix products. Kernels without an estimate count at "
        + ", ".join(f"{share:.0%} ({name})" for name, share in estimate.KERNELS.items())
        + " of the peak.",
        markdown([head, *map(cells, rows)], range(len(head))),
    ]
    for row in rows:
        if not row["fits"]:
            parts.append(f"{row['program']} on {row['target']}, {row['images']} images a device: {remedy(row)}")
    if FIT.value:
        fitting = sorted((row for row in rows if row["fits"]), key=lambda row: row["images"])
        for (part, target), row in {(row["program"], row["target"]): row for row in fitting}.items():
            of = f"{row['images']} images a device, with {written(row['settings']) or 'these settings'}"
            parts.append(f"The largest batch of {part} that was found to fit {target}: {of}.")
    parts += [details(row) for row in rows if "kinds" in row]
    return "\n\n".join(parts) + "\n"


def cells(row: Row) -> list[str]:
    """Return a line of the table."""
    about = [f"{row['program']}, {row['target']}", str(row["images"]), written(row["settings"])]
    if "refused" in row:
        return [*about, "", "", "", "no", *[""] * 6]
    work = [f"{row['flops'] / 1e12:.3g}" if row["flops"] else "", f"{row['bytes'] / 1e9:.3g}" if row["bytes"] else ""]
    images_per_s = row["images"] * row["devices"] / row["seconds"]
    return [
        *about, f"{row['arguments'] / 2**30:.2f}", f"{row['temporaries'] / 2**30:.2f}", f"{row['memory'] / 2**30:.0f}",
        "yes" if row["fits"] else "no", *work, f"{row['kernels']:,}", f"{row['compile_s']:.0f}",
        f"{images_per_s:,.4g}", f"{row['share']:.1%}",
    ]  # fmt: skip


def remedy(row: Row) -> str:
    """Return what a program lacks, and the settings that would help."""
    if "refused" in row:
        lacks = row["refused"].rstrip(".")
    else:
        lacks = f"it needs {row['peak'] / 2**30:.1f} GiB of {row['memory'] / 2**30:.0f}"
    if row["program"] == "features":
        return f"{lacks}. Set a smaller --features_batch."
    if row["program"] == "sampling":
        return f"{lacks}. Set a smaller config.eval.batch_size, or let --fit find it."
    settings, ways = row["settings"], []
    if not settings["remat"]:
        ways.append("config.model.remat=True")
    if settings["fsdp"] < row["devices"]:
        ways.append("a larger config.train.fsdp")
    ways += ["a larger config.train.accumulate", "a smaller config.train.batch_size"]
    return f"{lacks}. Set {', '.join(ways[:-1])} or {ways[-1]}, or let --fit find it."


def written(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def details(row: Row) -> str:
    """Return what takes the time, and what is sent between devices."""
    total = row["seconds"]
    kinds = [["kind", "ms", "share"]]
    kinds += [[name, f"{1e3 * s:.3g}", f"{s / total:.1%}"] for name, s in row["kinds"].items() if s > 0.005 * total]
    sent = [["sent between", "times", "MB"]]
    sent += [[f"{r['group']} devices, {r['kind']}", str(r["times"]), f"{r['bytes'] / 1e6:.4g}"] for r in row["sent"]]
    title = f"## {row['program']}, {row['target']}, {row['images']} images a device: {1e3 * total:.4g} ms by estimate"
    return f"{title}\n\n{markdown(kinds)}" + (f"\n{markdown(sent)}" if row["sent"] else "")


if __name__ == "__main__":
    targets.prepare()
    cli.run(main)
