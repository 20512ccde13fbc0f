"""Compare our Inception network and scores with torch-fidelity's and with plain formulas by scipy, as a table.

python -m pip install torch torchvision torch-fidelity
python -m experiments.bench.parity --out=docs/parity.md

Weights are random, or --weights names the published .pth. ADM's formulas are written out here: FID by scipy's matrix
square root, IS over consecutive parts, precision and recall by all pairs of distances.
"""

# pyright: reportMissingImports=false
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import linalg
from scipy.spatial.distance import cdist

from cfg_jax.errors import InputError
from cfg_jax.evaluation import measure
from cfg_jax.evaluation.features import Extracted, Features, InceptionFeatures
from cfg_jax.evaluation.moments import Moments
from cfg_jax.evaluation.references import Reference
from cfg_jax.evaluation.scores import measure_and_of
from cfg_jax.files import write_atomic, write_npz
from cfg_jax.models import inception
from cfg_jax.models.precision import PRECISION
from cfg_jax.text import markdown
from experiments.helpers import cli
from experiments.helpers.inception_state import images_of, random_weights

OUT = cli.define_path("out", "docs/parity.md", "the table to write", writes=".md")
WEIGHTS = cli.define_path("weights", None, "the published .pth; default: random ones")
NUM_IMAGES = cli.define_count("num_images", 240, "a set, end to end", low=20)
SIZE = cli.define_count("size", 32, "side of the images, end to end", low=8)
PEER, PLAIN = "torch-fidelity", "ADM's formula by scipy"


def main() -> None:
    if importlib.util.find_spec("torch_fidelity") is None:
        raise InputError("torch-fidelity is not installed: python -m pip install torch torchvision torch-fidelity")
    import torch
    import torch_fidelity
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with tempfile.TemporaryDirectory() as directory:
        pth, npz = Path(WEIGHTS.value or f"{directory}/weights.pth"), Path(directory, "inception.npz")
        if not WEIGHTS.value:
            torch.save(random_weights(FeatureExtractorInceptionV3, pth, SIZE.value), pth)
        params, bias = inception.from_torch({k: v.numpy() for k, v in torch.load(pth, weights_only=True).items()})
        flat = {f"{layer}/{leaf}": a for layer, leaves in params.items() for leaf, a in leaves.items()}
        write_npz(npz, {**flat, "bias_of_logits": bias, "sha256": np.array("0" * 64), "until": np.array("logits")})
        ours = InceptionFeatures(npz)
        rows = [*stages(ours, FeatureExtractorInceptionV3, pth), *formulas(), *end_to_end(ours, pth)]
    head = ["what", "against", "ours", "theirs", "difference, relative"]
    weights = f"the published weights {pth.name}" if WEIGHTS.value else "random weights"
    about = (
        f"    python -m experiments.bench.parity --num_images={NUM_IMAGES.value} --size={SIZE.value}\n\n"
        "This compares the feature network and the scores here with those of other codes, on the same inputs. All "
        "differences are relative; between arrays they are relative L2 distances. "
        f"The Inception network has {weights}, in float32 at jax's precision {PRECISION!r}, on "
        f"{jax.default_backend()}; jax {jax.__version__}, torch-fidelity {torch_fidelity.__version__}, torch "
        f"{torch.__version__}."
    )
    text = f"# Parity of the evaluation\n\n{about}\n\n{markdown([head, *rows], (0, 1))}"
    write_atomic(OUT.value, text)
    print(text)


def of_arrays(what: str, against: str, ours: np.ndarray, theirs: np.ndarray) -> list[str]:
    difference = np.linalg.norm(np.asarray(ours, np.float64) - theirs) / np.linalg.norm(theirs)
    return [what, against, "", "", f"{float(difference):.1e}"]


def of_numbers(what: str, against: str, ours: float, theirs: float) -> list[str]:
    return [what, against, f"{ours:.8g}", f"{theirs:.8g}", f"{abs(ours / theirs - 1):.1e}"]


def stages(ours: InceptionFeatures, network: Any, pth: Path) -> Iterator[list[str]]:
    """Yield rows of each stage on the same images, and of ours alone and in a batch."""
    import torch

    names = ["768", "2048", "logits_unbiased", "logits"]
    net = network("stages", names, feature_extractor_weights_path=str(pth))
    inside = {}

    def keep(module: Any, name: str, chosen: Callable) -> None:
        def hook(_: Any, given: tuple, out: Any) -> None:
            inside[name] = chosen(given[0], out).numpy()

        module.register_forward_hook(hook)

    keep(net.Conv2d_1a_3x3, "resize", lambda given, out: given)
    keep(net.Mixed_6d.branch1x1, "mixed_6", lambda given, out: out)
    keep(net.Mixed_7a, "mixed_8", lambda given, out: out.mean((2, 3)))
    images = images_of(0, 8, 64)
    with torch.no_grad():
        _, pool_3, logits, biased = (a.numpy() for a in net(torch.tensor(images.transpose(0, 3, 1, 2).copy())))
    got = ours.stages(images)
    resized = (np.asarray(inception.resize(images.astype(np.float32), 299)) - 128) / 128
    mixed_6 = inside["mixed_6"].transpose(0, 2, 3, 1)[..., :7]
    yield of_arrays("resize to 299 (TF1 bilinear)", PEER, resized, inside["resize"].transpose(0, 2, 3, 1))
    yield of_arrays("mixed_6, first 7 channels (sFID)", PEER, got["mixed_6_conv"], mixed_6)
    yield of_arrays("mixed_8, averaged", PEER, got["mixed_8"], inside["mixed_8"])
    yield of_arrays("pool_3 (FID)", PEER, got["pool_3"], pool_3)
    yield of_arrays("logits without bias", PEER, got["logits"], logits)
    yield of_arrays("logits with bias", PEER, got["logits"] + ours.bias, biased)
    alone = np.concatenate([ours.stages(images[i : i + 1])["pool_3"] for i in range(len(images))])
    yield of_arrays("pool_3, one image at a time", "ours, eight at once", alone, got["pool_3"])


def formulas() -> Iterator[list[str]]:
    """Yield rows on given features: random, of unequal spread, fewer dimensions than images."""
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((96, 96)) / 8
    real, fake = (rng.standard_normal((n, 96)) @ mixing + shift for n, shift in ((1500, 0.0), (1200, 0.05)))
    fake *= 0.9  # or precision and recall would be alike
    real, fake = real.astype(np.float32), fake.astype(np.float32)
    logits = (3 * rng.standard_normal((1200, 1008))).astype(np.float32)
    moments = Moments.of(real)
    tally = measure.Tally(len(fake), None, "x", splits=10, neighbours=True)
    extracted = Extracted({"fid_x": fake}, {"is_x": logits, "isc_x": logits}, {})
    tally.add(np.zeros((len(fake), 1, 1, 1), np.uint8), extracted)
    reference = Reference({"fid_x": (moments.mean, moments.cov)}, np.zeros((0, 0, 0, 0)), None, "")
    measured, spreads = tally.scores(reference, real)
    ours = {measure_and_of(name)[0]: float(value[0]) for name, value in measured.items()}

    a, b, given = torch.tensor(fake), torch.tensor(real), torch.tensor(logits)
    statistics = [fid_features_to_statistics(f) for f in (a, b)]
    kid = kid_features_to_metric(
        a.double(), b.double(), kid_subsets=100, kid_subset_size=1000, rng_seed=2020, kid_kernel="poly",
        kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1, verbose=False,
    )  # fmt: skip
    theirs = fid_statistics_to_metric(*statistics, False)
    theirs |= isc_features_to_metric(given, splits=10, shuffle=True, rng_seed=2020) | kid
    theirs |= prc_features_to_metric(a, b, prc_neighborhood=3, prc_batch_size=500, save_cpu_ram=True, verbose=False)
    names = {
        "FID": ("fid", "frechet_inception_distance"), "IS shuffled": ("isc", "inception_score_mean"),
        "KID": ("kid", "kernel_inception_distance_mean"), "precision": ("precision", "precision"),
        "recall": ("recall", "recall"),
    }  # fmt: skip
    for what, (mine, other) in names.items():
        yield of_numbers(f"{what}, features given", PEER, ours[mine], float(theirs[other]))
    spread = float(kid["kernel_inception_distance_std"])
    yield of_numbers("KID's spread, features given", PEER, spreads["kid_x@1200"], spread)
    for name, value in plain(fake.astype(np.float64), real.astype(np.float64), logits.astype(np.float64)).items():
        what = {"fid": "FID", "is": "IS consecutive"}.get(name, name)
        yield of_numbers(f"{what}, features given", PLAIN, ours[name], value)


def plain(fake: np.ndarray, real: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Return ADM's scores as they are defined. Nothing is shared with this project."""
    cov_a, cov_b = np.cov(fake.T), np.cov(real.T)
    cross: Any = linalg.sqrtm(cov_a @ cov_b)
    fid = np.square(fake.mean(0) - real.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * cross.real)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    parts = np.split(p, 10)
    inception_score = float(np.mean([np.exp((q * (np.log(q) - np.log(q.mean(0)))).sum(1).mean()) for q in parts]))

    def covered(points: np.ndarray, centres: np.ndarray) -> float:
        radii = np.sort(cdist(centres, centres), axis=1)[:, 3]
        return (cdist(points, centres) <= radii).any(1).mean()

    return {"fid": fid, "is": inception_score, "precision": covered(fake, real), "recall": covered(real, fake)}


def end_to_end(ours: InceptionFeatures, pth: Path) -> Iterator[list[str]]:
    """Yield rows of two sets of images through the whole of torch-fidelity, and through the whole of ours."""
    import torch
    from torch_fidelity import calculate_metrics

    class Pictures(torch.utils.data.Dataset):
        def __init__(self, images: np.ndarray) -> None:
            self.images = torch.tensor(images.transpose(0, 3, 1, 2).copy())

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, i: int) -> Any:
            return self.images[i]

    count, size = NUM_IMAGES.value, SIZE.value
    fake, real = images_of(1, count, size), images_of(0, count, size)
    common = {
        "input1": Pictures(fake), "cuda": False, "isc": True, "verbose": False, "save_cpu_ram": True, "cache": False,
        "feature_extractor": "inception-v3-compat", "feature_extractor_weights_path": str(pth),
    }  # fmt: skip
    theirs = calculate_metrics(
        input2=Pictures(real), fid=True, kid=True, prc=True, kid_subset_size=min(1000, count),
        feature_layer_prc="2048", **common,
    )  # fmt: skip
    theirs["biased"] = calculate_metrics(feature_layer_isc="logits", **common)["inception_score_mean"]
    features = Features(ours)
    extracted = features(real)
    moments = {name: Moments.of(f) for name, f in extracted.distances.items()}
    reference = Reference({k: (m.mean, m.cov) for k, m in moments.items()}, real, None, "")
    tally = measure.Tally(count, None, "x", splits=10, neighbours=True)
    for begin in range(0, count, 100):
        tally.add(fake[begin : begin + 100], features(fake[begin : begin + 100]))
    measured, _ = tally.scores(reference, extracted.distances["fid_inception"])
    values = {name.partition("@")[0]: float(value[0]) for name, value in measured.items()}
    names = {
        "FID": ("fid_inception", "frechet_inception_distance"),
        "IS shuffled, without bias (its default)": ("isc_inception", "inception_score_mean"),
        "IS shuffled, with bias": ("isc_biased_inception", "biased"),
        "KID": ("kid_inception", "kernel_inception_distance_mean"),
        "precision": ("precision_inception", "precision"),
        "recall": ("recall_inception", "recall"),
    }
    for what, (mine, other) in names.items():
        where = f"{count} images of {size}x{size} end to end"
        yield of_numbers(f"{what}, {where}", PEER, values[mine], float(theirs[other]))


if __name__ == "__main__":
    cli.run(main)
