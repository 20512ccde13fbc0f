"""Download the weights of the Inception network of FID, check them, and write the .npz that evaluation reads.

python -m experiments.fetch_inception
python -m experiments.fetch_inception --from_file=pt_inception-2015-12-05-6726825d.pth      # no network needed

They are TensorFlow's weights of 2015-12-05, as pytorch-fid and torch-fidelity publish them (one file, two addresses).
--from_file also takes an .npz of layers up to mixed_8, whose features give a Frechet distance that is no FID.
"""

import urllib.error
import urllib.request
from pathlib import Path

from cfg_jax.errors import InputError, require
from cfg_jax.files import sha256_of, write_atomic
from cfg_jax.models import inception
from cfg_jax.progress import progress
from experiments.helpers import cli

URLS = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)
SHA256 = "6726825d"  # the first digits, which the file's name has too

OUT = cli.define_path(
    "out", "data/inception.npz", "the .npz to write, for config.eval.inception", writes=".npz", replaces=False
)
FROM_FILE = cli.define_path("from_file", None, "a file to read in place of a download")


def main():
    check(Path(OUT.value))
    path = Path(FROM_FILE.value) if FROM_FILE.value else Path(OUT.value).with_suffix(".pth")
    if not FROM_FILE.value and not path.exists():
        download(path)
    require(path.is_file(), f"--from_file={path} does not exist")
    published = path.suffix == ".npz" or sha256_of(path).startswith(SHA256)
    remedy = "name the published file" if FROM_FILE.value else "remove it and run the same command"
    require(published, f"{path} is not the published file, its sha256 does not begin with {SHA256}: {remedy}")
    until = inception.convert(path, OUT.value)
    print(f"{OUT.value}: the Inception network of FID up to {until}")


def check(out):
    """Raise InputError if a file that is not these weights would be replaced."""
    same = FROM_FILE.value and out.resolve() == Path(FROM_FILE.value).resolve()
    require(not same, f"--out={out} is --from_file: choose another --out")
    if out.exists():
        try:
            inception.load(out)
        except InputError as error:
            remedy = "remove it, or choose another --out"
            raise InputError(f"{out} is there and has no Inception weights: {remedy}") from error


def download(path):
    """Download the file from the first address that answers. Raises InputError if none does."""
    for url in URLS:
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                size = int(response.headers.get("Content-Length", 0))
                content = bytearray()
                with progress(total=size, unit="B", unit_scale=True, desc=path.name) as bar:
                    while block := response.read(1 << 20):
                        content += block
                        bar.update(len(block))
            if len(content) < size:  # read() returns what there is
                raise ConnectionError(f"it ended after {len(content):,} of {size:,} bytes")
            return write_atomic(path, bytes(content))
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
    raise InputError(f"no address gives the file ({reason}): download {URLS[0]} elsewhere and name it with --from_file")


if __name__ == "__main__":
    cli.run(main)
