"""Write the report of a sweep again from its cells, and print its main table.

python -m experiments.report --sweep=runs/digits-sweep
"""

from cfg_jax.sweep import report
from experiments.helpers import cli

SWEEP = cli.define_path("sweep", None, "directory that experiments.sweep wrote", required=True)


def main():
    print(report.write(SWEEP.value))


if __name__ == "__main__":
    cli.run(main)
