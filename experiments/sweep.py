"""Score runs over w; finished cells are kept, the report is written at the end.

python -m experiments.sweep --config=configs/digits.py --runs=runs/digits-p0.1,runs/digits-p0.5 --w=0,0.1,1,4 \
    --workdir=runs/digits-sweep

Several jobs may be given the same --workdir: each takes cells that no other has. Further axes, their product:
    --vary=sampler.num_steps=128,256 --vary=sampler.threshold=static,dynamic --vary=eval.seed=0,1,2
"""

from absl import flags

from cfg_jax import checks
from cfg_jax.sweep import report, spec
from cfg_jax.sweep.run import sweep
from experiments.helpers import cli

CONFIG = cli.define_config()
RUNS = flags.DEFINE_list("runs", None, "run directories, with commas between them")
W = flags.DEFINE_string("w", None, "guidance weights of the paper (s = 1 + w); default: config.eval.w")
WORKDIR = flags.DEFINE_string("workdir", None, "where cells/ and the report go")
VARY = flags.DEFINE_multi_string("vary", [], "FIELD=VALUES of the sampler, the guidance, or eval.seed; may be repeated")
GUIDE = cli.define_guide()
EMA = cli.define_ema()
CLASSIFIER_RUN = flags.DEFINE_string("classifier_run", None, "guide by its gradient instead; w is its scale")
DTYPE = flags.DEFINE_enum("dtype", None, checks.DTYPES, "of the networks' bodies; default: what each was trained in")
NPZ = flags.DEFINE_bool("save_npz", False, "also keep each cell's images, as ADM's evaluator reads them")
OTHER = flags.DEFINE_bool("other_reference", False, "score runs against config.data though trained on another set")
DEVICE = flags.DEFINE_bool("other_device", False, "beside cells or a reference made on another kind of device")
flags.mark_flags_as_required(["config", "runs", "workdir"])


def main():
    config = CONFIG.value
    ws = cli.numbers(W.value, float, "w") if W.value else config.eval.w
    sweep(
        config, RUNS.value, ws, WORKDIR.value, vary=varied(config), guide=GUIDE.value,
        classifier_run=CLASSIFIER_RUN.value, dtype=DTYPE.value, ema=EMA.value, other_reference=OTHER.value,
        other_device=DEVICE.value, save_npz=NPZ.value,
    )  # fmt: skip
    print(report.write(WORKDIR.value))


def varied(config):
    """--vary=FIELD=A,B -> {FIELD: [A, B]}, of the field's type."""
    axes = {}
    for text in VARY.value:
        field, _, values = text.partition("=")
        spec.check_varied(config, field)
        group, _, name = field.partition(".")
        kind = config[group].get_type(name)  # also of a field that is not set
        axes[field] = axes.get(field, []) + cli.numbers(values, kind, f"vary={field}")
    return axes


if __name__ == "__main__":
    cli.run(main)
