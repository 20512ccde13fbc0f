"""The live page in a real browser, as `make live` builds it: its pictures against Python's, its time, its keyboard."""

import ast
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import cfg_jax
from cfg_jax.diffusion import samplers
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
    call = ast.parse(page.inner_text("#python"), mode="eval").body
    assert ast.unparse(call.func) == "cfg_jax.load('digits').sample" and [*map(ast.unparse, call.args)] == ["range(10)"]
    shown = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert_equal(found, cfg_jax.load("digits").sample(range(10), **shown))


def test_its_noise_is_jaxs(page):
    _, z = samplers.start(2**31 - 1, np.arange(3), (64,))
    script = """async () => {
        const { foldIn, key, normal } = await import('./noise.js');
        return [0, 1, 2].map(i => [...normal(foldIn(foldIn(key(2 ** 31 - 1), i), 0), 64)]);
    }"""
    np.testing.assert_allclose(page.evaluate(script), z, atol=1e-6)


def test_it_draws_step_by_step_and_hears_a_newer_request(page):
    ask(page, w=1, T=16, v=0.3, sampler="ancestral", rule="equation6")
    page.evaluate("el('T').value = 64; update()")
    page.wait_for_function("el('said').textContent.startsWith('Drawing')")
    before = page.evaluate("id")
    page.evaluate("el('T').value = 4; update()")
    page.wait_for_function(DONE)
    assert page.evaluate("live.drawn().id") == before + 1 and page.inner_text("#said") == ""


def test_a_held_picture_stays_beside_the_next(page):
    ask(page, w=1, T=4, v=0.3, sampler="ancestral", rule="equation6")
    page.click("#hold")
    pictures = "[...document.querySelectorAll('#held canvas')].map(canvas => canvas.toDataURL())"
    held, words = page.evaluate(pictures), page.inner_text("#held figcaption")
    assert held == page.evaluate(pictures.replace("held", "now")) and "w = 1, T = 4" in words
    ask(page, w=4, T=4)
    assert page.evaluate(pictures) == held and page.inner_text("#held figcaption") == words
    assert page.evaluate(pictures.replace("held", "now")) != held
    page.click("#hold")
    assert page.is_hidden("#held")


def test_the_keyboard_moves_w_and_the_score_follows(page):
    ask(page, w=1.1, T=16, v=0.3, sampler="ancestral", rule="equation6")
    assert "FID" not in page.inner_text("#now figcaption")
    page.focus("#w")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(DONE)
    assert page.get_attribute("#w", "aria-valuetext") == "w = 1"
    assert "FID 16.92 ± 0.98 and IS 9.99 ± 0.01 of 800 pictures." in page.inner_text("#now figcaption")
    assert page.get_attribute("#now canvas >> nth=3", "aria-label").startswith("3, w = 1, T = 16, Algorithm 2")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_window(browser, site, width, scheme):
    page = opened(browser, site, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.click("#hold")
    ask(page, "fashion_mnist_16", T=4)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert page.said == []
    page.close()


def test_it_asks_for_nothing_from_elsewhere(browser, site):
    context = browser.new_context()
    asked = []
    context.on("request", lambda request: asked.append(request.url))
    page = opened(context, site)
    assert all(url.startswith(site.removesuffix("index.html")) for url in asked) and len(asked) >= 6
    print(f"the first picture took {page.evaluate('live.first()') / 1000:.2f} s")
    context.close()


@pytest.mark.parametrize(
    "without, said",
    [("WebAssembly", "WebAssembly or workers are switched off"), ("Worker", "WebAssembly or workers are switched off")],
)
def test_it_says_what_the_browser_lacks(browser, site, without, said):
    page = browser.new_page()
    page.add_init_script(f"delete window.{without}")
    page.goto(site)
    assert page.inner_text("#said").startswith(said)
    page.close()


def test_opened_from_the_disk_it_says_what_to_run(browser):
    page = browser.new_page()
    page.goto((SOURCE / "index.html").as_uri())
    assert "run make live" in page.inner_text("#said")
    page.close()


def test_a_missing_network_is_one_line(browser, site):
    page = browser.new_page()
    page.route("**/digits.onnx", lambda route: route.fulfill(status=404))
    page.goto(site)
    page.wait_for_function("el('said').textContent.startsWith('The pictures cannot be drawn: ')")
    page.close()
