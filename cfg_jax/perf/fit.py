"""How large an experiment fits into so many seconds, by what experiments.bench.speed measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from ml_collections import ConfigDict

from cfg_jax.perf import cost


@dataclass(frozen=True)
class Rates:
    """Of one network on the devices that were timed."""

    training: float  # images/s
    passes: float  # of the network in sampling, images/s
    features: float  # images/s

    @classmethod
    def of(cls, measured: dict) -> "Rates":
        """Take them from a benchmark's JSON. An older one does not say its passes: they were two a step."""
        sampling = measured["sampling"]
        return cls(
            training=measured["training"]["images_per_s"],
            passes=sampling.get("passes", 2 * sampling["T"]) * sampling["images_per_s"],
            features=measured["features"]["images_per_s"],
        )

    def seconds(self, images: float, passes: float, scored: float) -> dict[str, float]:
        """Seconds of training on `images`, of `passes` in sampling, and of the features of `scored` images."""
        return {
            "training": images / self.training,
            "sampling": passes / self.passes,
            "features": scored / self.features,
        }


@dataclass(frozen=True)
class Table:
    """The cells of a table: every model at every w of the config, for every seed."""

    config: ConfigDict
    num_models: int
    seeds: Sequence[int]

    @property
    def passes(self) -> int:
        """Network passes of one image each, in all cells."""
        evaluation = self.config.eval
        of_model = cost.sampling_flops(self.config, 1, evaluation.w, evaluation.num_images)
        return self.num_models * len(self.seeds) * of_model

    @property
    def images(self) -> int:
        evaluation = self.config.eval
        return self.num_models * len(self.seeds) * len(evaluation.w) * evaluation.num_images

    def steps_within(self, seconds: float, rates: Rates) -> int:
        """Return how many steps each model can be trained, where the table is to be ready in `seconds` too.

        It is 0 or less where the table alone takes longer.
        """
        left = seconds - sum(rates.seconds(0, self.passes, self.images).values())
        return int(left * rates.training / (self.num_models * self.config.train.batch_size))

    def least_seconds(self, num_steps: int, flops: float) -> float:
        """Return the seconds of it all at `num_steps` steps a model on devices that make `flops` FLOP/s."""
        forward = cost.forward_flops(self.config)
        training = self.num_models * cost.training_flops(self.config, forward, num_steps)
        return (training + forward * self.passes) / flops
