"""What surrounds a command: a user without a home, no devices, no locks, a reader that leaves, names of any kind."""

import csv
import errno
import html
import io
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout

import pytest
from matplotlib.figure import Figure

from cfg_jax import config as configs
from cfg_jax import files, plots, text
from cfg_jax.errors import InputError
from cfg_jax.sweep import report, spec
from cfg_jax.training import hosts
from experiments.helpers import cli
from tests.running import ROOT, TINY, line
from tests.several import start

SAMPLE = "sample", "--run=digits", "--labels=1", "--num_steps=2"
ESCAPES = "\x1b[2J\x1b]0;owned\x07", "\x9b2J", "a\rb", "a\x08b", "\u202eab", "a\u2028b", "\x7f", "\udcff"


def run(name, *args, env=None, **how):
    """The command in a process of its own; a variable that is None is taken out of its environment."""
    env = {key: value for key, value in (os.environ | {"JAX_NUM_CPU_DEVICES": "1"} | (env or {})).items() if value}
    return subprocess.run(line(name, *args), cwd=ROOT, env=env, capture_output=True, timeout=100, **how)


def one_line(done, *said):
    stderr = done.stderr.decode()
    assert done.returncode == 1 and stderr.startswith("error: ") and stderr.count("\n") == 1, stderr[-2000:]
    assert all(word in stderr for word in said), stderr


# runs a command as a user whom the system has no entry of, and so no home directory
NOBODY = """
import pwd, runpy, sys

def unknown(*_):
    raise KeyError

pwd.getpwuid = pwd.getpwnam = unknown
sys.argv = ["experiments/sample.py", *sys.argv[1:]]
runpy.run_module("experiments.sample", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("out", "said"), [("g.png", ""), ("~/g.png", "--out=~/g.png: there is no such home")])
def test_a_user_without_a_home_or_a_name(out, said, tmp_path):
    env = {key: value for key, value in os.environ.items() if key not in ("HOME", "USER", "LOGNAME")}
    env |= {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}
    script = [sys.executable, "-c", NOBODY, *SAMPLE[1:], f"--out={out}"]
    done = subprocess.run(script, cwd=tmp_path, env=env, capture_output=True, timeout=100)
    if said:
        return one_line(done, said)
    assert done.returncode == 0 and [*tmp_path.iterdir()] == [tmp_path / "g.png"], done.stderr[-2000:]


@pytest.mark.parametrize("name", ["sample", "bench.cost", "studies.laws"])
def test_a_command_that_is_run_by_its_file(name):
    path = f"experiments/{name.replace('.', '/')}.py"
    done = subprocess.run([sys.executable, path], cwd=ROOT, capture_output=True, timeout=100)
    one_line(done, f"python -m experiments.{name}")


@pytest.mark.slow
def test_no_devices_of_the_platform_that_is_asked_for(tmp_path):
    one_line(run(*SAMPLE, f"--out={tmp_path}/g.png", env={"JAX_PLATFORMS": "cuda"}), "JAX_PLATFORMS=cuda", "unset it")
    done = run("doctor", "--config=configs/digits.py", f"--workdir={tmp_path}", env={"JAX_PLATFORMS": "cuda"})
    said = done.stdout.decode()
    assert done.returncode == 1 and said.count("jax finds no devices (") == 1 and "AssertionError:" not in said, said
    assert said.count("not checked: jax finds no devices") >= 3


@pytest.mark.parametrize("count", ["0", "-1"])
def test_a_number_of_devices_that_is_none(count):
    one_line(run("report", "--sweep=nowhere", env={"JAX_NUM_CPU_DEVICES": count}), f"JAX_NUM_CPU_DEVICES={count}")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_terminals_of_few_characters(encoding):
    raw = io.BytesIO()
    terminal = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    with redirect_stdout(cli.Printer(terminal)):
        print("9.57 ± 0.84, λ, 数")
    said = raw.getvalue().decode(encoding)
    terminal.close()
    assert said == {"ascii": "9.57 \\xb1 0.84, \\u03bb, \\u6570\n"}.get(encoding, "9.57 ± 0.84, \\u03bb, \\u6570\n")


@pytest.mark.parametrize("name", ESCAPES)
def test_control_characters_are_shown_and_not_sent(name, capsys):
    with redirect_stdout(cli.Printer(sys.stdout)):
        print(f"class {name}\tof\n")
    said = capsys.readouterr().out
    assert said.count("\n") == 2 and said.endswith("\tof\n\n") and "\\" in said
    assert all(c.isprintable() or c in "\n\t" for c in said) and said == text.plain(f"class {name}\tof\n\n")
    assert text.plain("Ünï, 数, \t, ±\n") == "Ünï, 数, \t, ±\n"
    with pytest.raises(SystemExit):
        cli.fail(name)
    assert all(c.isprintable() for c in capsys.readouterr().err.rstrip("\n"))


def test_names_start_no_html_no_column_and_no_formula():
    for name in ("<script>alert(1)</script>", "a|b", "a\nb", "<img src=x onerror=alert(1)>", *ESCAPES):
        row, *_ = text.markdown([[name, "1"]]).splitlines()
        assert row.replace("\\|", "").count("|") == 3 and "<" not in row and all(c.isprintable() for c in row)
    shared = {"scores": {"fid_x": -1.5}, "spreads": {}, "resampled": {}, "w": -1.0}
    for name in ("=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", "\r=1"):
        (read,) = csv.DictReader(io.StringIO(report.results_csv([{"run": name, **shared}]), newline=""))
        assert read["run"] == f"'{name}" and read["w"] == "-1.0" and read["fid_x"] == "-1.5"
    (read,) = csv.DictReader(io.StringIO(report.results_csv([{"run": "a=1", **shared}])))
    assert read["run"] == "a=1"


@pytest.mark.parametrize("name", ["$", "$\\frac{$", "a$b$c", "$\\nosuch$", "100%", "_^{}", "<b>"])
def test_a_plot_takes_any_name(name):
    figure = plots.styled(Figure)()
    plots.styled(lambda: figure.subplots().set(title=name, xlabel=name))()
    assert plots.image(figure, "png") and html.escape(name).encode() in plots.image(figure, "svg")


def test_a_cell_s_name_fits_a_file_system(tmp_path):
    row = {"run": "r", "T": 8, "v": 0.3, "threshold": "static", "grid": "paper", "seed": 0, "w": 1.0, "weights": "ema"}
    row["guidance"] = "classifier-free"
    paths = set()
    for run_name in ("a" * 250, "ü" * 120, "a" * 251):
        for points in (2, 25):
            schedule = {"guidance.schedule_w": tuple(i / 7 for i in range(points))}
            paths.add(spec.cell_path(tmp_path, row | {"run": run_name} | schedule))
    for path in paths:
        with files.claimed(path) as mine:
            assert mine
            files.write_json(path, {})
    assert len(paths) == 6 and len([*(tmp_path / "cells").iterdir()]) == 6
    assert spec.cell_path(tmp_path, row).name == "r_T8_v0.3_static_paper_seed0_w1.json"  # as ever


@pytest.mark.parametrize("lack", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, None])
@pytest.mark.parametrize("hold", [files.only_one, lambda path: files.shared(path, "x"), files.claimed])
def test_a_system_without_locks_is_named(lack, hold, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(lack, os.strerror(lack))

    if lack:
        monkeypatch.setattr(files.fcntl, "flock", flock)
    else:
        monkeypatch.setattr(files, "fcntl", None)
    with pytest.raises(InputError, match=r"lock: (the file|this) system has no"), hold(tmp_path / "run"):
        pass


def test_a_model_is_loaded_where_there_is_no_fcntl():
    script = "import sys; sys.modules['fcntl'] = None; import cfg_jax; print(cfg_jax.load('digits').image_shape)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "(8, 8, 1)\n", done.stderr[-2000:]


def test_a_full_disk_names_the_file(tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError) as caught, files.whole_file(tmp_path / "table.md"):
        full()
    assert caught.value.filename == str(tmp_path / "table.md") and not [*tmp_path.iterdir()]
    (tmp_path / "a file").write_text("")
    with pytest.raises(OSError) as caught:
        files.write_atomic(tmp_path / "a file" / "x.json", "")
    assert str(tmp_path / "a file") in str(caught.value.filename) and ".tmp" not in str(caught.value)


def test_the_paths_of_a_config_are_those_of_flags(monkeypatch, tmp_path):
    from configs import digits

    monkeypatch.setenv("HOME", str(tmp_path))
    config = digits.get_config()
    config.data.root, config.init_from, config.eval.reference = "~/data", "hf://owner/name", "~"
    cli.localize(config)
    assert config.data.root == f"{tmp_path}/data" and config.eval.reference == str(tmp_path)
    assert config.init_from == "hf://owner/name" and cli.local_path("./~") == "./~"


def test_keep_checkpoints_may_change_and_its_digest_stays(tiny):
    other = tiny.copy_and_resolve_references()
    other.train.keep_checkpoints += 1
    assert not configs.differences(tiny, other) and configs.digest(tiny) != configs.digest(other)


def test_a_port_in_use_is_said():
    import socket

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} cannot be taken"):
            hosts.join(f"127.0.0.1:{port}", 2, 0)
    for coordinator in ("", ":1", "here", "here:", "here:x", "here:0", "here:65536", "here:-1"):
        with pytest.raises(InputError, match="give all three"):
            hosts.join(coordinator, 2, 0)


@pytest.mark.parametrize("after", [0.3, 0.7, 1.2, 2.0])
@pytest.mark.parametrize("name", ["sample", "train"])
def test_a_stop_while_a_command_starts(after, name, tmp_path):
    args = SAMPLE[1:] if name == "sample" else ("--config=configs/digits.py", f"--workdir={tmp_path}")
    process = start(name, *args, *([f"--out={tmp_path}/g.png"] if name == "sample" else []))
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    made = (tmp_path / "g.png").exists()  # sample may be quicker than the stop, which then has no line
    assert process.returncode in ((130, 0, -signal.SIGINT) if made else (130, 0)), stderr
    if stderr or not made:
        assert stderr.splitlines()[-1].endswith("the same command goes on from here"), stderr
    assert "Traceback" not in stderr, stderr


@pytest.mark.slow
def test_a_reader_that_leaves_costs_no_step(tmp_path):
    """All that train writes goes to a reader that takes one line."""
    train = line("train", "--config=configs/digits.py", *TINY, "--config.train.log_every=1", f"--workdir={tmp_path}")
    process = subprocess.Popen(train, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=100) == 0 and (tmp_path / "checkpoints" / "6").is_dir()
