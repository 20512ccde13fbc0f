"""Commands with flags drawn at random: python -m tests.hostile.fuzz_flags SECONDS [SEED]. pytest does not collect it.

A command is given what it requires, and flags of its own with values of wrong kinds, or with every limit that a
stranger may think of. It passes if it ends in one line of error or well, or still works after PATIENCE seconds where
its flags were let through and work is what it should do: `begun` tells. A traceback, more than one line, or silence
before the flags are through is a find. Each find is printed as the command line that makes it.
"""

import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.running import ROOT, Commands

PATIENCE = 10  # seconds
WORDS = """
0 -0 1 -1 2 0.5 1e400 nan inf -inf NaN 1e6 99999999999999999999 2147483648 1,2 1,,2 , 0:2 2:0 : 1:nan a None True [] ()
(1,) {} ' " $x$ $ =1+1 ~ ~/x ~nobody/x gs://b/x s3://b/x hf:// hf://a https://x.org/y file:///etc/passwd /dev/zero
/dev/null /dev/full /proc/self/mem /proc/x . .. a/../b 数 é <script> | ` %s {x} -- - --x digits pretrained x.png x.npz
x.json x.md x.safetensors x.jpg v5e:2x2
"""
MAGIC = ("", *WORDS.split(), "a\nb", "a\tb", "\x1b[2J", "\x07", "\u202e", "\udcff", "a" * 300, "a/" * 300)
SUFFIXES = ("", ".png", ".npz", ".json", ".md", ".safetensors", ".jpg", ".txt", "/x", "@3", "@x", "@-1")
SETTINGS = "v w seed self sampler guidance threshold grid num_steps momentum particles schedule_w"
FIELDS = """
seed p_uncond data.name data.root data.card model.channels model.multipliers model.dtype train.batch_size x
train.num_steps train.averages train.learning_rate sampler.name sampler.num_steps guidance.rounds guidance.schedule_w
eval.w eval.num_images eval.reference objective.predicts teacher.how teacher.run init_from
"""
DIGITS = f"--config={ROOT}/configs/digits.py"
# a command with what it requires, small where it would work; {t} is a folder with files of wrong kinds
COMMANDS = {
    "train": f"{DIGITS} --workdir={{t}}/new --config.p_uncond=2",
    "train_classifier": f"{DIGITS} --workdir={{t}}/new --config.p_uncond=2",
    "sweep": f"{DIGITS} --runs=digits --workdir={{t}}/sweep --config.eval.num_images=1",
    "frontier": f"{DIGITS} --runs=digits --out={{t}}/frontier --config.eval.num_images=1",
    "report": "--sweep={t}",
    "results": f"{DIGITS} --sweep={{t}} --out={{t}}/o",
    "sample": "--run=digits --labels=1 --num_steps=1 --out={t}/g.png",
    "score": "--samples={t}/s.npz --reference={t}/s.npz",
    "export": "--run=digits --out={t}/m.safetensors",
    "fetch_inception": "--from_file={t}/s.npz --out={t}/i.npz",
    "import_adm": "--checkpoint={t}/64x64_diffusion.pt --out={t}/adm",
    "import_jit": "--checkpoint={t}/64x64_diffusion.pt --out={t}/jit",
    "doctor": f"{DIGITS} --config.p_uncond=2",
    "distill": "--run=digits --workdir={t}/student --w=9:1",
    "reflow": "--run={t}/no --workdir={t}/flow",
    "prepare_data": "--dataset=folder --size=8 --resize=area --source={t} --out={t}/data",
    "paper": "--scale=digits --table=1 --plan",
    "reference_stats": "--dataset=nothing --out={t}/r.npz",
    "bench.cost": DIGITS,
    "bench.speed": f"{DIGITS} --config.p_uncond=2 --out={{t}}/b.json",
    "bench.compile": f"{DIGITS} --target=nothing --out={{t}}/c.md",
    "bench.exact": f"{DIGITS} --config.p_uncond=2 --out={{t}}/e.md",
    "studies.bias": f"{DIGITS} --out={{t}}/b.png",
    "studies.capacity": f"{DIGITS} --config.p_uncond=2 --out={{t}}/o",
    "studies.objectives": f"{DIGITS} --config.p_uncond=2 --out={{t}}/o",
    "studies.losses": f"{DIGITS} --config.p_uncond=2 --out={{t}}/o",
    "studies.density": "--run={t}/no --out={t}/o --num_samples=100 --num_steps=2",
    "studies.curl": "--run={t}/no --out={t}/o",
    "studies.likelihood": "--run={t}/no --out={t}/o",
    "studies.precision": "--run={t}/no",
    "studies.temperature": "--run={t}/no --out={t}/o",
    "studies.ema": "--runs={t}/no --out={t}/o",
    "studies.onepass": "--runs={t}/no --out={t}/o",
    "studies.rectified": "--runs={t}/no --out={t}/o",
    "studies.gaussians": "--out={t}/o --num_samples=7",
}


def flags_of(command, name):
    """The names of a command's flags, by its --help."""
    said = command(name, *COMMANDS[name].replace("{t}", "/tmp").split(), "--helpshort", timeout=60).stdout
    return [flag for flag in re.findall(r"^\s+--(?:\[no\])?(\w+):", said, re.MULTILINE) if "help" not in flag]


def value(rng, t):
    text = rng.choice((*MAGIC, *map(str, t.iterdir()), f"{t}/new", str(t)))
    outside = text.startswith("/") and not text.startswith(str(t))  # where nothing of ours may come to lie
    return text + rng.choice(SUFFIXES) if rng.random() < 0.3 and not outside else text


def drawn(rng, name, flags, t):
    """A command line's flags: what the command requires, then one to three that are drawn."""
    args = COMMANDS[name].replace("{t}", str(t)).split()
    for _ in range(rng.randint(1, 3)):
        flag, text = rng.choice(flags), value(rng, t)
        if "config" in flags and rng.random() < 0.3:
            flag = f"config.{rng.choice(FIELDS.split())}"
        elif flag == "set":
            text = f"{rng.choice(SETTINGS.split())}={text}"
        elif flag in ("vary", "curve"):
            group = rng.choice(("sampler", "guidance", "eval"))
            text = ("a: " if flag == "curve" else "") + f"{group}.{rng.choice(SETTINGS.split())}={text}"
        args.append(f"--{flag}={text}" if rng.random() < 0.95 else f"--{flag}")
    return args


def folder(t):
    """Files and folders of wrong kinds."""
    for name in ("s.npz", "a.png", "64x64_diffusion.pt", "empty.json"):
        (t / name).write_bytes(b"")
    (t / "list.json").write_text("[1]")
    (t / "text.py").write_text("def get_config(:")
    (t / "none.py").write_text("def get_config(): return None")
    (t / "a folder").mkdir()
    (t / "link").symlink_to(t / "nowhere")
    return t


def verdict(done, took):
    """What is wrong with how a command ended, "" for nothing."""
    if done.returncode == -9:
        return f"silent for {took:.0f} s" if not done.stderr and not done.stdout else ""
    if "Traceback" in done.stderr or done.returncode not in (0, 1, 130):
        return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    lines = done.stderr.splitlines()
    if done.returncode == 1 and lines and not lines[-1].startswith("error: "):
        return lines[-1]
    control = [c for c in done.stderr + done.stdout if not c.isprintable() and c not in "\n\t\r"]
    return f"prints {control[0]!r}" if control else ""


def main(seconds, seed=0):
    rng, finds, count = random.Random(seed), {}, 0
    directory = tempfile.mkdtemp()
    os.environ |= {"HOME": directory, "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "xla")}
    commands, t = Commands(), folder(Path(directory))
    here = t / "a folder" / "here"
    here.mkdir()
    flags = {name: flags_of(commands.run, name) for name in COMMANDS}
    assert all(flags.values()), [name for name in flags if not flags[name]]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        name = rng.choice(list(COMMANDS))
        args, began = drawn(rng, name, flags[name], t), time.monotonic()
        done = commands.run(name, *args, timeout=PATIENCE, cwd=here)
        count += 1
        wrong = verdict(done, time.monotonic() - began)
        if wrong and (key := re.sub(r"[\d'\"]+|/tmp/\S+", "#", f"{name} {wrong}")) not in finds:
            finds[key] = args
            print(json.dumps([name, *args])[-1500:], "->", wrong[:300], flush=True)
    commands.close()
    shutil.rmtree(directory)
    print(f"{count} command lines in {seconds} s, seed {seed}: {len(finds)} finds")
    return len(finds)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *map(int, sys.argv[2:])) > 0)
