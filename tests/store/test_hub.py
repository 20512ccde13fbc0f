"""The hub's own client, against a server on this machine that answers as the hub does."""

import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import cfg_jax
from cfg_jax.errors import InputError
from cfg_jax.files import sha256_of
from cfg_jax.sampling.model import run_and_step
from cfg_jax.store import weights
from tests.running import ROOT, Commands

DIGITS = weights.PRETRAINED / "digits.safetensors"
REVISIONS = {"main": "a" * 40, "v1": "b" * 40, "300": "c" * 40}
FILES = ("model.safetensors", "few/steps.safetensors")


class Hub(BaseHTTPRequestHandler):
    """One model, me/digits, with two files at three revisions, and one that is gated."""

    def do_HEAD(self):
        asked = re.fullmatch(r"/(\w+/\w+)/resolve/(\w+)/(.+)", self.path)
        if not asked:  # whatever else the client may want to know
            return self.refuse(404, "")
        model, revision, file = asked.groups()
        if model == "me/gated":
            return self.refuse(403, "GatedRepo")
        if model != "me/digits":
            return self.refuse(404, "RepoNotFound")
        if revision not in REVISIONS:
            return self.refuse(404, "RevisionNotFound")
        if file not in FILES:
            return self.refuse(404, "EntryNotFound")
        self.send_response(200)
        self.send_header("ETag", f'"{sha256_of(DIGITS)}"')
        self.send_header("X-Repo-Commit", REVISIONS[revision])
        self.send_header("Content-Length", str(DIGITS.stat().st_size))
        self.end_headers()
        return True

    def do_GET(self):
        if self.do_HEAD():
            self.wfile.write(DIGITS.read_bytes())
            self.server.fetched.append(self.path)

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The paths that were fetched; the environment names the server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server, pytest.MonkeyPatch.context() as environment:
        server.fetched = []
        threading.Thread(target=server.serve_forever).start()
        environment.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        environment.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
        environment.setenv("NO_PROXY", "127.0.0.1")
        yield server.fetched
        server.shutdown()


@pytest.fixture(scope="module")
def online(hub):
    commands = Commands()
    yield commands.run
    commands.close()


@pytest.mark.parametrize("name", ["", "@300", "@v1/few/steps.safetensors"])
def test_a_name_of_the_hub_is_a_file(hub, online, tmp_path, name):
    done = online("export", f"--run=hf://me/digits{name}", f"--out={tmp_path}/m.safetensors")
    assert done.returncode == 0, done.stderr
    assert cfg_jax.load(tmp_path / "m.safetensors").digest == cfg_jax.load("digits").digest


@pytest.mark.slow
def test_it_guides_and_is_fetched_once(hub, online, tmp_path):
    name = "hf://me/digits@main/few/steps.safetensors"
    sample = "--labels=3", "--num_steps=2", "--w=1", f"--out={tmp_path}/grid.png"
    done = online("sample", f"--run={name}", f"--guide={name}", *sample)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "grid.png").exists()
    assert online("sample", f"--run={name}", *sample).returncode == 0
    assert len(hub) == 1  # of one digest


def test_a_number_after_a_name_of_the_hub_is_its_revision():
    assert run_and_step("hf://me/digits@300") == ("hf://me/digits@300", None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("me/nothing", "there is no model me/nothing, or it is private: check the name, or hf auth login"),
        ("me/gated", r"the model is gated: ask for access at http://\S+/me/gated, then hf auth login"),
        ("me/digits@v2", "the model has no revision v2: name a branch, a tag or a commit"),
        ("me/digits/few.safetensors", r"no few\.safetensors: name one of its files, hf://me/digits/FILE\.safetensors"),
        ("me/digits/weights.bin", r"is no \.safetensors file, and only those are read: give hf://OWNER/NAME, "),
        ("me/digits/../m.safetensors", r"not in the cache, and not fetched \(.*\.\./m\.safetensors"),
        ("datasets/me/digits", "is a dataset of the hub, not a model: give hf://OWNER/NAME, "),
        ("digits", r"is no name of the hub \(.* must be 'namespace/name', got 'digits'\): give hf://OWNER/NAME, "),
        ("", r"is no name of the hub \(.*\): give hf://OWNER/NAME, "),
    ],
)
def test_what_the_hub_does_not_give_is_said_in_one_line(hub, online, name, said):
    done = online("sample", f"--run=hf://{name}", "--labels=3")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert re.match(f"error: hf://{name}:? .*{said}", done.stderr), done.stderr


@pytest.mark.slow
def test_without_a_network_what_is_cached_serves(hub, online, monkeypatch, tmp_path):
    assert online("export", "--run=hf://me/digits", f"--out={tmp_path}/m.safetensors").returncode == 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    program = "import cfg_jax; print(cfg_jax.load('hf://me/digits').step); cfg_jax.load('hf://me/digits@v2')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == f"{cfg_jax.load(DIGITS).step}\n", done.stderr
    assert re.search(r"InputError: hf://me/digits@v2: not in the cache, and not fetched \(.*offline.*\): go on when "
                     "online, or name a file that is here\n$", done.stderr), done.stderr  # fmt: skip


def test_without_the_extra_its_command_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"^hf://me/digits needs huggingface_hub: pip install 'cfg_jax\[hub\]'$"):
        cfg_jax.load("hf://me/digits")
