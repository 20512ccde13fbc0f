"""The files under experiments/launch/: their shells parse, their flags exist, and a stop is tried on them."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import jax
import numpy as np
import pytest
import yaml
from PIL import Image

from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.training import hosts, trainer
from experiments.launch import finished, pack  # noqa: F401  nothing runs at import
from tests.several import ROOT, TINY

LAUNCH = ROOT / "experiments" / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_parse_and_can_be_run(path):
    assert subprocess.run(["bash", "-n", path], capture_output=True).returncode == 0
    assert os.access(path, os.X_OK)


def test_the_jobset_asks_for_what_train_takes():
    spec = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    job = spec["spec"]["replicatedJobs"][0]
    pods, [container] = job["template"]["spec"], job["template"]["spec"]["template"]["spec"]["containers"]
    script, *args = container["command"]
    assert (ROOT / script).exists()
    given = dict(arg.removeprefix("--").split("=", 1) for arg in args)
    assert int(given["num_processes"]) == pods["completions"] == pods["parallelism"]
    name = spec["metadata"]["name"]
    assert given["coordinator"] == f"{name}-{job['name']}-0-0.{name}:8476"  # JobSet's name for the first pod
    known = subprocess.run(
        [sys.executable, "-m", "experiments.train", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    for flag in given:
        assert flag.startswith("config.") or f"--{flag}:" in known.stdout or f"--[no]{flag}:" in known.stdout, flag
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pods["template"]["spec"]["volumes"]
    }


def environment(tmp_path, **fakes):
    """PATH with programs of a cluster in front that are not here."""
    for name, script in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": sys.executable}


@pytest.mark.faults
def test_pod_and_slurm_go_on_after_a_stop_and_end_when_all_is_done(tmp_path):
    flags = ["--config=configs/digits.py", f"--workdir={tmp_path / 'run'}", *TINY, "--config.train.num_steps=3000"]
    env = environment(tmp_path, srun='shift 2; exec "$@"', scontrol=f"echo $@ > {tmp_path / 'asked'}")
    process = subprocess.Popen(
        [LAUNCH / "pod.sh", *flags, "--config.train.log_every=1"], env=env, stdout=subprocess.PIPE
    )
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert "of 3000" in process.communicate(timeout=60)[0].decode() and process.returncode == 75
    step = int(max((tmp_path / "run" / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name)).name)
    rest = [*flags, f"--config.train.num_steps={step + 1}"]
    slurm = env | {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "17"}
    environment(tmp_path, srun="exit 134")  # as after bad input, or where it fails again
    assert subprocess.run(["bash", LAUNCH / "slurm.sh", *rest], env=slurm).returncode == 1
    assert not (tmp_path / "asked").exists()
    further = tmp_path / "run" / "checkpoints" / str(step + 1)
    environment(tmp_path, srun=f"mkdir {further}; exit 75")  # it got on, then a process was lost
    subprocess.run(["bash", LAUNCH / "slurm.sh", *flags], env=slurm, check=True)
    assert (tmp_path / "asked").read_text() == "requeue 17\n"
    (tmp_path / "asked").unlink()
    further.rmdir()
    environment(tmp_path, srun='shift 2; exec "$@"')
    subprocess.run(["bash", LAUNCH / "slurm.sh", *rest], env=slurm, check=True)
    assert not (tmp_path / "asked").exists()
    done = subprocess.run([LAUNCH / "workstation.sh", *rest], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and f"is done: step {step + 1} of {step + 1}" in done.stderr


def packed(out, *args):
    return subprocess.run(
        [sys.executable, "-m", "experiments.launch.pack", f"--out={out}", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def unpacked(parts, into):
    """By a Python that sees none of the packages that are installed here but pip and the project's own."""
    command = [sys.executable, LAUNCH / "unpack.py", f"--parts={parts}", f"--into={into}"]
    return subprocess.run(command, capture_output=True, text=True)


def test_what_is_packed_is_put_in_place(tmp_path):
    """The code in parts of a MiB: each is small, and all of it comes out as it was; a second time changes nothing."""
    done = packed(tmp_path / "carry", "--part_mib=4")
    assert done.returncode == 0, done.stderr
    parts = sorted((tmp_path / "carry").glob("part*.tar"))
    assert len(parts) > 1 and all(part.stat().st_size <= 4 * 2**20 for part in parts)
    assert (tmp_path / "carry" / "unpack.py").read_text() == (LAUNCH / "unpack.py").read_text()
    for _ in range(2):
        done = unpacked(tmp_path / "carry", tmp_path / "there")
        assert done.returncode == 0 and f"cd {tmp_path / 'there'}" in done.stdout, done.stderr
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    pictures = (".png", ".svg")
    carried = [name for name in tracked if not name.startswith("experiments/results/") and not name.endswith(pictures)]
    for name in carried:
        if (ROOT / name).is_file():
            assert (tmp_path / "there" / name).read_bytes() == (ROOT / name).read_bytes(), name
    assert os.access(tmp_path / "there" / "experiments/launch/pod.sh", os.X_OK)


def test_pictures_are_carried_as_they_are_and_prepared_there(tmp_path):
    source = tmp_path / "source"
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        for label in ("n01", "n02"):
            (source / split / label).mkdir(parents=True)
            for i in range(count):
                picture = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
                picture.save(source / split / label / f"{label}_{i}.JPEG")
    done = packed(tmp_path / "carry", f"--tiny_imagenet={source}", "--per_class=3")
    assert done.returncode == 0, done.stderr
    done = unpacked(tmp_path / "carry", tmp_path / "there")
    assert done.returncode == 0 and "data/tiny_imagenet: ready" in done.stdout, done.stderr
    card = json.loads((tmp_path / "there" / "data" / "tiny_imagenet" / "card.json").read_text())
    assert card["counts"] == {"train": 6, "validation": 4} and card["class_names"] == ["n01", "n02"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--tiny_imagenet=nowhere"], "--tiny_imagenet=nowhere does not exist"),
        (["--nocode"], "nothing to pack"),
        (["--part_mib=1"], "raise --part_mib"),
    ],
)
def test_what_cannot_be_packed(tmp_path, args, said):
    done = packed(tmp_path / "carry", *args)
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "carry").exists()


@pytest.mark.parametrize("damage", ["flipped", "short", "outside", "link", "none"])
def test_a_damaged_part_is_not_put_in_place(tmp_path, damage):
    contents = {"a.txt": b"first" * 300, "b/c.txt": b"second" * 300}
    (tmp_path / "from").mkdir()
    for name, content in contents.items():
        (tmp_path / "from" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "from" / name).write_bytes(content)
    part = tmp_path / "part1.tar"
    pack.write_part(part, [tmp_path / "from" / name for name in contents], tmp_path / "from")
    raw = part.read_bytes()
    if damage == "flipped":
        part.write_bytes(raw.replace(b"secondsecond", b"sXcondsecond", 1))
    elif damage == "short":
        part.write_bytes(raw[: raw.index(b"secondsecond") - 512])
    elif damage in ("outside", "link"):
        with tarfile.open(part, "a") as tar:
            member = tarfile.TarInfo("../outside.txt" if damage == "outside" else "link")
            member.type = tarfile.SYMTYPE if damage == "link" else tarfile.REGTYPE
            member.linkname = "/etc/passwd"
            tar.addfile(member)
    done = unpacked(tmp_path, tmp_path / "into")
    assert (done.returncode == 0) == (damage == "none")
    assert not (tmp_path / "outside.txt").exists() and not (tmp_path / "into" / "link").is_symlink()
    if damage != "none":
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr


def test_the_list_of_what_is_there():
    done = subprocess.run([sys.executable, LAUNCH / "unpack.py", "--list"], capture_output=True, text=True)
    there = json.loads(done.stdout)
    assert there["packages"]["jax"] and there["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")


class Coordinator:
    """jax's, where another process has said its settings already."""

    def __init__(self, **theirs):
        self.said = json.dumps(theirs)

    def key_value_set(self, key, value):
        self.own = value

    def blocking_key_value_get(self, key, timeout_ms):
        return self.said if key.endswith("/1") else self.own

    def wait_at_barrier(self, key, timeout_ms):
        pass


def test_training_compares_what_processes_were_given(tiny, tmp_path, monkeypatch):
    """Also versions, and data that a directory of the same name holds, before anything is written."""
    theirs = {"code": "0.0.1", "jax": jax.__version__, "workdir": str(tmp_path / "run")}
    theirs |= {f"config.{field}": str(value) for field, value in configs.flat(tiny).items()}
    monkeypatch.setattr(hosts.distributed.global_state, "client", Coordinator(**theirs))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match=r"differ: code=0.1.0 on process 0, 0.0.1 on process 1; config.data.card=\w+ "):
        trainer.train(tiny, tmp_path / "run")
    assert not [*tmp_path.iterdir()]
