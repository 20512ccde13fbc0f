"""Score runs over w, keep finished cells, and write the report at the end.

python -m experiments.sweep --config=configs/digits.py --runs=runs/digits-p0.1,runs/digits-p0.5 --w=0,0.1,1,4 \
    --workdir=runs/digits-sweep

Several jobs may share a --workdir: each takes cells that no other has. --vary adds axes, all combined:
    --vary=sampler.num_steps=128,256 --vary=sampler.threshold=static,dynamic --vary=eval.seed=0,1,2
"""

from absl import flags

from cfg_jax.fields import effective
from cfg_jax.models import network
from cfg_jax.sweep import report, spec
from cfg_jax.sweep.run import sweep
from experiments.helpers import cli

CONFIG = cli.define_config(required=True)
RUNS = cli.define_path("runs", None, "run directories, separated by commas", hub=True, many=True, required=True)
W = cli.define_numbers("w", None, "guidance weights of the paper (s = 1 + w); default: config.eval.w")
WORKDIR = cli.define_path("workdir", None, "directory for cells/ and the report", writes="sweep", required=True)
VARY = flags.DEFINE_multi_string("vary", [], "FIELD=VALUES of the sampler, the guidance, or eval.seed; may be repeated")
GUIDE = cli.define_guide()
EMA = cli.define_ema()
CLASSIFIER_RUN = cli.define_path("classifier_run", None, "noisy-image classifier to guide by; w is its scale")
DTYPE = flags.DEFINE_enum("dtype", None, network.DTYPES, "dtype of the networks' bodies; default: as trained")
NPZ = flags.DEFINE_bool("save_npz", False, "also keep each cell's images, in the format of ADM's evaluator")
OTHER = flags.DEFINE_bool("other_reference", False, "score against config.data even if trained on another set")
DEVICE = flags.DEFINE_bool("other_device", False, "allow cells and a reference made on another kind of device")


def main():
    config = CONFIG.value
    ws, vary = W.value or config.eval.w, varied(config)
    effective(spec.variants(config, vary), cli.overrides())
    sweep(
        config, RUNS.value, ws, WORKDIR.value, vary=vary, guide=GUIDE.value,
        classifier_run=CLASSIFIER_RUN.value, dtype=DTYPE.value, ema=EMA.value, other_reference=OTHER.value,
        other_device=DEVICE.value, save_npz=NPZ.value,
    )  # fmt: skip
    print(report.write(WORKDIR.value))


def varied(config):
    """Return {FIELD: [A, B]} of --vary=FIELD=A,B, with values of the field's type."""
    axes = {}
    for text in VARY.value:
        field, _, values = text.partition("=")
        spec.check_varied(config, field)
        group, _, name = field.partition(".")
        kind = config[group].get_type(name)  # also of a field that is None
        axes[field] = axes.get(field, []) + cli.numbers(values, kind, f"vary={field}")
    return axes


if __name__ == "__main__":
    cli.run(main)
