"""Compute reference statistics: mean and covariance of a data set's Inception features, in ADM's layout.

python -m experiments.reference_stats --dataset=imagenet64-area --out=data/imagenet64-area-reference.npz
"""

from pathlib import Path

from absl import flags

from cfg_jax import checks
from cfg_jax.data import sources
from cfg_jax.errors import require
from cfg_jax.evaluation import references
from cfg_jax.evaluation.features import Features, InceptionFeatures
from experiments.helpers import cli

DATASET = cli.define_path("dataset", None, "digits, or a directory of --root that experiments.prepare_data wrote")
ROOT = cli.define_path("root", "data", "where prepared data sets are")
SPLIT = flags.DEFINE_enum("split", "train", ["train", "validation"], "the split of the pictures")
INCEPTION = cli.define_path("inception", "data/inception.npz", "weights, by experiments.fetch_inception")
NUM_IMAGES = cli.define_count("num_images", 0, "take this many, always the same; 0 for all", low=0)
NEIGHBOURS = cli.define_count("neighbours", 10_000, "images to keep in the file, for KID, precision and recall", low=0)
OUT = cli.define_path("out", None, "the .npz to write", writes=".npz", replaces=False)
flags.mark_flags_as_required(["dataset", "out"])


def main():
    checks.neighbours(NEIGHBOURS.value, "--neighbours")
    checks.reference_images(NUM_IMAGES.value, "--num_images")
    digits = DATASET.value == "digits"
    require(not digits or SPLIT.value == "train", "--split=validation: digits has training pictures alone")
    source = sources.digits() if digits else sources.prepared(Path(ROOT.value, DATASET.value), SPLIT.value)
    features = Features(InceptionFeatures(INCEPTION.value))
    out = OUT.value
    if Path(out).exists():
        about, _ = references.of_data(features, source, NUM_IMAGES.value, NEIGHBOURS.value, SPLIT.value)
        same = references.read(out).digest == references.digest_of(about)
        require(same, f"{out} is of other pictures, another number or another network: choose another --out")
    reference = references.compute(features, source, NUM_IMAGES.value, NEIGHBOURS.value, out, SPLIT.value)
    about = reference.about or {}
    print(
        f"{out}: {', '.join(reference.moments)} of {about['N']} {SPLIT.value} pictures of {about['data']}, resize "
        f"{about['resize']}, and {len(reference.images)} of the pictures; features {about['features']}"
    )


if __name__ == "__main__":
    cli.run(main)
