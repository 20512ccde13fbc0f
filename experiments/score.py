"""Score samples against a reference: FID, sFID, IS, KID, precision and recall, by the Inception network of FID.

python -m experiments.score --samples=admnet_imagenet64.npz --reference=VIRTUAL_imagenet64_labeled.npz

--reference is a file of experiments.reference_stats, of ADM or of pytorch-fid (mu, sigma), or an .npz of pictures.
"""

from pathlib import Path

from absl import flags

from cfg_jax import checks
from cfg_jax.errors import require
from cfg_jax.evaluation import measure, moments, references, samples
from cfg_jax.evaluation.classifiers import GivenClassifier
from cfg_jax.evaluation.features import Features, InceptionFeatures
from cfg_jax.files import MARKED, write_json
from cfg_jax.progress import progress
from cfg_jax.sampling.draw import check_labels
from cfg_jax.sampling.model import load_classifier
from experiments.helpers import cli

SAMPLES = cli.define_path("samples", None, ".npz with arr_0 uint8 [N, H, W, C] (and arr_1 labels), or an .npy")
REFERENCE = cli.define_path("reference", None, "the statistics or pictures to score against")
INCEPTION = cli.define_path("inception", "data/inception.npz", "weights, by experiments.fetch_inception")
CLASSIFIER_RUN = cli.define_path("classifier_run", None, "a noisy-image classifier, for the accuracy by labels")
SPLITS = cli.define_count("splits", 10, "the parts of IS")
NEIGHBOURS = cli.define_count(
    "neighbours", 10_000, "reference pictures for KID, precision and recall; 0 for none", low=0
)
BOOTSTRAP = cli.define_count("bootstrap", 0, "resamples of the images, for standard errors", low=0)
DEVICE = flags.DEFINE_bool("other_device", False, "score against a reference made on another kind of device")
OUT = cli.define_path("out", None, "also write the scores, as JSON", writes=".json")
flags.mark_flags_as_required(["samples", "reference"])


def main():
    checks.neighbours(NEIGHBOURS.value, "--neighbours")
    require(BOOTSTRAP.value != 1, "--bootstrap=1 gives no spread: give 0 for none, or 2 and more")
    given = samples.load(SAMPLES.value)
    count, *shape = given.shape
    require(
        count >= max(4, 2 * SPLITS.value),
        f"--samples={SAMPLES.value} has {count} images, too few for --splits={SPLITS.value}",
    )
    classifiers = []
    if path := CLASSIFIER_RUN.value:
        classifiers = [GivenClassifier(Path(path).name, load_classifier(path))]
        require(
            given.labels is not None,
            f"--samples={SAMPLES.value} has no labels: put them in it as arr_1, or leave out --classifier_run",
        )
        classifiers[0].check(shape)
        check_labels(given.labels, classifiers[0].num_classes)
    features = Features(InceptionFeatures(INCEPTION.value), *classifiers)
    reference = references.of_path(REFERENCE.value, features, NEIGHBOURS.value)
    references.check_network(reference, REFERENCE.value, features, DEVICE.value)
    references.check_shape(reference, REFERENCE.value, shape)
    for name, (mean, _) in reference.moments.items():
        moments.warn_of_rank(name, f"images of --samples={SAMPLES.value}", count, len(mean))
    tally = measure.Tally(
        count, given.labels, Path(SAMPLES.value).stem, splits=SPLITS.value, bootstrap=BOOTSTRAP.value,
        neighbours=bool(NEIGHBOURS.value and len(reference.images)),
    )  # fmt: skip
    real = reference.features(features, NEIGHBOURS.value)
    for batch in progress(given.batches(), total=-(-count // samples.BATCH), desc="score", unit="batch"):
        tally.add(batch, features(batch))
    measured, spreads = tally.scores(reference, real)
    result = {
        "samples": SAMPLES.value,
        "reference": REFERENCE.value,
        "about": reference.about,
        "features": features.digest,
        **features.made_on,
        "scores": {name: float(values[0]) for name, values in measured.items()},
        "standard_errors": {
            name: float(values[1:].std(ddof=1)) for name, values in measured.items() if len(values) > 2
        },
        "spreads": spreads,
    }
    for name, value in result["scores"].items():
        line = f"{name:28} {value:.6g}"
        if name in result["standard_errors"]:
            line += f" ± {result['standard_errors'][name]:.2g}"
        if name in spreads:
            over = "splits" if name.startswith("is") else "subsets"
            line += f"   (standard deviation over its {over} {spreads[name]:.2g})"
        print(line)
    if OUT.value:
        write_json(OUT.value, MARKED | result)


if __name__ == "__main__":
    cli.run(main)
