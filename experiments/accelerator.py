"""Forty minutes of one GPU into evidence: what it computes, how fast it is, and the paper's Table 1 on two rungs.

python -m experiments.accelerator --minutes=40 --out=runs/accelerator            # again: goes on from there
python -m experiments.accelerator --minutes=40 --out=runs/accelerator --plan     # only says what it would run
python -m experiments.accelerator --minutes=5  --out=runs/tiny --tiny            # the same queue of toys, on a CPU too

A queue of commands, the most valuable first. Each leaves a file that is worth having by itself. Sizes follow from the
rates that were just measured. It ends by itself before its minutes are over, and may be killed anywhere. On a machine
that is lent for ten minutes at a time: --call_minutes=9.5. experiments.results --accelerator=DIR makes pages of it.
"""

import importlib.util
import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import jax
from absl import flags

from cfg_jax.data import sources
from cfg_jax.errors import InputError, require
from cfg_jax.files import check_directory, only_one, read_json, write_json
from cfg_jax.perf import fit
from cfg_jax.sweep import published, spec
from configs import fashion_mnist, tiny_imagenet
from experiments import cli
from experiments.launch.queue import GRACE, Queue

MINUTES = flags.DEFINE_float("minutes", 40, "of all calls together", lower_bound=1)
CALL_MINUTES = flags.DEFINE_float("call_minutes", None, "of this call; default: all that is left", lower_bound=1)
OUT = flags.DEFINE_string("out", None, "directory of everything; an earlier call's goes on")
PLAN = flags.DEFINE_bool("plan", False, "only say what would be run")
TINY = flags.DEFINE_bool("tiny", False, "toys in place of every network, digits in place of every data set")
DATA = flags.DEFINE_string("data", "data", "where the prepared data sets are")
INCEPTION = flags.DEFINE_string("inception", "data/inception.npz", "weights, by experiments.fetch_inception")
GUIDED_DIFFUSION = flags.DEFINE_string("guided_diffusion", "guided-diffusion", "a clone, timed where torch is there")
EDM = flags.DEFINE_string("edm", "edm", "a clone, timed where torch is there")
flags.mark_flags_as_required(["out"])

# minutes of 40 at which the stages end: the last takes what is left; toys spend theirs on starting
ENDS = {"check": 4, "speed": 13, "fashion_mnist": 18, "tiny_imagenet": 37}
TINY_ENDS = {"check": 8, "speed": 20, "fashion_mnist": 28, "tiny_imagenet": 36}
SAFETY = 0.85  # of a stage's time is planned: training waits for data, cells for their scores
STARTS = 60  # seconds of a rung for starting, compiling, and the reference's features
GREATEST = 0.5  # of the peak that any network may reach: more than that is not even timed
MORE = 1.25  # times the steps, or they are not worth a table of their own


@dataclass(frozen=True)
class Rung:
    """A data set to make Table 1 of, and the networks that may do it, the largest first."""

    name: str
    config: object
    seeds: tuple[int, ...]
    least_steps: int  # that a model takes, or a smaller network is chosen
    networks: tuple[dict, ...]


NARROW = {"model.channels": 32, "model.head_width": 32}
RUNGS = (
    Rung("fashion_mnist", fashion_mnist.get_config(), (0,), 2000, ({}, NARROW)),
    Rung(
        "tiny_imagenet",
        tiny_imagenet.get_config(),
        (0, 1),
        4000,
        ({}, NARROW | {"model.multipliers": (1, 2, 4, 4)}, NARROW | {"model.num_blocks": 1}),
    ),
)
SMALL = {
    "model.channels": 32, "model.multipliers": (1,), "model.num_blocks": 1, "model.attention_resolutions": (),
    "model.head_width": 32, "model.dtype": "float32", "data.image_size": 8, "data.channels": 1, "data.num_classes": 10,
    "train.batch_size": 8, "sampler.num_steps": 2, "eval.batch_size": 40,
}  # fmt: skip
# digits' own classifier gives the features
DIGITS = SMALL | {
    "data.name": "digits", "data.flip": False, "train.warmup_steps": 1, "eval.features": "classifier",
    "eval.num_images": 40, "eval.splits": 2, "eval.bootstrap": 0, "eval.w": (0.0, 1.0),
}  # fmt: skip


def main():
    jax.config.update("jax_platforms", "cpu")  # the queue counts; the accelerator belongs to its commands
    ends = {name: at * MINUTES.value / 40 for name, at in (TINY_ENDS if TINY.value else ENDS).items()}
    if not PLAN.value:
        check_directory(OUT.value, "queue")
    with nullcontext() if PLAN.value else only_one(OUT.value, wait=2 * GRACE) as lock:
        queue = Queue(OUT.value, MINUTES.value, CALL_MINUTES.value, lock)
        check(queue, ends["check"])
        speed(queue, ends["speed"])
        for rung in RUNGS:
            table(queue, rung, ends[rung.name])
        more(queue, RUNGS[-1])
        print(f"\n{queue.used / 60:.1f} of {MINUTES.value:g} minutes are used")
    print(f"experiments.results --accelerator={OUT.value} makes pages of it")


def check(queue, ends):
    """What is installed, and whether the device computes what it should."""
    queue.stage("check", ends)
    config = arguments("tiny_imagenet", DIGITS if TINY.value else {})
    queue.run("doctor", "experiments.doctor", *config, f"--workdir={queue.directory / 'runs'}", fine=(0, 1))
    queue.run("exact", "experiments.bench.exact", *config, f"--out={queue.directory / 'exact.txt'}", fine=(0, 1))


def speed(queue, ends):
    """Throughput of the paper's network at 64x64: batches that surely fit, a profile, peers, larger batches."""
    queue.stage("speed", ends)
    sizes = {"training": (4, 8), "sampling": (4, 8), "features": (2,)}
    if not TINY.value:
        sizes = {"training": (32, 64, 128, 256), "sampling": (128, 256, 512, 1024), "features": (64, 256)}
    directory = queue.directory / "speed"
    benchmark = directory / "benchmark.json"
    at = {part: of[0] for part, of in sizes.items()}
    queue.run("speed", "experiments.bench.speed", *batches(at), f"--out={benchmark}")
    *config, _ = batches(at)
    queue.run("profile", "experiments.bench.profile", *config, f"--out={directory / 'profile.md'}", fine=(0, 1))
    clones = {"guided_diffusion": GUIDED_DIFFUSION.value, "edm": EDM.value}
    there = [f"--{flag}={path}" for flag, path in clones.items() if Path(path).is_dir()]
    if importlib.util.find_spec("torch") and (benchmark.exists() or PLAN.value):
        out = f"--out={directory / 'peers.json'}"
        queue.run("peers", "experiments.bench.peers", f"--ours={benchmark}", *there, "--tuned", out, fine=(0, 1))
    for part, (_, *larger) in sizes.items():
        for size in larger:
            out = directory / f"{part}-{size}.json"
            flag_list = [*batches(at | {part: size}), f"--part={part}", f"--out={out}"]
            queue.run(f"{part}-{size}", "experiments.bench.speed", *flag_list, fine=(0, 1))
            if not out.exists() and not PLAN.value:  # the memory's end
                break


def batches(of):
    """The paper's network at ImageNet 64x64, with batches {"training": 32, ...}."""
    fields = {"train.batch_size": of["training"], "eval.batch_size": of["sampling"]}
    fields = (SMALL if TINY.value else {"sampler.num_steps": 8}) | fields
    return [*arguments("imagenet64", fields), f"--features_batch={of['features']}"]


def table(queue, rung, ends):
    """Table 1 on a rung, of the largest network and the most steps that its minutes allow."""
    queue.stage(rung.name, ends)
    if (why := missing(rung)) and not PLAN.value:
        return print(f"  left out: {why}")
    chosen = queue.directory / f"{rung.name}.json"
    choice = read_json(chosen) if chosen.exists() else choose(queue, rung)
    if not choice:
        return print("" if PLAN.value else "  no network was timed that fits into its minutes: give more of them")
    paper(queue, rung, rung.name, choice)


def choose(queue, rung):
    """{"fields": changes of the config, "seeds": [...]} that fit, by rates that are measured here; None if none do."""
    networks, least = (rung.networks, rung.least_steps) if not TINY.value else ((DIGITS,), 6)
    unknown = False
    for seeds in dict.fromkeys((rung.seeds, rung.seeds[:1])):
        for number, network in enumerate(networks):
            of = fit.Table(spec.changed(rung.config, network), len(published.P_UNCOND), seeds)
            peak, seconds = peak_flops(queue), SAFETY * (queue.left - STARTS * (not TINY.value))
            if peak and of.least_seconds(least, GREATEST * peak) > seconds:
                print(f"  network {number}, seeds {seeds}: no device is so fast", flush=True)
                continue
            out = queue.directory / "speed" / f"{rung.name}-{number}.json"
            flag_list = [*arguments(rung.name, network), f"--features_batch={of.config.eval.batch_size}", "--repeats=3"]
            name = f"{rung.name}-speed-{number}"
            queue.run(name, "experiments.bench.speed", *flag_list, "--keep_compiled", f"--out={out}", fine=(0, 1))
            if not out.exists() or "features" not in (measured := read_json(out)):
                unknown = True
                continue
            steps = of.steps_within(seconds, fit.Rates.of(measured))
            said = f"{steps:,} steps fit" if steps > 0 else "not even the table fits"
            print(f"  network {number}, seeds {seeds}: {said} into {seconds:.0f} s", flush=True)
            if steps >= least:
                steps = min(steps, 20) if TINY.value else steps // 100 * 100
                return {"fields": network | {"train.num_steps": steps}, "seeds": seeds, "speed": out.name}
        if PLAN.value and unknown:
            print("  then experiments.paper --table=1 with the first network that fits")
            break
    return None


def more(queue, rung):
    """What is left of the minutes: the same models trained further, and their table again."""
    queue.stage(f"more steps of {rung.name}", MINUTES.value)
    first, chosen = (queue.directory / f"{name}.json" for name in (rung.name, f"{rung.name}-more"))
    if PLAN.value or not first.exists():
        return print("  after its table")
    before = read_json(first)
    if not paper(queue, rung, rung.name, before):  # it took longer than was planned
        return None
    if chosen.exists():
        choice = read_json(chosen)
    else:
        of = fit.Table(spec.changed(rung.config, before["fields"]), len(published.P_UNCOND), before["seeds"][:1])
        rates = fit.Rates.of(read_json(queue.directory / "speed" / before["speed"]))
        done = before["fields"]["train.num_steps"]
        steps = done + of.steps_within(SAFETY * queue.left, rates) // 100 * 100
        if TINY.value:
            steps = 2 * done
        if steps < MORE * done:
            return print(f"  {steps:,} steps instead of {done:,} are not worth a table")
        choice = {"fields": before["fields"] | {"train.num_steps": steps}, "seeds": before["seeds"][:1]}
    paper(queue, rung, f"{rung.name}-more", choice)


def paper(queue, rung, name, choice):
    """Table 1 at a choice, which stays the same in later calls -> whether it is done."""
    print(f"  {json.dumps(choice)}", flush=True)
    if not PLAN.value:
        write_json(queue.directory / f"{name}.json", choice)
    runs, steps = queue.directory / "runs", choice["fields"]["train.num_steps"]
    saves = {"train.checkpoint_every": max(1, min(1000, steps // 4)), "train.sample_every": steps}
    sweep = f"--sweep={runs / f'{name}-sweep'}"
    seeds = ",".join(map(str, choice["seeds"]))
    return queue.run(f"{name}-table", "experiments.paper", "--table=1", f"--scale={rung.name}", f"--runs={runs}", sweep,
                     f"--seeds={seeds}", *arguments(rung.name, choice["fields"] | saves, scale=True))  # fmt: skip


def missing(rung):
    """Why the rung's data cannot be read, "" if they can."""
    try:
        sources.load(spec.changed(rung.config, DIGITS if TINY.value else {"data.root": DATA.value}))
        require(TINY.value or Path(INCEPTION.value).exists(), f"--inception={INCEPTION.value} is not there")
        return ""
    except InputError as error:
        return str(error)


def peak_flops(queue):
    path = queue.directory / "speed" / "benchmark.json"
    peak = read_json(path)["peak_tflops"] if path.exists() else None
    return peak and 1e12 * peak


def arguments(name, fields, scale=False):
    """--config and the flags of fields that differ."""
    # KID, precision and recall are the host's work, and the accelerator would wait for it
    given = {"data.root": DATA.value, "eval.inception": INCEPTION.value, "eval.neighbours": 0} | fields
    given = {field: tuple(value) if isinstance(value, list) else value for field, value in given.items()}  # of JSON
    config = [] if scale else [f"--config=configs/{name}.py"]
    return config + [f"--config.{field}={value}" for field, value in given.items()]


if __name__ == "__main__":
    cli.run(main)
