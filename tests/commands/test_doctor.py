import json
import math
import subprocess
import sys
import time
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.errors import InputError
from cfg_jax.files import write_npz
from cfg_jax.models import inception
from cfg_jax.perf import kernels
from experiments import doctor
from tests.running import ROOT, run


def by_check(done):
    """{check: (pass or FAIL, the rest)} of what the command printed."""
    return {line[6:23].strip(): (line[:4], line[24:]) for line in done.stdout.splitlines()}


@pytest.mark.slow
def test_a_machine_that_can_run_digits(tmp_path):
    done = run("doctor", "--config=configs/digits.py", f"--workdir={tmp_path / 'new' / 'run'}")
    lines = by_check(done)
    assert list(lines) == [check.__name__.replace("_", " ") for check in doctor.CHECKS], done.stderr
    failed = [name for name, (outcome, _) in lines.items() if outcome != "pass"]
    assert failed in ([], ["devices"]), done.stdout  # an accelerator may be there that this jax does not use
    assert done.returncode == len(failed)
    assert "1,797 images" in lines["data"][1] and "float32 8x8x8x32 3x3x32x32" in lines["convolution"][1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_whatever_is_wrong_is_said_with_its_remedy(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "Makefile/xla")
    done = run(
        "doctor", "--config=configs/digits.py", "--workdir=Makefile/run", "--config.data.name=cifar",
        "--config.train.batch_size=10000001", "--config.train.accumulate=4", "--config.eval.features=inception",
        "--config.eval.inception=nowhere.npz", "--config.eval.reference=nowhere.npz",
    )  # fmt: skip
    remedies = {
        "settings": "config.train.batch_size=10000001 must be a multiple of",
        "memory": "a smaller config.train.batch_size",
        "data": "make it with experiments.prepare_data --out=data/cifar",
        "reference": "give a file of experiments.reference_stats",
        "features": "python -m experiments.fetch_inception --out=nowhere.npz",
        "write permission": "Makefile: Not a directory: choose a --workdir",
        "compile cache": "set JAX_COMPILATION_CACHE_DIR",
    }
    lines = by_check(done)
    assert done.returncode == 1
    assert {name for name, (outcome, _) in lines.items() if outcome == "FAIL"} - {"devices"} == {*remedies}, done.stdout
    for name, remedy in remedies.items():
        assert remedy in lines[name][1]


def reference_of(path, image_shape):
    """As experiments.reference_stats writes them."""
    about = {"distances": ["fid_digits"], "N": 8, "image_shape": image_shape, "features": "digits"}
    about |= dict.fromkeys(("data", "card", "split", "resize"), "a")
    arrays = {"mu_digits": np.zeros(3), "sigma_digits": np.eye(3), "arr_0": np.zeros((4, *image_shape), np.uint8)}
    write_npz(path, arrays | {"about": np.array(json.dumps(about))})
    return str(path)


def test_a_reference_is_looked_at(tiny, tmp_path):
    assert doctor.reference(tiny) == "of the training images, taken by the first sweep"
    tiny.eval.reference = reference_of(tmp_path / "own.npz", (8, 8, 1))
    assert doctor.reference(tiny) == f"{tmp_path / 'own.npz'}: fid_digits"
    tiny.eval.reference = reference_of(tmp_path / "other.npz", (32, 32, 3))
    with pytest.raises(InputError, match=r"other\.npz is of pictures of \(32, 32, 3\), not of \(8, 8, 1\)"):
        doctor.reference(tiny)
    write_npz(tmp_path / "published.npz", {"mu": np.zeros(3), "sigma": np.eye(3)})  # of no known shape
    tiny.eval.reference = str(tmp_path / "published.npz")
    assert doctor.reference(tiny).endswith("published.npz: fid_inception")


def test_features_of_inception_are_read(tiny, monkeypatch):
    assert doctor.features(tiny).startswith("of a feature classifier of the data")
    monkeypatch.setattr(inception, "load", lambda path: (None, None, "0123456789abcdef"))
    tiny.eval.update(features="inception", inception="i.npz")
    assert doctor.features(tiny) == "i.npz: Inception, sha256 0123456789ab"


def test_a_cache_of_programs(tmp_path):
    before = doctor.jax.config.jax_compilation_cache_dir
    try:
        for directory, said in (
            (None, InputError), ("gs://bucket/xla", "remote, not tried"), (str(tmp_path), "0 programs")
        ):  # fmt: skip
            doctor.jax.config.update("jax_compilation_cache_dir", directory)
            if said is InputError:
                with pytest.raises(InputError, match="no directory keeps compiled programs"):
                    doctor.compile_cache(None)
            else:
                assert said in doctor.compile_cache(None)
    finally:
        doctor.jax.config.update("jax_compilation_cache_dir", before)


def test_memory_that_no_device_tells(tiny, monkeypatch):
    monkeypatch.setattr(doctor.jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(doctor.meshes, "memory", lambda devices: math.inf)
    tiny.train.fsdp = 4
    assert doctor.memory(tiny).endswith("the device does not report its memory")


def test_it_goes_on_after_any_error(monkeypatch, capsys):
    def broken(_):
        raise RuntimeError("first line\nsecond line")

    def fine(config):
        return f"found {config}"

    monkeypatch.setattr(doctor, "CHECKS", (broken, fine))
    monkeypatch.setattr(doctor, "CONFIG", SimpleNamespace(value="it"))
    with pytest.raises(SystemExit) as stop:
        doctor.main()
    assert stop.value.code == 1
    assert capsys.readouterr().out == f"FAIL  {'broken':17} RuntimeError: first line\npass  {'fine':17} found it\n"


def test_versions_are_judged_where_flax_does_not_import(monkeypatch):
    code = "import sys; sys.modules['flax'] = None; import experiments.doctor"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = doctor.metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "0.12.9" if name == "flax" else found(name))
    with pytest.raises(InputError, match=r"flax 0\.12\.9 is not .*: python -m pip install -r requirements.txt"):
        doctor.versions(None)

    def without_optax(name):
        if name == "optax":
            raise doctor.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(doctor.metadata, "version", without_optax)
    with pytest.raises(InputError, match="optax is missing"):
        doctor.versions(None)


def test_an_accelerator_that_jax_does_not_use(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "ACCELERATORS", {"tpu": (str(tmp_path / "accel0"), "no-such-program")})
    assert doctor.devices(None).startswith("4 x cpu, 4 of them in process 0 of 1")
    (tmp_path / "accel0").touch()
    with pytest.raises(InputError, match=r'accel0 is there, but jax runs on the CPU: .*"jax\[tpu\]"'):
        doctor.devices(None)

    def unknown():
        raise AssertionError

    monkeypatch.setattr(doctor.jax, "default_backend", unknown)
    with pytest.raises(InputError, match=r"jax finds no devices \(AssertionError\): unset JAX_PLATFORMS"):
        doctor.devices(None)


@pytest.mark.slow
def test_all_reduce(monkeypatch, tiny):
    assert "MiB over 4 devices" in doctor.all_reduce(tiny)
    monkeypatch.setattr(doctor.jnp, "ones", jnp.zeros)
    with pytest.raises(InputError, match=r"ones summed over 4 devices are not 4 on .*: update the driver"):
        doctor.all_reduce(tiny)


@pytest.mark.parametrize("factor", [1.02, jnp.nan])
def test_a_kernel_that_is_wrong_in_bfloat16(tiny, factor):
    tiny.model.dtype = "bfloat16"
    assert "bfloat16 2x3 3x4: " in kernels.kernel(tiny, jnp.matmul, (2, 3), (3, 4))
    wrong = lambda a, b: (a @ b) * (factor if a.dtype == jnp.bfloat16 else 1)  # noqa: E731
    with pytest.raises(InputError, match=r"from float32's result, the limit is 0\.01: .*config\.model\.dtype=float32"):
        kernels.kernel(tiny, wrong, (2, 3), (3, 4))


@pytest.mark.slow
def test_parts_of_a_batch_need_less_memory(monkeypatch, tiny):
    tiny.train.batch_size = 4096
    gib = float(doctor.memory(tiny).split("about ")[1].split()[0])
    pages = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 4 * gib * doctor.GIB / 2}  # half of it for each of the four
    monkeypatch.setattr(doctor.os, "sysconf", pages.get)
    with pytest.raises(InputError, match=r"for 1,024 images on a device, which has .*: a smaller"):
        doctor.memory(tiny)
    tiny.train.accumulate = 4
    assert "for 256 images" in doctor.memory(tiny)


def test_room_for_the_checkpoints(monkeypatch, tmp_path, tiny):
    from cfg_jax.perf import cost

    each = 16 * cost.num_parameters(tiny)
    monkeypatch.setattr(doctor, "WORKDIR", SimpleNamespace(value=tmp_path / "run"))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * each))
    assert f"in {tmp_path} for 3 checkpoints" in doctor.disk(tiny)
    tiny.train.keep_every = 4
    with pytest.raises(InputError, match=r"for 4 checkpoints.*: make room"):
        doctor.disk(tiny)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "4").write_bytes(b"x" * each)  # one of the four
    assert "for 4 checkpoints" in doctor.disk(tiny)


def test_clocks_of_several_hosts(monkeypatch):
    assert doctor.clock_skew(None) == "one host"
    others = [0, 3]
    monkeypatch.setattr(doctor.jax, "process_count", lambda: 1 + len(others))
    monkeypatch.setattr(doctor.multihost_utils, "sync_global_devices", lambda _: None)
    monkeypatch.setattr(doctor.multihost_utils, "process_allgather", lambda own: gather(own, others))
    assert doctor.clock_skew(None) == "3.00 s at most between 3 processes"
    others[0] = -61
    with pytest.raises(InputError, match=r"processes 2 and 1 have clocks 64\.0 s apart: run NTP"):
        doctor.clock_skew(None)


def gather(own, offsets):
    """`own` minutes and ms, and those of clocks that are some seconds off."""
    assert own.dtype == "int32" and abs(own @ [60, 0.001] - time.time()) < 1
    return jnp.stack([own, *[own + jnp.array([0, 1000 * offset]) for offset in offsets]])
