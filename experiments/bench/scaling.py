"""Scaling on paper: what a step sends between devices, from its compiled program, and the bandwidth that it needs.

python -m experiments.bench.scaling --out=docs/scaling.md

Nothing is trained: the step is compiled for that many virtual CPU devices, ImageNet's in about a minute a program.
"""

import importlib
import os
import tempfile
from collections import Counter
from pathlib import Path

import jax
from absl import flags

from cfg_jax.errors import require
from cfg_jax.files import check_output, write_atomic, write_json
from cfg_jax.perf import collectives, cost
from cfg_jax.progress import progress
from cfg_jax.text import markdown
from cfg_jax.training import mesh as meshes
from experiments import cli

CONFIGS = flags.DEFINE_list("configs", "imagenet64,imagenet128", "files under configs/, without .py")
DEVICES = flags.DEFINE_string("devices", "8,64,512", "numbers of devices")
FSDP = flags.DEFINE_integer("fsdp", 8, "devices that share one state where it is sharded: a node's", lower_bound=2)
OUT = flags.DEFINE_string("out", "docs/scaling.md", "the tables to write, and the numbers beside it as JSON")
ACCELERATORS = ("H100", "TPU v5p")
CHECKED = "digits"  # whose small programs show that neither images nor, replicated, devices change the arrays


def main():
    check_output(OUT.value, ".md")
    check_output(Path(OUT.value).with_suffix(".json"), ".json", page=Path(OUT.value))
    counts, fsdp = cli.numbers(DEVICES.value, int, "devices"), FSDP.value
    fit = all(count > 0 and count % fsdp == 0 for count in counts)
    require(fit, f"--devices={DEVICES.value} must be multiples of --fsdp={fsdp}")
    for name in CONFIGS.value:
        require(Path("configs", f"{name}.py").is_file(), f"--configs={name}: there is no configs/{name}.py")
    jax.config.update("jax_num_cpu_devices", max(counts))
    jax.config.update("jax_disable_most_optimizations", True)  # of machine code that never runs
    jax.config.update("jax_enable_compilation_cache", False)  # a program from there writes no text to XLA's dump
    with tempfile.TemporaryDirectory() as dump:
        of_partitioner = "--xla_dump_hlo_module_re=train_step --xla_dump_hlo_pass_re=spmd-partitioning"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={dump} {of_partitioner}"
        check = checked(counts, fsdp, dump)
        rows = [row for name in CONFIGS.value for row in rows_of(name, counts, fsdp, dump)]
    command = f"python -m experiments.bench.scaling --configs={','.join(CONFIGS.value)} --devices={DEVICES.value}"
    made = {"command": f"{command} --fsdp={fsdp}", "jax": jax.__version__, "device": jax.devices()[0].device_kind}
    made |= {"utilisation": cost.UTILISATION, "peak_tflops": {name: meshes.PEAK_TFLOPS[name] for name in ACCELERATORS}}
    text = page(made, check, rows, fsdp)
    write_atomic(OUT.value, text)
    write_json(Path(OUT.value).with_suffix(".json"), made | {"check": check, "rows": rows})
    print(text)


def config_of(name, devices, fsdp=1, images=None):
    """The config with `images` a device; or with its own batch, or one image a device where that does not divide."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.train.fsdp = fsdp
    if images or config.train.batch_size % devices:
        config.train.batch_size = (images or 1) * devices
    return config


def counted(config, devices, dump):
    """A compiled step's collectives, those that XLA's partitioner wrote before the CPU's own passes, and its state."""
    step = collectives.compile_step(config, meshes.data_mesh(jax.devices()[:devices], config.train.fsdp))
    [path] = Path(dump).glob("*after_spmd-partitioning*.txt")
    partitioned = path.read_text()
    for path in Path(dump).glob("*train_step*.*"):
        path.unlink()
    text = step.as_text() or ""
    return {
        "compiled": summed(text), "partitioned": summed(partitioned),
        "outside_loops": summed(text[text.index("\nENTRY ") :]),
        "state_bytes": step.memory_analysis().argument_size_in_bytes,
    }  # fmt: skip


def summed(text):
    """(kind, devices in a group, bytes of all such arrays) of a program."""
    found = Counter()
    for kind, size, payload in collectives.of_program(text):
        found[kind, size] += payload
    return [(*key, payload) for key, payload in sorted(found.items())]


def regrouped(found, devices):
    return [(kind, devices, payload) for kind, _, payload in found]


def of_parameters(each, fsdp):
    """Whether a collective reduces gradients or gathers parameters; what remains is made of images."""
    return each[0] in ("all-reduce", "reduce-scatter") or tuple(each[:2]) == ("all-gather", fsdp)


def sent(found, kind=None):
    return sum(collectives.sent_bytes(*each) for each in found if kind in (None, each[0]))


def checked(counts, fsdp, dump):
    """On small programs: that arrays do not depend on what the tables leave out, and what stands in a loop."""
    few, most = (counted(config_of(CHECKED, n, 1, i), n, dump) for n, i in ((min(counts), 1), (max(counts), 4)))
    one, four = (counted(config_of(CHECKED, fsdp, fsdp, i), fsdp, dump) for i in (1, 4))
    in_parts = config_of(CHECKED, fsdp, fsdp, 4)
    in_parts.train.accumulate = 2
    parts = counted(in_parts, fsdp, dump)
    texts = ("compiled", "partitioned")
    reduced, outside = (
        sum(payload for kind, _, payload in parts[which] if kind == "all-reduce")
        for which in ("compiled", "outside_loops")
    )
    return {
        "config": CHECKED, "replicated_devices": [min(counts), max(counts)], "sharded_devices": fsdp, "images": [1, 4],
        "replicated_same": all(regrouped(few[t], max(counts)) == most[t] for t in texts),
        "sharded_same": all(one[t] == four[t] for t in texts),
        "all_reduced_with_2_parts": reduced, "of_that_in_the_loop": reduced - outside,
    }  # fmt: skip


def rows_of(name, counts, fsdp, dump):
    """Replicated, compiled once, and sharded, compiled for each number of devices."""
    forward = cost.forward_flops(config_of(name, 1))
    whole = counted(config_of(name, min(counts), 1, 1), min(counts), dump)
    for devices in progress(counts, desc=name, unit="program"):
        config = config_of(name, devices)
        flop = cost.training_flops(config, forward, 1) / devices
        seconds = {a: flop / (meshes.PEAK_TFLOPS[a] * 1e12 * cost.UTILISATION) for a in ACCELERATORS}
        case = {"config": name, "devices": devices, "batch_size": config.train.batch_size, "flop": flop}
        case["seconds"] = seconds
        split = counted(config_of(name, devices, fsdp, 1), devices, dump)
        for count, of_fsdp in ((whole, 1), (split, fsdp)):
            found = {t: count[t] if of_fsdp > 1 else regrouped(count[t], devices) for t in ("compiled", "partitioned")}
            sums = {t: sent(f) for t, f in found.items()}
            # split gradients are all-reduced and cut, which is twice what a reduce-scatter or the gathering sends
            gathered = [each for each in found["compiled"] if each[:2] == ("all-gather", of_fsdp)]
            sums["reduce_scattered"] = sums["compiled"] - sent(gathered)
            speeds = {t: {a: total / s / 1e9 for a, s in seconds.items()} for t, total in sums.items()}
            yield case | {"fsdp": of_fsdp, "state_bytes": count["state_bytes"], "collectives": found} | {
                "sent_bytes": sums, "gb_per_s": speeds
            }  # fmt: skip


def page(made, check, rows, fsdp):
    """The document."""
    speeds = [f"GB/s {a}" for a in ACCELERATORS]
    which_state, per_device = ["model", "devices", "state"], [f"{a}, s" for a in ACCELERATORS]
    work = [["model", "devices", "batch", "images a device", "TFLOP a device", *per_device]]
    traffic = [[*which_state, "state, GB", "all-reduce, GB", "all-gather, GB", "sum, GB", *speeds]]
    others = [[*which_state, "reduce-scatter, GB", *speeds, "as partitioned, GB", *speeds]]
    groups = [[*which_state, "kind", "devices in a group", "arrays, GB", "sent, GB"]]
    for row in rows:
        name, devices, batch = row["config"], row["devices"], row["batch_size"]
        if row["fsdp"] == 1:
            own = config_of(name, 1).train.batch_size
            stated = f"{batch:,}" if batch == own else f"{batch:,}, as {own:,} do not divide"
            numbers = [row["flop"] / 1e12, *row["seconds"].values()]
            work.append([name, f"{devices}", stated, f"{batch // devices}", *(f"{n:.3g}" for n in numbers)])
        head = [name, f"{devices}", "replicated" if row["fsdp"] == 1 else f"fsdp={row['fsdp']}"]
        found, sums = row["collectives"]["compiled"], row["sent_bytes"]
        sizes = [row["state_bytes"], sent(found, "all-reduce"), sent(found, "all-gather"), sums["compiled"]]
        cells = {
            t: [f"{sums[t] / 1e9:.3f}", *(f"{speed:.1f}" for speed in of.values())] for t, of in row["gb_per_s"].items()
        }
        traffic.append([*head, *(f"{size / 1e9:.3f}" for size in sizes), *cells["compiled"][1:]])
        others.append([*head, *cells["reduce_scattered"], *cells["partitioned"]])
        for kind, size, payload in found:
            numbers = [payload, collectives.sent_bytes(kind, size, payload)]
            groups.append([*head, kind, f"{size}", *(f"{n / 1e9:.6f}" for n in numbers)])
    for lines in (work, traffic, others, groups):
        lines.insert(1, ["---" if head in ("model", "state", "kind") else "---:" for head in lines[0]])

    peaks = ", ".join(f"{name} {peak}" for name, peak in made["peak_tflops"].items())
    few, most = check["replicated_devices"]
    equal = {True: "the same to the byte", False: "NOT the same"}
    in_loop = check["of_that_in_the_loop"] / check["all_reduced_with_2_parts"]
    narrow = rows[0]["sent_bytes"]["partitioned"] / rows[0]["sent_bytes"]["compiled"]
    of_classes = [
        (sent([each for each in row["collectives"]["compiled"] if not of_parameters(each, fsdp)]), row) for row in rows
    ]
    shares = [(part / row["sent_bytes"]["compiled"], row["batch_size"] // row["devices"]) for part, row in of_classes]
    paragraphs = [
        "# Scaling on paper",
        f"Made by `{made['command']}` with jax {made['jax']} on {made['device']}. Nothing was trained and no link was "
        "measured.",
        f"What is compiled: the training step, from shapes alone, one image a device, for virtual {made['device']} "
        f"devices: sharded (`config.train.fsdp={fsdp}`) for every number of devices below, replicated for {few}. "
        "Collectives are read from the program's text.",
        f"What is arithmetic: replicated, all collectives are over all devices, so the arrays are those of {few} "
        "devices for any number. What a device sends is by the ring algorithm: 2 (n - 1) / n of an array in an "
        "all-reduce over n devices, (n - 1) / n of the whole array in an all-gather or a reduce-scatter. GB are 10^9 "
        "bytes.",
        f"What backs that, on the smaller programs of configs/{check['config']}.py: the arrays replicated over {few} "
        f"devices with 1 image each and over {most} with 4 are {equal[check['replicated_same']]}; with fsdp={fsdp} on "
        f"{fsdp} devices, those for 1 and for 4 images a device are {equal[check['sharded_same']]}.",
        "What depends on the images: with fsdp the gradient of a large class embedding is not reduced; the partitioner "
        "sends that of the images' rows instead, by an all-to-all or by an all-gather over all devices. That is "
        f"{max(share for share, _ in shares):.2%} of a row's bytes or less, and in proportion to the images would be "
        f"{max(share * images for share, images in shares):.2%} or less with those of the first table.",
        "## Computing",
        "Model FLOP as `experiments.bench.cost` counts them, the backward pass as two forward passes, at "
        f"{made['utilisation']:.0%} of the bf16 peak (TFLOP/s: {peaks}).",
        markdown(work).rstrip(),
        "## Communication",
        "GB/s is what each device must send for communication to take as long as computing. With less, the links bound "
        "the step even where all of it overlaps. Latency and the shape of the network are not in it. State is the "
        "program's arguments: parameters, EMA and Adam's two moments; gradient and activations come on top.",
        markdown(traffic).rstrip(),
        "## What another compiler may send",
        "Reduce-scatter: this compiler reduces a split gradient whole and then cuts it. A reduce-scatter over the fsdp "
        "group sends half of that, which is arithmetic and no program.",
        "As partitioned: the same count on what XLA's partitioner wrote, before the CPU's own passes. There the "
        "gradients of what computes in bfloat16 are summed over devices in bfloat16, which the CPU's compiler widens "
        f"to float32; the first row sends {narrow:.1%} of what its compiled program does. An accelerator that adds in "
        "bfloat16 sends these. Gathered parameters are float32 in both. With both, the reduction over the fsdp group "
        "would send about a quarter of the compiled program's.",
        markdown(others).rstrip(),
        f"All rows have config.train.accumulate=1. On configs/{check['config']}.py with fsdp={fsdp}, in 2 parts, "
        f"{in_loop:.1%} of the all-reduced bytes stand in the body of the loop over parts: the gradient's traffic is "
        "multiplied by the parts, unless a compiler moves it out.",
        "## Collectives of the compiled programs",
        "Per step; those of one kind over groups of one size are added up. On more devices than fsdp, a split gradient "
        "is reduced whole within the fsdp group and then, each device its own part, across groups.",
        markdown(groups),
    ]
    return "\n\n".join(paragraphs)


if __name__ == "__main__":
    cli.run(main)
