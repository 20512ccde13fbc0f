"""A published ADM checkpoint as a run directory that sample, sweep and config.init_from take; of a classifier, one
that sample takes as --classifier_run.

python -m experiments.import_adm --checkpoint=64x64_diffusion.pt --out=runs/adm64

Of another size than the published: --model says which one it is like, --config.model.FIELD what differs.
"""

from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.models import adm, torch_file
from cfg_jax.training import checkpoint
from cfg_jax.training import state as states
from experiments import cli

CONFIG = cli.define_config("configs/imagenet64.py")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "the published .pt file; nothing in it is executed")
MODEL = flags.DEFINE_enum("model", None, sorted(adm.PUBLISHED), "default: by the checkpoint's file name")
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
    config = adm.config_of(name, CONFIG.value, config_flags.get_override_values(flags.FLAGS["config"]))
    if hasattr(config.model, "pool"):
        template = jax.eval_shape(lambda: states.create_classifier(config))
    else:
        template = jax.eval_shape(lambda: states.create(config)).params
    params = adm.convert(torch_file.read(path), template, adm.legacy_heads(name, config.model))
    configs.save(out / "config.json", config)
    checkpoint.save_weights(out, params)
    print(f"{out}: {sum(a.size for a in jax.tree.leaves(params)):,} parameters of {name}")


if __name__ == "__main__":
    cli.run(main)
