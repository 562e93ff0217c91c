"""`cellflow eda`: from a source to the page, with all that it must tell, and datasets that lack this or that."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from cellflow import EdaConfig, cli, eda
from cellflow.config import VerifyConfig
from cellflow.engine.data.verify_data import verify_data
from cellflow.engine.pages.eda_odd import odd_cells, odd_images, spread_of
from cellflow.numeric.rle import rle_encode

SHAPE = (60, 80)
EVIL = "<img src=x onerror=alert(1)>"


def cellflow(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    return int(end.value.code or 0)


def cells_of(side: int, count: int = 6, *, seed: int = 0) -> np.ndarray:
    """Squares here and there, none at the border, the first two side by side."""
    labels = np.zeros(SHAPE, np.uint16)
    shifts = np.random.default_rng(seed).integers(0, max(1, 21 - side), (count + 1, 2))
    shifts[:3] = 0, 0
    for number in range(1, count + 1):
        row, column = divmod(number - 1, 3)
        x = 4 + column * 25 if number != 2 else 4 + side
        y, x = np.add((4 + row * 25, x), shifts[number])
        labels[y : y + side, x : x + side] = number
    return labels


def picture(labels: np.ndarray, seed: int, level: int = 60) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 20, labels.shape)
    return (noise + level + 60 * (labels > 0)).astype(np.uint8)


def write(folder: Path, images: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for name, (pixels, labels) in images.items():
        tifffile.imwrite(folder / "images" / f"{name}.tif", pixels)
        tifffile.imwrite(folder / "masks" / f"{name}.tif", labels)
    return folder


def prepared(source: Path, **table: dict[str, str]) -> Path:
    """The dataset of a source, with the columns of a table."""
    data, words = source.parent / "data", []
    if table:
        file = source.parent / "table.csv"
        pd.DataFrame(table).rename_axis("id").to_csv(file)
        words = ["--table", file]
    assert cellflow("prepare", source, "--out", data, *words) == 0
    return data


def shown(page: Path) -> str:
    """The page without plotly's script."""
    text = page.read_text("utf-8")
    return re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)


def drawn(page: Path, name: str) -> dict:
    found = re.search(rf'id="{name}-data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.fixture
def typed(tmp_path: Path) -> Path:
    """Small round cells in 18 images and large ones in 2; one image is far brighter; two in each group."""
    images, kinds, groups = {}, {}, {}
    for number in range(20):
        name, large = f"i{number:02d}", number >= 18
        labels = cells_of(20 if large else 8, seed=number)
        if number == 3:
            labels[57, 40] = 2  # a speck, far from its cell
        images[name] = picture(labels, number, 170 if number == 5 else 60), labels
        kinds[name], groups[name] = ("large" if large else "small"), f"g{number // 2}"
    return prepared(write(tmp_path / "source", images), cell_type=kinds, group=groups)


def test_the_whole_way(typed: Path, capsys) -> None:
    assert cellflow("folds", "--data", typed, "--k", 4) == 0
    capsys.readouterr()
    assert cellflow("eda", typed) == 0
    said = capsys.readouterr().out
    page = typed / "eda.html"
    assert f"Written: {page}" in said
    assert "20 images, 120 cells, 2 cell types (small 18, large 2), 10 groups (group)" in said
    text = shown(page)
    for command in ("--policy type", "train --balance", "--k 3 --overwrite", "--fix largest"):
        assert command in said and command in re.sub("</?span>", "", text), command
    assert "bright (mean intensity)" in text and "1 image: i05" in said
    assert "with specks 1" in said
    assert {trace["name"] for trace in drawn(page, "fold-images")["traces"]} == {"small", "large"}
    assert sum(sum(trace["y"]) for trace in drawn(page, "fold-cells")["traces"]) == 120
    # the page is no part of the dataset
    assert cellflow("verify", typed) == 0


def test_figures_are_those_of_the_files(typed: Path) -> None:
    found = eda(EdaConfig(typed))
    image = found.images.loc["i00"]
    pixels, labels = (
        tifffile.imread(typed.parent / "source" / kind / "i00.tif") for kind in ("images", "masks")
    )
    assert image["n_cells"] == 6 and image["touching"] == 2
    assert image["covered"] == pytest.approx((labels > 0).mean())
    assert image["mean"] == pytest.approx(pixels.mean())
    inside, outside = pixels[labels > 0].mean(), pixels[labels == 0].mean()
    assert image["contrast"] == pytest.approx((inside - outside) / pixels.std())
    assert image["p99"] == np.percentile(pixels, 99)
    small = found.cells[found.cells["id"] == "i00"]
    assert small["cell"].tolist() == list(range(1, 7)) and set(small["area"]) == {64}
    assert small["diameter"].iloc[0] == pytest.approx(2 * np.sqrt(64 / np.pi))


def test_findings_are_those_of_verify_in_one_reading(typed: Path, monkeypatch) -> None:
    from cellflow.io.dataset import Dataset

    truth = verify_data(VerifyConfig(typed)).table
    read: list[str] = []
    image = Dataset.image
    monkeypatch.setattr(Dataset, "image", lambda self, name: read.append(name) or image(self, name))
    found = eda(EdaConfig(typed))
    pd.testing.assert_frame_equal(found.findings, truth)
    again = [name for name in set(read) if read.count(name) > 1]
    assert sorted(set(read)) == list(found.images.index)
    assert again == ["i03"]  # its cell with a speck is shown large


def test_the_seed_chooses_the_samples(typed: Path) -> None:
    def samples(**settings: int) -> list[str]:
        eda(EdaConfig(typed, **settings))
        part = shown(typed / "eda.html").split('id="samples"')[1].split("</section>")[0]
        return re.findall(r'<span class="id"><span>(\w+)</span>', part)

    first = samples(samples=6)
    assert first == samples(samples=6) != samples(samples=6, seed=1)
    assert len(first) == 5 and {"i18", "i19"} < set(
        first
    )  # three of each type, as far as there are


def test_bad_masks_overlaps_and_evil_ids(tmp_path: Path, capsys) -> None:
    """Kaggle's layout, whose cells may overlap and whose types may be called anything."""
    source = tmp_path / "kaggle"
    (source / "train").mkdir(parents=True)
    rows = []
    for number in range(3):
        labels = cells_of(10)
        tifffile.imwrite(source / "train" / f"n{number}.tif", picture(labels, number))
        masks = [labels == cell for cell in range(1, 7)]
        masks.append(np.roll(masks[0], 4, axis=1))  # over the first cell, and the second
        rows += [
            {"id": f"n{number}", "annotation": rle_encode(mask), "height": 60, "width": 80}
            | {"cell_type": EVIL, "sample_id": f"{EVIL}{number}"}
            for mask in masks
        ]
    pd.DataFrame(rows).to_csv(source / "train.csv", index=False)
    assert cellflow("prepare", source, "--out", tmp_path / "data") == 0
    found = eda(EdaConfig(tmp_path / "data"))
    assert len(found.cells) == 21
    overlap = next(hint for hint in found.hints if hint.about == "Touching and overlapping")
    assert "9 (42.9%) share pixels" in overlap.text
    text = shown(found.page)
    assert "<img src=x" not in text and "&lt;img src=x" in text
    assert any(hint.about == "Few groups" for hint in found.hints)


def test_a_holdout_is_not_taken_for_folds_that_are_uneven(typed: Path) -> None:
    assert cellflow("folds", "--data", typed, "--split", "holdout") == 0
    hints = {hint.about: hint for hint in eda(EdaConfig(typed)).hints}
    assert "Uneven folds" not in hints
    assert hints["Folds"].text == "A holdout: 4 images validate, 16 train."
    lacks = hints["Types that lack in a fold"]  # all large cells are in one group
    assert lacks.text.startswith("No image of large validates.")
    assert cellflow(*shlex.split(lacks.command)[1:]) == 0


def test_one_group_is_told_with_a_command_that_runs(tmp_path: Path) -> None:
    images = {f"i{n}": (picture(cells_of(8, seed=n), n), cells_of(8, seed=n)) for n in range(6)}
    data = prepared(write(tmp_path / "source", images), group=dict.fromkeys(images, "w"))
    (hint,) = (item for item in eda(EdaConfig(data)).hints if item.about == "Few groups")
    assert cellflow(*shlex.split(hint.command)[1:]) == 0


def test_one_image_without_cells(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint16)
    data = prepared(write(tmp_path / "source", {"a": (picture(labels, 0), labels)}))
    found = eda(EdaConfig(data))
    assert len(found.cells) == 0 and np.isnan(found.images.at["a", "contrast"])
    assert "no cells" in shown(found.page)
    assert any("1 of them none at all" in hint.text for hint in found.hints)


def test_some_images_without_cells_and_few_with(tmp_path: Path) -> None:
    images = {}
    for number in range(4):
        labels = cells_of(10, 3 if number == 1 else 6 if number > 1 else 0)
        images[f"i{number}"] = picture(labels, number), labels
    found = eda(EdaConfig(prepared(write(tmp_path / "source", images))))
    few = next(hint for hint in found.hints if hint.about == "Images with few cells")
    assert few.text.startswith("2 images of 4 have fewer than 5 cells, 1 of them none at all.")
    assert few.kind == "warning"


def test_sixteen_bits_and_micrometres(tmp_path: Path) -> None:
    images = {}
    for number in range(3):
        labels = cells_of(10)
        images[f"i{number}"] = picture(labels, number).astype(np.uint16) * 250, labels
    source = write(tmp_path / "source", images)
    for name, (pixels, _) in images.items():
        tifffile.imwrite(
            source / "images" / f"{name}.tif",
            pixels,
            imagej=True,
            resolution=(2, 2),
            metadata={"unit": "um"},
        )
    found = eda(EdaConfig(prepared(source)))
    assert found.images["dtype"].unique().tolist() == ["uint16"]
    assert found.images["um"].tolist() == [0.5] * 3
    assert found.cells["diameter_um"].iloc[0] == pytest.approx(np.sqrt(100 / np.pi))
    text = shown(found.page)
    assert "Diameter in µm" in text and "uint16" in text


def test_channels(tmp_path: Path) -> None:
    def hints(planes: list[int]) -> dict[str, str]:
        """Of images whose channels have these factors."""
        folder = tmp_path / "_".join(map(str, planes))
        images = {}
        for number in range(2):
            labels = cells_of(10)
            grey = picture(labels, number)
            images[f"i{number}"] = np.stack([grey // 2 * by for by in planes], -1), labels
        found = eda(EdaConfig(prepared(write(folder / "source", images))))
        return {hint.about: f"{hint.text} {hint.command}" for hint in found.hints}

    assert "all the same" in hints([1, 1, 1])["Channels"]
    colours = hints([1, 2, 0])
    assert "colours" in colours["Channels"]
    assert "Channel 3 has one value only in every image" in colours["Empty channels"]
    assert "--chan 2" in hints([0, 1, 2])["Empty channels"]


def test_small_cells_against_min_size(tmp_path: Path) -> None:
    images = {}
    for number in range(2):
        labels = cells_of(8)
        labels[55:58, 70:73] = 7
        images[f"i{number}"] = picture(labels, number), labels
    found = eda(EdaConfig(prepared(write(tmp_path / "source", images))))
    hint = next(hint for hint in found.hints if hint.about == "Smaller than any prediction")
    assert "2 cells (14.3%) have fewer than 15 pixels" in hint.text
    assert hint.command == "cellflow oof --min_size 9"


def test_a_damaged_image_is_told_and_the_others_are_shown(typed: Path) -> None:
    (typed / "images" / "i01.tif").write_bytes(b"no image")
    found = eda(EdaConfig(typed))
    assert "i01" not in found.images.index and len(found.images) == 19
    assert ("refused", "i01") in set(zip(found.findings["kind"], found.findings["id"], strict=True))
    assert any(hint.kind == "warning" and hint.about == "Refused" for hint in found.hints)


def test_what_is_no_dataset(typed: Path, tmp_path: Path, capsys) -> None:
    source = typed.parent / "source"
    assert cellflow("eda", source) == 1
    assert f"cellflow prepare {source}" in capsys.readouterr().err
    assert not list(source.glob("*.html"))
    assert cellflow("eda", typed.parent) == 1
    assert f"cellflow eda {typed}" in capsys.readouterr().err
    assert cellflow("eda", tmp_path / "nothing") == 1
    assert cellflow("eda", typed, "--out", tmp_path / "page.pdf") != 0
    assert "--out must end in .html" in capsys.readouterr().err


def test_folds_that_do_not_fit_are_told(typed: Path) -> None:
    (typed / "folds.csv").write_text("id,fold\ni00,0\n")
    found = eda(EdaConfig(typed))
    assert "cannot be used" in shown(found.page)
    assert any(hint.about == "Over several folds" for hint in found.hints)


def test_images_are_odd_among_those_of_their_type() -> None:
    columns = ["mean", "spread", "diameter", "density"]
    table = pd.DataFrame(10.0, index=[f"i{n}" for n in range(20)], columns=columns)
    table["cell_type"], table["dtype"] = ["a"] * 10 + ["b"] * 10, "uint8"
    table.loc["i10":, "mean"] = 100.0  # a type of its own is not odd
    assert odd_images(table).empty
    table.loc["i3", "mean"], table.loc["i12", "diameter"] = 16.0, 3.0
    found = odd_images(table)
    assert found["id"].tolist() == ["i12", "i3"]
    assert found["why"].tolist() == [
        "small cells (median diameter): 3.0, the median of b is 10.0",
        "bright (mean intensity): 16.0, the median of a is 10.0",
    ]


def test_cells_are_odd_unless_the_border_cuts_them() -> None:
    sizes = [10.0] * 20 + [40.0, 2.0, 2.0]
    cells = pd.DataFrame({"id": "i", "cell": range(1, 24), "diameter": sizes, "at_border": False})
    cells.loc[22, "at_border"] = True
    found = odd_cells(cells, pd.Series({"i": ""}))
    assert set(found["cell"]) == {21, 22}
    assert "40.0 pixels across, 4.0 times the median (10.0)" in set(found["why"])


def test_spreads() -> None:
    assert spread_of([]) == 1.0
    assert spread_of([5.0, 5.0]) == 1.0
    assert spread_of(np.arange(101)) == pytest.approx(9.0)
