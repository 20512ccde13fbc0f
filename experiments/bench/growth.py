"""How time and memory grow with what a user may raise: a power fitted to each, as a table.

python -m experiments.bench.growth --config=configs/digits.py --out=runs/growth.md

Each thing is doubled a few times with all others at the config's, and the slope of the logarithms is fitted to its
larger half, where fixed costs weigh less. Scores are taken of random features of 64 dimensions.
"""

import time

import numpy as np
from absl import flags

from cfg_jax import checks
from cfg_jax.evaluation.features import Extracted
from cfg_jax.evaluation.measure import Tally
from cfg_jax.evaluation.references import Reference
from cfg_jax.files import check_output, write_atomic
from cfg_jax.perf import timing
from cfg_jax.sweep.spec import changed
from cfg_jax.text import markdown
from experiments import cli

CONFIG = cli.define_config()
OUT = flags.DEFINE_string("out", None, "also write what is printed")
REPEATS = flags.DEFINE_integer("repeats", 3, "timed calls after the first", lower_bound=1)
flags.mark_flags_as_required(["config"])

WIDTH, CLASSES, BATCH = 64, 10, 500
PROGRAMS = {  # what is timed, what is raised, to what, and all others
    "a step of training": [
        ("train.batch_size", (16, 32, 64, 128, 256), {}),
        ("model.channels", (32, 64, 128, 256), {"train.batch_size": 16}),
        ("data.image_size", (8, 16, 32, 64), {"train.batch_size": 16}),
    ],
    "sampling": [
        ("eval.batch_size", (16, 32, 64, 128, 256), {}),
        ("sampler.num_steps", (4, 8, 16, 32, 64), {"eval.batch_size": 16}),
    ],
}
SCORES = [
    ("N", (1000, 2000, 4000, 8000, 16_000), {}),
    ("N, with KID, precision and recall", (1000, 2000, 4000, 8000, 16_000), {"neighbours": True}),
    ("resamples of the bootstrap", (16, 32, 64, 128), {}),
    ("classes of the data", (10, 100, 1000), {}),
]


def main():
    if OUT.value:
        check_output(OUT.value, ".md")
    config = CONFIG.value
    checks.everything(config)
    rows = [["", "of", "raised to", "seconds", "power", "GB", "power"], ["---", "---", *["---:"] * 5]]
    for what, raised in PROGRAMS.items():
        timed = timing.time_training if what == "a step of training" else timing.time_sampling
        for field, values, others in raised:
            found = [timed(changed(config, others | {field: value}), REPEATS.value, None) for value in values]
            seconds = [of["seconds"]["median"] for of in found]
            rows.append(row(what, field, values, seconds, [of["program_bytes_per_device"] for of in found]))
    for raised, values, others in SCORES:
        rows.append(row("scores", raised, values, [scored(raised, value, **others) for value in values], None))
    text = f"# Growth with N, T and batch\n\n    {cli.command_line('bench.growth')}\n\n{markdown(rows)}\n"
    print(text)
    if OUT.value:
        write_atomic(OUT.value, text)


def row(what, raised, values, seconds, num_bytes):
    memory = [f"{num_bytes[-1] / 1e9:.3g}", f"{power(values, num_bytes):.2f}"] if num_bytes else ["", ""]
    times = " ".join(f"{s:.3g}" for s in seconds)
    return [what, raised, " ".join(f"{v:,}" for v in values), times, f"{power(values, seconds):.2f}", *memory]


def power(values, measured):
    half = slice(-(len(values) // 2 + 1), None)
    return np.polyfit(np.log(values[half]), np.log(measured[half]), 1)[0]


def scored(raised, value, neighbours=False):
    """Seconds of all scores of random images."""
    count = value if raised.startswith("N") else 4000
    bootstrap = value if raised.startswith("resamples") else 0
    classes = value if raised.startswith("classes") else CLASSES
    rng = np.random.default_rng(0)
    features, logits = rng.standard_normal((count, WIDTH)), rng.standard_normal((count, classes))
    uint8 = rng.integers(0, 256, (count, 8, 8, 1), np.uint8)
    reference = Reference({"fid_random": (np.zeros(WIDTH), np.eye(WIDTH))}, uint8, None, "")
    began = time.perf_counter()
    labels = np.arange(count) % classes
    tally = Tally(count, labels, "random", splits=10, bootstrap=bootstrap, neighbours=neighbours)
    for begin in range(0, count, BATCH):
        of = slice(begin, begin + BATCH)
        tally.add(uint8[of], Extracted({"fid_random": features[of]}, {"is_random": logits[of]}, {"a": logits[of]}))
    tally.scores(reference, features if neighbours else None)
    return time.perf_counter() - began


if __name__ == "__main__":
    cli.run(main)
