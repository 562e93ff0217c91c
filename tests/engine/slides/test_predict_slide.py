"""Slides from file to files: the bytes do not depend on blocks, workers, or how often the work was interrupted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaozarrs
import zarr
from slide_files import Slide, files_of, labels_of

from cellflow.cli import main
from cellflow.config import EnsembleConfig, InferenceConfig
from cellflow.engine.prediction.ensemble import open_ensemble
from cellflow.engine.segmentation import settled_diameter
from cellflow.engine.slides import flow_step, predict_slide
from cellflow.engine.slides.store import SlideStore
from cellflow.errors import DataError
from cellflow.io.formats.geojson import read_geojson
from cellflow.io.formats.ome_zarr import write_ome_zarr
from cellflow.io.images import read_image
from cellflow.io.shapes import instances_from_outlines
from cellflow.numeric.dynamics import flows_to_labels
from cellflow.storage.locks import hold_lock


def whole_labels(config: EnsembleConfig, path: Path) -> np.ndarray:
    """The label map of the image held whole, every step taken."""
    segmenter = open_ensemble(config).segmenter
    means = segmenter.means(read_image(path))
    mask = segmenter.mask
    return flows_to_labels(
        means.flow, means.cellprob, method="trace", niter=max(1, int(200 * means.diameter / 30)),
        cellprob_threshold=mask.cellprob_threshold, flow_threshold=mask.flow_threshold,
        min_size=mask.min_size, check_scale=False,
    )  # fmt: skip


@pytest.mark.slow
def test_blocks_of_any_size_give_the_bytes_of_the_whole_image(ensemble_slide):
    slide = ensemble_slide
    results = {block: slide.segment(f"b{block}", block=block) for block in (256, 301, 700)}
    folders = {block: result.slides["mosaic"].folder for block, result in results.items()}
    whole = whole_labels(slide.config, slide.path)
    assert whole.max() > 20
    for block in (256, 301):  # cells lie over all borders
        for borders in (whole[block - 1 : block + 1], whole[:, block - 1 : block + 1].T):
            assert len(set(borders[0]) & set(borders[1]) - {0}) > 3
    for block, folder in folders.items():
        np.testing.assert_array_equal(labels_of(folder), whole)
        assert results[block].cells == {"mosaic": whole.max()}
        assert not (folder / ".blocks").exists()
    tables = [(folder / "cells.csv").read_bytes() for folder in folders.values()]
    outlines = [(folder / "cells.geojson").read_bytes() for folder in folders.values()]
    assert len(set(tables)) == len(set(outlines)) == 1


@pytest.mark.slow
def test_a_measured_diameter_is_the_same_for_every_block(slide, monkeypatch, caplog):
    """Twice where it is not content with a diameter that is a little off."""
    monkeypatch.setattr(settled_diameter, "REST", 1.01)
    config = replace(
        slide.config,
        inference=InferenceConfig(diameter_rounds=9),
        mask=replace(slide.config.mask, min_size=40),
    )
    with caplog.at_level("INFO"):
        folder = replace(slide, config=config).segment("a", block=256).slides["mosaic"].folder
    assert " -> " in caplog.text
    whole = whole_labels(config, slide.path)
    assert whole.any()
    np.testing.assert_array_equal(labels_of(folder), whole)


def test_the_table_and_the_outlines_are_those_of_the_cells(slide, undisturbed):
    folder = undisturbed
    whole = slide.segment("whole")
    labels = labels_of(folder).astype(np.int32)
    table = pd.read_csv(folder / "cells.csv")
    known = pd.read_csv(whole.table)
    assert list(table) == list(known)
    assert table["label"].tolist() == list(range(1, labels.max() + 1))
    assert table["area"].tolist() == np.bincount(labels.ravel())[1:].tolist()
    rows, columns = np.nonzero(labels == 7)
    cell = table[table["label"] == 7].iloc[0]
    assert cell["centroid_y"] == pytest.approx(rows.mean())
    assert cell["centroid_x"] == pytest.approx(columns.mean())
    assert cell["box_y1"] == rows.max() + 1
    found = read_geojson(folder / "cells.geojson")
    again = instances_from_outlines(found.cells, labels.shape)
    assert again.areas.tolist() == table["area"].tolist()


def test_the_label_map_is_a_valid_ome_zarr_with_the_scale_of_the_image(slide, tmp_path):
    image = read_image(slide.path)
    write_ome_zarr(tmp_path / "im.zarr", image, np.zeros(image.shape, np.int32), pixel_size=None)
    config = replace(slide.config, images=(tmp_path / "im.zarr",))
    config = replace(config, files=replace(config.files, pixel_size=0.5))
    result = Slide(slide.path, config).segment("z", block=256)
    folder = result.slides["im"].folder
    yaozarrs.validate_zarr_store(folder / "labels.zarr")
    facts = zarr.open_group(folder / "labels.zarr").attrs["ome"]
    scale = facts["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale == [0.5, 0.5]
    assert facts["image-label"]["source"]["image"] == str(tmp_path / "im.zarr")
    table = pd.read_csv(folder / "cells.csv")
    assert table["area_um2"].tolist() == pytest.approx((table["area"] * 0.25).tolist())


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("after", [2, 6, 9, 14, 19, 21, 24])
def test_a_pass_that_was_stopped_goes_on_from_what_is_done(slide, undisturbed, monkeypatch, after):
    save, calls = SlideStore.save, []

    def stop(self, step, name, **values):
        calls.append((step, name))
        if len(calls) == after:
            raise Stopped
        save(self, step, name, **values)

    monkeypatch.setattr(SlideStore, "save", stop)
    with pytest.raises(Stopped):
        slide.segment("b", block=256)
    first = len(calls)
    again = slide.segment("b", block=256).slides["mosaic"].folder
    assert files_of(again) == files_of(undisturbed)
    done = calls[: after - 1]
    assert not set(done) & set(calls[first:])


def test_the_same_command_finds_that_all_is_there(slide, undisturbed, monkeypatch):
    monkeypatch.setattr(flow_step, "open_work", None)
    config = replace(slide.config, output=replace(slide.config.output, out=undisturbed.parents[2]))
    again = Slide(slide.path, config).segment("a", block=301)
    assert again.slides["mosaic"].folder == undisturbed
    assert again.cells["mosaic"] > 0


def test_a_block_that_fails_is_told_and_the_rest_is_finished(
    slide, undisturbed, monkeypatch, caplog
):
    make = predict_slide.make_flows

    def fail(job, name):
        if name == "1_1":
            raise OSError("the disk is on fire")
        make(job, name)

    monkeypatch.setattr(predict_slide, "make_flows", fail)
    result = slide.segment("b", block=256).slides["mosaic"]
    assert list(result.failed) == ["1_1"]
    assert "rows 256 to 400, columns 256 to 420" in caplog.text
    assert "the disk is on fire" in caplog.text
    labels = labels_of(result.folder)
    assert not labels[256:, 256:].any()
    assert 0 < labels.max() < labels_of(undisturbed).max()
    monkeypatch.setattr(predict_slide, "make_flows", make)
    again = slide.segment("b", block=256).slides["mosaic"]
    assert not again.failed
    assert files_of(again.folder) == files_of(undisturbed)


def test_where_no_block_can_be_predicted_the_image_is_named(slide, monkeypatch):
    def fail(job, name):
        raise OSError("the disk is on fire")

    monkeypatch.setattr(predict_slide, "make_flows", fail)
    result = slide.segment("b", block=256)
    assert "flows of all blocks failed" in result.failed["mosaic"]
    assert "the disk is on fire" in result.failed["mosaic"]


def test_two_processes_do_not_write_one_slide(slide, tmp_path):
    folder = tmp_path / "out" / "b" / "slides" / "mosaic"
    with hold_lock(folder / ".lock", "it"):
        assert "is being worked on" in slide.segment("b", block=256).failed["mosaic"]


@pytest.mark.slow
def test_another_prediction_in_the_same_place_is_refused(slide):
    slide.segment("b", block=256)
    other = Slide(slide.path, replace(slide.config, mask=replace(slide.config.mask, min_size=40)))
    assert "--overwrite" in other.segment("b", block=256).failed["mosaic"]
    config = replace(other.config, output=replace(other.config.output, overwrite=True))
    assert Slide(slide.path, config).segment("b", block=256).slides["mosaic"].cells > 0


def test_a_region_of_interest_alone_is_segmented(slide, undisturbed):
    part = slide.segment("b", block=256, roi="100,50,250,200").slides["mosaic"]
    labels = labels_of(part.folder)
    inside = np.zeros(labels.shape, bool)
    inside[100:250, 50:200] = True
    assert labels.any()
    assert not labels[~inside].any()
    assert part.cells < labels_of(undisturbed).max()
    record = json.loads((part.folder / "slide.json").read_text())
    assert record["tiles"] == record["tiles_run"] > 0

    (part.folder / ".blocks" / "flows").mkdir(parents=True)  # as a kill at the very end leaves it
    assert slide.segment("b", block=256, roi="100,50,250,200").slides["mosaic"] == part
    assert not (part.folder / ".blocks").exists()

    del record["cells"]  # a record that is damaged is no result
    (part.folder / "slide.json").write_text(json.dumps(record))
    assert slide.segment("b", block=256, roi="100,50,250,200").slides["mosaic"] == part
    np.testing.assert_array_equal(labels_of(part.folder), labels)


@pytest.mark.slow
def test_an_empty_background_is_passed_over(slide, tmp_path, caplog):
    image = np.full((200, 800), 40, np.uint8)
    image[:, 170:380] = read_image(slide.path)[:200, :210]
    noise = np.random.default_rng(0).integers(0, 2, image.shape).astype(np.uint8)
    tifffile.imwrite(tmp_path / "flat.tif", image, tile=(128, 128))
    tifffile.imwrite(tmp_path / "noisy.tif", image + noise, tile=(128, 128))

    def segment(name: str, **settings: object) -> tuple[dict, np.ndarray]:
        path = tmp_path / f"{name}.tif"
        config = replace(slide.config, images=(path,))
        result = Slide(path, config).segment(f"{name}{len(settings)}", block=256, **settings)
        folder = result.slides[name].folder
        return json.loads((folder / "slide.json").read_text()), labels_of(folder)

    record, labels = segment("flat")
    assert record["tiles_run"] < record["tiles"]  # those of one value are run once
    np.testing.assert_array_equal(labels, whole_labels(slide.config, tmp_path / "flat.tif"))
    with caplog.at_level("INFO", logger="cellflow"):
        record, fewer = segment("noisy", empty=0.1)
    assert record["tiles_run"] < record["tiles"]
    assert "tiles are empty and were passed over" in caplog.text
    labels = whole_labels(slide.config, tmp_path / "noisy.tif")
    inside = (slice(None), slice(190, 360))
    np.testing.assert_array_equal(fewer[inside] > 0, labels[inside] > 0)
    assert len(np.unique(fewer[:, 255:257])) > 2  # cells lie over the border of blocks


def test_a_smaller_level_is_segmented_by_itself(slide, tmp_path):
    image = read_image(slide.path)
    small = image.reshape(200, 2, 210, 2).mean(axis=(1, 3)).astype(image.dtype)
    path = tmp_path / "levels.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(image, tile=(128, 128), subifds=1)
        file.write(small, tile=(128, 128), subfiletype=1)
    tifffile.imwrite(tmp_path / "small.tif", small, tile=(128, 128))
    config = replace(slide.config, images=(path,))
    corners = [
        [40, 60],
        [300, 60],
        [300, 350],
        [40, 350],
        [40, 60],
    ]  # x and y, as QuPath exports a rectangle
    area = {"type": "Polygon", "coordinates": [corners]}
    kind = {"objectType": "annotation"}
    roi = tmp_path / "roi.geojson"
    roi.write_text(json.dumps([{"type": "Feature", "geometry": area, "properties": kind}]))
    found = Slide(path, config).segment("a", level=1, roi=str(roi)).slides["levels"].folder
    config = replace(slide.config, images=(tmp_path / "small.tif",))
    alone = Slide(path, config).segment("b", roi="30,20,175,150").slides["small"].folder
    np.testing.assert_array_equal(labels_of(found), labels_of(alone))
    assert labels_of(found).max() > 5


def test_the_command_says_what_it_wrote(slide, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = [
        "predict", str(slide.path), "--model", str(slide.config.runs_dir / "tiny"), "--block", "256",
        "--device", "cpu", "--amp", "off", "--cellprob_threshold", "-1", "--flow_threshold", "2",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "cells in 1 image" in out
    assert "slides/ID/" in out
    assert (tmp_path / "predictions" / "tiny" / "slides" / "mosaic" / "cells.csv").is_file()


@pytest.mark.slow
def test_a_diameter_in_micrometres_is_one_in_pixels(slide):
    config = replace(slide.config, files=replace(slide.config.files, pixel_size=0.5))
    micrometres = replace(config, inference=replace(config.inference, diameter="9um"))
    pixels = replace(config, inference=replace(config.inference, diameter=18.0))
    first = Slide(slide.path, micrometres).segment("a", block=256).slides["mosaic"].folder
    second = Slide(slide.path, pixels).segment("b", block=256).slides["mosaic"].folder
    assert files_of(first) == files_of(second)
    unknown = replace(slide.config, inference=replace(config.inference, diameter="9um"))
    with pytest.raises(DataError, match="--pixel_size"):
        Slide(slide.path, unknown).segment("c", block=256)


def test_foreign_flows_are_refused(slide, tmp_path):
    flow = np.zeros((2, 400, 420), np.float32)
    (tmp_path / "flows").mkdir()
    np.savez(tmp_path / "flows" / "mosaic.npz", flow=flow + 3, cellprob=flow[0] - 4, scale=5.0)
    config = replace(slide.config, flows=(tmp_path / "flows",))
    with pytest.raises(DataError, match="Leave out --flows"):
        Slide(slide.path, config).segment("b", block=256)
