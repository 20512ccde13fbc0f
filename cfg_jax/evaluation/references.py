"""Reference statistics: mean and covariance of a data set's features, in the layout of ADM's published files.

mu, sigma are FID's, mu_s, sigma_s are sFID's, those of another feature set carry its name (mu_mixed8), arr_0 holds some
of the images, for KID, precision and recall. `about` is ours: what all of it was made from, as JSON.
"""

import json
import logging
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from cfg_jax import __version__
from cfg_jax.errors import InputError
from cfg_jax.evaluation import compatible, samples, scores
from cfg_jax.evaluation.measure import warn_of_rank
from cfg_jax.evaluation.moments import Moments
from cfg_jax.files import claimed, digest_json, sha256_of, to_make, write_npz
from cfg_jax.progress import progress

SUFFIXES = {"fid_inception": "", "sfid_inception": "_s"}
BATCH, PART = 3000, 30_000  # images
MOMENTS = ("count", "sum", "outer")
# of what a reference says of itself, what follows from the rest or decides nothing
NOT_DIGESTED = ("code", "distances", "complete", "source", "split_N")
log = logging.getLogger(__name__)


class Reference:
    """What samples are held against: `distance(name, moments)`, and `images` for the scores of neighbours."""

    def __init__(self, moments, images, about, digest):
        self.moments, self.images, self.about, self.digest = moments, images, about, digest
        self.roots = {}

    def distance(self, name, moments):
        mean, cov = self.moments[name]
        if name not in self.roots:
            self.roots[name] = scores.root(cov)
        return scores.frechet_distance(mean, cov, moments.mean, moments.cov, self.roots[name])

    def features(self, features, count):
        """Those of up to `count` images for KID, precision and recall, by the main distance's network; or None."""
        if not count or not len(self.images):
            return None
        if len(self.images[:count]) < 4:
            raise InputError(
                f"the reference has {len(self.images)} pictures, precision and recall need 4: give more, or do without "
                "(config.eval.neighbours=0, --neighbours=0)"
            )
        return next(iter(features(self.images[:count], classify=False).distances.values()))


def of_config(config, features, source, directory, other_reference=False, other_device=False):
    """The Reference that config.eval asks for: a file, or of config.data's training images, kept in `directory`."""
    evaluation = config.eval
    if evaluation.reference:
        reference = read(evaluation.reference)
        compatible.check(reference, evaluation.reference, features, source.card, other_reference, other_device)
        return reference
    about, _ = of_data(features, source, evaluation.reference_images, evaluation.neighbours)
    path = Path(directory) / f"reference-{digest_of(about)}.npz"
    return compute(features, source, evaluation.reference_images, evaluation.neighbours, path)


def suffix(name):
    return SUFFIXES.get(name, f"_{scores.Name.parse(name).of}")


def of_data(features, source, num_images, num_neighbours, split="train"):
    """(about, and the indices into `source` that it is taken over): all its images, or those drawn once."""
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


def digest_of(about):
    return digest_json({k: v for k, v in about.items() if k not in NOT_DIGESTED})


def compute(features, source, num_images, num_neighbours, path, split="train"):
    """The Reference of `source`, read from `path` if it is there, written to it if not.

    It is made in parts, which are kept until it is whole: of what was killed all but a part is there, and several
    jobs that share the directory share the parts.
    """
    about, index = of_data(features, source, num_images, num_neighbours, split)
    path = Path(path)
    parts = path.with_name(f"{path.stem}-{digest_of(about)}.parts")
    stretches = {parts / f"{i:08d}.npz": index[i : i + PART] for i in range(0, len(index), PART)}
    for part in to_make(stretches, done=lambda part: part.exists() or path.exists()):
        stretch = stretches[part]
        starts = progress(range(0, len(stretch), BATCH), desc=f"reference {part.stem}", unit="batch")
        write_npz(part, arrays_of(moments_of((source.images[stretch[i : i + BATCH]] for i in starts), features)))
    with claimed(path, wait=True):
        if not path.exists():
            moments = {}
            for part in stretches:
                with np.load(part, allow_pickle=False) as file:
                    moments = merged(moments, moments_in(file))
            warn_of_ranks(moments)
            rng = np.random.default_rng(1)
            kept = np.sort(rng.permutation(index)[: about["neighbours"]])
            shuffled = rng.permutation(len(kept))  # the first few of them are a sample too, whatever the data's order
            about |= {"distances": [*moments]}
            arrays = {"arr_0": source.images[kept][shuffled], "about": np.array(json.dumps(about))}
            for name, m in moments.items():
                arrays |= {f"mu{suffix(name)}": m.mean, f"sigma{suffix(name)}": m.cov}
            write_npz(path, arrays)
    shutil.rmtree(parts, ignore_errors=True)
    return read(path)


def moments_of(batches, features):
    """{distance: Moments} of batches of uint8 images."""
    moments = {}
    for batch in batches:
        distances = features(batch, classify=False).distances
        moments = merged(moments, {name: Moments.of(array) for name, array in distances.items()})
    return moments


def merged(moments, others):
    return {name: moments[name].merge(m) if name in moments else m for name, m in others.items()}


def arrays_of(moments):
    """{distance: Moments} as the arrays of a file, and back."""
    return {f"{field} {name}": getattr(m, field) for name, m in moments.items() for field in MOMENTS}


def moments_in(file):
    names = [key.partition(" ")[2] for key in file if key.startswith("sum ")]
    return {name: Moments(int(file[f"count {name}"]), file[f"sum {name}"], file[f"outer {name}"]) for name in names}


def warn_of_ranks(moments):
    for name, m in moments.items():
        warn_of_rank(name, "reference images", m.count, len(m.sum))


def of_path(path, features, num_neighbours):
    """The Reference of a file of statistics, or of one of pictures, which are then measured."""
    if Path(path).suffix != ".npz":
        raise InputError(f"--reference={path} is no .npz: make one of it with experiments.reference_stats")
    names = []
    with suppress(OSError, ValueError, zipfile.BadZipFile), np.load(path, allow_pickle=False) as file:
        names = file.files
    if "arr_0" not in names or any(name.startswith("mu") for name in names):
        return read(path)
    given = samples.load(path)
    kept = np.zeros(given.shape[0], bool)
    kept[np.random.default_rng(1).permutation(len(kept))[:num_neighbours]] = True
    images, done = [np.zeros((0, *given.shape[1:]), np.uint8)], 0

    def batches():
        nonlocal done
        for batch in progress(given.batches(), desc="reference", unit="batch"):
            images.append(batch[kept[done : done + len(batch)]])
            done += len(batch)
            yield batch

    moments = moments_of(batches(), features)
    warn_of_ranks(moments)
    return Reference(
        {k: (m.mean, m.cov) for k, m in moments.items()}, np.concatenate(images), None, sha256_of(path)[:12]
    )


def read(path):
    """The Reference in a file of `compute`, of ADM, or of pytorch-fid, which has no more than mu and sigma."""
    again = "give a file of experiments.reference_stats, or a published one with mu and sigma"
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"])) if "about" in file else None
            names = about["distances"] if about else [name for name in SUFFIXES if f"mu{suffix(name)}" in file]
            moments = {name: (file[f"mu{suffix(name)}"], file[f"sigma{suffix(name)}"]) for name in names}
            images = file["arr_0"] if "arr_0" in file else np.zeros((0, 0, 0, 0), np.uint8)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no reference ({error}): {again}") from error
    if not moments:
        raise InputError(f"{path} is no reference (it has no mu): {again}")
    for name, (mean, cov) in moments.items():
        if mean.ndim != 1 or cov.shape != 2 * mean.shape or not (np.isfinite(mean).all() and np.isfinite(cov).all()):
            raise InputError(f"{path} has no mean and covariance for {name}: {again}")
    if about and about["N"] < about.get("split_N", 0):
        line = "%s is of %s of the %s pictures: a distance to it compares with others to the same alone"
        log.warning(line, path, f"{about['N']:,}", f"{about['split_N']:,} {about['split']}")
    return Reference(moments, images, about, digest_of(about) if about else sha256_of(path)[:12])
