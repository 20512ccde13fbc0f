"""A run's EMA weights and config in one .safetensors file, with a model card beside it.

python -m experiments.export --run=runs/digits-p0.1 --out=model.safetensors
"""

from pathlib import Path

import jax
from absl import flags

from cfg_jax import __version__, checks
from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.files import read_json, write_atomic
from cfg_jax.models import build
from cfg_jax.training import weights
from experiments import cli

RUN = flags.DEFINE_string("run", None, "run directory, exported file, or a name: pretrained, or hf://OWNER/NAME")
STEP = flags.DEFINE_integer("step", None, "checkpoint; default: the newest")
EMA = cli.define_ema()
OUT = flags.DEFINE_string("out", None, "file to write, NAME.safetensors; the card is NAME.md")
DTYPE = flags.DEFINE_enum("dtype", "float32", checks.DTYPES, "of the parameters in the file; bfloat16 halves it")
flags.mark_flags_as_required(["run", "out"])

CARD = """# {name}

EMA weights{length} of a U-Net {made} by cfg_jax {version}, step {step}.
Ho & Salimans, Classifier-Free Diffusion Guidance.

- Data: {data}, {size}x{size}x{channels}, {classes} classes; use is subject to the licence of these data.
- p_uncond: {p_uncond}; {guidance}
- Parameters: {count:,}, {dtype}. Config {digest}, whole in the file's header.{imported}
- Not measured here: quality. Score it with experiments.sweep before quoting any number.

    import cfg_jax
    model = cfg_jax.load("{file}")
    images = model.sample([0, 1], w=0.0)    # uint8 [2, {size}, {size}, {channels}]
"""

IMPORTED = """
- From {checkpoint} (sha256 {sha256}), read as {as}:
  attention order {attention_order}, noise schedule {noise_schedule}."""


def main():
    out = Path(OUT.value)
    if out.suffix != ".safetensors":
        raise InputError(f"--out={out} must end in .safetensors")
    config, step, params = weights.read(RUN.value, STEP.value, EMA.value or "ema")
    imported = origin(Path(RUN.value) / "imported.json")
    weights.export(out, config, step, params, DTYPE.value)
    guided = "w > 0 guides it." if config.p_uncond else "it has no unconditional half: w must be 0."
    if build.takes_w(config):
        guided = f"a student, it takes w itself, from {config.teacher.w_low:g} to {config.teacher.w_high:g}."
    card = CARD.format(
        name=out.stem, version=__version__, step=step, data=config.data.name, size=config.data.image_size,
        channels=config.data.channels, classes=config.data.num_classes, p_uncond=config.p_uncond, guidance=guided,
        count=sum(a.size for a in jax.tree.leaves(params)), dtype=DTYPE.value, digest=configs.digest(config),
        file=out.name, made="imported" if imported else "trained", imported=imported,
        length=f", of length {EMA.value:g}" if EMA.value else "",
    )  # fmt: skip
    write_atomic(out.with_suffix(".md"), card)
    print(f"{out}: step {step}; {out.with_suffix('.md')}: its card")


def origin(path):
    """What the card says of an imported model, "" of a trained one."""
    try:
        return IMPORTED.format(**read_json(path)) if path.exists() else ""
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error!r}): import the checkpoint again, elsewhere") from error


if __name__ == "__main__":
    cli.run(main)
