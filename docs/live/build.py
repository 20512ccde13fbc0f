"""Build the live page, _site/live: the page, its networks in ONNX, their scores, and onnxruntime-web from npm.

python docs/live/build.py

It needs the extra onnx and npm. package-lock.json has the hash of what npm fetches.
"""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cfg_jax
from cfg_jax.errors import InputError, installed
from cfg_jax.store import onnx

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OUT, NPM = ROOT / "_site" / "live", ROOT / "_site" / "npm"
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
# of the weights in the package, the table that their card quotes and the run in it
SCORES = {"digits": ("digits_pretrained", "digits"), "fashion_mnist_16": ("fashion_mnist_16", "fashion_mnist-p0.1")}


def main() -> None:
    for folder in (OUT, NPM):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("index.html", "worker.js", "noise.js"):
        shutil.copy(HERE / name, OUT)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, NPM)
    if not shutil.which("npm"):
        raise InputError("npm is not installed, which fetches onnxruntime-web for the live page: install Node.js")
    npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    if subprocess.run(npm, cwd=NPM).returncode:
        raise InputError("npm could not fetch onnxruntime-web, see above: mend that and run the same command")
    for name in RUNTIME:
        shutil.copy(NPM / "node_modules" / "onnxruntime-web" / "dist" / name, OUT)
    for name in SCORES:
        model = cfg_jax.load(name)
        path = OUT / f"{name}.onnx"
        apart = onnx.export(path, model.config, model.step, model.params)
        simplify(path)
        print(f"{name}.onnx: within {apart:.1e} of the network")
    (OUT / "scores.json").write_text(json.dumps({name: scores(*of) for name, of in SCORES.items()}))
    print(f"{OUT}/index.html")


def simplify(path: Path) -> None:
    """Replace a graph by the same one for ten pictures: two thirds of its nodes only compute shapes from the batch."""
    onnxruntime = installed("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.add_free_dimension_override_by_name("B", 10)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def scores(folder: str, run: str) -> list[dict]:
    """Return the settings, FID and IS of a run's rows with seed 0 in a committed results.csv."""
    with open(ROOT / "experiments" / "results" / folder / "results.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["run"] == run and row["seed"] == "0"]
    return [
        {field: float(row[field]) for field in ("w", "T", "v")}
        | {"N": row["N"]}
        | {kind: measured(row, kind) for kind in ("fid", "is")}
        for row in rows
    ]


def measured(row: dict[str, str], kind: str) -> str:
    """Return a score by its name with its standard error: "FID 10.16 ± 0.80"."""
    name = next(name for name in row if name.startswith(f"{kind}_") and not name.endswith(("_se", "_std")))
    return f"{kind.upper()} {float(row[name]):.2f} ± {float(row[f'{name}_se']):.2f}"


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
