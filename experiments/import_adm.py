"""Turn a published ADM checkpoint into a run directory that sample, sweep and config.init_from take.

A noisy-image classifier becomes one that sample takes as --classifier_run.

python -m experiments.import_adm --checkpoint=64x64_diffusion.pt --out=runs/adm64

For a model of another size than the published ones, --model names the most similar one, --config.model.FIELD sets what
differs, and --attention_order and --noise_schedule say how it was trained, which its weights do not show.
"""

from pathlib import Path

import jax
from absl import flags

from cfg_jax import checks
from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.files import sha256_of, write_json
from cfg_jax.inputs import reading
from cfg_jax.models import adm, build, torch_file
from cfg_jax.store import checkpoint
from experiments.helpers import cli

CONFIG = cli.define_config("configs/imagenet64.py")
CHECKPOINT = cli.define_path("checkpoint", None, "the published .pt file; nothing in it is executed", required=True)
MODEL = flags.DEFINE_enum("model", None, sorted(adm.PUBLISHED), "default: by the checkpoint's file name")
ORDER = flags.DEFINE_enum(
    "attention_order", None, ["new", "legacy"], "ADM's use_new_attention_order True or False; for a file of your own"
)
SCHEDULE = flags.DEFINE_enum("noise_schedule", None, ["cosine", "linear"], "ADM's; for a file of your own")
OUT = cli.define_path("out", None, "run directory to write", writes="run", required=True)


def main() -> None:
    path, out = Path(CHECKPOINT.value), Path(OUT.value)
    name = MODEL.value or path.stem
    if name not in adm.PUBLISHED:
        choices = "|".join(adm.PUBLISHED)
        raise InputError(f"{path.name} is the name of no published model: name a similar one with --model={choices}")
    if (out / "checkpoints").exists():
        raise InputError(f"{out} has checkpoints already: choose another --out")
    orders = adm.published_orders(name) if path.stem == name else {}
    given = {"attention_order": ORDER.value, "noise_schedule": SCHEDULE.value}
    orders |= {field: value for field, value in given.items() if value}
    if missing := " and ".join(f"--{field}" for field in given if field not in orders):
        raise InputError(
            f"{path.name} is not the published {name}, and its weights do not show how it was trained: give {missing}"
        )
    overrides = cli.overrides()
    if "model.time" in overrides:
        raise InputError("--config.model.time is given by --noise_schedule here: leave it out")
    overrides["model.time"] = "adm_" + orders["noise_schedule"]
    config = adm.config_of(name, CONFIG.value, overrides)
    if not build.is_classifier(config):
        checks.everything(config)
    legacy_heads = adm.legacy_heads(orders["attention_order"], config.model)
    with reading(path, f"is no checkpoint of {name}", "name its model with --model, and what differs with --config"):
        params = adm.convert(torch_file.read(path), build.shapes(config), legacy_heads)
    configs.save(out / "config.json", config)
    write_json(out / "imported.json", {"checkpoint": path.name, "sha256": sha256_of(path), "as": name, **orders})
    checkpoint.save_weights(out, params)
    read_as = f"attention order {orders['attention_order']}, noise schedule {orders['noise_schedule']}"
    print(f"{out}: {sum(a.size for a in jax.tree.leaves(params)):,} parameters of {name}, {read_as}")


if __name__ == "__main__":
    cli.run(main)
