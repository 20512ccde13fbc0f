"""Time the training step, guided sampling and Inception features of a config on the devices at hand: a table, and JSON.

python -m experiments.bench.speed --config=configs/digits.py --out=runs/benchmark.json

Each part is written as soon as it is timed: where a batch is too large for the memory, the earlier parts are kept.
"""

import jax
from absl import flags

from cfg_jax import __version__, checks, meshes
from cfg_jax import config as configs
from cfg_jax.files import MARKED, write_json
from cfg_jax.perf import cost, estimate, timing
from experiments.helpers import cli

CONFIG = cli.define_config(required=True)
OUT = cli.define_path("out", "runs/benchmark.json", "JSON to write", writes=".json")
REPEATS = cli.define_count("repeats", 5, "timed calls after the first")
FEATURES_BATCH = cli.define_count("features_batch", 64, "images in a call of Inception")
PEAK = cli.define_float(
    "peak_tflops", None, "of one device, for MFU; default: the vendor's bf16 figure if known", low=1e-6
)
KINDS = ["training", "sampling", "features"]
PARTS = flags.DEFINE_multi_enum("part", KINDS, KINDS, "what to time; may be repeated")
KEPT = flags.DEFINE_bool(
    "keep_compiled", False, "keep programs on disk; compile_s is then the time to read those there"
)
COMPILED = cli.define_path("compiled", None, "JSON of experiments.bench.compile, to print its estimate as well")


def main() -> None:
    config = CONFIG.value
    checks.everything(config)
    for group in ("train", "eval"):
        meshes.check_batch(config, group)
    estimates = estimate.rows_of(COMPILED.value) if COMPILED.value else []
    jax.config.update("jax_enable_compilation_cache", KEPT.value)  # compile_s is not to be a read from disk
    peak = PEAK.value * 1e12 * jax.device_count() if PEAK.value else meshes.peak_flops()
    result = {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "peak_tflops": peak and peak / 1e12,
        "jax": jax.__version__,
        "code": __version__,
        "parameters": cost.num_parameters(config),
        "gflop_per_pass": cost.forward_flops(config) / 1e9,
        "config": configs.to_json(config),
    }
    timers = {
        "training": lambda: timing.time_training(config, REPEATS.value, peak),
        "sampling": lambda: timing.time_sampling(config, REPEATS.value, peak),
        "features": lambda: timing.time_features(config, FEATURES_BATCH.value, REPEATS.value),
    }
    for part in dict.fromkeys(PARTS.value):
        result[part] = timers[part]()
        images = result[part]["batch_size"] / jax.device_count()
        if of_one := estimate.estimated(estimates, part, jax.devices()[0].device_kind, images):
            result[part]["estimated_images_per_s"] = of_one * jax.device_count()
        write_json(OUT.value, MARKED | result)
    print(timing.table(result))


if __name__ == "__main__":
    cli.run(main)
