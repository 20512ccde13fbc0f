"""The ten costliest operations of a training step and of guided sampling, by the profiler, as a table.

python -m experiments.bench.profile --config=configs/imagenet64.py --config.train.batch_size=32 \
    --config.eval.batch_size=128 --config.sampler.num_steps=4 --out=runs/profile.md
"""

import jax
from absl import flags

from cfg_jax import checks
from cfg_jax.files import check_output, write_atomic
from cfg_jax.perf import timing, trace
from cfg_jax.text import markdown
from experiments import cli

CONFIG = cli.define_config()
OUT = flags.DEFINE_string("out", "runs/profile.md", "markdown to write")
CALLS = flags.DEFINE_integer("calls", 3, "of each program, after one to warm up", lower_bound=1)
COUNT = flags.DEFINE_integer("count", 10, "operations in a table", lower_bound=1)
flags.mark_flags_as_required(["config"])
PROGRAMS = {"training": timing.training, "sampling": timing.sampling}


def main():
    check_output(OUT.value, ".md")
    config = CONFIG.value
    checks.everything(config)
    command = cli.command_line("bench.profile")
    about = f"{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}, {config.model.dtype}"
    text = f"# Where the time goes\n\n    {command}\n\n{about}. Times are of one call, all devices together.\n"
    for name, program in PROGRAMS.items():
        text += section(name, program(config))
        write_atomic(OUT.value, text)
    print(text)


def section(name, program):
    found, clock = trace.operations(program.run, program.compiled.as_text(), CALLS.value)
    busy = sum(operation.seconds for operation in found)
    title = f"\n## {name}, {program.images} images: {1e3 * clock:,.1f} ms"
    if not found:
        return f"{title}\n\nThe profiler saw no operation on the devices.\n"
    rows = [["operation", "from", "calls", "ms", "share"], ["---", "---", "---:", "---:", "---:"]]
    for operation in found[: COUNT.value]:
        share, ms = operation.seconds / busy, 1e3 * operation.seconds
        source = "/".join(operation.source.split("/")[-3:])
        rows.append([operation.name[:60], source, str(operation.calls), f"{ms:.3g}", f"{share:.1%}"])
    rest = found[COUNT.value :]
    ms = 1e3 * sum(operation.seconds for operation in rest)
    rows.append([f"{len(rest)} others", "", str(sum(o.calls for o in rest)), f"{ms:.3g}", f"{ms / 1e3 / busy:.1%}"])
    return f"{title}\n\nOperations take {1e3 * busy:,.1f} ms.\n\n{markdown(rows)}\n{by_kind(found, busy)}"


def by_kind(found, busy):
    total = {}
    for operation in found:
        calls, seconds = total.get(operation.kind, (0, 0.0))
        total[operation.kind] = calls + operation.calls, seconds + operation.seconds
    rows = [["kind, the costliest in a fusion", "calls", "ms", "share"], ["---", "---:", "---:", "---:"]]
    for kind, (calls, seconds) in sorted(total.items(), key=lambda item: -item[1][1]):
        rows.append([kind, str(calls), f"{1e3 * seconds:.3g}", f"{seconds / busy:.1%}"])
    return f"{markdown(rows)}\n"


if __name__ == "__main__":
    cli.run(main)
