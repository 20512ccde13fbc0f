"""Mergeable training metrics, and where they are written: metrics.jsonl and TensorBoard events."""

import json
from functools import partial
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics
from tensorboardX import SummaryWriter

from cfg_jax.errors import InputError
from cfg_jax.files import write_atomic

EDGES = (-15, -10, -5, 0, 5, 10, 15)


@flax.struct.dataclass
class LossByLogsnr(metrics.Metric):
    """The mean loss in each bin of logsnr between EDGES: where along the noise levels the network errs."""

    total: jax.Array
    count: jax.Array

    @classmethod
    def empty(cls):
        return cls(jnp.zeros(len(EDGES) + 1), jnp.zeros(len(EDGES) + 1))

    @classmethod
    def from_model_output(cls, *, loss, logsnr, **_):
        hit = jax.nn.one_hot(jnp.searchsorted(jnp.array(EDGES), logsnr), len(EDGES) + 1)
        return cls((loss[:, None] * hit).sum(0), hit.sum(0))

    def merge(self, other):
        return LossByLogsnr(self.total + other.total, self.count + other.count)

    def compute(self):
        ends = ("min", *EDGES, "max")
        bins = zip(ends[:-1], ends[1:], self.total, self.count, strict=True)
        return {f"{low}..{high}": float(total / count) for low, high, total, count in bins if count}


@flax.struct.dataclass
class TrainMetrics(metrics.Collection):
    loss: metrics.Average.from_output("loss")  # type: ignore[valid-type]
    grad_norm: metrics.Average.from_output("grad_norm")  # type: ignore[valid-type]
    loss_by_logsnr: LossByLogsnr
    skipped: metrics.Average.from_output("skipped")  # type: ignore[valid-type]

    @classmethod
    def of_step(cls, finite, **outputs):
        """What is not finite counts as a skipped step and in no mean."""
        only_finite = partial(jax.tree.map, lambda a: jnp.where(finite, a, 0))
        metrics = cls.single_from_model_output(skipped=~finite, **only_finite(outputs))
        means = {name: only_finite(getattr(metrics, name)) for name in ("loss", "grad_norm", "loss_by_logsnr")}
        return metrics.replace(**means)


def troubles(run_dir, step):
    """{"skipped_steps", "rollbacks"} of a run up to a step; None of an export or imported weights."""
    path = Path(run_dir) / "metrics.jsonl"
    if not path.exists():
        return {"skipped_steps": None, "rollbacks": None}
    rows = [row for _, row in records(path) if row["step"] <= step]
    skipped, rollbacks = (sum(row.get(name, 0) for row in rows) for name in ("skipped", "rollbacks"))
    return {"skipped_steps": skipped, "rollbacks": int(rollbacks > 0)}


def records(path):
    """[(line, row), ...] of a metrics.jsonl; a kill may have cut the last line short, which is left out."""
    found = []
    content = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        if line.endswith(b"\n"):
            try:
                row = json.loads(line)
                int(row["step"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path} is damaged in line {number} ({error}): remove that line, or move the file away"
                ) from error
            found.append((line.decode(), row))
    return found


class Writer:
    """Appends to metrics.jsonl; records past `step`, of a run that was killed after them, are dropped first."""

    def __init__(self, workdir, step):
        self.path = Path(workdir) / "metrics.jsonl"
        if kept := records(self.path):
            write_atomic(self.path, "".join(line for line, row in kept if row["step"] <= step))
        self.events = SummaryWriter(str(workdir), purge_step=step + 1)

    def write(self, step, values):
        with open(self.path, "a") as f:
            f.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            scalars = value.items() if isinstance(value, dict) else [("", value)]
            for part, scalar in scalars:
                if scalar is not None:
                    self.events.add_scalar(f"{name}/{part}".rstrip("/"), scalar, step)

    def image(self, step, name, image):
        self.events.add_image(name, image, step, dataformats="HW" if image.ndim == 2 else "HWC")

    def close(self):
        self.events.close()
