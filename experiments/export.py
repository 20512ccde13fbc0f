"""Write a run's EMA weights and config to one .safetensors file, and a model card in the hub's format.

python -m experiments.export --run=runs/digits-p0.1 --out=model.safetensors --scores=runs/digits-sweep
hf upload OWNER/NAME model.safetensors && hf upload OWNER/NAME model.md README.md

Then cfg_jax.load("hf://OWNER/NAME") loads it, and every command takes --run=hf://OWNER/NAME.
"""

from pathlib import Path

from absl import flags

from cfg_jax.data import cards
from cfg_jax.files import check_output, write_atomic
from cfg_jax.inputs import read_json
from cfg_jax.models import network
from cfg_jax.store import weights
from cfg_jax.text import escaped
from experiments.helpers import cli, model_card

RUN = cli.define_run()
STEP = cli.define_count("step", None, "checkpoint; default: the newest", low=0)
EMA = cli.define_ema()
OUT = cli.define_path(
    "out", None, "file to write, NAME.safetensors; the card is NAME.md", writes=".safetensors", required=True
)
DTYPE = flags.DEFINE_enum("dtype", "float32", network.DTYPES, "of the parameters in the file; bfloat16 halves it")
LICENSE = flags.DEFINE_string("license", None, "of the weights, as the hub names it; default: that of the data")
DATASETS = flags.DEFINE_list("datasets", [], "what they were trained on, as the hub names it")
SCORES = cli.define_path("scores", None, "directory with the results.csv of a sweep that scored these weights")


def main() -> None:
    out = Path(OUT.value)
    check_output(out, ".safetensors", reads=[weights.located(RUN.value)])
    check_output(out.with_suffix(".md"), ".md")
    config, step, params = weights.read(RUN.value, STEP.value, EMA.value or "ema")
    imported, data = origin(Path(RUN.value) / "imported.json"), Path(RUN.value) / "data.json"
    rows = model_card.scores(Path(SCORES.value), params) if SCORES.value else ()
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
