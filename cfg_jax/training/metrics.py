"""What one step measures, summed on the devices so that steps merge."""

import dataclasses
from functools import partial
from typing import Self

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics

EDGES = (-15, -10, -5, 0, 5, 10, 15)


@flax.struct.dataclass
class LossByLogsnr(metrics.Metric):
    """The mean loss in each bin of logsnr between EDGES, float32 [bins]: at which noise levels the network errs."""

    total: jax.Array
    count: jax.Array

    @classmethod
    def from_model_output(cls, *, loss: jax.Array, logsnr: jax.Array, **_) -> Self:
        """Sum the losses [B] into the bins of their logsnr [B]."""
        hit = jax.nn.one_hot(jnp.searchsorted(jnp.array(EDGES), logsnr), len(EDGES) + 1)
        return cls((loss[:, None] * hit).sum(0), hit.sum(0))

    def merge(self, other: "LossByLogsnr") -> "LossByLogsnr":
        return type(self)(self.total + other.total, self.count + other.count)

    def compute(self) -> dict[str, float]:
        """Return {"low..high": mean loss} of the bins that have images."""
        ends = ("min", *EDGES, "max")
        bins = zip(ends[:-1], ends[1:], self.total, self.count, strict=True)
        return {f"{low}..{high}": float(total / count) for low, high, total, count in bins if count}


# the share of images that a classifier gets right, `right` [B] of 1 or 0, in the same bins
AccuracyByLogsnr = LossByLogsnr.from_fun(lambda right, logsnr, **_: {"loss": right, "logsnr": logsnr})


@flax.struct.dataclass
class TrainMetrics(metrics.Collection):
    """Means over the images of one step or of several merged ones, and how many steps were skipped."""

    loss: metrics.Average.from_output("loss")  # type: ignore[valid-type]
    grad_norm: metrics.Average.from_output("grad_norm")  # type: ignore[valid-type]
    loss_by_logsnr: LossByLogsnr
    skipped: metrics.Average.from_output("skipped")  # type: ignore[valid-type]

    @classmethod
    def of_step(cls, finite: jax.Array, **outputs: jax.Array) -> "TrainMetrics":
        """Measure one step. Where `finite`, a bool [], is false, it counts as skipped and enters no mean."""
        only_finite = partial(jax.tree.map, lambda a: jnp.where(finite, a, 0))
        metrics = cls.single_from_model_output(skipped=~finite, **only_finite(outputs))
        means = {name: only_finite(getattr(metrics, name)) for name in cls.means()}
        return dataclasses.replace(metrics, **means)

    @classmethod
    def means(cls) -> tuple[str, ...]:
        """Return the names of the metrics that are means over images."""
        return tuple(name for name in cls.__annotations__ if name != "skipped")


@flax.struct.dataclass
class ClassifierMetrics(TrainMetrics):
    """The same of a classifier, whose loss is the cross-entropy. clu reads a class's own annotations alone."""

    loss: metrics.Average.from_output("loss")  # type: ignore[valid-type]
    grad_norm: metrics.Average.from_output("grad_norm")  # type: ignore[valid-type]
    loss_by_logsnr: LossByLogsnr
    skipped: metrics.Average.from_output("skipped")  # type: ignore[valid-type]
    accuracy_by_logsnr: AccuracyByLogsnr  # type: ignore[valid-type]
