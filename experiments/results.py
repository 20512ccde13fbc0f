"""Results as a directory small enough to commit: README.md, tables, pictures, CSV, configs.

python -m experiments.results --config=configs/tiny_imagenet.py --sweep=runs/tiny_imagenet-sweep \
    --out=experiments/results/tiny_imagenet             # a finished table and how it was made
python -m experiments.results --accelerator=runs/accelerator    # all that experiments.accelerator left
"""

from pathlib import Path

from absl import flags

from cfg_jax.errors import require
from cfg_jax.files import check_directory, check_output
from configs import fashion_mnist, tiny_imagenet
from experiments import cli, pages

CONFIG = cli.define_config()
SWEEP = flags.DEFINE_string("sweep", None, "the directory of experiments.paper's or experiments.sweep's cells")
RUNS = flags.DEFINE_string("runs", "runs", "where the runs are that it scored")
ACCELERATOR = flags.DEFINE_string("accelerator", None, "the directory of experiments.accelerator, in place of a sweep")
OUT = flags.DEFINE_string("out", None, "the directory to write; of an accelerator: by default the device's name")


def main():
    if OUT.value:
        check(Path(OUT.value))
    if ACCELERATOR.value:
        require(not SWEEP.value, "--accelerator has sweeps of its own: leave out --sweep")
        bases = {"fashion_mnist": fashion_mnist.get_config(), "tiny_imagenet": tiny_imagenet.get_config()}
        out = pages.accelerator(Path(ACCELERATOR.value), bases, OUT.value and Path(OUT.value))
    else:
        for flag in (CONFIG, SWEEP, OUT):
            require(flag.value, f"--{flag.name} is required, or --accelerator: --help says what they take")
        out = Path(OUT.value)
        pages.table(CONFIG.value, Path(cli.given("config")).stem, Path(SWEEP.value), Path(RUNS.value), out)
    print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


def check(out):
    """What is written there may take the place of an earlier page of ours alone."""
    check_directory(out, "page")
    for name in ("README.md", *pages.WRITTEN):
        check_output(out / name, Path(name).suffix, page=out / "README.md")


if __name__ == "__main__":
    cli.run(main)
