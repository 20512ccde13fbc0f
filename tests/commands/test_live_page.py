"""The live page in a real browser, as `make live` builds it: its pictures against Python's, its time, its keyboard."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import cfg_jax
from tests.running import ROOT

SOURCE, BUILT = ROOT / "docs" / "live", ROOT / "_site" / "live"
DONE = "live.drawn()?.id === id"
RULES = {
    "equation6": {},
    "interval": {"logsnr_low": -3.0, "logsnr_high": 5.0},
    "zeroStar": {"guidance": "cfg_zero"},
    "rescaled": {"rescale": 0.7},
}
pytestmark = pytest.mark.slow


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of what make live built, with the page's own files as they are now."""
    if not (BUILT / "scores.json").exists():
        pytest.skip("the live page is not built: make live")
    root = tmp_path_factory.mktemp("live")
    for folder in (BUILT, SOURCE):
        for path in folder.iterdir():
            if path.suffix in (".html", ".js", ".mjs", ".wasm", ".onnx", ".json"):
                (root / path.name).unlink(missing_ok=True)
                (root / path.name).symlink_to(path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    server.server_close()


def opened(browser, site, **context):
    page = browser.new_page(**context)
    page.said = []
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("console", lambda message: page.said.append(message.text))
    page.goto(site)
    page.wait_for_function(DONE, timeout=60_000)
    return page


@pytest.fixture(scope="module")
def page(browser, site):
    """The page after its first picture, used without an error."""
    page = opened(browser, site)
    yield page
    assert page.said == []
    page.close()


def ask(page, model="digits", seed=0, **settings):
    """Set the page's controls and wait for the picture -> uint8 [10, side, side, 1]."""
    page.evaluate(
        """([model, noise, settings]) => {
            document.querySelector(`input[value=${model}]`).checked = true;
            for (const [name, value] of Object.entries(settings)) el(name).value = value;
            seed = noise;
            update();
        }""",
        [model, seed, settings],
    )
    page.wait_for_function(DONE, timeout=60_000)
    drawn = page.evaluate("live.drawn()")
    return np.uint8(drawn["grey"]).reshape(10, drawn["side"], drawn["side"], 1)


def assert_equal(found, wanted):
    """To a grey level."""
    np.testing.assert_array_less(np.abs(np.int32(found) - np.int32(wanted)), 2)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_its_digits_are_pythons(page, sampler, rule):
    found = ask(page, seed=3, w=1.5, T=8, v=0.3, sampler=sampler, rule=rule)
    assert_equal(found, cfg_jax.load("digits").sample(range(10), 1.5, 8, 3, sampler=sampler, v=0.3, **RULES[rule]))


def test_its_clothes_are_pythons(page):
    found = ask(page, "fashion_mnist_16", w=1.0, T=4, v=0.3, sampler="ancestral", rule="equation6")
    assert_equal(found, cfg_jax.load("fashion_mnist_16").sample(range(10), 1.0, 4))


@pytest.mark.parametrize("settings", [{"w": 0, "T": 3, "v": 0.8}, {"w": 2, "T": 4, "v": 0}])
def test_it_runs_the_python_that_it_shows(page, settings):
    found = ask(page, seed=5, sampler="ancestral", rule="zeroStar", **settings)
    assert_equal(found, eval(page.inner_text("#python"), {"cfg_jax": cfg_jax}))
