"""Turn a published JiT checkpoint into a run directory that sample, sweep and config.init_from take.

python -m experiments.import_jit --checkpoint=checkpoint-last.pth --out=runs/jit-b16

Sizes are read from the weights' shapes. Two settings have none, and are those of the published models unless
--config.model.class_tokens_from and --config.model.noise_scale say otherwise.
"""

from pathlib import Path

import jax
from absl import flags

from cfg_jax import checks
from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.files import sha256_of, write_json
from cfg_jax.models import build, jit_weights, torch_file
from cfg_jax.store import checkpoint
from experiments.helpers import cli

CONFIG = cli.define_config("configs/imagenet64_jit.py")
CHECKPOINT = cli.define_path("checkpoint", None, "the .pth file; nothing in it is executed", required=True)
PART = flags.DEFINE_enum(
    "part", "model_ema1", ["model", "model_ema1", "model_ema2"], "parameters, or their average of 0.9999 or 0.9996"
)
OUT = cli.define_path("out", None, "run directory to write", writes="run", required=True)


def main() -> None:
    path, out = Path(CHECKPOINT.value), Path(OUT.value)
    if (out / "checkpoints").exists():
        raise InputError(f"{out} has checkpoints already: choose another --out")
    state = {name.removeprefix("net."): array for name, array in torch_file.read(path, PART.value).items()}
    config = jit_weights.config_of(state, CONFIG.value)
    config.update_from_flattened_dict(cli.overrides())
    checks.everything(config)
    params = jit_weights.convert(state, build.shapes(config))
    configs.save(out / "config.json", config)
    guessed = {name: config.model[name] for name in ("class_tokens_from", "noise_scale")}
    write_json(
        out / "imported.json",
        {"checkpoint": path.name, "sha256": sha256_of(path), "as": "JiT", "part": PART.value, **guessed},
    )
    checkpoint.save_weights(out, params)
    read_as = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in guessed.items())
    print(f"{out}: {sum(a.size for a in jax.tree.leaves(params)):,} parameters of {PART.value}, {read_as}")


if __name__ == "__main__":
    cli.run(main)
