"""Whether samples may be held against a reference: by the same network, on pictures of the same shape and set."""

from pathlib import Path
from typing import TYPE_CHECKING

from cfg_jax.data.cards import Card
from cfg_jax.errors import InputError

if TYPE_CHECKING:  # references import this file, and no network is needed to compare
    from cfg_jax.evaluation.features import Features
    from cfg_jax.evaluation.references import Reference

WIDTHS = {"fid_inception": 2048, "sfid_inception": 2023, "fd_mixed8": 1280}  # features by Frechet distance


def check(
    reference: "Reference",
    path: str | Path,
    features: "Features",
    card: Card,
    other_reference: bool = False,
    other_device: bool = False,
) -> None:
    """Raise InputError for a reference by another network, or of another shape, resize or set than the card's.

    other_reference allows another resize and set, other_device features of another kind of device.
    """
    check_network(reference, path, features, other_device)
    check_shape(reference, path, card.image_shape)
    about = reference.about
    same = about and (about["resize"], about["card"], about["split"]) == (card.resize, card.digest, "train")
    if not same and not other_reference:
        found = (
            f"{about['data']}, {about['split']}, resize {about['resize']}"
            if about
            else "it does not say which pictures and resize"
        )
        raise InputError(
            f"{path} is no reference of the run's data ({found}; they are {card.name}, train, resize {card.resize}): "
            "name one that is, or score against it all the same with --other_reference"
        )


def check_network(reference: "Reference", path: str | Path, features: "Features", other_device: bool = False) -> None:
    """Raise InputError for a reference by another network, or by the same one on another kind of device.

    other_device allows the latter.
    """
    about = reference.about
    if about and about["features"] != features.distances_digest:
        raise InputError(
            f"{path} was made by another feature network ({about['features']}, not {features.distances_digest}): "
            "make it again with experiments.reference_stats, or name the weights it was made with"
        )
    where = about and {field: about.get(field, "unknown") for field in features.made_on}
    if about and where != features.made_on and not other_device:
        there, here = ("{platform}, precision {precision}".format(**on) for on in (where, features.made_on))
        raise InputError(
            f"{path} was made on another kind of device ({there}; here it is {here}): make it again here with "
            "experiments.reference_stats, or score against it all the same with --other_device"
        )
    main = features.distances[0]  # files without sFID's are common: it is left out then
    if main not in reference.moments:
        raise InputError(f"{path} has no statistics for {main}: make it again with experiments.reference_stats")
    for name, (mean, _) in reference.moments.items():
        if len(mean) != WIDTHS.get(name, len(mean)):
            raise InputError(f"{path} has {len(mean)} features for {name}, which has {WIDTHS[name]}: another network's")


def check_shape(reference: "Reference", path: str | Path, image_shape: tuple[int, ...]) -> None:
    """Raise InputError for a reference of pictures that are not (height, width, channels)."""
    of_images = reference.images.shape[1:] if any(reference.images.shape[1:]) else tuple(image_shape)
    shape = tuple((reference.about or {}).get("image_shape", of_images))
    if shape != tuple(image_shape):
        raise InputError(
            f"{path} is of pictures of {shape}, not of {tuple(image_shape)}: a reference of another resize"
        )
