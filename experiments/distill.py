"""Guidance in one pass: a student that takes w as an input, and students of it that take fewer and fewer steps.

python -m experiments.distill --run=runs/digits-flow --workdir=runs/digits-student
python -m experiments.distill --run=runs/digits-student --workdir=runs/digits-student --steps=16,8,4

The first starts from the run's weights and learns (1 + w) f(z, c) - w f(z) for every w of --w (Meng et al. 2023). The
second trains one student after another, runs/digits-student-16 and so on, each to do one step of DDIM where its teacher
does two (Salimans & Ho 2022). Students are runs like others: sample, sweep, export and report take them.
"""

from cfg_jax.errors import require
from cfg_jax.store import weights
from cfg_jax.text import short
from cfg_jax.training import students, trainer
from experiments.helpers import cli

RUN = cli.define_path("run", None, "the teacher: run directory or export", hub=True, required=True)
WORKDIR = cli.define_path(
    "workdir", None, "directory of the student; with --steps, how the names begin", writes="run", required=True
)
W = cli.define_numbers("w", None, "default 0:4: the lowest and the highest w that the student is to take", tuple)
STEPS = cli.define_numbers("steps", None, "numbers of steps, each half of the one before; the first may be any", int)
cli.define_training()
cli.define_hosts()


def main() -> None:
    run, steps = RUN.value, STEPS.value
    if not steps:
        bounds = [bound for part in W.value or [(0.0, 4.0)] for bound in part]
        require(len(bounds) == 2, f"--w={short(tuple(bounds))}: give the lowest and the highest w, such as 0:4")
        config, _, _ = weights.read(run)
        trainer.train(cli.training(students.distilled(config, run, *bounds)), WORKDIR.value)
        return print(f"{WORKDIR.value} takes w from {bounds[0]:g} to {bounds[1]:g}, one pass a step")
    require(W.value is None, "--w goes without --steps: halved students take the w of their teacher")
    students.check_halvings(steps)
    for num_steps in steps:
        config, _, _ = weights.read(run)
        student = cli.training(students.halved(config, run, num_steps))
        run = f"{WORKDIR.value}-{num_steps}"
        trainer.train(student, run)
        print(f"{run} takes {num_steps} steps of one pass")


if __name__ == "__main__":
    cli.run(main)
