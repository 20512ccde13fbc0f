"""Check what would stop a run of a config on this machine, or slow it: a line for each check, pass or what to do.

The status is 1 where a check fails.

python -m experiments.doctor --config=configs/digits.py --workdir=runs/digits-p0.1
"""

import math
import os
import platform
import shutil
import sys
import tempfile
import time
import tomllib
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
from packaging.requirements import Requirement

from cfg_jax import config as configs
from cfg_jax import meshes

# modules that import flax are imported inside the checks: `versions` reports a flax that does not fit jax
from cfg_jax.data import sources
from cfg_jax.errors import InputError, first_line
from cfg_jax.evaluation import references
from cfg_jax.files import only_one, write_atomic
from experiments.helpers import cli

CONFIG = cli.define_config(required=True)
WORKDIR = cli.define_path("workdir", "runs", "where the run will write")
cli.define_hosts()

SHOWN = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")
ACCELERATORS = {"cuda13": ("/dev/nvidia0", "nvidia-smi"), "tpu": ("/dev/accel0", "/dev/vfio/0")}  # extra of jax: signs
SKEW, GIB = 5, 2**30  # seconds, bytes


def main() -> None:
    failed = False
    for check in CHECKS:
        try:
            outcome, line = "pass", check(CONFIG.value)
        except InputError as error:
            outcome, line = "FAIL", " ".join(str(error).split())
        except Exception as error:  # the other checks follow all the same
            why = cli.no_devices() and "not checked: jax finds no devices"
            outcome, line = "FAIL", why or f"{type(error).__name__}: {first_line(error)}"
        print(f"{outcome}  {check.__name__.replace('_', ' '):17} {line}", flush=True)
        failed |= outcome == "FAIL"
    sys.exit(int(failed))


def versions(_: ConfigDict) -> str:
    """The dependencies in pyproject.toml, and theirs, are installed in the versions that are asked for."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    asked, installed, wrong = list(project["dependencies"]), {}, []
    for requirement in map(Requirement, asked):  # the list grows
        name = requirement.name
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if name not in installed:
            try:
                installed[name] = metadata.version(name)
                asked += metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                installed[name] = None
                wrong.append(f"{name} is missing")
        if installed[name] and not requirement.specifier.contains(installed[name], prereleases=True):
            wrong.append(f"{name} {installed[name]} is not {requirement.specifier}")
    if wrong:
        raise InputError(f"{'; '.join(wrong)}: python -m pip install -r requirements.txt")
    return f"Python {platform.python_version()}, " + ", ".join(f"{name} {installed[name]}" for name in SHOWN)


def settings(config: ConfigDict) -> str:
    from cfg_jax import checks

    checks.everything(config)
    mesh = meshes.training_mesh(config.train)
    batch = f"batches of {config.train.batch_size:,} over {dict(mesh.shape)} devices"
    return batch + (f" in {config.train.accumulate} parts" if config.train.accumulate > 1 else "")


def devices(_: ConfigDict) -> str:
    remedy = 'unset JAX_PLATFORMS, or python -m pip install -c requirements.txt "jax[{}]" (README.md)'
    try:
        backend = jax.default_backend()
    except Exception as error:  # some have no text
        why = str(error) or type(error).__name__
        raise InputError(f"jax finds no devices ({why}): {remedy.format('cuda13')}") from error
    for extra, signs in ACCELERATORS.items():
        there = [sign for sign in signs if Path(sign).exists() or shutil.which(sign)]
        if there and backend == "cpu":
            raise InputError(f"{there[0]} is there, but jax runs on the CPU: {remedy.format(extra)}")
    here = f"{jax.local_device_count()} of them in process {jax.process_index()} of {jax.process_count()}"
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}, {here}"


def all_reduce(config: ConfigDict) -> str:
    """Ones are summed over all devices, as many as the gradient has numbers."""
    from cfg_jax.perf import cost, kernels

    mesh, size = meshes.data_mesh(jax.devices()), cost.num_parameters(config)
    if mesh.size == 1:
        return "one device"
    size = min(size, 2**24) if jax.default_backend() == "cpu" else size
    ones = jax.jit(partial(jnp.ones, (mesh.size, size)), out_shardings=meshes.split(mesh))()
    add = jax.jit(lambda a: a.sum(0), out_shardings=meshes.replicated(mesh))
    wrong = [str(part.device) for part in add(ones).addressable_shards if not (part.data == mesh.size).all()]
    if wrong:
        raise InputError(
            f"ones summed over {mesh.size} devices are not {mesh.size} on {', '.join(wrong)}: "
            "update the driver and jax, or leave devices out"
        )
    took = kernels.seconds(add, ones)
    mib, speed = 4 * size / 2**20, 4 * size / took / 1e9
    return f"{mib:,.1f} MiB over {mesh.size} devices in {took * 1e3:,.2f} ms, {speed:.3g} GB/s"


def convolution(config: ConfigDict) -> str:
    from cfg_jax.perf import kernels

    return kernels.convolution(config)


def attention(config: ConfigDict) -> str:
    from cfg_jax.perf import kernels

    return kernels.attention(config)


def memory(config: ConfigDict) -> str:
    """State and activations fit the device's memory; the devices of a CPU share the machine's.

    An accelerator's compiler fuses most activations. There they are printed, and not counted against its memory.
    """
    from cfg_jax.perf import cost

    train = config.train
    part = -(-train.batch_size // (jax.device_count() * train.accumulate))
    state, activations = cost.state_bytes(config, train.fsdp), part * cost.activation_bytes(config, 1)
    if train.fsdp > 1:  # within a step each device has all parameters, and their gradient before it is cut
        state += 2 * 4 * cost.num_parameters(config)
    limit = meshes.memory(jax.local_devices()) / jax.local_device_count()
    here = jax.default_backend() == "cpu"
    about = "about" if here else "before its compiler fuses them"
    needs = f"{state / GIB:,.2f} GiB of state and {about} {activations / GIB:,.2f} for {part:,} images on a device"
    if limit == math.inf:
        return f"{needs}; the device does not report its memory"
    if state + activations * here > limit:
        raise InputError(
            f"{needs}, which has {limit / GIB:,.2f}: a smaller config.train.batch_size, a larger "
            "config.train.accumulate or config.train.fsdp, or config.model.remat=True"
        )
    return f"{needs}, which has {limit / GIB:,.2f}"


def data(config: ConfigDict) -> str:
    source, _ = sources.load(config)
    return f"{source.card.name}: {len(source):,} images of {source.images.shape[1:]}, card {source.card.digest}"


def reference(config: ConfigDict) -> str:
    path, section = config.eval.reference, config.data
    if not path:
        return "of the training images, taken by the first sweep"
    statistics = references.read(path)
    references.check_shape(statistics, path, configs.image_shape(section))
    return f"{path}: {', '.join(statistics.moments)}"


def features(config: ConfigDict) -> str:
    from cfg_jax.models import inception

    if config.eval.features != "inception":
        return "of a feature classifier of the data, trained by the first sweep"
    sha256 = inception.load(config.eval.inception)[2]
    return f"{config.eval.inception}: Inception, sha256 {sha256[:12]}"


def disk(config: ConfigDict) -> str:
    """There is room for the checkpoints to be kept and the one being written. Those there already are counted."""
    from cfg_jax.perf import cost

    train, workdir = config.train, Path(WORKDIR.value)
    count = train.keep_checkpoints + 1 + (train.num_steps // train.keep_every if train.keep_every else 0)
    needed = count * (cost.state_bytes(config) - 4 * cost.num_parameters(config))  # no gradient
    there = sum(file.stat().st_size for file in (workdir / "checkpoints").rglob("*") if file.is_file())
    place = existing(workdir)
    free = shutil.disk_usage(place).free + there
    line = f"{free / GIB:,.1f} GiB in {place} for {count} checkpoints, {needed / GIB:,.2f} together"
    if free < needed:
        raise InputError(f"{line}: make room, lower config.train.keep_checkpoints, or raise config.train.keep_every")
    return line


def write_permission(_: ConfigDict) -> str:
    try_writing(WORKDIR.value, "choose a --workdir that can be written and locked")
    return f"{existing(WORKDIR.value)}: writes, renames, locks"


def try_writing(directory: str, remedy: str) -> None:
    """Raise InputError if no directory can be made, locked and written there, or in its nearest parent."""
    place = existing(directory)
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".doctor-") as inside, only_one(inside):
            write_atomic(Path(inside) / "file", "")
    except OSError as error:
        raise InputError(f"{place}: {error.strerror or error}: {remedy}") from error


def existing(path: str | Path) -> Path:
    """Return `path`, or the nearest of its parents that exists."""
    path = Path(path).absolute()
    return next(p for p in (path, *path.parents) if os.path.exists(p))


def clock_skew(_: ConfigDict) -> str:
    if jax.process_count() == 1:
        return "one host"
    multihost_utils.sync_global_devices("read the clocks")
    now = time.time()
    parts = np.array([now // 60, now % 60 * 1000], np.int32)  # minutes and ms: jax takes 32 bits
    clocks = np.asarray(multihost_utils.process_allgather(parts)) @ np.array([60, 0.001])
    skew, late, early = np.ptp(clocks), clocks.argmax(), clocks.argmin()
    if skew > SKEW:
        raise InputError(f"processes {late} and {early} have clocks {skew:,.1f} s apart: run NTP on their hosts")
    return f"{skew:.2f} s at most between {len(clocks)} processes"


def compile_cache(_: ConfigDict) -> str:
    settings: Any = jax.config
    directory, remedy = settings.jax_compilation_cache_dir, "set JAX_COMPILATION_CACHE_DIR to one that can be written"
    if not directory:
        raise InputError(f"no directory keeps compiled programs: {remedy}")
    if "://" in directory:
        return f"{directory}: remote, not tried"
    try_writing(directory, remedy)
    sizes = [file.stat().st_size for file in Path(directory).glob("*-cache")]
    return f"{directory}: {len(sizes)} programs, {sum(sizes) / 2**20:,.0f} MiB"


CHECKS = (
    versions, settings, devices, all_reduce, convolution, attention, memory, data, reference, features, disk,
    write_permission, clock_skew, compile_cache,
)  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
