"""Plot how the Frechet distance and IS of a data set's held-out pictures depend on how many are taken.

python -m experiments.studies.bias --config=configs/fashion_mnist.py --config.eval.features=classifier

Held-out pictures are as good as samples can be, so a larger distance at small N is bias, not worse quality.
"""

from pathlib import Path

import numpy as np

from cfg_jax import plots
from cfg_jax.data import sources
from cfg_jax.errors import require
from cfg_jax.evaluation import measure, references
from cfg_jax.evaluation.classifiers import features_of
from cfg_jax.evaluation.features import Extracted
from cfg_jax.files import MARKED, check_output, write_json
from cfg_jax.progress import progress
from experiments.helpers import cli, gallery

CONFIG = cli.define_config(required=True)
COUNTS = cli.define_numbers("counts", "100,200,500,1000,2000,5000,10000", "numbers of pictures", int, 2)
DRAWS = cli.define_count("draws", 5, "subsets of each number, for the spread", low=2)
WORKDIR = cli.define_path("workdir", "runs/bias", "where the reference and the classifier are kept", writes="directory")
OUT = cli.define_path(
    "out", "docs/bias.png", "PNG to write; the plot as SVG and the numbers as JSON get its name", writes=".png"
)


@plots.styled
def main() -> None:
    out, counts = Path(OUT.value), COUNTS.value
    for kind in (".svg", ".json"):
        check_output(out.with_suffix(kind), kind)
    source, config = sources.load(CONFIG.value)
    prepared = config.data.name not in ("digits", "synthetic")
    require(prepared, f"config.data.name={config.data.name} holds out no pictures: take a prepared data set")
    held_out = sources.prepared(Path(config.data.root) / config.data.name, "validation")
    most, least, splits = max(counts), min(counts), config.eval.splits
    require(most <= len(held_out), f"--counts={most}: {config.data.name} holds out {len(held_out)}")
    require(least >= 2 * splits, f"--counts={least} is too few for config.eval.splits={splits}")
    features = features_of(config, source, WORKDIR.value)
    reference = references.of_config(config, features, source, WORKDIR.value)
    rng = np.random.default_rng(config.eval.seed)
    index = np.sort(rng.permutation(len(held_out))[:most])
    images, labels = held_out.images[index], held_out.labels[index]
    extracted = features(images)

    rows = []
    for count in progress(counts, desc="scores", unit="N"):
        for _ in range(DRAWS.value):
            drawn = rng.permutation(most)[:count]
            tally = measure.Tally(count, labels[drawn], config.data.name, splits=splits)
            fields = ({name: array[drawn] for name, array in field.items()} for field in vars(extracted).values())
            tally.add(images[drawn], Extracted(*fields))
            measured, _ = tally.scores(reference)
            rows.append({"N": count} | {name.partition("@")[0]: float(value[0]) for name, value in measured.items()})
    inception_score = next(name for name in rows[0] if name.startswith("is_"))
    figure, axes = gallery.subplots(2, (8, 3.4))
    for ax, name in zip(axes, (features.distances[0], inception_score), strict=True):
        mean, std = (np.array([f([r[name] for r in rows if r["N"] == n]) for n in counts]) for f in (np.mean, np.std))
        ax.errorbar(counts, mean, std, marker="o")
        ax.set(xscale="log", xlabel="N", ylabel=name)
        for n, m, s in zip(counts, mean, std, strict=True):
            print(f"{name}@{n}: {m:.3f} ± {s:.3f}")
    axes[0].set(yscale="log")
    taken_from = f"{reference.about['N']:,} training pictures" if reference.about else config.eval.reference
    figure.suptitle(
        f"held-out {config.data.name} against {taken_from}; N of them {DRAWS.value} times, seed {config.eval.seed}, "
        "bars are ± the standard deviation"
    )
    plots.save(out.with_suffix(""), figure)
    write_json(out.with_suffix(".json"), MARKED | {"reference": reference.about, "rows": rows})


if __name__ == "__main__":
    cli.run(main)
