"""Four XLA devices on the CPU; small configs whose few programs every test shares."""

import os
import shutil
import signal
from pathlib import Path

# a test's programs run once or twice: compiling them with fewer of LLVM's optimizations takes two thirds of the time
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_default_matmul_precision", "highest")  # what a test computes itself; the networks ask for it

# the shapes and dtypes that the mathematics is annotated with are checked at every call
install_import_hook("cfg_jax.diffusion", "beartype.beartype")

# a shell ignores them for what it starts in the background, and nohup does: tests send them
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from configs import digits  # noqa: E402
from tests.running import Commands  # noqa: E402

MATH = {"test_guidance", "test_loss", "test_process", "test_samplers", "test_schedule"}


@pytest.fixture(autouse=True)
def strict(request):
    """The mathematics broadcasts no ranks and promotes no dtypes without saying so; flax and optax do."""
    if request.module.__name__.rpartition(".")[2] not in MATH:
        yield
        return
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


def tiny_config():
    """The digits config with a one-level network and a few steps."""
    config = digits.get_config()
    config.model.multipliers, config.model.num_blocks, config.model.attention_resolutions = (1,), 1, ()
    config.train.update(num_steps=4, batch_size=8, log_every=2, checkpoint_every=2, sample_every=4, warmup_steps=1)
    config.sampler.num_steps = 3
    config.eval.update(num_images=24, batch_size=8, splits=2, bootstrap=4, w=(0.0, 1.0))
    return config


@pytest.fixture
def tiny():
    return tiny_config()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The tiny config trained for its four steps, to be read and not changed: (config, run directory)."""
    from cfg_jax.training import trainer

    config, workdir = tiny_config(), tmp_path_factory.mktemp("run") / "tiny"
    trainer.train(config, workdir)
    return config, workdir


@pytest.fixture(scope="session")
def command():
    """command(name, *args) -> returncode, stdout, stderr of an experiment, without the seconds of its imports."""
    commands = Commands()
    yield commands.run
    commands.close()


@pytest.fixture(scope="module")
def browser():
    """A real one; the test is skipped where there is none."""
    path = shutil.which("chromium")
    if not path:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as p:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = p.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


SURVIVED = {}


@pytest.fixture
def faults():
    """faults(kind, number): so many were injected, and what was promised has been seen to hold."""

    def survived(kind, number):
        SURVIVED[kind] = SURVIVED.get(kind, 0) + number

    return survived


def pytest_terminal_summary(terminalreporter):
    for kind, number in SURVIVED.items():
        terminalreporter.write_line(f"survived {number:3d} x {kind}")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def fill(shapes, seed=0, scale=0.1):
    """Numbers in place of an initialiser that would have to be compiled."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: (scale * rng.standard_normal(a.shape)).astype(a.dtype), shapes)
