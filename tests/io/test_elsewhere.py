"""Well-known data sets as they are unpacked: which command is offered, and what is said of files that are not read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shlex import split
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellflow import cli
from cellflow.config import PrepareConfig, ScoreConfig
from cellflow.engine.data.prepare import prepare
from cellflow.engine.validation.score_masks import score_masks
from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.numeric.rle import rle_encode

SHAPE = (60, 80)


def labels(number: int) -> np.ndarray:
    found = np.zeros(SHAPE, np.uint16)
    for cell in range(3):
        found[5 + 15 * cell : 15 + 15 * cell, 10 + 3 * number : 24 + 3 * number] = cell + 1
    return found


def image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 90, SHAPE)
    Image.fromarray((noise + 100 * (labels(number) > 0)).astype(np.uint8)).save(path)


def mask(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, labels(number))


def two_down(root: Path) -> tuple[str, ...]:
    for part in ("test", "train"):
        for number in range(2):
            image(root / "dsb2018" / part / "images" / f"{number}.tif", number)
            mask(root / "dsb2018" / part / "masks" / f"{number}.tif", number)
    return ("dsb2018/train",)


def other_names(root: Path) -> tuple[str, ...]:
    for part in ("test", "training"):
        for number in range(2):
            image(root / part / "source" / f"pos{number}.tif", number)
            mask(root / part / "target" / f"pos{number}.tif", number)
    return "training/source", "training/target"


def tracking(root: Path) -> tuple[str, ...]:
    for part in ("01", "02"):
        for number in range(3):
            image(root / part / f"t00{number}.tif", number)
            mask(root / f"{part}_GT" / "SEG" / f"man_seg00{number}.tif", number)
            mask(root / f"{part}_GT" / "TRA" / f"man_track00{number}.tif", number)
    return "01", "01_GT/SEG"


def several_masks(root: Path) -> tuple[str, ...]:
    for number in range(2):
        image(root / "human liver" / "tissue images" / f"{number}.png", number)
        image(root / "human liver" / "overlay" / f"{number}.png", number)
        mask(root / "human liver" / "label masks" / f"{number}.tif", number)
        mask(root / "human liver" / "mask binary" / f"{number}.tif", number)
    return "human liver/tissue images", "human liver/label masks"


LAYOUTS: list[Callable[[Path], tuple[str, ...]]] = [two_down, other_names, tracking, several_masks]


@pytest.mark.parametrize("lay", LAYOUTS)
def test_the_command_that_is_offered_reads_the_cells(
    lay: Callable[[Path], tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images, *masks = lay(Path("ROOT"))
    with pytest.raises(DataError) as caught:
        prepare(PrepareConfig(Path("ROOT"), out=Path("data")))
    *_, command = str(caught.value).rpartition("cellflow ")
    words = split(command)
    flags = ["--masks", *(f"ROOT/{path}" for path in masks)] if masks else []
    assert words == ["prepare", f"ROOT/{images}", *flags]
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--out", "data"])
    assert not end.value.code
    data = Dataset.open(Path("data"))
    for number, name in enumerate(data.ids):
        assert np.array_equal(data.labels(name), labels(number))


def test_the_other_half_beside_a_folder_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tracking(Path())
    for part in ("01", "02"):
        with pytest.raises(DataError, match=rf"cellflow prepare {part} --masks {part}_GT/SEG$"):
            prepare(PrepareConfig(Path(part), out=Path("data")))


@pytest.mark.parametrize(
    ("name", "content"),
    [("img_0.json", json.dumps({"shapes": [], "imagePath": "img_0.png"})), ("Labels/img_0.mat", "MATLAB"),
     ("annotations.xml", "<annotations/>"), ("labels/img_0.txt", "0 0.1 0.1 0.2 0.2"), ("more/masks.npy", "x"),
     ("seg/img_0.nii.gz", "x")],
)  # fmt: skip
def test_annotations_that_are_not_read_are_named(tmp_path: Path, name: str, content: str) -> None:
    image(tmp_path / "set" / "img_0.png", 0)
    file = tmp_path / "set" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    with pytest.raises(DataError) as caught:
        prepare(PrepareConfig(tmp_path / "set", out=tmp_path / "data"))
    text = str(caught.value)
    assert "Cells are read from label maps, COCO json" in text
    assert name in text and "have no annotation" not in text


@pytest.mark.parametrize(
    "name", ["annotations.xml", "labels.mat", "masks.npy", "image.nii.gz", "a.txt"]
)
def test_a_file_that_is_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(
        DataError, match=r"found a file\. This kind is not read\. Cells are read from"
    ):
        prepare(PrepareConfig(tmp_path / name, out=tmp_path / "data"))


def test_coco_that_lies_deeper(tmp_path: Path) -> None:
    for part in ("test", "train"):
        path = tmp_path / "annotations" / "LIVECell" / f"livecell_coco_{part}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
        image(tmp_path / "images" / f"livecell_{part}_images" / "a.tif", 0)
    with pytest.raises(
        DataError, match=r"livecell_coco_train\.json is COCO json: cellflow prepare"
    ):
        prepare(PrepareConfig(tmp_path, out=tmp_path / "data"))


def test_images_that_nobody_annotated_are_left_out_when_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        image(tmp_path / "set" / "images" / f"{number}.png", number)
        if number != 2:
            mask(tmp_path / "set" / "masks" / f"{number}.tif", number)
    config: dict[str, Any] = {"source": tmp_path / "set", "out": tmp_path / "data"}
    with pytest.raises(DataError, match=r"2\.png: no mask; .*--annotated_only takes the others"):
        prepare(PrepareConfig(**config))
    assert prepare(PrepareConfig(**config, annotated_only=True)).ids == ["0", "1", "3"]
    assert "1 image without a mask left out (2)" in caplog.text


def test_a_submission_of_the_data_science_bowl(tmp_path: Path) -> None:
    """Its columns have names of their own, and its runs go column by column, in the truth as in the submission."""
    solution = ["ImageId,EncodedPixels,Height,Width,Usage"]
    submission = ["ImageId,EncodedPixels"]
    for number in range(2):
        for cell in (1, 2, 3):
            runs = rle_encode(labels(number) == cell, "F")
            solution.append(f"{number},{runs},{SHAPE[0]},{SHAPE[1]},Public")
            submission.append(f"{number},{runs}")
    for name, lines in (("solution.csv", solution), ("submission.csv", submission)):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    config = ScoreConfig(str(tmp_path / "submission.csv"), truth=tmp_path / "solution.csv")
    assert score_masks(config).images["score"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("mask_filter", ["", "mask*", "man_seg*"])
def test_results_of_the_cell_tracking_challenge(
    tmp_path: Path, mask_filter: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        mask(tmp_path / "01_RES" / f"mask00{number}.tif", number)
        mask(tmp_path / "01_GT" / "SEG" / f"man_seg00{number}.tif", number)
    caplog.set_level("INFO")
    config = ScoreConfig(
        str(tmp_path / "01_RES"), truth=tmp_path / "01_GT" / "SEG", mask_filter=mask_filter
    )
    assert score_masks(config).images["score"].tolist() == [1.0, 1.0, 1.0]
    assert "taken are pairs with other words for label maps" in caplog.text


def test_json_of_other_programs(tmp_path: Path) -> None:
    """A list of tasks, as Label Studio exports them, is no prediction."""
    path = tmp_path / "project-1.json"
    path.write_text(json.dumps([{"id": 1, "annotations": [], "data": {"image": "a.png"}}]))
    with pytest.raises(DataError, match=r"found a list of something else\. .*export COCO json"):
        prepare(PrepareConfig(path, out=tmp_path / "data"))
    path.write_text(json.dumps([{"image_id": 1, "category_id": 1, "segmentation": []}]))
    with pytest.raises(
        DataError, match=r"found a list of results, which is a prediction: cellflow score"
    ):
        prepare(PrepareConfig(path, out=tmp_path / "data"))
    path.write_text(json.dumps({"version": "5.0", "shapes": [], "imagePath": "a.png"}))
    with pytest.raises(DataError, match=r"found no images\. .*export COCO json"):
        prepare(PrepareConfig(path, out=tmp_path / "data"))
