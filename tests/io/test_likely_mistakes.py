"""Files as people bring them, of which something was taken wrongly without a word."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellflow import FoldsConfig, PrepareConfig, ScoreConfig, make_folds, prepare, score_masks
from cellflow.errors import CellflowError, DataError, FoldError
from cellflow.io.dataset import Dataset
from cellflow.io.fold_table import read_fold_table
from cellflow.io.images import image_shape, read_image, read_masks
from cellflow.numeric.rle import rles_from_labels

LABELS = np.zeros((72, 100), np.uint16)
LABELS[10:25, 10:25], LABELS[40:60, 50:75] = 1, 2
IMAGE = (20 + 100 * (LABELS > 0)).astype(np.uint8)


def pair(folder: Path, name: str, mask_name: str = "") -> None:
    for part, pixels in (("images", IMAGE), ("masks", LABELS)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / part / f"{(part == 'masks' and mask_name) or name}.tif", pixels)


def prepared(folder: Path, **options: Any) -> Dataset:
    return prepare(PrepareConfig(folder, out=folder / "data", **options))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_fourth_channel_is_no_alpha(tmp_path: Path, dtype: type) -> None:
    """tifffile and scikit-image mark it so, whatever the array is."""
    path = tmp_path / "a.tif"
    stack = np.stack([IMAGE * 0 + k for k in (1, 2, 3)] + [IMAGE]).astype(dtype)
    tifffile.imwrite(path, stack)
    assert image_shape(path) == (72, 100, 4)
    assert np.array_equal(read_image(path), np.moveaxis(stack, 0, -1))
    if dtype != np.uint8:  # of 8 bits it is more often one
        tifffile.imwrite(path, np.moveaxis(stack, 0, -1), photometric="rgb")
        assert np.array_equal(read_image(path), np.moveaxis(stack, 0, -1))


def test_square_images_tell_no_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = np.zeros((90, 90), np.int32)
    labels[10:20, 30:60] = 1
    (tmp_path / "train").mkdir()
    Image.fromarray((20 + 90 * labels).astype(np.uint8)).save(tmp_path / "train" / "a.png")
    (tmp_path / "train.csv").write_text(f"id,annotation\na,{rles_from_labels(labels, 'F')[0]}\n")
    with caplog.at_level(logging.WARNING):
        prepared(tmp_path)
    assert "all images are square" in caplog.text and "--rle_order F" in caplog.text
    caplog.clear()
    found = prepared(tmp_path, rle_order="F", overwrite=True)
    assert "square" not in caplog.text and np.array_equal(found.labels("a"), labels)


def test_images_of_two_folders_are_not_one(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    Image.fromarray(IMAGE).save(tmp_path / "train" / "a.png")
    rows = ["day1/a.png,1011 10", r"day1\a.png,1111 10", "day2/a.png,4051 9"]
    table = tmp_path / "train.csv"
    table.write_text("\n".join(["id,annotation", *rows[:2]]))
    assert len(prepared(tmp_path).instances("a")) == 2
    table.write_text("\n".join(["id,annotation", *rows]))
    with pytest.raises(CellflowError, match=r"line 4: 'day1/a.png' above and 'day2/a.png' here"):
        prepared(tmp_path, overwrite=True)


@pytest.mark.parametrize(("image", "mask"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_in_both_forms_of_unicode(tmp_path: Path, image: str, mask: str) -> None:
    """macOS and Excel write them in two ways, which look the same."""
    name = "zell\N{LATIN SMALL LETTER A WITH DIAERESIS} a"
    pair(tmp_path, normalize(image, name), normalize(mask, name))  # type: ignore[arg-type]
    table = tmp_path / "t.csv"
    table.write_text(f"id,well\n{normalize(mask, name)},A1\n", encoding="utf-8")  # type: ignore[arg-type]
    found = prepared(tmp_path, table=table)
    assert np.array_equal(found.labels(found.ids[0]), LABELS)
    assert list(found.images["well"]) == ["A1"]


def test_groups_that_are_written_in_two_ways(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wells = ["A01", "a01", "A1", "B10", "B1 0", "B100", "0.05", "0.5"]
    for number in range(len(wells)):
        pair(tmp_path, f"i{number}")
        tifffile.imwrite(tmp_path / "images" / f"i{number}.tif", IMAGE + np.uint8(number))
    table = tmp_path / "t.csv"
    table.write_text("id,well\n" + "".join(f"i{n},{well}\n" for n, well in enumerate(wells)))
    prepared(tmp_path, table=table)
    with caplog.at_level(logging.WARNING):
        make_folds(FoldsConfig(data=tmp_path / "data", k=2, group="well"))
    text = next(record.message for record in caplog.records if "Column well" in record.message)
    assert "'A01' and 'A1' and 'a01', 'B1 0' and 'B10' differ in capitals" in text


def geojson(path: Path, boxes: list[tuple[int, int, int, int]]) -> None:
    features = [
        {"type": "Feature", "properties": {"objectType": "annotation"},
         "geometry": {"type": "Polygon", "coordinates": [[[x, y], [a, y], [a, b], [x, b], [x, y]]]}}
        for x, y, a, b in boxes
    ]  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def test_the_outline_of_the_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """QuPath's full image annotation, in which cells were then drawn."""
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    boxes = [(10, 10, 25, 25), (50, 40, 75, 60)]
    geojson(tmp_path / "a.geojson", boxes)
    with caplog.at_level(logging.WARNING):
        prepared(tmp_path)
    assert "covers nearly all" not in caplog.text
    geojson(tmp_path / "a.geojson", [(0, 0, 100, 72), *boxes])
    prepared(tmp_path, overwrite=True)
    assert "One object covers nearly all of the image" in caplog.text and "(a)" in caplog.text


def coco(crowds: list[int]) -> dict[str, Any]:
    boxes = [(10, 10, 25, 25), (50, 40, 75, 60)]
    cells = [
        {"id": n, "image_id": 1, "category_id": 1, "iscrowd": crowd, "segmentation": [[x, y, a, y, a, b, x, b]]}
        for n, ((x, y, a, b), crowd) in enumerate(zip(boxes, crowds, strict=True))
    ]  # fmt: skip
    image = {"id": 1, "file_name": "a.png", "height": 72, "width": 100}
    return {"images": [image], "annotations": cells, "categories": [{"id": 1, "name": "cell"}]}


def test_a_file_in_which_all_is_a_crowd(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    for crowds, count in (([1, 1], 2), ([0, 1], 1), ([1, 0], 1), ([0, 0], 2)):
        (tmp_path / "c.json").write_text(json.dumps(coco(crowds)))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert len(prepared(tmp_path, overwrite=True).instances("a")) == count
        assert ("as everything in this file" in caplog.text) == (crowds == [1, 1])


def test_results_without_a_cell(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(coco([0, 0])))
    (tmp_path / "found.json").write_text(" []\n")
    found = score_masks(
        ScoreConfig(str(tmp_path / "found.json"), truth=tmp_path / "truth.json", out=tmp_path / "s")
    )
    assert list(found.images["score"]) == [0]


def test_the_line_that_tells_excel_the_separator(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    Image.fromarray(IMAGE).save(tmp_path / "train" / "a.png")
    (tmp_path / "train.csv").write_text("sep=;\r\nid;annotation\r\na;1011 10\r\na;x\r\n")
    with pytest.raises(CellflowError, match=r"train\.csv line 4"):
        prepared(tmp_path)
    (tmp_path / "train.csv").write_text("sep=;\r\nid;annotation\r\na;1011 10\r\n")
    assert len(prepared(tmp_path).instances("a")) == 1


def test_two_channels_are_no_colours(tmp_path: Path) -> None:
    """Whole cells and nuclei: each pair of numbers was taken for a colour, and rings for cells."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.stack([LABELS, LABELS * (LABELS > 1)]), imagej=True, metadata={"axes": "CYX"}
    )
    for colours in (False, True):
        with pytest.raises(DataError, match=r"found 2 channels\. Save the one with the cells"):
            read_masks(path, colours=colours)


@pytest.mark.parametrize("void", [255, 65535])
def test_pixels_around_cells_that_are_to_be_left_out(tmp_path: Path, void: int) -> None:
    """As in Pascal VOC: 255 is neither an object nor background."""
    pair(tmp_path, "a")
    rings = np.zeros(LABELS.shape, bool)
    rings[8:27, 8:27] = rings[38:62, 48:77] = True
    marked = np.where(rings & (LABELS == 0), void, LABELS).astype(np.uint16)
    tifffile.imwrite(tmp_path / "masks" / "a.tif", marked)
    with pytest.raises(DataError, match=f"the value {void} lies around the cells"):
        prepared(tmp_path)
    y, x = np.mgrid[:160, :128]
    discs = sum((y - c) ** 2 + (x - d) ** 2 < 150 for c in (25, 75, 130) for d in (25, 70, 110))
    for kind, pixels in (("images", 90 * discs), ("masks", 255 * discs)):
        picture = Image.fromarray(pixels.astype(np.uint8))
        picture.resize((200, 150), Image.Resampling.BILINEAR).save(tmp_path / kind / "a.tif")
    with pytest.raises(DataError, match="resized with smoothing"):
        prepared(tmp_path)
    pair(tmp_path, "a")
    touching = np.zeros(LABELS.shape, np.uint16)
    touching[10:40, 10:30], touching[10:40, 30:50], touching[40:60, 10:50] = 1, 2, void
    tifffile.imwrite(tmp_path / "masks" / "a.tif", touching)  # cells of a larger image
    assert len(prepared(tmp_path, overwrite=True).instances("a")) == 3
    few = LABELS.copy()
    few[26:30, 10:25] = void  # a cell that was given this number, far from most others
    tifffile.imwrite(tmp_path / "masks" / "a.tif", few)
    assert len(prepared(tmp_path, overwrite=True).instances("a")) == 3


def test_pixels_around_classes_that_are_to_be_left_out(tmp_path: Path) -> None:
    """As in Pascal VOC's SegmentationClass: with --split, each border was a cell."""
    pair(tmp_path, "a")
    y, x = np.mgrid[: LABELS.shape[0], : LABELS.shape[1]]
    places = [(12, 12), (12, 45), (45, 12), (45, 45), (45, 75)]
    away = np.min([(y - row) ** 2 + (x - column) ** 2 for row, column in places], axis=0)
    classes = np.select([away < 36, away < 81], [15, 255]).astype(np.uint8)
    tifffile.imwrite(tmp_path / "masks" / "a.tif", classes)
    for split in (False, True):
        with pytest.raises(DataError, match="the value 255 lies around the cells"):
            prepared(tmp_path, split=split)
    nuclei = np.select([away < 36, away < 81], [255, 15]).astype(np.uint8)  # in their cells
    tifffile.imwrite(tmp_path / "masks" / "a.tif", nuclei)
    assert len(prepared(tmp_path, split=True).instances("a")) == 10


def test_predictions_that_are_foreground(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair(tmp_path / "t", "a")
    pair(tmp_path / "f", "a")
    config = ScoreConfig(str(tmp_path / "f" / "masks"), truth=tmp_path / "t" / "masks")
    with caplog.at_level(logging.WARNING):
        score_masks(config)
        assert not caplog.text
        tifffile.imwrite(tmp_path / "f" / "masks" / "a.tif", np.uint8(255) * (LABELS > 0))
        score_masks(config)
    assert (
        "many cells count as one" in caplog.text and f"prediction is {config.pred}" in caplog.text
    )


def test_predictions_that_go_column_by_column(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair(tmp_path, "a")
    rows = [f"a,{rle}" for rle in rles_from_labels(LABELS, "F")]
    (tmp_path / "s.csv").write_text("\n".join(["id,predicted", *rows]))
    config = ScoreConfig(str(tmp_path / "s.csv"), truth=tmp_path / "masks")
    with caplog.at_level(logging.WARNING):
        assert list(score_masks(config).images["score"]) == [0]
    assert "column by column, add --rle_order F" in caplog.text
    found = score_masks(replace(config, rle_order="F"))
    assert list(found.images["score"]) == [1]
    truth = [f"a,{rle},72,100" for rle in rles_from_labels(LABELS)]
    (tmp_path / "t.csv").write_text("\n".join(["id,annotation,height,width", *truth]))
    found = score_masks(replace(config, rle_order="F", truth=tmp_path / "t.csv"))
    assert list(found.images["score"]) == [1]
    with pytest.raises(CellflowError, match="--rle_order: expected a CSV of run lengths"):
        score_masks(replace(config, rle_order="F", pred=str(tmp_path / "masks")))


@pytest.mark.parametrize("mark", ["-1", "nan", "NaN", "None", "null", "[]", '""', " "])
def test_marks_for_no_cell(tmp_path: Path, mark: str) -> None:
    (tmp_path / "train").mkdir()
    for number, name in enumerate("ab"):
        Image.fromarray(IMAGE + np.uint8(number)).save(tmp_path / "train" / f"{name}.png")
    cells = [f"a,{rle}" for rle in rles_from_labels(LABELS)]
    (tmp_path / "train.csv").write_text("\n".join(["id,annotation", *cells, f"b,{mark}"]))
    found = prepared(tmp_path)
    assert [len(found.instances(name)) for name in found.ids] == [2, 0]
    runs = [line.replace("a,", "a.png,") for line in cells]
    (tmp_path / "s.csv").write_text("\n".join(["id,predicted", *runs, f"b.png,{mark}"]))
    score = score_masks(ScoreConfig(str(tmp_path / "s.csv"), truth=found.path))
    assert list(score.images["score"]) == [1, 1]
    (tmp_path / "train.csv").write_text("\n".join(["id,annotation", *cells, f"a,{mark}"]))
    with pytest.raises(DataError, match="line 4: an empty annotation, but"):
        prepared(tmp_path, overwrite=True)


def test_names_of_files_in_tables(tmp_path: Path) -> None:
    pair(tmp_path, "a")
    pair(tmp_path, "b")
    cells = [f"{name}.png,{rle},72,100" for name in "ab" for rle in rles_from_labels(LABELS)]
    truth = tmp_path / "truth.csv"
    truth.write_text("\n".join(["id,annotation,height,width", *cells]))
    config = ScoreConfig(str(tmp_path / "masks"), truth=truth)
    assert list(score_masks(config).images["id"]) == ["a", "b"]
    truth.write_text(
        "\n".join(["id,annotation,height,width", *cells]).replace("a.png", "day1/a.png")
    )
    with pytest.raises(
        DataError, match=r"have no image in common; the truth has b\.png, day1/a\.png"
    ):
        score_masks(config)
    folds = prepared(tmp_path).path / "folds.csv"
    folds.write_text("id,fold\na.tif,0\nb.tif,1\n")
    with pytest.raises(FoldError, match=r"line 2: unknown id 'a\.tif'; write 'a'"):
        read_fold_table(folds, ["a", "b"])


@pytest.mark.parametrize("name", ["A.PNG", "a", "sub/a.Png", "train/IMAGE.png"])
def test_names_of_images_in_coco_files(tmp_path: Path, name: str) -> None:
    place = tmp_path / "images" / "train" / "image.png" if "IMAGE" in name else tmp_path / "a.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(IMAGE).save(place)
    content = coco([0, 0])
    content["images"][0]["file_name"] = name
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert len(prepared(tmp_path).instances(prepared(tmp_path, overwrite=True).ids[0])) == 2


def test_numbers_that_are_none(tmp_path: Path) -> None:
    pair(tmp_path, "a")
    masks = np.where(LABELS == 0, np.nan, LABELS).astype(np.float32)
    tifffile.imwrite(tmp_path / "masks" / "a.tif", masks)
    with pytest.raises(
        DataError, match=r"6,475 of 7,200 values are not finite .* 0 for the backgr"
    ):
        prepared(tmp_path)


def test_the_folder_above_train_and_test(tmp_path: Path) -> None:
    for part in ("test", "train"):
        pair(tmp_path / "one" / part, "a")
        for kind in ("images", "masks"):
            place = tmp_path / "other" / kind / part
            place.mkdir(parents=True)
            shutil.copy(tmp_path / "one" / part / kind / "a.tif", place)
    with pytest.raises(
        DataError, match=r"2 folders in it look like .*: cellflow prepare \S+/train$"
    ):
        prepared(tmp_path / "one")
    with pytest.raises(DataError, match=r"images/train --masks \S+/masks/train --out train-data"):
        prepared(tmp_path / "other")
