"""Write a run's EMA weights and config to one .safetensors or .onnx file, and a model card in the hub's format.

python -m experiments.export --run=runs/digits-p0.1 --out=model.safetensors --scores=runs/digits-sweep
python -m experiments.export --run=runs/digits-p0.1 --out=model.onnx --format=onnx
hf upload OWNER/NAME model.safetensors && hf upload OWNER/NAME model.md README.md

Then cfg_jax.load("hf://OWNER/NAME") loads it, and every command takes --run=hf://OWNER/NAME. The .onnx file is for
other programs, see docs/howto/weights.md; writing it needs the extra onnx.
"""

from pathlib import Path

from absl import flags

from cfg_jax.data import cards
from cfg_jax.errors import require
from cfg_jax.files import check_output, write_atomic
from cfg_jax.inputs import read_json
from cfg_jax.models import network
from cfg_jax.store import onnx, weights
from cfg_jax.text import escaped
from experiments.helpers import cli, model_card

RUN = cli.define_run()
STEP = cli.define_count("step", None, "checkpoint; default: the newest", low=0)
EMA = cli.define_ema()
OUT = cli.define_path("out", None, "file to write, NAME.FORMAT; the card is NAME.md", required=True)
FORMAT = flags.DEFINE_enum("format", "safetensors", ["safetensors", "onnx"], "onnx is a graph eps(z, logsnr, c)")
DTYPE = flags.DEFINE_enum("dtype", "float32", network.DTYPES, "of the parameters in the file; bfloat16 halves it")
LICENSE = flags.DEFINE_string("license", None, "of the weights, as the hub names it; default: that of the data")
DATASETS = flags.DEFINE_list("datasets", [], "what they were trained on, as the hub names it")
SCORES = cli.define_path("scores", None, "directory with the results.csv of a sweep that scored these weights")


def main() -> None:
    out = Path(OUT.value)
    suffix = f".{FORMAT.value}"
    as_onnx = suffix == ".onnx"
    require(not as_onnx or DTYPE.value == "float32", "--dtype=bfloat16 is of safetensors: an ONNX graph is in float32")
    check_output(out, suffix, reads=[weights.located(RUN.value)], flag="--out")
    check_output(out.with_suffix(".md"), ".md")
    config, step, params = weights.read(RUN.value, STEP.value, EMA.value or "ema")
    imported, data = origin(Path(RUN.value) / "imported.json"), Path(RUN.value) / "data.json"
    rows = model_card.scores(Path(SCORES.value), params) if SCORES.value else ()
    if as_onnx:
        apart, rounded = onnx.export(out, config, step, params), False
        print(f"{out}: within {apart:.1e} of the network, by onnxruntime at {onnx.CHECKED} random inputs")
    else:
        weights.export(out, config, step, params, DTYPE.value)
        rounded = weights.digest_of(weights.read(out)[2]) != weights.digest_of(params)
    card = model_card.card(
        out, config, step, params, dtype=DTYPE.value, data=cards.load(data) if data.exists() else None,
        license=LICENSE.value, datasets=DATASETS.value, rows=rows, rounded=rounded, more=imported,
        made="imported" if imported else "trained", length=f", of length {EMA.value:g}" if EMA.value else "",
    )  # fmt: skip
    write_atomic(out.with_suffix(".md"), card)
    print(f"{out}: step {step}; {out.with_suffix('.md')}: its card")


def origin(path: Path) -> str:
    """Return what the card says about the checkpoint of an imported model; "" for a trained one."""
    again = "import the checkpoint again, elsewhere"
    if not path.exists():
        return ""
    fields = read_json(path, {"checkpoint": str, "sha256": str, "as": str}, "is damaged", again)
    fields = {field: escaped(str(value)) for field, value in fields.items()}
    checkpoint, digest, name = (fields.pop(key) for key in ("checkpoint", "sha256", "as"))
    read_as = ", ".join(f"{field.replace('_', ' ')} {value}" for field, value in fields.items())
    return f"\n- From {checkpoint} (sha256 {digest}), read as {name}:\n  {read_as}."


if __name__ == "__main__":
    cli.run(main)
