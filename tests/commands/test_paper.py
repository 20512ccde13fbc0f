"""Check the code that compares with the paper, and the judged claims, on the paper's numbers."""

import json

import pytest

from cfg_jax import config as configs
from cfg_jax.sweep import claims
from cfg_jax.sweep import published as paper
from configs import imagenet64, imagenet128
from tests.sweep.test_report import cell

# the data sets that the configs name
DATA = {1: imagenet64.get_config().data.name, 2: imagenet128.get_config().data.name}


def rows_of_table(table, name="fid_inception@50000", noise=1e-3, **more):
    """Return the paper's table as rows of a sweep."""
    published = paper.published(table)
    rows = []
    for column in dict.fromkeys(c for _, c in published):
        for w, fid in published["FID", column].items():
            p, t = (float(column[1:]), 256) if table == 1 else (0.1, int(column[1:]))
            row = cell(f"p{p:g}", p, w, fid, published["IS", column][w], num_steps=t, noise=noise)
            for field in ("scores", "resampled"):
                renamed = {"fid_digits@8": name, "is_digits@8": "is_" + name.partition("_")[2]}
                row[field] = {renamed.get(k, k): v for k, v in row[field].items()}
            rows.append(row | measured_as_the_paper(table) | more)
    return rows


def measured_as_the_paper(table):
    """Return the fields of a row from configs/imagenet64.py or imagenet128.py, written out."""
    side, count = 64 * table, 1_281_167
    return {
        "N": 50_000, "data": DATA[table], "source": "ILSVRC2012, image-net.org: Russakovsky et al. 2015",
        "resize": "area", "image_shape": (side, side, 3), "complete": True, "split": "train", "split_N": count,
        "reference_N": count, "trained_on": "c", "scored_on": "c", "platform": "gpu", "precision": "highest",
        "reference_platform": "gpu", "reference_precision": "highest", "labels": "random", "splits": 10,
        "weights": "ema", "guidance": "classifier-free", "sampler": "ancestral", "grid": "paper",
        "v": {1: 0.3, 2: 0.2}[table],
    }  # fmt: skip


def test_the_tables_are_whole():
    for table, columns in ((1, ("p0.1", "p0.2", "p0.5")), (2, ("T128", "T256", "T1024"))):
        published = paper.published(table)
        assert published.keys() == {(s, c) for s in ("FID", "IS") for c in columns}
        assert all(len(values) == 14 and list(values)[-1] == 4 for values in published.values())
    assert paper.published(1)["FID", "p0.1"][0.1] == 1.55 and paper.published(2)["IS", "T256"][0.3] == 158.47
    assert len(paper.ALL_W) == 41 and paper.ALL_W[-1] == 4 and set(paper.published(1)["FID", "p0.1"]) < set(paper.ALL_W)


def test_the_papers_numbers_support_its_claims_on_fid_and_is():
    first = claims.judge(rows_of_table(1), num_steps=256)
    assert [claim.verdict for claim in first[:3]] == ["supported"] * 3
    second = claims.judge(rows_of_table(2), num_steps=256)
    assert second[3].verdict == "supported" and "w=0.3" in second[3].figure


def test_the_papers_numbers_differ_from_the_paper_by_nothing():
    for table in (1, 2):
        text = paper.beside(rows_of_table(table), table, 256)
        assert len([line for line in text.splitlines() if line.startswith("|")]) == 16
        assert text.count(", +0.00)") == 14 * 6 and "ours less the paper's" in text
    assert "p_uncond=0.1 at w=0.1 (paper 0.1)" in paper.beside(rows_of_table(1), 1, 256)
    rows = rows_of_table(1)
    rows[0]["scores"]["fid_inception@50000"] += 0.25
    assert "2.05 (1.8, +0.25)" in paper.beside(rows, 1, 256)
    assert not any(paper.unmet(row, 1) for row in rows_of_table(1, threshold="none"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "fid_inception@10000", "N": 10_000},
         "N is 10000, not 50000; fid_inception@10000 is not fid_inception"),
        ({"name": "fd_mixed8@50000"}, "fd_mixed8@50000 is not fid_inception@50000"),
        ({"resize": "adm"}, "resize is adm, not area"),
        ({"data": "imagenet64-mini", "complete": False, "split_N": 1000},
         "complete is False, not True; split_N is 1000"),
        ({"data": "imagenet64-area", "source": "a folder of pictures by class"}, "source is a folder of pictures by"),
        ({"image_shape": (128, 128, 3)}, "image_shape is (128, 128, 3), not (64, 64, 3)"),
        ({"reference_N": 1000}, "reference_N is 1000, not 1281167"),
        ({"split": "validation", "split_N": 50_000, "reference_N": 50_000}, "split is validation, not train"),
        ({"trained_on": "d"}, "trained on another set than it is scored on"),
        ({"trained_on": None, "scored_on": None}, "trained on another set than it is scored on"),
        ({"v": 1.0}, "v is 1.0, not 0.3"),
        ({"T": 16}, "T is 16, less than 128"),
        ({"threshold": "dynamic"}, "threshold is dynamic, not static or none"),
        ({"grid": "shifted"}, "grid is shifted, not paper"),
        ({"guidance": "classifier judge 0"}, "guidance is classifier judge 0, not classifier-free"),
        ({"weights": "params"}, "weights is params, not ema"),
        ({"labels": "balanced"}, "labels is balanced, not random"),
        ({"splits": 1}, "splits is 1, not 10"),
        ({"precision": "default"}, "precision is default, not highest"),
        ({"reference_precision": None}, "reference_precision is unknown, not highest"),
    ],
)  # fmt: skip
def test_no_difference_is_taken_from_what_does_not_compare(change, said):
    """One unmet point of the protocol is enough, and is named."""
    rows = rows_of_table(1, **change)
    assert all(paper.unmet(row, 1) for row in rows)
    text = paper.beside(rows, 1, 256)
    assert ", +0.00" not in text and "no difference is taken: " in text and "1.55 (1.55)" in text
    assert said in text
    assert len(paper.unmet(rows[0], 1)) == 1 + said.count(";") + (change.get("split_N") == 50_000) * 2


def test_a_cell_that_is_read_again_still_meets_the_protocol():
    for table in (1, 2):
        row = rows_of_table(table)[0]
        assert paper.unmet(configs.tuples(json.loads(json.dumps(row))), table) == []


def test_a_row_of_an_earlier_version_does_not_compare():
    """It lacks the fields that say how it was measured."""
    row = {k: v for k, v in rows_of_table(1)[0].items() if k not in ("source", "split", "complete", "precision")}
    assert paper.unmet(row, 1)[:2] == [
        "source is unknown, not ILSVRC2012, image-net.org: Russakovsky et al. 2015",
        "complete is unknown, not True",
    ]


def test_a_rungs_t_stand_for_the_papers():
    assert paper.fewer_and_more(256) == [128, 256, 1024] and paper.fewer_and_more(16) == [8, 16, 64]
    assert paper.fewer_and_more(1) == [1, 1, 4]
    rows = [row | {"T": row["T"] // 4, "data": "clothes"} for row in rows_of_table(2, "fid_clothes@800")]
    text = paper.beside(rows, 2, 64)
    assert "T=64 (T256)" in text and "T=256 (T1024)" in text
    # a T of the paper's own protocol stands for itself: with num_steps=32, 128 would stand for 1,024 by its place
    assert "T=128 (T128)" in (text := paper.beside(rows_of_table(2)[:14], 2, 32)) and text.count(", +0.00)") == 2 * 14
    rows = [row | {"T": row["T"] // 16, "data": "digits"} for row in rows_of_table(2, "fid_digits@800")]
    text = paper.beside(rows, 2, 16)
    assert "fid_digits@800, T=8 (T128)" in text and "is_digits@800, T=64 (T1024)" in text


def test_the_papers_own_t_is_not_taken_for_another():
    rows = [row | {"T": 2 * row["T"]} for row in rows_of_table(2) if row["T"] != 1024]
    text = paper.beside(rows, 2, 512)
    assert "T=256 (T256)" in text and "T=512 (T256)" in text and "8.11 (7.27, +0.84)" in text  # 512 takes no difference
    assert text.count(", +") + text.count(", -") == 2 * 14
    assert "Of the other cells no difference is taken: T is 512, not 128 or 256 or 1024." in text


def test_seeds_stand_as_their_mean():
    rows = rows_of_table(1)
    again = [row | {"seed": 1, "scores": {k: v + 2 for k, v in row["scores"].items()}} for row in rows]
    text = paper.beside(rows + again, 1, 256)
    assert text.count(", +1.00)") == 14 * 6


def test_w_between_the_papers_has_no_number_beside_it():
    rows = [cell("p0.1", 0.1, w, 3.0, 2.0) | {"resize": "none"} for w in (0.0, 0.15)]
    lines = paper.beside(rows, 1, 256).splitlines()
    assert lines[2].startswith("| 0 | 1 | 3.00 (1.8) | 2.00 (53.71) |")
    assert lines[3].startswith("| 0.15 | 1.15 | 3.00 | 2.00 |")


def test_seeds_are_averaged_and_are_the_spread_where_there_is_no_bootstrap():
    one, two = cell("a", 0.1, 0.0, 3.0, 10.0), cell("a", 0.1, 0.0, 5.0, 12.0) | {"seed": 1}
    merged = claims.over_seeds([one, two])
    assert merged["seeds"] == [0, 1] and claims.score(merged, "fid") == 4
    assert claims.spread(merged, "fid") == pytest.approx(claims.spread(one, "fid"))  # of a mean of paired resamples
    bare = [row | {"resampled": {}} for row in (one, two)]
    merged = claims.over_seeds(bare)
    assert claims.spread(merged, "fid") == pytest.approx(2**0.5 / 2**0.5)  # std 1.414 over root 2
    assert claims.over_seeds(bare[:1])["resampled"] == {}
