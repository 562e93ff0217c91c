"""Outlines as people bring and take them: from files to files."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from roifile import ROI_TYPE, ImagejRoi, roiread, roiwrite
from skimage.io import imsave

from cellflow.cli import main
from cellflow.config import PrepareConfig, ScoreConfig
from cellflow.engine.data.prepare import prepare
from cellflow.engine.exports import EXPORTS
from cellflow.engine.exports.export import PredictedImage
from cellflow.engine.segmentation.result import Prediction
from cellflow.engine.validation.score_masks import score_masks
from cellflow.errors import ConfigError, DataError
from cellflow.io.dataset import Dataset
from cellflow.io.formats import ReadOptions, find_format
from cellflow.io.formats.geojson import write_geojson
from cellflow.io.formats.imagej_rois import ImagejRois, write_rois
from cellflow.io.formats.label_maps import LabelMaps
from cellflow.io.images import read_image, read_labels, write_labels

WRITERS = {
    "rois": ("{}_rois.zip", lambda path, labels, kind: write_rois(path, labels)),
    "geojson": (
        "{}.geojson",
        lambda path, labels, kind: write_geojson(path, labels, path.stem, cell_type=kind),
    ),
}


def run(*words: object) -> int:
    """The exit code of a command."""
    try:
        main(list(map(str, words)))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def outlined(tiny_source: Path, folder: Path, form: str, place: Path) -> Path:
    """The images of a data set with outlines instead of label maps, beside them or in a place of their own."""
    name, write = WRITERS[form]
    images = folder if place == folder else folder / "images"
    images.mkdir(parents=True)
    place.mkdir(exist_ok=True)
    for image in (tiny_source / "images").iterdir():
        shutil.copyfile(image, images / image.name)
        labels = read_labels(tiny_source / "masks" / f"{image.stem}.tif")
        write(place / name.format(image.stem), labels, image.stem.split("_")[0])
    return folder


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("place", ["", "FORM", "Annotations"])
def test_prepare_and_score(tiny_source: Path, tmp_path: Path, form: str, place: str) -> None:
    source = tmp_path / "source"
    folder = source / place.replace("FORM", form)
    outlined(tiny_source, source, form, folder)
    assert run("prepare", source, "--out", tmp_path / "data") == 0
    data = Dataset.open(tmp_path / "data")
    assert len(data) == 6
    for name in data.ids:
        truth = read_labels(tiny_source / "masks" / f"{name}.tif")
        np.testing.assert_array_equal(data.labels(name), truth)
        assert (data.path / "images" / f"{name}.png").is_file()
    types = {"round", "spindle", "spread"}
    assert ("cell_type" in data.images) is (form == "geojson")
    assert form == "rois" or set(data.images["cell_type"]) == types
    for pred, truth in ((source, data.path), (data.path / "labels", source), (source, source)):
        result = score_masks(ScoreConfig(pred=str(pred), truth=truth))
        assert result.images["score"].tolist() == [1.0] * 6
    one = folder / WRITERS[form][0].format(data.ids[0])
    score_one = ScoreConfig(pred=str(one), truth=data.path, subset=True)
    assert score_masks(score_one).images["score"].tolist() == [1.0]


@pytest.mark.parametrize("form", WRITERS)
def test_images_elsewhere(tiny_source: Path, tmp_path: Path, form: str) -> None:
    source = outlined(tiny_source, tmp_path / "source", form, tmp_path / "source" / form)
    images = shutil.move(source / "images", tmp_path / "pixels")
    alone = source / form
    data = prepare(PrepareConfig(alone, out=tmp_path / "data", images=Path(images)))
    assert len(data) == 6
    with pytest.raises(DataError, match=r"how large image .* is not known.*--images"):
        score_masks(ScoreConfig(pred=str(data.path / "labels"), truth=alone))
    result = score_masks(
        ScoreConfig(pred=str(data.path / "labels"), truth=alone, images=Path(images))
    )
    assert result.images["score"].tolist() == [1.0] * 6
    with pytest.raises(ConfigError, match="--images needs --outlines"):
        score_masks(ScoreConfig(pred=str(alone), truth=data.path, images=Path(images)))


def square(left: float, top: float, size: float = 6) -> ImagejRoi:
    points = [(left, top), (left + size, top), (left + size, top + size), (left, top + size)]
    roi = ImagejRoi.frompoints(np.array(points))
    roi.roitype = ROI_TYPE.POLYGON
    return roi


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.stem)).integers(0, 255, (30, 40), np.uint8)
    imsave(path, pixels, check_contrast=False)


def test_names_of_roi_files(tmp_path: Path) -> None:
    for name in ("a", "b", "c.ome", "d"):
        image(tmp_path / "in" / f"{name}.tif")
    roiwrite(tmp_path / "in" / "a.zip", [square(2, 2), square(20, 2)])
    square(2, 2).tofile(tmp_path / "in" / "b.roi")
    roiwrite(tmp_path / "in" / "c_RoiSet.zip", [square(2, 2), square(5, 5)])  # they overlap
    with zipfile.ZipFile(tmp_path / "in" / "d_rois.zip", "w"):
        pass
    with zipfile.ZipFile(tmp_path / "in" / "pictures.zip", "w") as archive:
        archive.writestr("e.tif", b"II*")
    data = prepare(PrepareConfig(tmp_path / "in", out=tmp_path / "data"))
    assert [len(data.instances(name)) for name in data.ids] == [2, 1, 2, 0]
    assert data.instances("c.ome").areas.tolist() == [36, 36]


def test_endings_of_images_and_outlines(tmp_path: Path) -> None:
    for name in ("a_img", "b_img", "c_img"):
        image(tmp_path / "in" / f"{name}.tif")
    image(tmp_path / "in" / "a_other.tif")
    for name in ("a_rois", "b_img_rois", "c_drawn"):
        roiwrite(tmp_path / "in" / f"{name}.zip", [square(2, 2)])
    config = PrepareConfig(
        tmp_path / "in", out=tmp_path / "data", img_filter="_img", mask_filter="_drawn"
    )
    assert prepare(config).ids == ["a", "b", "c"]


def test_two_files_for_one_image(tmp_path: Path) -> None:
    image(tmp_path / "in" / "a.tif")
    for name in ("a", "a_rois"):
        roiwrite(tmp_path / "in" / f"{name}.zip", [square(2, 2)])
    with pytest.raises(DataError, match=r"a\.zip and a_rois\.zip have the same id 'a'"):
        prepare(PrepareConfig(tmp_path / "in", out=tmp_path / "data"))


def test_a_roi_set_beside_the_only_image(tmp_path: Path) -> None:
    image(tmp_path / "in" / "cells.tif")
    roiwrite(tmp_path / "in" / "RoiSet.zip", [square(2, 2)])
    assert prepare(PrepareConfig(tmp_path / "in", out=tmp_path / "data")).ids == ["cells"]
    image(tmp_path / "in" / "others.tif")
    with pytest.raises(DataError, match=r"RoiSet.zip: outlines without an image") as caught:
        prepare(PrepareConfig(tmp_path / "in", out=tmp_path / "data2"))
    assert "cells.tif: no outlines; expected cells_rois.zip" in str(caught.value)
    assert not (tmp_path / "data2").exists()


def test_names_as_qupath_proposes_them(tmp_path: Path) -> None:
    labels = np.zeros((30, 40), np.int32)
    labels[3:9, 3:9] = 1
    for name, file in (("a.tif", "a.tif"), ("b.ome.tif", "b"), ("c.ome.tif", "c.ome.tif")):
        image(tmp_path / "in" / name)
        write_geojson(tmp_path / "in" / f"{file}.geojson", labels, file)
    image(tmp_path / "in" / "d.png")
    write_geojson(tmp_path / "in" / "d.json", labels, "d")  # as before QuPath 0.3
    (tmp_path / "in" / "b.ome.json").write_text('{"exposure": 3}')
    data = prepare(PrepareConfig(tmp_path / "in", out=tmp_path / "data"))
    assert [len(data.instances(name)) for name in data.ids] == [1, 1, 1, 1]


def test_label_maps_beside_rois_come_first(tmp_path: Path) -> None:
    image(tmp_path / "in" / "a.tif")
    labels = np.zeros((30, 40), np.int32)
    labels[3:9, 3:9] = 1
    labels[5:7, 5:7] = 0
    write_labels(tmp_path / "in" / "a_cp_masks.tif", labels)
    roiwrite(tmp_path / "in" / "a_rois.zip", [square(3, 3)])  # without the hole, as Cellpose
    source = PrepareConfig(tmp_path / "in", out=tmp_path / "data", mask_filter="_cp_masks")
    assert prepare(source).instances("a").areas.tolist() == [32]
    rois = PrepareConfig(tmp_path / "in", out=tmp_path / "rois", masks=tmp_path / "in")
    assert prepare(rois).instances("a").areas.tolist() == [36]
    assert isinstance(find_format(tmp_path / "in", ReadOptions("truth")), LabelMaps)
    (tmp_path / "in" / "a_cp_masks.tif").unlink()
    assert isinstance(find_format(tmp_path / "in", ReadOptions("truth")), ImagejRois)
    (tmp_path / "in" / "a_seg.npy").touch()
    assert not isinstance(find_format(tmp_path / "in", ReadOptions("truth")), ImagejRois)


def two_squares() -> np.ndarray:
    labels = np.zeros((30, 40), np.int32)
    labels[2:10, 2:10] = 1
    labels[12:20, 12:24] = 2
    return labels


def test_label_maps_in_the_folder_of_masks_come_before_old_outlines(tmp_path: Path) -> None:
    image(tmp_path / "in" / "a.png")
    (tmp_path / "masks_of_today").mkdir()
    write_labels(tmp_path / "masks_of_today" / "a.tif", two_squares())
    roiwrite(tmp_path / "masks_of_today" / "a_rois.zip", [square(2, 2)])
    config = PrepareConfig(
        tmp_path / "in", out=tmp_path / "data", masks=tmp_path / "masks_of_today"
    )
    assert len(prepare(config).instances("a")) == 2


def test_label_maps_without_an_ending_are_scored_and_not_the_outlines(tmp_path: Path) -> None:
    for name in ("pred", "truth"):
        (tmp_path / name).mkdir()
        write_labels(tmp_path / name / "a.tif", two_squares())
    roiwrite(tmp_path / "pred" / "a_rois.zip", [square(2, 2)])
    for pred, truth in (("pred", "truth"), ("truth", "pred")):
        config = ScoreConfig(pred=str(tmp_path / pred), truth=tmp_path / truth)
        assert score_masks(config).images["score"].tolist() == [1.0]


@pytest.mark.parametrize("ending", ["_labels", "_mask", "-label"])
def test_label_maps_of_any_usual_ending_come_first(tmp_path: Path, ending: str) -> None:
    for name in "ab":
        image(tmp_path / "in" / f"{name}.tif")
        write_labels(tmp_path / "in" / f"{name}{ending}.tif", two_squares())
    roiwrite(tmp_path / "in" / "a_rois.zip", [square(2, 2)])
    data = prepare(PrepareConfig(tmp_path / "in", out=tmp_path / "data"))
    assert [len(data.instances(name)) for name in data.ids] == [2, 2]
    config = ScoreConfig(pred=str(tmp_path / "in"), truth=tmp_path / "data")
    assert score_masks(config).images["score"].tolist() == [1.0, 1.0]


def test_cells_in_two_forms_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each form is read alone without such a line; of two, both are named."""
    caplog.set_level("INFO")
    folder = tmp_path / "in"
    image(folder / "a.tif")
    write_geojson(folder / "a.geojson", two_squares(), "a")
    prepare(PrepareConfig(folder, out=tmp_path / "one"))
    assert "more than one form" not in caplog.text
    roiwrite(folder / "a_rois.zip", [square(2, 2)])
    assert len(prepare(PrepareConfig(folder, out=tmp_path / "two")).instances("a")) == 2
    assert "Taken: geojson. Not taken: imagej-rois (a_rois.zip)" in caplog.text
    write_labels(folder / "a_masks.tif", two_squares())
    content = {"images": [], "annotations": []}
    (folder / "all.json").write_text(json.dumps(content))
    prepare(PrepareConfig(folder, out=tmp_path / "three"))
    others = "geojson (a.geojson), imagej-rois (a_rois.zip), coco (all.json)"
    assert f"Taken: image-mask-folders. Not taken: {others}" in caplog.text
    caplog.clear()
    score_masks(ScoreConfig(pred=str(tmp_path / "three" / "labels"), truth=folder))
    assert f"Taken: label-maps. Not taken: {others}" in caplog.text
    caplog.clear()
    score_masks(ScoreConfig(pred=str(tmp_path / "two" / "labels"), truth=tmp_path / "two"))
    assert "more than one form" not in caplog.text


@pytest.mark.parametrize("record", [True, False])
def test_the_forms_of_a_folder_of_results_are_no_news(
    record: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write_labels(tmp_path / "truth" / "a.tif", two_squares())
    write_labels(tmp_path / "found" / "masks" / "a.tif", two_squares())
    (tmp_path / "found" / "rois").mkdir()
    roiwrite(tmp_path / "found" / "rois" / "a_rois.zip", [square(2, 2)])
    if record:
        (tmp_path / "found" / "prediction.json").write_text("{}")
    score_masks(ScoreConfig(pred=str(tmp_path / "found"), truth=tmp_path / "truth"))
    assert ("more than one form" in caplog.text) is not record


def test_cell_types_of_mixed_images_and_of_one_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ring = [[2, 2], [8, 2], [8, 8], [2, 8], [2, 2]]

    def save(name: str, *kinds: str | None) -> None:
        image(tmp_path / "in" / f"{name}.png")
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[[x + at, y] for x, y in ring]]},
                "properties": {"classification": {"name": kind}} if kind else {},
            }
            for at, kind in enumerate(kinds)
        ]
        content = {"type": "FeatureCollection", "features": features}
        (tmp_path / "in" / f"{name}.geojson").write_text(json.dumps(content))

    save("a", "Tumor", "Tumor", "Stroma")
    save("b", "Stroma", None)
    save("c", None)
    data = prepare(PrepareConfig(tmp_path / "in", out=tmp_path / "data"))
    assert data.images["cell_type"].tolist() == ["Tumor", "Stroma", ""]
    assert "cells of several classes in 1 of 3 images" in caplog.text
    assert "a (Tumor 2, Stroma 1)" in caplog.text
    save("a", "Stroma")
    data = prepare(PrepareConfig(tmp_path / "in", out=tmp_path / "one"))
    assert "cell_type" not in data.images


def test_points_and_lines_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "in" / "a.png")
    point = square(2, 2)
    point.roitype = ROI_TYPE.POINT
    line = ImagejRoi(roitype=ROI_TYPE.LINE, x1=1, y1=1, x2=8, y2=8)
    roiwrite(tmp_path / "in" / "a.zip", [square(2, 2), point, line, line], name=list("abcd"))
    assert len(prepare(PrepareConfig(tmp_path / "in", out=tmp_path / "data")).instances("a")) == 1
    assert "left out, because they are no cells: 1 point, 2 lines (a)" in caplog.text


def test_what_is_wrong_comes_together_and_nothing_is_written(tmp_path: Path) -> None:
    for name in "abcde":
        image(tmp_path / "in" / f"{name}.png")
    with zipfile.ZipFile(tmp_path / "in" / "e_rois.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.roi", bytes(8 * 2**20))
    roiwrite(tmp_path / "in" / "a.zip", [square(2, 2), square(100, 2)], name=["near", "far"])
    roiwrite(tmp_path / "in" / "b.zip", [square(2, 200)], name=["far"])
    (tmp_path / "in" / "c_rois.zip").write_bytes(b"no zip")
    with pytest.raises(DataError) as caught:
        prepare(PrepareConfig(tmp_path / "in", out=tmp_path / "data"))
    text = str(caught.value)
    for part in (
        "1 outline outside the image a",
        "The same for 1 more (b)",
        "not a zip",
        "d.png: no outl",
    ):
        assert part in text, text
    assert not (tmp_path / "data").exists()


@pytest.fixture(scope="module")
def predicted_shapes(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prediction with every export of outlines."""
    folder = tmp_path_factory.mktemp("predicted")
    picture = read_image(shared / "data" / "kaggle_layout" / "test" / "set37_0.png")
    for name in ("one", "two"):
        (folder / "images").mkdir(exist_ok=True)
        part = picture[300:460, 300:500] if name == "one" else np.zeros((50, 60), np.uint8)
        imsave(folder / "images" / f"{name}.png", part, check_contrast=False)
    model = shared / "models" / "usiigaci_unet"
    for exports in (("masks", "txt"), ("cells", "geojson"), ("roi",)):  # the last two are added
        done = run(
            *("predict", folder / "images", "--model", model, "--chan", 0, "--name", "p"),
            *("--out", folder / "predictions", "--pixel_size", 0.5, "--device", "cpu"),
            *("--export", *exports),
        )
        assert done == 0
    return folder / "predictions" / "p"


def test_predict_writes_what_the_tools_read(predicted_shapes: Path) -> None:
    labels = read_labels(predicted_shapes / "masks" / "one.tif")
    n_cells = int(labels.max())
    assert n_cells > 3
    rois = roiread(predicted_shapes / "rois" / "one_rois.zip")
    assert [roi.name for roi in rois] == [str(number) for number in range(1, n_cells + 1)]
    text = (predicted_shapes / "geojson" / "one.geojson").read_text()
    parts = shapely.from_geojson(text).geoms
    cells = pd.read_csv(predicted_shapes / "cells.csv")
    assert [part.area for part in parts] == cells["area"].tolist()
    for item, (_, row) in zip(json.loads(text)["features"], cells.iterrows(), strict=True):
        assert item["properties"]["name"] == str(row["label"])
        measured = item["properties"]["measurements"]
        for name in ("area", "area_um2", "confidence", "mean_intensity"):
            assert measured[name] == pytest.approx(row[name], rel=1e-5)
        assert measured["area_um2"] == measured["area"] * 0.25
    lines = (predicted_shapes / "txt" / "one_cp_outlines.txt").read_text().splitlines()
    assert len(lines) == n_cells
    for number, line in enumerate(lines, 1):  # as Cellpose's macro: a polygon of the corners
        ring = shapely.Polygon(np.array(line.split(","), int).reshape(-1, 2))
        assert ring.area >= np.count_nonzero(labels == number) > 0
    assert roiread(predicted_shapes / "rois" / "two_rois.zip") == []


@pytest.mark.parametrize("form", WRITERS)
def test_predictions_are_scored_from_their_outlines(
    predicted_shapes: Path, tmp_path: Path, form: str
) -> None:
    folder = tmp_path / "p"
    shutil.copytree(predicted_shapes / form, folder / form)
    for pred in (folder, folder / form):
        result = score_masks(ScoreConfig(pred=str(pred), truth=predicted_shapes / "masks"))
        assert result.images["score"].tolist() == [1.0, 1.0]


def test_the_class_of_detections_is_the_cell_type(tmp_path: Path) -> None:
    labels = np.zeros((30, 40), np.int32)
    labels[3:9, 3:9] = 1
    fields = np.zeros((2, 30, 40), np.float32)
    prediction = Prediction(
        fields, fields[0], fields[0], labels, 6.0, fields[0], cell_type="round"
    )  # fmt: skip
    item = PredictedImage("a", labels, labels, None, prediction)
    EXPORTS["geojson"].write(tmp_path, item)
    (cell,) = json.loads((tmp_path / "geojson" / "a.geojson").read_text())["features"]
    assert cell["properties"]["classification"] == {"name": "round"}
    assert "area_um2" not in cell["properties"]["measurements"]
