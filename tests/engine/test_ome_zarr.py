"""OME-Zarr from files to files: prepared, predicted, exported, scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaozarrs
from zarr_files import write_image, write_plate

from cellflow import cli
from cellflow.engine.exports.ome_zarr import OmeZarr
from cellflow.io.channel_names import read_channel_names
from cellflow.io.dataset import Dataset
from cellflow.io.images import read_image, read_labels, read_masks, write_labels
from cellflow.io.pixel_size import read_pixel_size
from cellflow.synthetic import synthetic_dataset

NAMES = ("DAPI", "Cyto")
IMAGES = list(synthetic_dataset(3, shape=(96, 112), seed=5, per_group=1))


def planes(image: np.ndarray) -> np.ndarray:
    grey = image if image.ndim == 2 else image.mean(axis=-1).astype(image.dtype)
    return np.stack([grey[::-1], grey])


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as done:
        cli.main([*map(str, words)])
    return int(done.value.code or 0)


@pytest.fixture(params=["0.4", "0.5"])
def zarrs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of images of two channels with their label maps."""
    folder = tmp_path / "zarrs"
    for item in IMAGES:
        labels = {"nuclei": item.labels.astype(np.uint32)}
        path = folder / f"{item.id}.zarr"
        write_image(path, planes(item.image), version=request.param, names=NAMES, labels=labels)
    return folder


def version_of(path: Path) -> str:
    return "0.5" if (path / "zarr.json").exists() else "0.4"


def test_prepare(zarrs: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert command("prepare", zarrs, "--out", data) == 0
    dataset = Dataset.open(data)
    assert dataset.ids == sorted(item.id for item in IMAGES)
    for item in IMAGES:
        assert np.array_equal(dataset.image(item.id), np.moveaxis(planes(item.image), 0, -1))
        assert np.array_equal(dataset.labels(item.id) > 0, item.labels > 0)
        assert len(dataset.instances(item.id)) == len(np.unique(item.labels)) - 1
        assert dataset.channel_names(item.id) == NAMES
        assert dataset.pixel_size(item.id) == (0.5, 0.25)
        kept = data / "images" / f"{item.id}.tif"
        assert (read_channel_names(kept), read_pixel_size(kept)) == (NAMES, (0.5, 0.25))
    assert json.loads((data / "dataset.json").read_text())["source_layout"] == "ome-zarr"


def test_prepare_one_zarr_and_a_plate(zarrs: Path, tmp_path: Path) -> None:
    one = zarrs / f"{IMAGES[0].id}.zarr"
    assert command("prepare", one, "--out", tmp_path / "one") == 0
    assert Dataset.open(tmp_path / "one").ids == [IMAGES[0].id]
    labels = {"cells": IMAGES[0].labels.astype(np.uint8)}
    image, version = planes(IMAGES[0].image), version_of(one)
    plate = write_plate(tmp_path / "p.zarr", image, ("A/1",), version, labels=labels)
    assert command("prepare", plate, "--out", tmp_path / "wells") == 0
    assert Dataset.open(tmp_path / "wells").ids == ["p.zarr__A__1__0", "p.zarr__A__1__1"]


def test_which_labels(zarrs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = zarrs / f"{IMAGES[0].id}.zarr"
    shutil.copytree(one / "labels" / "nuclei", one / "labels" / "cells")
    for file in ("zarr.json", ".zattrs"):
        if (one / "labels" / file).exists():
            text = (one / "labels" / file).read_text()
            (one / "labels" / file).write_text(text.replace('["nuclei"]', '["nuclei", "cells"]'))
    assert command("prepare", one, "--out", tmp_path / "data") == 1
    assert "found nuclei, cells. Say which with --masks NAME" in capsys.readouterr().err
    assert command("prepare", one, "--out", tmp_path / "data", "--masks", "cells") == 0


def test_a_name_of_labels_is_none_of_a_folder_that_happens_to_be_there(
    zarrs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nuclei").mkdir()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, source in (("one", zarrs / f"{IMAGES[0].id}.zarr"), ("all", zarrs)):
        assert command("prepare", source, "--masks", "nuclei", "--out", tmp_path / name) == 0
    for item in IMAGES:  # a folder of label maps of another name is still one
        write_labels(tmp_path / "other" / f"{item.id}.tif", np.flipud(item.labels))
    assert command("prepare", zarrs, "--masks", "other", "--out", tmp_path / "flipped") == 0
    found = Dataset.open(tmp_path / "flipped").labels(IMAGES[0].id)
    assert np.array_equal(found > 0, np.flipud(IMAGES[0].labels) > 0)


def test_an_image_without_labels_is_a_problem(
    zarrs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(zarrs / f"{IMAGES[1].id}.zarr" / "labels")
    assert command("prepare", zarrs, "--out", tmp_path / "data") == 1
    said = capsys.readouterr().err
    assert f"{IMAGES[1].id}.zarr: expected a label map in its labels/, found none" in said
    assert not (tmp_path / "data").exists()


def test_labels_of_another_size(
    zarrs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = zarrs / f"{IMAGES[0].id}.zarr"
    version = version_of(one)
    labels = {"nuclei": IMAGES[0].labels[:90].astype(np.uint8)}
    shutil.rmtree(one)
    write_image(one, planes(IMAGES[0].image), version=version, labels=labels)
    assert command("prepare", zarrs, "--out", tmp_path / "data") == 1
    assert "the label map is 90 x 112 (height x width), its image is 96 x 112" in (
        capsys.readouterr().err
    )


def test_images_and_masks_in_folders(zarrs: Path, tmp_path: Path) -> None:
    """The masks lie beside the zarrs, as TIFF."""
    source = tmp_path / "source"
    shutil.copytree(zarrs, source / "images")
    (source / "masks").mkdir()
    for item in IMAGES:
        tifffile.imwrite(source / "masks" / f"{item.id}.tif", item.labels.astype(np.uint16))
    assert command("prepare", source, "--out", tmp_path / "data") == 0
    assert len(Dataset.open(tmp_path / "data")) == 3


def predict(model: Path, *words: object) -> int:
    more = ["--device", "cpu", "--amp", "off", "--diameter", 20, "--flow_threshold", 0]
    return command("predict", *words, "--model", model, *more)


@pytest.fixture
def model(shared: Path) -> Path:
    return shared / "models" / "usiigaci_unet"


@pytest.mark.parametrize("zarrs", ["0.4"], indirect=True)
def test_predict_and_export(zarrs: Path, model: Path, tmp_path: Path) -> None:
    export = ["--export", "masks", "cells", "ome-zarr", "--chan", "Cyto"]
    common = ["--out", tmp_path / "out", "--name", "a"]
    assert predict(model, zarrs, *common, *export) == 0
    result = tmp_path / "out" / "a"
    found = 0
    for item in IMAGES:
        path = result / "ome-zarr" / f"{item.id}.zarr"
        yaozarrs.validate_zarr_store(str(path))
        labels = read_labels(result / "masks" / f"{item.id}.tif")
        found += labels.max()
        assert np.array_equal(read_masks(path / "labels" / "cells"), labels)
        assert np.array_equal(read_image(path), np.moveaxis(planes(item.image), 0, -1))
        assert (read_channel_names(path), read_pixel_size(path)) == (NAMES, (0.5, 0.25))
    assert found > 10
    table = pd.read_csv(result / "cells.csv")
    assert len(table) == found
    assert np.allclose(table["area_um2"], table["area"] * 0.125)
    facts = json.loads((path / "labels" / "cells" / "zarr.json").read_text())
    rows = facts["attributes"]["ome"]["image-label"]["properties"]
    last = table[table["id"] == IMAGES[-1].id]
    assert [row["label-value"] for row in rows] == last["label"].tolist()
    for key in ("area", "area_um2", "centroid_y"):
        assert np.allclose([row[key] for row in rows], last[key])


@pytest.mark.parametrize("zarrs", ["0.4"], indirect=True)
def test_an_export_that_comes_later(zarrs: Path, model: Path, tmp_path: Path) -> None:
    """It is the same as one that was written at once, and what was interrupted is made again."""
    common = [zarrs, "--out", tmp_path / "out", "--chan", 2]
    assert predict(model, *common, "--name", "once", "--export", "ome-zarr") == 0
    assert predict(model, *common, "--name", "later") == 0
    assert predict(model, *common, "--name", "later", "--export", "ome-zarr") == 0
    once, later = (tmp_path / "out" / name / "ome-zarr" for name in ("once", "later"))
    files = sorted(path.relative_to(once) for path in once.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(later) for p in later.rglob("*") if p.is_file())
    assert all((once / file).read_bytes() == (later / file).read_bytes() for file in files)
    half = later / f".{IMAGES[0].id}.zarr.0123abcd.tmp"
    (later / f"{IMAGES[0].id}.zarr").rename(half)
    assert OmeZarr().done(later.parent, set()) == {item.id for item in IMAGES[1:]}
    assert predict(model, *common, "--name", "later", "--export", "ome-zarr") == 0
    assert OmeZarr().done(later.parent, set()) == {item.id for item in IMAGES}
    assert np.array_equal(
        read_image(later / f"{IMAGES[0].id}.zarr"), read_image(once / f"{IMAGES[0].id}.zarr")
    )


@pytest.mark.parametrize("zarrs", ["0.4"], indirect=True)
def test_an_image_that_has_changed_is_exported_again(
    zarrs: Path, model: Path, tmp_path: Path
) -> None:
    common = [zarrs, "--out", tmp_path, "--name", "a", "--chan", 2, "--export", "ome-zarr"]
    assert predict(model, *common) == 0
    one = zarrs / f"{IMAGES[0].id}.zarr"
    version = version_of(one)
    shutil.rmtree(one)
    turned = np.ascontiguousarray(planes(IMAGES[0].image)[:, :, ::-1])
    write_image(one, turned, version=version, names=NAMES)
    assert predict(model, *common) == 0
    written = tmp_path / "a" / "ome-zarr" / one.name
    assert np.array_equal(read_image(written), np.moveaxis(turned, 0, -1))


def test_score(zarrs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels in zarrs against themselves, and against a dataset made of them."""
    assert command("prepare", zarrs, "--out", tmp_path / "data") == 0
    for truth in (zarrs, tmp_path / "data"):
        out = tmp_path / "scores.csv"
        assert command("score", zarrs, "--truth", truth, "--out", out) == 0
        assert (pd.read_csv(out)["score"] == 1).all()
    moved = tmp_path / "moved"
    for item in IMAGES:
        labels = {"cells": np.roll(item.labels, 3, axis=0).astype(np.uint16)}
        write_image(moved / f"{item.id}.zarr", planes(item.image), labels=labels)
    assert command("score", moved, "--truth", zarrs, "--out", tmp_path / "scores.csv") == 0
    assert (pd.read_csv(tmp_path / "scores.csv")["score"] < 1).all()


@pytest.mark.parametrize("zarrs", ["0.4"], indirect=True)
def test_score_an_export(zarrs: Path, model: Path, tmp_path: Path) -> None:
    """As its label maps do."""
    words = ["--out", tmp_path, "--name", "a", "--chan", 2, "--export", "masks", "ome-zarr"]
    assert predict(model, zarrs, *words) == 0
    scores = []
    for place in ("masks", "ome-zarr"):
        out = tmp_path / f"{place}.csv"
        assert command("score", tmp_path / "a" / place, "--truth", zarrs, "--out", out) == 0
        scores.append(pd.read_csv(out))
    assert scores[0].equals(scores[1])


@pytest.mark.parametrize("zarrs", ["0.4"], indirect=True)
def test_the_limit_of_every_command(
    zarrs: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limit = ["--max_pixels", 96 * 112 - 1]
    said = "it claims 96 x 112 pixels (height x width), more than the 10,751 that are read"
    assert command("prepare", zarrs, "--out", tmp_path / "data", *limit) == 1
    assert said in capsys.readouterr().err
    assert command("score", zarrs, "--truth", zarrs, *limit) == 1
    assert said in capsys.readouterr().err
    assert predict(model, zarrs, "--out", tmp_path, *limit) == 1
    assert said in capsys.readouterr().err
    assert predict(model, zarrs, "--out", tmp_path, *limit, "--dry_run") == 1
    assert said in capsys.readouterr().err
    assert predict(model, zarrs, "--out", tmp_path, "--max_pixels", 96 * 112) == 0


@pytest.mark.parametrize("zarrs", ["0.4"], indirect=True)
def test_in_python(zarrs: Path, model: Path) -> None:
    import cellflow

    net = cellflow.load_model(model, device="cpu", amp="off")
    path = zarrs / f"{IMAGES[0].id}.zarr"
    pixels = np.moveaxis(planes(IMAGES[0].image), 0, -1)
    assert np.array_equal(
        net.predict(path, diameter=20).labels, net.predict(pixels, diameter=20).labels
    )
