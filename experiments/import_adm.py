"""A published ADM checkpoint as a run directory that sample, sweep and config.init_from take; of a classifier, one
that sample takes as --classifier_run.

python -m experiments.import_adm --checkpoint=64x64_diffusion.pt --out=runs/adm64

Of another size than the published: --model says which one it is like, --config.model.FIELD what differs, and
--attention_order and --noise_schedule how it was trained, which its weights do not show.
"""

from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from cfg_jax import checks
from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.files import check_directory, sha256_of, write_json
from cfg_jax.models import adm, build, torch_file
from cfg_jax.store import checkpoint
from experiments.helpers import cli

CONFIG = cli.define_config("configs/imagenet64.py")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "the published .pt file; nothing in it is executed")
MODEL = flags.DEFINE_enum("model", None, sorted(adm.PUBLISHED), "default: by the checkpoint's file name")
ORDER = flags.DEFINE_enum(
    "attention_order", None, ["new", "legacy"], "ADM's use_new_attention_order True or False; default: the published"
)
SCHEDULE = flags.DEFINE_enum("noise_schedule", None, ["cosine", "linear"], "ADM's own flag; default: the published")
OUT = flags.DEFINE_string("out", None, "run directory to write")
flags.mark_flags_as_required(["checkpoint", "out"])


def main():
    path, out = Path(CHECKPOINT.value), Path(OUT.value)
    name = MODEL.value or path.stem
    if name not in adm.PUBLISHED:
        raise InputError(
            f"{path.name} is the name of no published model: say which with --model={'|'.join(adm.PUBLISHED)}"
        )
    if (out / "checkpoints").exists():
        raise InputError(f"{out} has checkpoints already: choose another --out")
    check_directory(out, "run")
    orders = adm.published_orders(name) if path.stem == name else {}
    said = {"attention_order": ORDER.value, "noise_schedule": SCHEDULE.value}
    orders |= {field: value for field, value in said.items() if value}
    if lacks := [f"--{field}" for field in said if field not in orders]:
        raise InputError(
            f"{path.name} is not the published {name}, and its weights do not show all of how it was trained: say "
            f"{' and '.join(lacks)}"
        )
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    if "model.time" in overrides:
        raise InputError("--config.model.time is given by --noise_schedule here: leave it out")
    overrides["model.time"] = "adm_" + orders["noise_schedule"]
    config = adm.config_of(name, CONFIG.value, overrides)
    if not build.is_classifier(config):
        checks.everything(config)
    legacy_heads = adm.legacy_heads(orders["attention_order"], config.model)
    params = adm.convert(torch_file.read(path), build.shapes(config), legacy_heads)
    configs.save(out / "config.json", config)
    write_json(out / "imported.json", {"checkpoint": path.name, "sha256": sha256_of(path), "as": name, **orders})
    checkpoint.save_weights(out, params)
    read_as = f"attention order {orders['attention_order']}, noise schedule {orders['noise_schedule']}"
    print(f"{out}: {sum(a.size for a in jax.tree.leaves(params)):,} parameters of {name}, {read_as}")


if __name__ == "__main__":
    cli.run(main)
