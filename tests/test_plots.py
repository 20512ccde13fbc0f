"""Names beside points, and files that stay the same."""

import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from cfg_jax import plots
from tests.running import ROOT


@plots.styled
def drawn(x, y, names):
    figure = Figure()
    [line] = (axes := figure.subplots()).plot(x, y, "o-")
    plots.name_points({line: names})
    return figure, [child for child in axes.get_children() if isinstance(child, Annotation)]


def test_every_point_is_named_beside_it_and_no_name_covers_another():
    x, y = np.arange(6.0), np.arange(6.0) ** 2
    figure, named = drawn(x, y, list("abcdef"))
    assert [name.get_text() for name in named] == list("abcdef")
    axes, boxes = figure.axes[0], [name.get_window_extent() for name in named]
    assert not any(box.count_overlaps(boxes[:i] + boxes[i + 1 :]) for i, box in enumerate(boxes))
    points = axes.transData.transform(np.stack([x, y], -1))
    for box, point, name in zip(boxes, points, named, strict=True):
        assert axes.bbox.count_contains(box.corners()) == 4 and not box.count_contains(points)
        assert np.hypot(*(np.mean(box.corners(), 0) - point)) < 30 and name.get_color() == plots.COLORS[0]


def test_a_name_stands_off_its_line():
    for x, y in (([0.0] * 3, [0.0, 1.0, 2.0]), ([0.0, 1.0, 2.0], [0.0] * 3)):
        figure, (_, middle, _) = drawn(x, y, list("abc"))
        line = np.stack([np.linspace(*ends[::2], 999) for ends in (x, y)], -1)
        assert not middle.get_window_extent().count_contains(figure.axes[0].transData.transform(line))


def test_where_there_is_no_room_a_point_has_no_name():
    _, named = drawn([0.0] * 40 + [1.0], [0.0] * 40 + [1.0], [f"name {i}" for i in range(41)])
    boxes = [name.get_window_extent() for name in named]
    assert 2 <= len(named) < 20 and named[-1].get_text() == "name 40"
    assert not any(box.count_overlaps(boxes[:i]) for i, box in enumerate(boxes))


def test_a_point_that_is_no_number_is_left_out():
    _, named = drawn([0.0, np.nan, 2.0], [0.0, 1.0, np.nan], list("abc"))
    assert [name.get_text() for name in named] == ["a"]


def test_a_plot_is_the_same_file_again_and_its_text_is_text(tmp_path):
    for name in "ab":
        plots.save(tmp_path / name, drawn([0, 1], [0, 1], ["w = 0", "w = 1"])[0])
    for kind in ("png", "svg"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    svg = (tmp_path / "a.svg").read_text()
    assert ">w = 1</text>" in svg and "date" not in svg and "Matplotlib" not in svg


def test_the_style_stays_with_what_is_styled():
    before = dict(matplotlib.rcParams)
    figure, _ = drawn([0, 1], [0, 1], "ab")
    assert figure.get_constrained_layout() and dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("room", ["cfg_jax", "experiments"])
def test_whatever_draws_is_styled_and_saved_by_plots(room):
    for path in sorted((ROOT / room).rglob("*.py")):
        text = path.read_text()
        draws = re.search(r"\b(Figure|canvas\.\w+|gallery\.(subplots|curves))\(", text)
        if draws and path.stem not in ("plots", "canvas", "gallery"):
            assert "@plots.styled" in text, path
        assert "savefig(" not in text or path.stem == "plots", path


def test_logarithmic_axes_have_plain_numbers():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.loglog([0.01, 100], [12, 25])
    right.set_xscale("symlog", linthresh=1)
    right.plot([-100, 100], [0, 1])
    svg = plots.image(figure, "svg").decode()
    assert "mathdefault" not in svg and all(f">{number}<" in svg for number in ("0.01", "100", "20"))
