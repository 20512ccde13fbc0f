"""The files under experiments/launch/: their shells parse, their flags exist, and a stop is tried on them."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import pytest
import yaml

from cfg_jax import config as configs
from cfg_jax.errors import InputError
from cfg_jax.training import hosts, trainer
from experiments.launch import finished  # noqa: F401  nothing runs at import
from tests.running import ROOT
from tests.several import TINY

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
    jax.devices()  # which start without a coordinator
    monkeypatch.setattr(hosts.distributed.global_state, "client", Coordinator(**theirs))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match=r"differ: code=0.1.0 on process 0, 0.0.1 on process 1; config.data.card=\w+ "):
        trainer.train(tiny, tmp_path / "run")
    assert not [*tmp_path.iterdir()]
