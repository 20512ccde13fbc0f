"""References and samples as files: what is written, what is read, what is refused."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cfg_jax.data import sources
from cfg_jax.errors import InputError
from cfg_jax.evaluation import features, references, samples
from cfg_jax.evaluation.moments import Moments


class Mean:
    """A feature network in three lines: an image's mean and its first pixel."""

    digest, accuracy = "mean", None

    def __init__(self, name="x"):
        self.name, self.distances = name, [f"fid_{name}"]

    def __call__(self, images, so_far=None):
        flat = images.reshape(len(images), -1).astype(np.float32)
        means, logits = np.stack([flat.mean(1), flat[:, 0], flat.std(1)], 1), flat[:, :10]
        return features.Extracted({f"fid_{self.name}": means}, {f"is_{self.name}": logits}, {self.name: logits})


class Network(features.Features):
    def __init__(self, name="x"):
        super().__init__(Mean(name))


@pytest.fixture(scope="module")
def source():
    return sources.digits()


def test_statistics_in_the_published_layout(tmp_path, source):
    path = tmp_path / "r.npz"
    reference = references.compute(Network(), source, 100, 12, path)
    with np.load(path, allow_pickle=False) as file:
        assert set(file.files) == {"mu_x", "sigma_x", "arr_0", "about"}
        about = json.loads(str(file["about"]))
    assert (about["N"], about["resize"], about["card"]) == (100, "none", source.card.digest)
    assert reference.images.shape == (12, 8, 8, 1) and reference.images.dtype == np.uint8
    index = np.sort(np.random.default_rng(0).permutation(len(source))[:100])
    direct = Moments.of(Mean()(source.images[index]).distances["fid_x"])
    np.testing.assert_allclose(reference.moments["fid_x"][0], direct.mean)
    np.testing.assert_allclose(reference.moments["fid_x"][1], direct.cov)
    assert reference.distance("fid_x", direct) == pytest.approx(0, abs=1e-9)
    assert len(reference.features(Network(), 5)) == 5 and reference.features(Network(), 0) is None
    before = path.stat().st_mtime_ns
    assert references.compute(Network(), source, 100, 12, path).digest == reference.digest
    assert path.stat().st_mtime_ns == before
    fewer, _ = references.of_data(Network(), source, 50, 12)
    assert references.digest_of(fewer) != reference.digest  # or its file would be taken for this one
    assert references.suffix("fid_inception") == "" and references.suffix("sfid_inception") == "_s"
    assert references.suffix("fd_mixed8") == "_mixed8"


def test_a_reference_that_is_killed_loses_a_part_at_most(tmp_path, source, monkeypatch):
    """Parts that are there are not taken again, another job's are left to it, and the whole is the same to the bit."""
    monkeypatch.setattr(references, "PART", 40)
    monkeypatch.setattr(references, "BATCH", 20)
    seen = []

    class Dying(Network):
        def __call__(self, images, classify=True):
            seen.append(len(images))
            if sum(seen) > self.until:
                raise KeyboardInterrupt
            return super().__call__(images, classify=classify)

    network = Dying()
    network.until = 90
    with pytest.raises(KeyboardInterrupt):
        references.compute(network, source, 190, 12, tmp_path / "r.npz")
    assert len(list(tmp_path.glob("r-*.parts/*.npz"))) == 2 and not (tmp_path / "r.npz").exists()
    seen.clear()
    network.until = 1000
    reference = references.compute(network, source, 190, 12, tmp_path / "r.npz")
    assert sum(seen) == 110 and [p.name for p in tmp_path.iterdir()] == ["r.npz"]
    once = references.compute(Network(), source, 190, 12, tmp_path / "once.npz")
    for a, b in zip(once.moments["fid_x"], reference.moments["fid_x"], strict=True):
        np.testing.assert_array_equal(a, b)
    with ThreadPoolExecutor(3) as jobs:
        seen.clear()
        made = [jobs.submit(references.compute, network, source, 190, 12, tmp_path / "shared.npz") for _ in range(3)]
        assert {job.result().digest for job in made} == {reference.digest}
    assert sum(seen) == 190


def test_what_others_publish_is_read(tmp_path, rng):
    """ADM's VIRTUAL_*.npz and pytorch-fid's statistics."""
    mu, sigma = rng.standard_normal(4), np.eye(4)
    images = np.zeros((5, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "adm.npz", mu=mu, sigma=sigma, mu_s=mu[:2], sigma_s=sigma[:2, :2], arr_0=images)
    adm = references.read(tmp_path / "adm.npz")
    assert list(adm.moments) == ["fid_inception", "sfid_inception"] and adm.about is None and len(adm.images) == 5
    np.savez(tmp_path / "fid.npz", mu=mu, sigma=sigma)
    alone = references.read(tmp_path / "fid.npz")
    assert list(alone.moments) == ["fid_inception"] and not len(alone.images)
    assert alone.digest != adm.digest
    assert alone.features(None, 100) is None
    wide = references.Reference({"fid_inception": (np.zeros(768), np.eye(768))}, alone.images, None, "")
    inception = Network()
    inception.extractors[0].distances = ["fid_inception", "sfid_inception"]
    with pytest.raises(InputError, match="768 features for fid_inception, which has 2048"):
        references.check_network(wide, "fid.npz", inception)
    of_2048 = references.Reference({"fid_inception": (np.zeros(2048), np.eye(2048))}, alone.images, None, "")
    references.check_network(of_2048, "fid.npz", inception)  # without sFID's


def test_pictures_are_a_reference_too(tmp_path, source):
    np.savez(tmp_path / "pictures.npz", arr_0=source.images[:50])
    reference = references.of_path(tmp_path / "pictures.npz", Network(), 10)
    direct = Moments.of(Mean()(source.images[:50]).distances["fid_x"])
    np.testing.assert_allclose(reference.moments["fid_x"][1], direct.cov)
    assert reference.images.shape == (10, 8, 8, 1)
    kept = [next(i for i in range(50) if np.array_equal(source.images[i], image)) for image in reference.images]
    assert len(set(kept)) == 10 and max(kept) > 25  # a sample of them, not the first ones
    none = references.of_path(tmp_path / "pictures.npz", Network(), 0)
    with pytest.raises(InputError, match="name a reference of the same resize"):
        references.check_shape(none, "pictures.npz", (16, 16, 1))
    np.savez(tmp_path / "floats.npz", arr_0=np.zeros((4, 8, 8, 1), np.float32))
    with pytest.raises(InputError, match=r"holds float32 from 0 to 0: give uint8 images 0\.\.255"):
        references.of_path(tmp_path / "floats.npz", Network(), 0)


def test_the_first_of_the_kept_pictures_are_a_sample_too(tmp_path, source):
    """Prepared sets are in the order of their classes."""
    by_class = sources.Source(
        source.images[np.argsort(source.labels, kind="stable")], np.sort(source.labels), source.card
    )
    images = references.compute(Network(), by_class, 0, 100, tmp_path / "r.npz").images[:30]
    places = [next(i for i in range(len(source)) if np.array_equal(by_class.images[i], image)) for image in images]
    assert len({by_class.labels[i] for i in places}) >= 8


def test_the_other_split_is_another_reference(source):
    card = source.card
    both = type(card)(**{**vars(card), "sha256": {**card.sha256, "validation": "0" * 64}})
    of = sources.Source(source.images, source.labels, both)
    digests = {references.digest_of(references.of_data(Network(), of, 100, 12, s)[0]) for s in ("train", "validation")}
    assert len(digests) == 2


def test_too_few_pictures_for_neighbours(source):
    reference = references.Reference({}, source.images[:3], None, "")
    with pytest.raises(InputError, match=r"has 3 pictures.*config\.eval\.neighbours=0"):
        reference.features(Network(), 10)


def test_another_reference_is_refused(tmp_path, source):
    path = tmp_path / "r.npz"
    reference = references.compute(Network(), source, 0, 12, path)
    references.check_compatible(reference, path, Network(), source.card)

    other = Network()
    other.extractors[0].digest = "other"
    with pytest.raises(InputError, match=r"made by another feature network \(mean, not other\).*reference_stats"):
        references.check_compatible(reference, path, other, source.card)
    with pytest.raises(InputError, match="no statistics for fid_y"):
        references.check_compatible(reference, path, Network("y"), source.card)
    synthetic = sources.synthetic(8, 1, 10).card
    with pytest.raises(
        InputError, match=r"digits, train, resize none; they are synthetic, train, resize none.*--other_reference"
    ):
        references.check_compatible(reference, path, Network(), synthetic)
    references.check_compatible(reference, path, Network(), synthetic, other_reference=True)
    larger = sources.synthetic(16, 1, 10).card
    with pytest.raises(InputError, match=r"of pictures of \(8, 8, 1\), not of \(16, 16, 1\): name a reference"):
        references.check_compatible(reference, path, Network(), larger, other_reference=True)


def test_a_reference_of_another_kind_of_device_is_refused(tmp_path, source):
    """TF32 and bfloat16 features of the same network are not its float32 ones."""
    path = tmp_path / "r.npz"
    references.compute(Network(), source, 0, 12, path)
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    for field, value, message in (
        ("platform", "gpu", r"gpu, precision highest; here it is cpu, precision highest"),
        ("precision", "default", r"cpu, precision default; here"),
        ("precision", None, r"cpu, precision unknown; here"),  # of an earlier version
    ):
        about = json.loads(str(arrays["about"])) | {field: value}
        about = {k: v for k, v in about.items() if v is not None}
        np.savez(path, **arrays | {"about": np.array(json.dumps(about))})
        other = references.read(path)
        with pytest.raises(InputError, match=f"{message}.*--other_device"):
            references.check_compatible(other, path, Network(), source.card)
        references.check_compatible(other, path, Network(), source.card, other_device=True)
        same, _ = references.of_data(Network(), source, 0, 12)
        assert other.digest != references.digest_of(same)


def test_an_unlabelled_reference_is_on_trust(tmp_path, source):
    np.savez(tmp_path / "r.npz", mu=np.zeros(3), sigma=np.eye(3))
    reference = references.read(tmp_path / "r.npz")
    reference.moments["fid_x"] = reference.moments.pop("fid_inception")
    with pytest.raises(InputError, match=r"it does not say which pictures and resize.*--other_reference"):
        references.check_compatible(reference, "r.npz", Network(), source.card)
    references.check_compatible(reference, "r.npz", Network(), source.card, other_reference=True)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_1": np.zeros(3)}, "it has no mu"),
        ({"mu": np.zeros(3), "sigma": np.eye(4)}, "no mean and covariance for fid_inception"),
        ({"mu": np.full(3, np.nan), "sigma": np.eye(3)}, "no mean and covariance for fid_inception"),
        ({"mu": np.zeros(3)}, "it has no sigma"),
        ({"mu": np.zeros(3), "sigma": np.eye(3), "about": np.array("{")}, "is no reference"),
        ({"mu": np.zeros(3), "sigma": np.array([object()])}, "its array is of objects"),
    ],
)
def test_what_is_no_reference(tmp_path, arrays, message):
    np.savez(tmp_path / "r.npz", **arrays)
    with pytest.raises(InputError, match=r"is no reference|has no mean") as error:
        references.read(tmp_path / "r.npz")
    assert message in str(error.value)


def test_samples_go_out_and_in_a_batch_at_a_time(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(samples, "BATCH", 4)
    images, labels = rng.integers(0, 256, (11, 8, 8, 3)).astype(np.uint8), np.arange(11) % 3
    path = tmp_path / "new" / "x.npz"
    with samples.writer(path, images.shape, labels) as write:
        for begin in range(0, 11, 5):
            write(images[begin : begin + 5])
        assert not path.exists()
    with np.load(path, allow_pickle=False) as file:  # as ADM's evaluator reads it
        np.testing.assert_array_equal(file["arr_0"], images)
        assert file["arr_1"].tolist() == labels.tolist()
    given = samples.load(path)
    assert given.shape == (11, 8, 8, 3) and given.labels.tolist() == labels.tolist()
    parts = list(given.batches())
    assert [len(part) for part in parts] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate(parts), images)
    with pytest.raises(RuntimeError), samples.writer(tmp_path / "y.npz", images.shape, labels):
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_samples_of_other_kinds(tmp_path, rng):
    images = rng.integers(0, 256, (3, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "grey.npy", images)
    grey = samples.load(tmp_path / "grey.npy")
    assert grey.shape == (3, 8, 8, 1) and grey.labels is None
    np.testing.assert_array_equal(next(grey.batches())[..., 0], images)
    np.savez_compressed(tmp_path / "one.npz", images=images[..., None].repeat(3, -1))
    assert samples.load(tmp_path / "one.npz").shape == (3, 8, 8, 3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": np.linspace(-1, 1, 192, dtype="f4").reshape(3, 8, 8, 1)}, "holds float32 from -1 to 1: give uint8"),
        ({"arr_0": np.full((3, 8, 8, 1), np.nan)}, "holds NaN: give uint8"),
        ({"arr_0": np.zeros((3, 8, 8, 4), np.uint8)}, "give uint8 images"),
        ({"arr_0": np.zeros((0, 8, 8, 1), np.uint8)}, "give uint8 images"),
        ({"arr_0": np.zeros((3, 8, 8, 1), np.int64)}, "holds int64"),
        ({"arr_0": np.zeros((3, 8, 8, 1), np.uint8), "arr_1": np.zeros(2, int)}, "has labels int64 (2,) for 3 images"),
        ({"arr_0": np.array([object()])}, "cannot be read"),
    ],
)
def test_what_are_no_samples(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError) as error:
        samples.load(tmp_path / "x.npz")
    assert message in str(error.value)


def test_a_file_that_ends_early(tmp_path, monkeypatch, rng):
    monkeypatch.setattr(samples, "BATCH", 4)
    np.save(tmp_path / "x.npy", np.zeros((10, 8, 8, 1), np.uint8))
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content[:-100])
    with pytest.raises(InputError, match=r"says uint8 \(10, 8, 8, 1\), 640 bytes, and has 540"):
        samples.load(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", rng.integers(0, 256, (10, 64, 64, 1), np.uint8))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[20_000] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match="damaged after 8 images"):
        list(samples.load(tmp_path / "x.npz").batches())


def test_a_file_that_is_none(tmp_path):
    for name, content in (("x.npz", b"PK"), ("x.npy", b""), ("y.npz", None)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            samples.load(tmp_path / name)
