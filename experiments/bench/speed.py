"""Time the training step, guided sampling and Inception features of a config on the devices at hand; write JSON.

python -m experiments.bench.speed --config=configs/digits.py --out=runs/benchmark.json
"""

import json

import jax
from absl import flags

from cfg_jax import __version__, checks
from cfg_jax import config as configs
from cfg_jax.files import write_json
from cfg_jax.perf import cost, timing
from cfg_jax.training import mesh
from experiments import cli

CONFIG = cli.define_config()
OUT = flags.DEFINE_string("out", "runs/benchmark.json", "JSON to write")
REPEATS = flags.DEFINE_integer("repeats", 5, "timed calls after the first", lower_bound=1)
FEATURES_BATCH = flags.DEFINE_integer("features_batch", 64, "images in a call of Inception", lower_bound=1)
PEAK = flags.DEFINE_float("peak_tflops", None, "of one device, for MFU; default: the vendor's bf16 figure if known")
flags.mark_flags_as_required(["config"])


def main():
    config = CONFIG.value
    checks.everything(config)
    jax.config.update("jax_enable_compilation_cache", False)  # or compile_s would be a read from disk
    peak = PEAK.value * 1e12 * jax.device_count() if PEAK.value else mesh.peak_flops()
    result = {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "peak_tflops": peak and peak / 1e12,
        "jax": jax.__version__,
        "code": __version__,
        "parameters": cost.num_parameters(config),
        "config": configs.to_json(config),
        "training": timing.time_training(config, REPEATS.value, peak),
        "sampling": timing.time_sampling(config, REPEATS.value, peak),
        "features": timing.time_features(config, FEATURES_BATCH.value, REPEATS.value),
    }
    write_json(OUT.value, result)
    print(json.dumps({k: v for k, v in result.items() if k != "config"}, indent=1))


if __name__ == "__main__":
    cli.run(main)
