"""Reference statistics: mean and covariance of a data set's features, in the layout of ADM's published files.

mu and sigma are for FID, mu_s and sigma_s for sFID. Those of another network carry its name (mu_mixed8). arr_0 holds
some of the images, for KID, precision and recall. `about` is this code's own field: JSON that describes the data.
"""

import json
import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from cfg_jax import __version__
from cfg_jax.data.cards import Card
from cfg_jax.data.sources import Source
from cfg_jax.errors import require
from cfg_jax.evaluation import samples, scores
from cfg_jax.evaluation.moments import Moments, warn_of_rank
from cfg_jax.files import claimed, digest_json, sha256_of, to_make, write_npz
from cfg_jax.inputs import arrays, json_of, reading
from cfg_jax.progress import progress

if TYPE_CHECKING:  # experiments.doctor imports this module on machines where flax cannot be imported
    from cfg_jax.evaluation.features import Features

SUFFIXES = {"fid_inception": "", "sfid_inception": "_s"}
BATCH, PART = 3000, 30_000  # images
# fields of `about` that follow from the others, or decide nothing
NOT_DIGESTED = ("code", "distances", "complete", "source", "split_N")
SCHEMA = {
    "distances": [str], "data": str, "card": str, "split": str, "split_N?": int, "resize": str, "N": int,
    "image_shape?": [int], "features": str,
}  # fmt: skip
REMEDY = "give a file of experiments.reference_stats, or a published one with mu and sigma"
log = logging.getLogger(__name__)


@dataclass
class Reference:
    """The statistics that samples are scored against."""

    moments: dict[str, tuple[np.ndarray, np.ndarray]]  # {distance: (mean [D], covariance [D, D])}
    images: np.ndarray  # uint8 [M, H, W, C], for KID, precision and recall
    about: Any  # a dict, or None for a file that another code wrote
    digest: str
    roots: dict[str, np.ndarray] = field(default_factory=dict)  # of the covariances

    def distance(self, name: str, moments: Moments) -> float:
        """Return the Frechet distance `name` of samples with these moments."""
        mean, cov = self.moments[name]
        if name not in self.roots:
            self.roots[name] = scores.root(cov)
        return scores.frechet_distance(mean, cov, moments.mean, moments.cov, self.roots[name])

    def features(self, features: "Features", count: int) -> np.ndarray | None:
        """Return features [M, D] of the main distance of up to `count` images, for KID, precision and recall.

        Returns None if `count` is 0 or there are no images. Raises InputError for fewer than four.
        """
        images = self.images[:count]
        if not len(images):
            return None
        require(
            len(images) >= 4,
            f"the reference has {len(self.images)} pictures, precision and recall need 4: give more, or do without "
            "(config.eval.neighbours=0, --neighbours=0)",
        )
        return next(iter(features(images, classify=False).distances.values()))


def of_config(
    config: ConfigDict, features: "Features", source: Source, directory, other_reference=False, other_device=False
) -> Reference:
    """Return the reference in the file config.eval.reference, or else of the training images, kept in `directory`.

    Raises InputError for a file that cannot be read or that check_compatible refuses.
    """
    evaluation = config.eval
    if evaluation.reference:
        reference = read(evaluation.reference)
        check_compatible(reference, evaluation.reference, features, source.card, other_reference, other_device)
        return reference
    about, _ = of_data(features, source, evaluation.reference_images, evaluation.neighbours)
    path = Path(directory) / f"reference-{digest_of(about)}.npz"
    return compute(features, source, evaluation.reference_images, evaluation.neighbours, path)


def check_compatible(
    reference: Reference, path: str | Path, features: "Features", card: Card, other_reference: bool = False,
    other_device: bool = False,
) -> None:  # fmt: skip
    """Raise InputError for a reference by another network, or of another shape, resize or data set than the card's.

    other_reference allows another resize and data set, other_device features of another kind of device.
    """
    check_network(reference, path, features, other_device)
    check_shape(reference, path, card.image_shape)
    about = reference.about
    same = about and (about["resize"], about["card"], about["split"]) == (card.resize, card.digest, "train")
    described = "it does not say which pictures and resize"
    if about:
        described = f"{about['data']}, {about['split']}, resize {about['resize']}"
    require(
        same or other_reference,
        f"{path} is no reference of the run's data ({described}; they are {card.name}, train, resize {card.resize}): "
        "name one that is, or score against it all the same with --other_reference",
    )


def check_network(reference: Reference, path: str | Path, features: "Features", other_device: bool = False) -> None:
    """Raise InputError for a reference by another network, or by the same one on another kind of device.

    other_device allows the latter.
    """
    if about := reference.about:
        network, device = about["features"], {field: about.get(field, "unknown") for field in features.made_on}
        require(
            network == features.distances_digest,
            f"{path} was made by another feature network ({network}, not {features.distances_digest}): make it again "
            "with experiments.reference_stats, or name the weights it was made with",
        )
        there, here = ("{platform}, precision {precision}".format(**made_on) for made_on in (device, features.made_on))
        require(
            there == here or other_device,
            f"{path} was made on another kind of device ({there}; here it is {here}): make it again here with "
            "experiments.reference_stats, or score against it all the same with --other_device",
        )
    main = features.distances[0]  # many files lack sFID's moments; sFID is left out then
    require(
        main in reference.moments,
        f"{path} has no statistics for {main}: make it again with experiments.reference_stats",
    )
    for name, (mean, _) in reference.moments.items():
        width = scores.WIDTHS.get(name, len(mean))
        lengths = f"{len(mean)} features for {name}, which has {width}"
        require(len(mean) == width, f"{path} has {lengths}: make it again with experiments.reference_stats")


def check_shape(reference: Reference, path: str | Path, image_shape: tuple[int, ...]) -> None:
    """Raise InputError for a reference of pictures that are not (height, width, channels)."""
    wanted = tuple(image_shape)
    of_images = reference.images.shape[1:] if any(reference.images.shape[1:]) else wanted
    shape = tuple((reference.about or {}).get("image_shape", of_images))
    require(shape == wanted, f"{path} is of pictures of {shape}, not of {wanted}: name a reference of the same resize")


def suffix(name: str) -> str:
    """Return the ending of a distance's array names, after mu and sigma."""
    return SUFFIXES.get(name, f"_{scores.measure_and_of(name)[1]}")


def of_data(
    features: "Features", source: Source, num_images: int, num_neighbours: int, split: str = "train"
) -> tuple[dict, np.ndarray]:
    """Return (about, indices of its images in `source`) of a reference.

    num_images=0 takes all images. Otherwise that many are drawn, the same ones in every call.
    """
    index = np.sort(np.random.default_rng(0).permutation(len(source))[: num_images or len(source)])
    card = source.card
    about = {
        "data": card.name,
        "card": card.digest,
        "source": card.source,
        "complete": card.complete,
        "split": split,
        "split_N": len(source),
        "pictures": card.sha256[split][:12],
        "resize": card.resize,
        "image_shape": list(card.image_shape),
        "N": len(index),
        "neighbours": min(num_neighbours, len(index)),
        "features": features.distances_digest,
        **features.made_on,
        "code": __version__,
    }
    return about, index


def digest_of(about: dict) -> str:
    """Return twelve hex digits of the fields of `about` that decide a reference's numbers."""
    return digest_json({k: v for k, v in about.items() if k not in NOT_DIGESTED})


def compute(
    features: "Features", source: Source, num_images: int, num_neighbours: int, path: str | Path, split: str = "train"
) -> Reference:
    """Return the reference of `source`: read it from `path`, or compute it and write it there.

    It is computed in parts, which are kept until all are there. A job that is killed loses one part, and several jobs
    on one directory share the parts. Raises InputError if `path` cannot be read.
    """
    about, index = of_data(features, source, num_images, num_neighbours, split)
    path = Path(path)
    parts = path.with_name(f"{path.stem}-{digest_of(about)}.parts")
    index_of = {parts / f"{i:08d}.npz": index[i : i + PART] for i in range(0, len(index), PART)}
    for part in to_make(index_of, done=lambda part: part.exists() or path.exists()):
        starts = progress(range(0, len(index_of[part]), BATCH), desc=f"reference {part.stem}", unit="batch")
        moments = moments_of((source.images[index_of[part][i : i + BATCH]] for i in starts), features)
        write_npz(part, {f"{field} {name}": array for name, m in moments.items() for field, array in vars(m).items()})
    with claimed(path, wait=True):
        if not path.exists():
            moments = merged(map(read_part, index_of))
            warn_of_ranks(moments)
            rng = np.random.default_rng(1)
            kept = np.sort(rng.permutation(index)[: about["neighbours"]])
            shuffled = rng.permutation(len(kept))  # so that the first few are a sample of all classes
            about |= {"distances": [*moments]}
            arrays = {"arr_0": source.images[kept][shuffled], "about": np.array(json.dumps(about))}
            for name, m in moments.items():
                arrays |= {f"mu{suffix(name)}": m.mean, f"sigma{suffix(name)}": m.cov}
            write_npz(path, arrays)
    shutil.rmtree(parts, ignore_errors=True)
    return read(path)


def moments_of(batches: Iterable[np.ndarray], features: "Features") -> dict[str, Moments]:
    """Return {distance: moments} of batches of images, uint8 [n, H, W, C]."""
    extracted = (features(batch, classify=False).distances for batch in batches)
    return merged({name: Moments.of(array) for name, array in distances.items()} for distances in extracted)


def merged(parts: Iterable[dict[str, Moments]]) -> dict[str, Moments]:
    """Return {distance: moments} of all parts together."""
    total = {}
    for part in parts:
        total = {name: total[name].merge(m) if name in total else m for name, m in part.items()}
    return total


def read_part(path: Path) -> dict[str, Moments]:
    """Return {distance: moments} of a part's file."""
    with reading(path, "is damaged", "remove it and run the same command"), arrays(path) as file:
        names = [key.removeprefix("sum ") for key in file if key.startswith("sum ")]
        if not names:
            raise ValueError("it has no moments")
        return {name: Moments(int(file[f"count {name}"]), file[f"sum {name}"], file[f"outer {name}"]) for name in names}


def warn_of_ranks(moments: dict[str, Moments]) -> None:
    """Log a warning for each distance that has too few reference images, see warn_of_rank."""
    for name, m in moments.items():
        warn_of_rank(name, "reference images", m.count, len(m.sum))


def of_path(path: str | Path, features: "Features", num_neighbours: int) -> Reference:
    """Return the reference in an .npz of statistics, or compute one from an .npz of pictures.

    Up to num_neighbours of the pictures are kept in it. Raises InputError for any other file.
    """
    is_npz = Path(path).suffix == ".npz"
    require(is_npz, f"--reference={path} is no .npz: make one of it with experiments.reference_stats")
    with reading(path, "is no reference", REMEDY), arrays(path) as file:
        names = list(file)
    if "arr_0" not in names or any(name.startswith("mu") for name in names):
        return read(path)
    given = samples.load(path)
    kept = np.zeros(given.shape[0], bool)
    kept[np.random.default_rng(1).permutation(len(kept))[:num_neighbours]] = True
    images = []

    def batches():
        for i, batch in enumerate(progress(given.batches(), desc="reference", unit="batch")):
            images.append(batch[kept[i * samples.BATCH :][: len(batch)]])
            yield batch

    sums = moments_of(batches(), features)
    warn_of_ranks(sums)
    moments = {name: (m.mean, m.cov) for name, m in sums.items()}
    return Reference(moments, np.concatenate(images), None, sha256_of(path)[:12])


def read(path: str | Path) -> Reference:
    """Return the reference in a file of `compute`, of ADM or of pytorch-fid; the last has only mu and sigma.

    Raises InputError if the file cannot be read or has no finite mean and covariance.
    """
    with reading(path, "is no reference", REMEDY), arrays(path) as file:
        about = json_of(str(file["about"]), SCHEMA) if "about" in file else None
        names = about["distances"] if about else [name for name in SUFFIXES if f"mu{suffix(name)}" in file]
        moments = {name: (file[f"mu{suffix(name)}"], file[f"sigma{suffix(name)}"]) for name in names}
        images = file["arr_0"] if "arr_0" in file else np.zeros((0, 0, 0, 0), np.uint8)
        if not moments:
            raise ValueError("it has no mu")
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"its pictures are {images.dtype} {images.shape}, not uint8 [N, H, W, C]")
    for name, (mean, cov) in moments.items():
        shaped = mean.ndim == 1 and cov.shape == 2 * mean.shape and {mean.dtype.kind, cov.dtype.kind} == {"f"}
        finite = shaped and np.isfinite(mean).all() and np.isfinite(cov).all()
        require(finite, f"{path} has no mean and covariance for {name}: {REMEDY}")
    if about and about["N"] < about.get("split_N", 0):
        line = "%s is of %s of the %s pictures: a distance to it compares with others to the same alone"
        log.warning(line, path, f"{about['N']:,}", f"{about['split_N']:,} {about['split']}")
    return Reference(moments, images, about, digest_of(about) if about else sha256_of(path)[:12])
