"""docs/plane.html in a real browser: its velocities against ours, its knobs, its width."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfg_jax.diffusion import flow, guidance
from cfg_jax.models.mixture import Mixture
from tests.running import ROOT

PAGE = ROOT / "docs" / "plane.html"
NONE = 2
pytestmark = pytest.mark.slow
DEFAULTS = {"s": "3", "t": "0.5", "steps": "32", "distance": "1.6"}


@pytest.fixture
def page(browser):
    """The page, which must load, and be used, without an error or a request."""
    page = browser.new_page()
    said, requests = [], []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(PAGE.as_uri())
    yield page
    assert said == [] and requests == [PAGE.as_uri()]
    page.close()


def put(page, name, value):
    page.evaluate(
        "([name, value]) => { const e = document.getElementById(name); e.value = value;"
        " e.dispatchEvent(new Event('input', { bubbles: true })); }",
        [name, value],
    )


def ends(page):
    return np.array(page.evaluate("plane.endpoints()"))


def ours(page):
    """eps of the page's classes and, with the null label 2, of both."""
    laws = [np.float32(law) for law in page.evaluate("plane.laws()")]
    mixtures = [Mixture(law[:, :2], law[:, 2], jnp.full(len(law), 1 / len(law))) for law in laws]

    def eps_fn(z, logsnr, c):
        of_all = jnp.stack([m.eps_fn(z, logsnr, jnp.full(len(z), m.null)) for m in mixtures])
        return of_all[c, jnp.arange(len(z))]

    return laws, eps_fn


def euler(page, num_steps, w):
    """Where our Euler ends from the page's noise, class 1."""
    velocity = flow.velocity_fn(guidance.guided(ours(page)[1], w, NONE))
    z = jnp.float32(page.evaluate("plane.noise()"))
    return flow.euler(velocity, z, jnp.zeros(len(z), int), np.linspace(0, 1, num_steps + 1))[-1]


def test_the_page_refers_to_nothing_outside():
    text = PAGE.read_text()
    assert not re.search(r"http|\bsrc\b|<link|@import|url\(|\bfetch\b|XMLHttp|\bimport\b", text)
    assert text.count("<script>") == 1


@pytest.mark.parametrize("distance", [0.4, 1.6])
def test_its_velocity_is_that_of_the_guided_mixture(page, distance):
    put(page, "distance", distance)
    eps_fn = ours(page)[1]
    velocity = jax.jit(lambda z, t, c, w: flow.velocity_fn(guidance.guided(eps_fn, w, NONE))(z, t, c))
    z = np.float32([[0.3, -0.2], [-1.4, 1.1], [0.6, 2.0], [2.5, -2.5]])
    labels = [0, 1, NONE, 0]
    for t in (0.05, 0.4, 0.8, 0.98):
        for s in (0.0, 1.0, 2.5, 8.0):
            script = "([z, t, c, s]) => z.map((z, i) => plane.velocity(z, t, c[i], s))"
            theirs = page.evaluate(script, [z.tolist(), t, labels, s])
            np.testing.assert_allclose(theirs, velocity(z, t, jnp.int32(labels), s - 1), atol=1e-3, err_msg=f"{t} {s}")


def test_its_end_points_are_those_of_eulers_path(page):
    put(page, "steps", 16)
    np.testing.assert_allclose(ends(page), euler(page, 16, 2.0), atol=5e-3)


def test_one_step_leads_from_all_noise_to_the_guided_mean(page):
    put(page, "steps", 1)
    one, _, both = (law[:, :2].mean(0) for law in ours(page)[0])
    np.testing.assert_allclose(ends(page), np.tile(both + 3 * (one - both), (400, 1)), atol=1e-5)


def test_the_keyboard_moves_the_scale_and_the_points_follow(page):
    before, said = ends(page), page.get_attribute("#canvas", "aria-label")
    page.focus("#s")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#s-now") == page.get_attribute("#s", "aria-valuetext") == "s = 3.25, w = 2.25"
    moved = np.abs(ends(page) - before).max()
    assert moved > 0.01 and page.get_attribute("#canvas", "aria-label") != said
    page.keyboard.press("ArrowLeft")
    np.testing.assert_array_equal(ends(page), before)
    page.focus("input[name=c] >> nth=0")
    page.keyboard.press("ArrowDown")
    assert page.is_checked("input[name=c] >> nth=1") and "class 1" in page.inner_text("#numbers")


def test_scale_0_asks_for_no_class_and_1_for_the_class_alone(page):
    at = {}
    for c in (0, NONE):
        page.check(f"input[name=c] >> nth={c}")
        for s in (0, 1, 4):
            put(page, "s", s)
            at[c, s] = ends(page)
    np.testing.assert_allclose(at[0, 0], at[NONE, 1], atol=1e-9)
    np.testing.assert_allclose(at[NONE, 4], at[NONE, 1], atol=1e-9)
    alone = euler(page, 32, 0.0)
    np.testing.assert_allclose(at[0, 1], alone, atol=5e-3)
    sides = (at[0, 0][:, 0] > 0).mean(), (at[0, 1][:, 0] > 0.5).mean(), (at[0, 4][:, 0] > 0).mean()
    assert sides[0] > 0.4 and sides[1] < 0.2 and sides[2] < 0.02


def test_one_seed_is_one_set_of_points_and_reset_brings_it_back(page, browser):
    first = ends(page)
    other = browser.new_page()
    other.goto(PAGE.as_uri())
    np.testing.assert_array_equal(ends(other), first)
    other.close()
    page.click("#redraw")
    put(page, "s", 5)
    assert page.inner_text("#seed-now") == "2" and np.abs(ends(page) - first).max() > 0.1
    page.click("button[type=reset]")
    page.wait_for_function("document.getElementById('seed-now').textContent === '1'")
    assert {name: page.input_value(f"#{name}") for name in DEFAULTS} == DEFAULTS
    np.testing.assert_array_equal(ends(page), first)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_the_window_and_its_pixels(browser, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 740}, device_scale_factor=2, color_scheme=scheme)
    page.goto(PAGE.as_uri())
    for name, value in {"s": 8, "distance": 3, "steps": 1}.items():  # the longest words
        put(page, name, value)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    drawn, shown = page.evaluate("[canvas.width, canvas.clientWidth]")
    assert drawn == 2 * shown and shown > 250
    corner = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (corner == "rgb(255, 255, 255)") == (scheme == "light")
    inked = "canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(v => v > 0)"
    assert page.evaluate(inked)
    page.close()
