"""What a training step and a guided pass must do, counted from the program, against an accelerator's peaks: a table.

python -m experiments.bench.budget --config=configs/imagenet64.py --config.train.batch_size=64 \
    --config.eval.batch_size=64

Nothing is compiled or run. cfg_jax/perf/budget.py says how memory is counted. A kind of operation takes as long as its
FLOP or its bytes, whichever are longer.
"""

from functools import partial

import jax
import jax.numpy as jnp
from absl import flags

from cfg_jax import checks
from cfg_jax.diffusion import guidance
from cfg_jax.files import check_output, write_atomic
from cfg_jax.models import build
from cfg_jax.perf.budget import Operation, budget
from cfg_jax.text import markdown
from cfg_jax.training import state as states
from cfg_jax.training import step as steps
from experiments import cli

CONFIG = cli.define_config()
TFLOPS = flags.DEFINE_float("tflops", 989, "peak of the device, dense bfloat16; default: an H100's", lower_bound=1e-3)
GBPS = flags.DEFINE_float("gbps", 3350, "of its memory, 10^9 bytes/s; default: an H100's", lower_bound=1e-3)
OUT = flags.DEFINE_string("out", None, "also write what is printed")
flags.mark_flags_as_required(["config"])


def main():
    if OUT.value:
        check_output(OUT.value, ".md")
    jax.config.update("jax_platforms", "cpu")  # nothing runs, and attention is XLA's whatever there is
    config = CONFIG.value
    checks.everything(config)
    data = config.data
    shape = (data.image_size, data.image_size, data.channels)
    state = jax.eval_shape(lambda: states.create(config))
    key = jax.eval_shape(lambda: jax.random.key(0))

    def batch(count):
        c = jax.ShapeDtypeStruct((count,), jnp.int32)
        return jax.ShapeDtypeStruct((count, *shape), jnp.uint8), c, jax.ShapeDtypeStruct((count,), jnp.float32)

    image, label, _ = batch(config.train.batch_size)
    training = partial(steps.train_step, config=config), state, {"image": image, "label": label}, key, 0.1

    def guided(params, z, logsnr, c):
        return guidance.guided(build.denoiser(config, params).eps_fn, 1.0, data.num_classes)(z, logsnr, c)

    image, label, logsnr = batch(config.eval.batch_size)
    sampling = guided, state.ema, jax.ShapeDtypeStruct(image.shape, jnp.float32), logsnr, label
    command = cli.command_line("bench.budget")
    text = f"    {command}\n\n{config.model.dtype}; peaks {TFLOPS.value:g} TFLOP/s and {GBPS.value:g} GB/s.\n"
    text += section("A step of training", config.train.batch_size, budget(*training, kind_of=kind))
    text += section("A guided evaluation, two passes", config.eval.batch_size, budget(*sampling, kind_of=kind))
    print(text)
    if OUT.value:
        write_atomic(OUT.value, text)


def kind(operation: Operation) -> str:
    """The kind by an operation's name and the modules that it is in."""
    path = operation.path
    for part, name in (
        ("norm", "group norm"),
        ("Dropout", "dropout"),
        ("_attention", "attention"),
        ("emb", "embeddings"),
    ):
        if part in path and not (name == "attention" and ("qkv" in path or path.endswith("/out"))):
            return name
    if operation.name in ("conv_general_dilated", "dot_general"):
        return "convolutions and dense layers"
    if operation.name == "concatenate":
        return "concatenated skips"
    return "rest of the network" if "UNet" in path else "loss, gradient's norm, Adam, EMA"


def section(title, count, kinds):
    flops, num_bytes = (sum(getattr(of, field) for of in kinds.values()) for field in ("flops", "bytes"))
    seconds = {name: max(of.flops / TFLOPS.value / 1e12, of.bytes / GBPS.value / 1e9) for name, of in kinds.items()}
    total = sum(seconds.values())
    on_chip = total - seconds["attention"] + kinds["attention"].flops / TFLOPS.value / 1e12
    rows = [["", "TFLOP", "GB", "random numbers, 10^6", "ms", "share"], ["---", *["---:"] * 5]]
    for name, of in sorted(kinds.items(), key=lambda item: -seconds[item[0]]):
        ms, share = 1e3 * seconds[name], seconds[name] / total
        random = f"{of.random / 1e6:,.1f}" if of.random else ""
        rows.append([name, f"{of.flops / 1e12:.3g}", f"{of.bytes / 1e9:.3g}", random, f"{ms:.3g}", f"{share:.1%}"])
    rows.append(["all", f"{flops / 1e12:.4g}", f"{num_bytes / 1e9:.4g}", "", f"{1e3 * total:.4g}", ""])
    rates = [f"{count / s:,.0f} images/s, {flops / TFLOPS.value / 1e12 / s:.0%} of the peak" for s in (total, on_chip)]
    said = f"{title}, {count} images: by this count {rates[0]}"
    return f"\n{said}; with attention's logits on chip, as cuDNN keeps them, {rates[1]}\n\n{markdown(rows)}"


if __name__ == "__main__":
    cli.run(main)
