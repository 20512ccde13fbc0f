"""What a config will cost: parameters, FLOP, memory, and hours on named accelerators at a stated utilisation.

python -m experiments.bench.cost --config=configs/imagenet64.py --devices=8 --utilisation=0.35

--parameters prints the name, shape and number of each array of the network instead.
"""

from absl import flags
from clu import parameter_overview

from cfg_jax import checks
from cfg_jax.errors import require
from cfg_jax.perf import cost
from cfg_jax.training.mesh import PEAK_TFLOPS
from experiments import cli

CONFIG = cli.define_config()
DEVICES = flags.DEFINE_integer("devices", 8, "how many share the batch", lower_bound=1)
UTILISATION = flags.DEFINE_float(
    "utilisation", cost.UTILISATION, "share of the peak that is reached; measure yours with experiments.bench.speed"
)
P_UNCOND = flags.DEFINE_integer("models", 3, "p_uncond values of the table", lower_bound=1)
PARAMETERS = flags.DEFINE_bool("parameters", False, "print the table of parameters and nothing else")
flags.mark_flags_as_required(["config"])


def main():
    config, devices = CONFIG.value, DEVICES.value
    checks.everything(config)
    if PARAMETERS.value:
        return print(parameter_overview.get_parameter_overview(cost.abstract(config, 1)[1], include_stats=False))
    require(0 < UTILISATION.value <= 1, f"--utilisation={UTILISATION.value} must lie in (0, 1]")
    batch = config.train.batch_size
    require(batch % devices == 0, f"--devices={devices} does not divide config.train.batch_size={batch}")

    forward, state = cost.forward_flops(config), cost.state_bytes(config)
    activations = cost.activation_bytes(config, 1) * batch / devices
    training = cost.training_flops(config, forward, config.train.num_steps)
    num_images = config.eval.num_images
    guided = cost.sampling_flops(config, forward, [1.0], num_images)
    table = P_UNCOND.value * cost.sampling_flops(config, forward, config.eval.w, num_images)

    cell = f"{config.eval.num_images:,} images, T = {config.sampler.num_steps}"
    lower = "before the compiler fuses; config.model.remat=True and a smaller batch lower it"
    rows = {
        "parameters": f"{cost.num_parameters(config):,}",
        "forward pass": f"{forward / 1e9:,.1f} GFLOP an image; a trained image {3 * forward / 1e9:,.1f} GFLOP",
        "training": f"{training:.3g} FLOP: {config.train.num_steps:,} steps of {batch:,}",
        "one guided cell": f"{guided:.3g} FLOP: {cell}",
        "the table": f"{table:.3g} FLOP: {len(config.eval.w)} values of w, {P_UNCOND.value} models",
        "state": f"{state / 2**30:,.1f} GiB a device, or {state / devices / 2**30:,.1f} were it split over {devices}",
        "activations": f"{activations / 2**30:,.1f} GiB a device for {batch // devices} images, {lower}",
    }
    for name, value in rows.items():
        print(f"{name:16} {value}")
    print(f"\nhours on {devices} devices (device-hours) at {UTILISATION.value:.0%} of the bf16 peak")
    print(f"{'':12} {'TFLOP/s':>8} {'training':>20} {'one cell':>18} {'table':>20}")
    hours = [cost.hours(flop, UTILISATION.value) for flop in (training, guided, table)]
    for name, peak in PEAK_TFLOPS.items():
        cells = [f"{cost.written(h[name] / devices)} ({cost.written(h[name])})" for h in hours]
        print(f"{name:12} {peak:>8} {cells[0]:>20} {cells[1]:>18} {cells[2]:>20}")


if __name__ == "__main__":
    cli.run(main)
