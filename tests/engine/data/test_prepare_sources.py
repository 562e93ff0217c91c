"""Masks and folders as people bring them: taken and said, or refused in one message that says what to type."""

from __future__ import annotations

import gzip
import logging
import os
import shlex
import shutil
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from cellflow import cli
from cellflow.config import FoldsConfig, PrepareConfig, ScoreConfig
from cellflow.engine.data.make_folds import make_folds
from cellflow.engine.data.prepare import prepare
from cellflow.engine.validation.score_masks import score_masks
from cellflow.errors import ConfigError, DataError
from cellflow.io.dataset import Dataset
from cellflow.numeric.rle import rles_from_labels

Pixels = NDArray[np.integer]
RNG = np.random.default_rng(0)


def cells(n: int = 12) -> NDArray[np.uint16]:
    """Numbered discs on 96 x 128 pixels."""
    y, x = np.meshgrid(np.linspace(14, 82, 3), np.linspace(14, 114, 4), indexing="ij")
    rows, columns = np.indices((96, 128))
    labels = np.zeros((96, 128), np.uint16)
    for number, (cy, cx) in enumerate(zip(y.flat, x.flat, strict=True), 1):
        labels[np.hypot(rows - cy, columns - cx) < 8] = number if number <= n else 0
    return labels


def photo(labels: Pixels | None = None) -> NDArray[np.uint8]:
    """Another picture each time: two of the same cells would pass for copies."""
    noise = RNG.normal(60, 12, (96, 128))
    blobs = ndimage.gaussian_filter(RNG.normal(size=(96, 128)), 5)
    bright = 80 * (blobs > blobs.std()) if labels is None else 80 * (labels > 0)
    return np.clip(ndimage.gaussian_filter(noise + bright, 0.7), 0, 255).astype(np.uint8)


def write(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.startswith(".tif"):
        tifffile.imwrite(path, pixels)
    else:
        path.write_bytes(imagecodecs.png_encode(pixels))


def folders(
    root: Path, masks: dict[str, Pixels], images: str = "images", maps: str = "masks"
) -> Path:
    for name, labels in masks.items():
        write(root / images / f"{name}.tif", photo())
        write(root / maps / f"{name}.tif", labels)
    return root


def run(source: Path, **options: object) -> Dataset:
    return prepare(
        PrepareConfig(source=source, out=source.parent / "data", overwrite=True, **options)
    )  # type: ignore[arg-type]


def fails(source: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        run(source, **options)
    assert not (source.parent / "data").exists()
    return str(caught.value)


def command(words: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == 0


# -------------------------------------------------------------------------------------------- masks


@pytest.mark.slow
def test_no_false_alarm_on_real_images(
    shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("usiigaci", "dsb2018", "kaggle_layout"):
        prepare(PrepareConfig(source=shared / "data" / name, out=tmp_path / name))
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


BINARY = (cells() > 0).astype(np.uint8)
CLASSES = np.where(cells() > 6, 2, BINARY).astype(np.uint8)
EMPTY = np.zeros((96, 128), np.uint8)


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        ({"x": BINARY * 255}, "In 1 of 1 images"),
        ({"x": BINARY, "y": BINARY * 255}, "In 2 of 2 images"),
        ({"x": cells(), "y": BINARY, "z": cells()}, "In 1 of 3 images"),
        ({"x": EMPTY, "y": BINARY}, "In 1 of 2 images"),
        ({"x": CLASSES, "y": CLASSES, "z": EMPTY}, "x (2 labels in 12 parts), y (2 labels"),
    ],
)
def test_foreground_and_classes_are_told(
    masks: dict[str, Pixels], told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(folders(tmp_path / "s", masks))
    assert told in caplog.text
    assert "each cell needs a number of its own" in caplog.text
    assert "--split makes" in caplog.text


def test_foreground_is_told_in_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(folders(tmp_path / "s", {"x": BINARY * 255}))
    share = 100 * BINARY.mean()
    assert f"x (one object of {share:.0f} % of the image in 12 parts)" in caplog.text


def test_split_parts_numbers_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = run(folders(tmp_path / "s", {"x": BINARY * 255, "y": EMPTY}), split=True)
    assert dataset.images["n_instances"].tolist() == [12, 0]
    assert np.array_equal(dataset.labels("x") > 0, BINARY > 0)
    assert "separate parts" not in caplog.text


def test_all_masks_empty_and_one_cell_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(folders(tmp_path / "s", dict.fromkeys("xy", EMPTY)))
    assert "No image has a cell" in caplog.text
    run(folders(tmp_path / "t", dict.fromkeys("xyz", cells(1))))
    assert "exactly one cell" in caplog.text


def test_points_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    points = np.zeros((96, 128), np.uint16)
    points[np.arange(5, 95, 10), np.arange(5, 95, 10)] = np.arange(1, 10)
    run(folders(tmp_path / "s", {"x": points, "y": cells()}))
    assert "points of 1 or 2 pixels in 1 of 2 images (x)" in caplog.text


@pytest.mark.parametrize("value", [1, 255, 65535])
def test_background_that_is_not_0_is_refused(value: int, tmp_path: Path) -> None:
    shifted = np.where(cells(), cells() + 1, value).astype(np.uint16)
    message = fails(folders(tmp_path / "s", {"x": shifted, "y": shifted}))
    assert f"x.tif: the value {value} lies around everything" in message
    assert "The same for 1 more (y)." in message


def test_a_mask_of_one_value_everywhere_is_refused(tmp_path: Path) -> None:
    whole = np.full_like(EMPTY, 255)
    message = fails(folders(tmp_path / "s", {"x": cells(), "y": whole}))
    assert "y.tif: every pixel is 255" in message


def test_images_given_as_masks_and_the_two_swapped(tmp_path: Path) -> None:
    source = folders(tmp_path / "s", {name: cells() for name in "abc"})
    (source / "images").rename(source / "kept")
    (source / "masks").rename(source / "images")
    (source / "kept").rename(source / "masks")
    message = fails(source)
    assert "a.tif: expected a label map" in message
    assert "found a picture" in message
    assert "are images and masks swapped?" in message
    assert "The same for 2 more (b, c)." in message
    assert "found a picture" in fails(source, masks=source / "masks")


def test_smoothed_label_maps_are_refused(tmp_path: Path) -> None:
    smooth = ndimage.zoom(ndimage.zoom(cells().astype(np.uint8) * 20, 0.5, order=1), 2, order=1)
    assert "resized with smoothing" in fails(folders(tmp_path / "s", {"x": smooth}))


def test_lossy_label_maps_are_refused_in_one_line(tmp_path: Path) -> None:
    source = folders(tmp_path / "s", {name: cells() for name in "abc"})
    for path in (source / "masks").iterdir():
        lossy = imagecodecs.jpeg8_encode((cells() * 20).astype(np.uint8), level=90)
        path.with_suffix(".jpg").write_bytes(lossy)
        path.unlink()
    message = fails(source)
    assert "JPEG" in message
    assert message.endswith("The same for 2 more (b, c).")


def test_raw_images_are_no_truth(tmp_path: Path) -> None:
    source = folders(tmp_path / "s", {name: cells() for name in "ab"})
    with pytest.raises(DataError, match=r"images/a\.tif: expected a label map"):
        score_masks(ScoreConfig(pred=str(source / "masks"), truth=source / "images"))
    result = score_masks(ScoreConfig(pred=str(source / "masks"), truth=source / "masks"))
    assert result.table["score"].tolist() == [1.0]


def test_foreground_as_truth_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = folders(tmp_path / "s", {name: BINARY for name in "ab"})
    score_masks(ScoreConfig(pred=str(source / "masks"), truth=source / "masks"))
    assert "In 2 of 2 images labels lie in many separate parts" in caplog.text


# ------------------------------------------------------------------------------------- Kaggle tables


def kaggle(root: Path, order: str = "C", repeats: int = 0) -> Path:
    rows = ["id,annotation,width,height"]
    for name in "abc":
        write(root / "train" / f"{name}.tif", photo())
        rles = rles_from_labels(cells(), order)  # type: ignore[arg-type]
        rows += [f"{name},{rle},128,96" for rle in rles + rles[:repeats]]
    (root / "train.csv").write_text("\n".join(rows) + "\n")
    return root


def test_column_major_runs_are_read_so_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = kaggle(tmp_path / "s", "F")
    dataset = run(source)
    assert np.array_equal(dataset.labels("a") > 0, cells() > 0)
    assert "column by column" in caplog.text
    assert "--rle_order C" in caplog.text
    rows = (dataset.path / "instances.csv").read_text().splitlines()
    wanted = [f"a,{rle}" for rle in rles_from_labels(cells())]
    assert sorted(row for row in rows if row[0] == "a") == sorted(wanted), (
        "row-major in the dataset"
    )
    result = score_masks(ScoreConfig(pred=str(dataset.path / "labels"), truth=source / "train.csv"))
    assert result.table["score"].tolist() == [1.0]
    caplog.clear()
    assert (run(source, rle_order="F").labels("a") == dataset.labels("a")).all()
    assert not caplog.text
    assert "separate parts" in (run(source, rle_order="C") and caplog.text)


def test_row_major_runs_are_read_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert np.array_equal(run(kaggle(tmp_path / "s")).labels("a") > 0, cells() > 0)
    assert not caplog.text


def test_repeated_rows_count_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = kaggle(tmp_path / "s", repeats=2)
    dataset = run(source)
    assert dataset.images["n_instances"].tolist() == [12] * 3
    assert "6 repeats in 3 of 3 images (a (2), b (2), c (2))" in caplog.text
    result = score_masks(ScoreConfig(pred=str(dataset.path / "labels"), truth=source / "train.csv"))
    assert result.images["n_true"].tolist() == [12] * 3


def test_packed_table_and_table_without_rows(tmp_path: Path) -> None:
    source = kaggle(tmp_path / "s")
    text = (source / "train.csv").read_bytes()
    (source / "train.csv").unlink()
    (source / "train.csv.gz").write_bytes(gzip.compress(text))
    assert len(run(source)) == 3
    shutil.rmtree(tmp_path / "data")
    (source / "train.csv.gz").write_bytes(gzip.compress(text.splitlines()[0] + b"\n"))
    assert len(fails(source).splitlines()) == 1


def test_columns_by_other_names_are_told_with_the_flags_that_read_them(tmp_path: Path) -> None:
    source = kaggle(tmp_path / "s")
    table = source / "train.csv"
    table.write_text(table.read_text().replace("id,annotation", "Image_Id,mask_rle"))
    flags = "--id_column Image_Id --annotation_column mask_rle"
    assert flags in fails(source)
    assert len(run(source, id_column="Image_Id", annotation_column="mask_rle")) == 3


def test_half_of_the_kaggle_layout(tmp_path: Path) -> None:
    source = kaggle(tmp_path / "s")
    (source / "train.csv").rename(source / "stage1_labels.csv")
    assert "stage1_labels.csv is there, but no train.csv: rename" in fails(source)
    (source / "stage1_labels.csv").rename(source / "train.csv")
    (source / "train").rename(source / "pictures")
    assert "train.csv is there, but no folder train/: rename" in fails(source)
    (source / "pictures").rename(source / "Train")
    assert len(run(source)) == 3


# ------------------------------------------------------------------------------------ pairs and names


@pytest.mark.parametrize(
    ("image", "mask", "flags"),
    [
        ("{}_image.tif", "{}_masks.tif", "--mask_filter _masks --img_filter _image"),
        ("{}_img.tif", "{}_masks.tif", "--mask_filter _masks --img_filter _img"),
        ("{}.tif", "{}_cp_masks.tif", "--mask_filter _cp_masks"),
        ("{}.tif", "{}_mask.png", "--mask_filter _mask"),
        ("images/{}_img.tif", "masks/{}_mask.tif", "--mask_filter _mask --img_filter _img"),
        ("images/{}.tif", "masks/{}_label.tif", "--mask_filter _label"),
    ],
)
def test_other_endings_are_taken_and_said(
    image: str, mask: str, flags: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "s"
    for name in "ab":
        write(source / image.format(name), photo())
        write(source / mask.format(name), cells())
    assert run(source).ids == ["a", "b"]
    assert f"all 2 pairs fit {flags}, so that is taken" in caplog.text
    caplog.clear()
    words = flags.split()
    given = {
        word.removeprefix("--"): words[i + 1] for i, word in enumerate(words) if word[0] == "-"
    }
    assert run(source, **given).ids == ["a", "b"]
    assert not caplog.text


def test_endings_that_fit_for_some_only_are_named(tmp_path: Path) -> None:
    source = tmp_path / "s"
    for name, ending in (("a", "_masks"), ("b", "_cp_masks")):
        write(source / f"{name}.tif", photo())
        write(source / f"{name}{ending}.tif", cells())
    message = fails(source)
    assert "b.tif: no mask" in message
    assert "b_cp_masks.tif is there: rename it, or add --mask_filter _cp_masks" in message
    assert len(message.splitlines()) == 1


def test_two_endings_that_both_fit_are_asked_for(tmp_path: Path) -> None:
    source = tmp_path / "s"
    write(source / "a.tif", photo())
    write(source / "a_cp_masks.tif", cells())
    write(source / "a_mask.tif", cells())
    assert run(source).ids == ["a"], "what Cellpose writes is passed over beside another mask"
    shutil.rmtree(tmp_path / "data")
    write(source / "a_label.tif", cells())
    assert "no label map" in fails(source)


def test_options_of_names_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--mask_filter and --img_filter are the same"):
        run(tmp_path, mask_filter="_x", img_filter="_x")


@pytest.mark.parametrize(
    ("images", "maps"), [("Images", "Masks"), ("images", "labels"), ("IMAGES", "Annotations")]
)
def test_folders_by_other_names(images: str, maps: str, tmp_path: Path) -> None:
    assert run(folders(tmp_path / "s", {"x": cells()}, images, maps)).ids == ["x"]


def test_images_that_lie_elsewhere(tmp_path: Path) -> None:
    folders(tmp_path / "maps", {"x": cells()})
    (tmp_path / "maps" / "images").rename(tmp_path / "elsewhere")
    assert run(tmp_path / "maps", images=tmp_path / "elsewhere").ids == ["x"]
    kaggle(tmp_path / "table")
    (tmp_path / "table" / "train").rename(tmp_path / "photos")
    assert run(tmp_path / "table", images=tmp_path / "photos").ids == ["a", "b", "c"]


def test_folders_that_could_both_be_meant(tmp_path: Path) -> None:
    source = folders(tmp_path / "s", {"x": cells()}, maps="labels")
    write(source / "annotations" / "x.tif", cells())
    message = fails(source)
    assert "annotations and labels are both there" in message
    assert "--masks" in message
    assert run(source, masks=source / "labels").ids == ["x"]


def test_images_whose_names_look_like_outputs(tmp_path: Path) -> None:
    source = tmp_path / "s"
    for name in ("cell_flows", "opt_masks", "plain"):
        write(source / f"{name}.tif", photo())
        write(source / f"{name}_masks.tif", cells())
    write(source / "plain_flows.tif", photo())
    assert run(source).ids == ["cell_flows", "opt_masks", "plain"]


def test_files_of_other_kinds_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = folders(tmp_path / "s", {"x": cells(), "y": cells()})
    (source / "images" / "y.tif").rename(source / "images" / "y.jxl")
    message = fails(source)
    assert "y.tif: a mask without an image" in message
    assert "y.jxl is there, but .jxl is not read; convert it" in message
    (source / "masks" / "y.tif").unlink()
    assert run(source).ids == ["x"]
    assert "1 file (y.jxl)" in caplog.text


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names of bytes")
def test_names_that_are_not_utf8_and_broken_links_lose_no_other_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = folders(tmp_path / "s", {"x": cells()})
    for folder in ("images", "masks"):
        shutil.copy(
            source / folder / "x.tif", os.fsdecode(bytes(source / folder) + b"/caf\xe9.tif")
        )
        (source / folder / "gone.tif").symlink_to(tmp_path / "nowhere.tif")
    assert run(source).ids == ["x"]
    assert r"1 file (caf\udce9.tif): its name is not UTF-8" in caplog.text
    assert "a link that leads nowhere" in caplog.text


def test_images_in_subfolders_are_told_with_a_command_that_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folders(
        tmp_path / "my s", {"x": cells(), "A/y": cells(), "A/z": cells(), "B/y": cells()}
    )
    assert run(source).ids == ["x"]
    assert "3 images in sub-folders" in caplog.text
    monkeypatch.chdir(tmp_path)
    words = caplog.text.split("cellflow prepare ")[1].split("\n")[0]
    command(["prepare", *shlex.split(words)])
    assert Dataset.open(tmp_path / "A-data").ids == ["y", "z"]


@pytest.mark.parametrize("given", ["s/images", "s/masks", "above", "k/train"])
def test_a_folder_too_deep_or_too_high(given: str, tmp_path: Path) -> None:
    folders(tmp_path / "s", {"x": cells()})
    folders(tmp_path / "above" / "inner", {"x": cells()})
    kaggle(tmp_path / "k")
    right = {"above": "above/inner"}.get(given, given.split("/")[0])
    with pytest.raises(DataError) as caught:
        prepare(PrepareConfig(source=tmp_path / given, out=tmp_path / "data"))
    assert str(caught.value).endswith(f"cellflow prepare {tmp_path / right}")
    assert len(prepare(PrepareConfig(source=tmp_path / right, out=tmp_path / "data"))) in (1, 3)


def test_a_dataset_and_a_file_are_no_sources(tmp_path: Path) -> None:
    dataset = run(folders(tmp_path / "s", {"x": cells()}))
    with pytest.raises(DataError, match="cellflow folds --data"):
        prepare(PrepareConfig(source=dataset.path, out=tmp_path / "other"))
    table = kaggle(tmp_path / "k") / "train.csv"
    with pytest.raises(DataError, match=f"cellflow prepare {tmp_path / 'k'}"):
        prepare(PrepareConfig(source=table, out=tmp_path / "other"))


def test_masks_of_images_that_were_removed_are_one_line(tmp_path: Path) -> None:
    source = folders(
        tmp_path / "s", {name: cells() for name in ("a", "b", "c", "d", "well1", "well2")}
    )
    for name in ("b", "d", "well2"):
        (source / "images" / f"{name}.tif").unlink()
    message = fails(source)
    assert "b.tif: a mask without an image" in message
    assert message.endswith("The same for 2 more (d, well2).")


def test_images_that_are_gone_since_last_time_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = folders(tmp_path / "s", {name: cells() for name in "abc"})
    make_folds(FoldsConfig(data=run(source).path, k=2))
    for folder in ("images", "masks"):
        (source / folder / "b.tif").unlink()
    run(source)
    assert "no longer there: b; new: none" in caplog.text


def test_a_wrong_source_is_told_before_a_target_in_the_way(tmp_path: Path) -> None:
    source = folders(tmp_path / "s", {"x": cells(), "y": cells()})
    config = PrepareConfig(source=source, out=run(source).path)
    (source / "masks" / "y.tif").unlink()
    with pytest.raises(DataError, match="no mask"):
        prepare(config)
    write(source / "masks" / "y.tif", cells())
    with pytest.raises(DataError, match="exists already"):
        prepare(config)


def test_the_end_says_what_was_found_and_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders(tmp_path / "s", {name: cells() for name in "abc"})
    (tmp_path / "t.csv").write_text("id,cell_type,group\na,glia,1\nb,glia,1\nc,,2\n")
    monkeypatch.chdir(tmp_path)
    command(["prepare", "s", "--table", "t.csv", "--out", "d"])
    said = capsys.readouterr().out
    assert (
        "d: 3 images, 36 cells, 1 cell type (glia 2), 1 image without a type, 2 groups (group), 96 x 128"
        in said
    )
    following = said.split("Next: cellflow ")[1].split()
    assert following == ["folds", "--k", "2", "--data", "d"]
    command(following)


def test_pictures_of_outlines_that_cellpose_saves_are_no_masks(tmp_path: Path) -> None:
    source = tmp_path / "cp"
    for name in "ab":
        write(source / f"{name}.tif", photo())
        write(source / f"{name}_cp_masks.png", cells())
        write(source / f"{name}_outlines_cp_masks.png", np.stack([photo()] * 3, -1))
    dataset = prepare(PrepareConfig(source, out=tmp_path / "d"))
    assert dataset.images["n_instances"].tolist() == [12, 12]
    found = score_masks(ScoreConfig(str(source), truth=tmp_path / "d"))
    assert found.images["score"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "mask", ["{}_masks.tif", "{}_cp_masks.png", "masks/{}.png", "{}.ome_masks.tif"]
)
def test_masks_of_ome_tiffs_may_be_called_without_ome(tmp_path: Path, mask: str) -> None:
    source = tmp_path / "s"
    for name in "ab":
        write(source / ("images" * mask.startswith("masks/")) / f"{name}.ome.tif", photo())
        write(source / mask.format(name), cells())
    dataset = prepare(PrepareConfig(source, out=tmp_path / "d"))
    assert dataset.images["n_instances"].to_dict() == {"a.ome": 12, "b.ome": 12}


def test_a_mask_without_an_image_is_not_its_own_remedy(tmp_path: Path) -> None:
    source = tmp_path / "s"
    for name in "ab":
        write(source / f"{name}.tif", photo())
    write(source / "a_masks.tif", cells())
    write(source / "c_masks.tif", cells())
    message = fails(source)
    assert (
        "c_masks.tif: a mask without an image; expected an image named c. Add the image" in message
    )
