import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from cfg_jax import config as configs
from cfg_jax import images
from cfg_jax.errors import InputError
from cfg_jax.sweep import claims, report

WS = (0.0, 0.1, 0.3, 1.0, 4.0)
PAPER_FID, PAPER_IS = (1.8, 1.55, 3.03, 12.6, 26.2), (53.7, 66.1, 92.8, 170.1, 260.2)


def cell(run, p, w, fid, inception, num_steps=16, noise=0.05, **more):
    """Return a row as a sweep writes it. Its resamples scatter by `noise` and are paired between cells."""
    scatter = noise * np.linspace(-1, 1, 9)
    scores = {"fid": fid, "is": inception, "accuracy": 0.9, "log_p_class": -1 + w / 10, "saturated": 0.1 + w / 50,
              "variety": 0.5 - w / 50, **more}  # fmt: skip
    named = {f"{name}_digits@8": value for name, value in scores.items()}
    return {
        "run": run, "p_uncond": p, "w": w, "s": 1 + w, "N": 8, "T": num_steps, "v": 0.3, "threshold": "static",
        "grid": "paper", "labels": "balanced", "seed": 0, "seconds": 1.0, "scores": named, "sampler": "ancestral",
        "splits": 2, "bootstrap": 9, "quantize": "round", "parameters": run, "features": "f", "reference": "r",
        "neighbours": 10_000,
        "guidance": "classifier-free", "seeds": [0], "spreads": {}, "data": "digits", "image_shape": [8, 8, 1],
        "resampled": {k: list(v + 0.02 * scatter * (1 + w)) for k, v in named.items()},
    }  # fmt: skip


def rows(fid=PAPER_FID, inception=PAPER_IS, ps=(0.1, 0.2, 0.5), worse=1.0):
    return [
        cell(f"p{p}", p, w, f + (worse if p == 0.5 else 0), i, noise=-0.05 if p == 0.5 else 0.05)
        for p in ps
        for w, f, i in zip(WS, fid, inception, strict=True)
    ]


def verdicts(rows):
    return [claim.verdict for claim in claims.judge(rows, num_steps=16)]


def test_the_papers_own_shape_supports_the_papers_claims():
    assert verdicts(rows()) == ["supported"] * 3 + ["not tested", "not tested", "supported", "not tested", "not tested"]


@pytest.mark.parametrize(
    ("claim", "changed", "verdict"),
    [
        (0, {"inception": (53.7, 66.1, 50.0, 170.1, 260.2)}, "contradicted"),  # falls in between
        (0, {"inception": (53.7, 53.7, 53.7, 53.7, 53.7)}, "undecided"),  # does not move
        (0, {"inception": (53.7, 53.0, 52.0, 51.0, 50.0)}, "contradicted"),
        (0, {"inception": (53.7, 66.1, 66.0999, 170.1, 260.2)}, "undecided"),  # falls by less than its spread
        (1, {"fid": (1.0, 1.55, 3.03, 12.6, 26.2)}, "contradicted"),  # least at w = 0
        (1, {"fid": (9.0, 8.0, 7.0, 6.0, 5.0)}, "contradicted"),  # least at the largest w
        (1, {"fid": (1.5501, 1.55, 3.03, 12.6, 26.2)}, "undecided"),
        (1, {"fid": (1.5499, 1.55, 1.55, 1.55, 26.2)}, "undecided"),  # least at w = 0 by less than its spread
        (1, {"fid": (5.0, 1.55, 1.5501, 1.5501, 1.5501)}, "undecided"),  # falls and does not rise
        (2, {"worse": 0.0}, "undecided"),
        (2, {"worse": 0.002}, "undecided"),  # worse by less than twice the spread of the difference
        (2, {"worse": -1.0}, "contradicted"),
        (2, {"ps": (0.1, 0.5)}, "not tested"),
    ],
)
def test_what_the_data_do_not_support_is_said(claim, changed, verdict):
    assert verdicts(rows(**changed))[claim] == verdict


def test_more_steps_is_judged_from_cells_of_several_t():
    more = [cell("p0.1", 0.1, 0.0, fid, 50, num_steps=t) for t, fid in ((4, 9.0), (8, 4.0))]
    judged = claims.judge(rows() + more, num_steps=16)[3]
    assert judged.verdict == "partly" and "T=4" in judged.figure and "256 was not tested" in judged.figure
    reverse = [cell("p0.1", 0.1, 0.0, fid, 50, num_steps=t) for t, fid in ((4, 0.5), (8, 1.0))]
    assert claims.judge(rows() + reverse, num_steps=16)[3].verdict == "contradicted"


@pytest.mark.parametrize(
    ("fid", "verdict"),
    [({128: 9.0, 256: 6.0, 512: 6.0}, "supported"), ({128: 9.0, 256: 6.0, 512: 3.0}, "partly"),
     ({64: 9.0, 128: 9.0, 256: 6.0}, "undecided"), ({128: 6.0, 256: 9.0}, "contradicted")],
)  # fmt: skip
def test_256_steps_are_a_good_balance_if_more_give_no_more(fid, verdict):
    judged = claims.more_steps([cell("p0.1", 0.1, 0.0, value, 50, num_steps=t) for t, value in fid.items()])
    assert judged.verdict == verdict
    assert ("256 was not tested" in judged.figure) == (512 not in fid)


def test_without_a_bootstrap_nothing_is_decided():
    bare = [row | {"resampled": {}} for row in rows()]
    assert set(verdicts(bare)) == {"undecided", "not tested"}


def test_strong_guidance_that_adds_variety_is_not_what_the_paper_says():
    odd = [cell("p0.1", 0.1, w, f, i, variety=0.5 + w) for w, f, i in zip(WS, PAPER_FID, PAPER_IS, strict=True)]
    assert verdicts(odd)[5] == "contradicted"


def test_variety_that_the_steps_alone_take_is_not_guidances():
    """Of exact Gaussians Algorithm 2 at T = 16 leaves 0.92 of the standard deviation at w = 4 that it leaves at 0."""
    first, last = (cell("p0.1", 0.1, w, 10.0, 9.0) for w in (0.0, 4.0))
    share = claims.step_share(first, last)
    assert share == pytest.approx((0.1550 / (2 - 2**-8) * 9 / 0.8198) ** 0.5, abs=2e-3)
    many = claims.step_share(*(row | {"T": 1024} for row in (first, last)))
    assert 0.99 < many <= 1
    assert claims.step_share(first | {"guidance": "apg"}, last | {"guidance": "apg"}) == 1
    assert np.isnan(claims.step_share(first, last | {"w": 2**31}))
    for left, verdict in ((share, "undecided"), (share - 0.1, "supported")):
        varieties = 0.5, 0.48, 0.47, 0.47, 0.5 * left
        of_w = zip(WS, PAPER_FID, PAPER_IS, varieties, strict=True)
        judged = claims.judge([cell("p0.1", 0.1, w, f, i, variety=v) for w, f, i, v in of_w], num_steps=16)
        assert judged[5].verdict == verdict and "by the steps alone" in judged[5].figure


def test_cells_of_other_settings_or_weights_do_not_share_a_table(sweep_dir):
    path = sweep_dir / "cells" / "3.json"
    row = json.loads(path.read_text())
    path.write_text(json.dumps(row | {"N": 4}))
    table = report.write(sweep_dir)
    assert table.splitlines()[5].startswith("| 1 | 2 |  |")  # left out
    path.write_text(json.dumps(row | {"parameters": "others"}))
    with pytest.raises(InputError, match="made with other parameters"):
        report.write(sweep_dir)
    path.write_text('{"N": ')
    with pytest.raises(InputError, match=r"3\.json is damaged"):
        report.write(sweep_dir)
    path.write_text(json.dumps(row))
    path.with_suffix(".png").unlink()
    with pytest.raises(InputError, match=r"3\.json is damaged \(.*3\.png"):
        report.write(sweep_dir)


def test_a_row_may_lack_what_its_run_was_trained_in():
    row = cell("run", 0.1, 0.0, 9.0, 5.0) | {"dtype": "bfloat16"}
    assert "bfloat16 (trained in None)" in report.note(row)


def test_a_table_has_the_same_seeds_in_every_cell(sweep_dir):
    """A seed is left out until all of its cells are there."""
    row = json.loads((sweep_dir / "cells" / "3.json").read_text())
    path = sweep_dir / "cells" / "3b.json"
    path.write_text(json.dumps(row | {"seed": 1, "scores": {k: 0.0 for k in row["scores"]}}))
    Image.new("L", (66, 34)).save(path.with_suffix(".png"))
    text = report.write(sweep_dir)
    assert ", seed 0," in text and f"{row['scores']['fid_digits@8']:.2f}" in text


def test_cells_beside_the_configs_own_setting_have_a_report_too(sweep_dir):
    config = configs.load(sweep_dir / "config.json")
    config.sampler.threshold = "none"
    configs.save(sweep_dir / "config.json", config)
    assert "threshold static" in report.write(sweep_dir)


def test_a_curve_of_points_with_other_numbers_of_resamples_has_no_spread():
    one, two = cell("a", 0.1, 0.0, 3.0, 10.0), cell("a", 0.1, 1.0, 5.0, 12.0)
    two["resampled"] = {}
    assert np.isnan(claims.Curve([one, two]).resampled("fid")).all()


def test_fid_at_a_level_of_is():
    inception, fid = np.array([1.0, 2.0, 4.0]), np.array([10.0, 6.0, 2.0])
    assert [claims.fid_at(inception, fid, level) for level in (0.5, 1.5, 3.0, 9.0)] == [10, 8, 4, 2]


@pytest.fixture
def sweep_dir(tmp_path, tiny):
    """Return a finished sweep: cells with a name that must be escaped, and their grids."""
    tiny.sampler.num_steps = 16
    tiny.eval.update(num_images=8, bootstrap=9)
    configs.save(tmp_path / "config.json", tiny)
    (tmp_path / "cells").mkdir()
    for i, row in enumerate(rows()):
        row["run"] = row["run"].replace("p0.5", "<img src=x onerror=alert(1)>")
        path = tmp_path / "cells" / f"{i}.json"
        path.write_text(json.dumps(row))
        Image.fromarray(np.full((34, 66), 10 * i, np.uint8)).save(path.with_suffix(".png"))
    return tmp_path


def test_every_file_of_the_report(sweep_dir):
    text = report.write(sweep_dir)
    whole = (sweep_dir / "table.md").read_text()
    assert whole.startswith(text) and "| p0.1 | 4 | 0.9 | -0.6 | 0.18 | 0.42 |" in whole
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(WS)
    assert table[0].startswith("| w | s = 1 + w | fid_digits@8, p=0.1 |") and table[2].startswith("| 0 | 1 |")
    assert re.search(r"\*\*1\.55 ± 0\.00\*\*", table[3]) and "**260.20" in table[-1]
    with open(sweep_dir / "results.csv") as f:
        lines = list(csv.DictReader(f))
    assert len(lines) == 15 and float(lines[0]["fid_digits@8"]) == 1.8 and float(lines[0]["fid_digits@8_se"]) > 0
    for name, width in (("curves.png", 960), ("samples.png", 5 * 32 + 4 * 12)):
        assert images.read_png(sweep_dir / name).width == width
    svg = (sweep_dir / "curves.svg").read_text()
    assert "digits: N = 8 images a point, T = 16, seed 0" in svg and svg.count(">0.3</text>") == 3  # w of each curve
    assert "supported" in text and "not tested" in text


def test_curves_without_a_bootstrap_have_names_and_no_bars(sweep_dir):
    for path in (sweep_dir / "cells").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"resampled": {}}))
    report.write(sweep_dir)
    svg = (sweep_dir / "curves.svg").read_text()
    assert svg.count(">0.3</text>") == 3 and "bars" not in svg


def test_the_strip_has_the_left_half_of_each_cell_to_the_pixel(sweep_dir, rng):
    cells = {path: json.loads(path.read_text()) for path in (sweep_dir / "cells" / f"{i}.json" for i in range(3))}
    drawn = rng.integers(0, 256, (3, 2, 8, 8, 8, 1), np.uint8)  # cell, row, column
    for path, image in zip(cells, drawn, strict=True):
        images.save_png(path.with_suffix(".png"), images.grid(image.reshape(16, 8, 8, 1), columns=8))
    strip = np.asarray(report.strip(cells))
    wide = 4 * 64 + 3 * 2
    assert strip.shape == (130, 3 * wide + 2 * 12, 3)
    for i, image in enumerate(drawn):
        panel = strip[:, i * (wide + 12) :][:, :wide]
        half = images.grid(image[:, :4].reshape(8, 8, 8, 1), columns=4)
        np.testing.assert_array_equal(panel, np.asarray(half.convert("RGB")))


def test_the_report_again_changes_no_file(sweep_dir):
    report.write(sweep_dir)
    before = {path: path.read_bytes() for path in sweep_dir.iterdir() if path.is_file()}
    report.write(sweep_dir)
    assert {path: path.read_bytes() for path in sweep_dir.iterdir() if path.is_file()} == before


def test_the_page_is_whole_and_escapes_what_it_shows(sweep_dir):
    report.write(sweep_dir)
    page = (sweep_dir / "report.html").read_text()
    assert "<img src=x" not in page and "&lt;img src=x" in page
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert page.count('type="radio"') == 3


def test_no_cells_no_report(tmp_path, sweep_dir):
    with pytest.raises(InputError, match="no finished cells"):
        report.write(tmp_path / "nothing")


def test_the_slider_in_a_real_browser(sweep_dir, browser):
    """The keyboard moves w, the picture and the marker follow, p_uncond is chosen, nothing is fetched."""
    report.write(sweep_dir)
    page = browser.new_page()
    errors, requests = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"file://{sweep_dir}/report.html")
    seen = []
    page.focus("#w")
    for _ in WS:
        seen.append((page.get_attribute("#samples", "src"), page.get_attribute("#marker", "cx")))
        page.keyboard.press("ArrowRight")
    assert len(set(seen)) == len(WS)
    assert "w = 4, s = 5" in page.inner_text("#now") and "260.20" in page.inner_text("#now")
    assert page.get_attribute("#w", "aria-valuetext") == "w = 4, s = 5"
    assert page.get_attribute("#samples", "alt") == "Samples of digits at p_uncond 0.1, w = 4, s = 5; a row is a class"
    assert "260.20" in page.get_attribute("#plot", "aria-label")
    page.keyboard.press("Home")
    assert "w = 0, s = 1" in page.inner_text("#now")
    page.keyboard.press("End")
    assert "w = 4, s = 5" in page.inner_text("#now")
    page.keyboard.press("Home")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    page.focus("input[name=run] >> nth=0")
    page.keyboard.press("ArrowDown")
    assert page.is_checked("input[name=run] >> nth=1")
    page.check("input[name=run] >> nth=2")
    assert "2.80" in page.inner_text("#now")  # p_uncond 0.5 at w = 0
    assert page.evaluate("document.getElementById('samples').naturalWidth") > 0
    assert errors == [] and [url for url in requests if not url.startswith(("file:", "data:"))] == []
    page.close()


def luminance(rgb):
    """WCAG's relative luminance of sRGB 0..255."""
    c = np.asarray(rgb, float) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_read_by_day_and_by_night(sweep_dir, browser, scheme):
    """Text has WCAG's contrast of 4.5 to what is behind it, the chosen curve and the focus 3."""
    report.write(sweep_dir)
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page.goto(f"file://{sweep_dir}/report.html")
    page.focus("#w")
    page.keyboard.press("End")
    page.screenshot(path=sweep_dir / "page.png")
    behind = luminance(np.asarray(images.read_png(sweep_dir / "page.png"))[2, 2])
    assert (behind < 0.1) == (scheme == "dark")
    for at, of, wanted in (("p", "color", 4.5), ("#plot text", "fill", 4.5), (".curve.on", "stroke", 3),
                           ("#w", "outlineColor", 3)):  # fmt: skip
        said = page.evaluate(f"getComputedStyle(document.querySelector('{at}')).{of}")
        light, dark = sorted([luminance([int(v) for v in re.findall(r"\d+", said)[:3]]), behind], reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= wanted, at
    page.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_no_table_is_cut(sweep_dir, browser, width):
    """On a desktop and a phone the page is as wide as the window; wide tables scroll, w stays in sight."""
    for path in (sweep_dir / "cells").glob("*.json"):
        row = json.loads(path.read_text())
        row["source"] = "a source of many words " * 9
        row["scores"] |= {f"a_score_of_a_rather_long_name_{i}@8": 0.5 for i in range(12)}
        path.write_text(json.dumps(row))
    report.write(sweep_dir)
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(f"file://{sweep_dir}/report.html")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    edges = "e => { const r = e.getBoundingClientRect(); return [r.left, r.right]; }"
    for cell in page.query_selector_all(".claims td"):
        left, right = cell.evaluate(edges)
        assert 0 <= left < right <= width
    table, w = page.query_selector(".scroll"), page.query_selector(".cells td")
    before = w.evaluate(edges)
    assert table.evaluate("e => { e.scrollLeft = 1e6; return e.scrollLeft; }") > 100
    assert w.evaluate(edges) == before and before[0] >= 0
    last = page.query_selector(".cells tr:nth-child(3) td:last-child").evaluate(edges)
    assert last[1] <= width
    assert len(page.query_selector_all(".cells .run")) == 3
    text = "e => { const r = document.createRange(); r.selectNodeContents(e); return r.getClientRects().length; }"
    assert {cell.evaluate(text) for cell in page.query_selector_all(".used th")} == {1}
    page.screenshot(path=sweep_dir / "page.png", full_page=True)
    page.close()
