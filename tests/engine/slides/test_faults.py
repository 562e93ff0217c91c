"""Slides on workers and under commands that are killed, and what else goes wrong on the way."""

from __future__ import annotations

import importlib.util
import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import zarr
from slide_files import Slide, files_of, labels_of

from cellflow.cli import main
from cellflow.config import SlidesConfig
from cellflow.engine.prediction.ensemble import ensemble
from cellflow.engine.runtime.tasks import cancelled_by
from cellflow.engine.segmentation.open_segmenter import for_workers
from cellflow.engine.slides.blocks import BlockGrid
from cellflow.engine.slides.store import SlideStore
from cellflow.errors import DataError, RunError
from cellflow.io.images import read_image, write_labels
from cellflow.io.label_pyramid import create_label_pyramid
from cellflow.io.large import coarse_pixels, open_large_image
from cellflow.types import Box

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "faults.py"
THRESHOLDS = ("--cellprob_threshold", "-1", "--flow_threshold", "2", "--min_size", "5")


@pytest.fixture(scope="module")
def faults() -> ModuleType:
    """The script whose quick twin these tests are."""
    spec = importlib.util.spec_from_file_location("benchmark_of_faults", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_of_faults"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_killed_workers_and_commands_change_no_byte(slide, undisturbed, faults, tmp_path):
    command = faults.Command(slide.path, Path(slide.config.runs[0]), tmp_path / "out", THRESHOLDS)
    expected = faults.files_of(undisturbed)
    record = expected.pop("slide.json")
    rng = np.random.default_rng(0)
    assert b'"cells": 0' not in record
    with faults.cluster() as address:
        steps = ("flows", "cells")
        trial = faults.disturb_workers(command, "a", address, os.getpid(), steps, rng, expected)
        assert trial.hit
        assert trial.wrong == ["slide.json is left over"]  # which has other paths in it
        trial = faults.disturb_client(command, "b", address, "ends", rng, expected)
        assert trial.hit
        assert trial.wrong == ["slide.json is left over"]


def test_what_nobody_waits_for_any_more_is_not_noted(tmp_path):
    store = SlideStore(tmp_path, BlockGrid((300, 300), 256))
    with cancelled_by(lambda: True), pytest.raises(RunError, match="not wanted any more"):
        store.save("flows", "0_0")
    assert store.done("flows") == set()
    store.save("flows", "0_0")
    assert store.done("flows") == {"0_0"}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system's own limit stands in for a full disk: a write beyond it really fails, and names no file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_told_with_the_name_of_the_array(tmp_path):
    """zarr's own errors of writing have none."""
    grid, box = BlockGrid((300, 300), 256), Box(0, 256, 0, 256)
    values = np.random.default_rng(0).normal(size=(2, 256, 256))
    store, path = SlideStore(tmp_path, grid), tmp_path / "labels.zarr"
    with files_of_at_most(50):
        with pytest.raises(OSError, match=re.escape(str(store.path / "flow.zarr"))):
            store.create()
        with pytest.raises(OSError, match=re.escape(str(path))):
            create_label_pyramid(path, grid.shape, chunk=256, largest=9)
    store.create()
    labels = create_label_pyramid(path, grid.shape, chunk=256, largest=9)
    with files_of_at_most(1000):
        with pytest.raises(OSError, match=re.escape(str(store.path / "flow.zarr"))):
            store.write("flow", box, values)
        with pytest.raises(OSError, match=re.escape(str(path))):
            labels.write(box, np.random.default_rng(0).integers(0, 9, (256, 256)))


@pytest.mark.slow
def test_parts_of_chunks_that_a_killed_writer_left_are_removed(slide, undisturbed, monkeypatch):
    save = SlideStore.save

    def leave(self, step, name, **values):
        save(self, step, name, **values)
        if step == "labels":
            (self.path.parent / "labels.zarr/0/c/0").mkdir(parents=True, exist_ok=True)
            (self.path.parent / "labels.zarr/0/c/0/0.abc.partial").write_bytes(b"half")

    monkeypatch.setattr(SlideStore, "save", leave)
    again = slide.segment("b", block=256).slides["mosaic"].folder
    assert files_of(again) == files_of(undisturbed)


@pytest.mark.slow
def test_small_images_join_the_folder_of_a_slide_and_the_other_way_round(slide, tmp_path):
    small = tmp_path / "small.tif"
    write_labels(small, np.tile(np.arange(64, dtype=np.int32), (64, 1)))
    first = slide.segment("b", block=256)
    config = replace(slide.config, images=(small,), output=replace(slide.config.output, name="b"))
    second = ensemble(config)
    assert second.folder == first.folder
    assert list(second.cells) == ["small"]
    assert slide.segment("b", block=256).cells == first.cells


def test_paths_mean_the_same_to_workers_that_were_started_elsewhere(slide, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "roi.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    image, model = (Path(os.path.relpath(path)) for path in (slide.path, slide.config.runs[0]))
    config = replace(
        slide.config,
        images=(image,),
        runs=(f"{model}@round", str(model)),
        runs_dir=Path(os.path.relpath(slide.config.runs_dir)),
        output=replace(slide.config.output, out=Path("here")),
        slides=SlidesConfig(block=256, scheduler="local:1", roi="roi.geojson"),
    )
    sent = for_workers(config)
    places = [*sent.images, sent.runs_dir, *map(Path, sent.runs)]
    assert all(place.is_absolute() for place in places)
    assert [place.resolve() for place in places] == [
        slide.path, slide.config.runs_dir, Path(f"{slide.config.runs[0]}@round"), Path(slide.config.runs[0]),
    ]  # fmt: skip
    assert sent.output.out == tmp_path / "here"
    assert sent.slides.roi == str(tmp_path / "roi.geojson")


def test_a_region_in_a_file_that_has_changed_is_another_region(slide, tmp_path):
    roi = tmp_path / "roi.geojson"
    text = (
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": '
        '{"objectType": "annotation"}, "geometry": {"type": "Polygon", "coordinates": '
        "[[[50, 100], [RIGHT, 100], [RIGHT, 250], [50, 250], [50, 100]]]}}]}"
    )
    roi.write_text(text.replace("RIGHT", "200"))
    part = slide.segment("b", block=256, roi=str(roi)).slides["mosaic"]
    assert labels_of(part.folder)[100:250, 50:200].any()
    roi.write_text(text.replace("RIGHT", "220"))
    assert "--overwrite" in slide.segment("b", block=256, roi=str(roi)).failed["mosaic"]


def test_a_dry_run_times_a_block_and_writes_nothing(slide, monkeypatch, tmp_path, capsys):
    from cellflow.io.source import FileImage

    def whole(self):
        raise AssertionError("a slide was read whole")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FileImage, "pixels", whole)
    arguments = [
        "predict", str(slide.path), "--model", str(slide.config.runs_dir / "tiny"), "--block", "256",
        "--device", "cpu", "--amp", "off", "--dry_run",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    assert "1, 0 of them done" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def with_a_damaged_chunk(path: Path, image: np.ndarray, chunk: int, place: str) -> Path:
    axes = [{"name": name, "type": "space"} for name in "yx"]
    scale = [{"type": "scale", "scale": [1, 1]}]
    levels = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    group = zarr.open_group(
        path, mode="w", attributes={"ome": {"version": "0.5", "multiscales": levels}}
    )
    array = group.create_array("0", shape=image.shape, chunks=(chunk, chunk), dtype=image.dtype)
    array[:] = image
    (path / "0/c" / place).write_bytes(b"no zstd")
    return path


def test_the_scale_of_values_is_found_without_a_damaged_chunk(tmp_path, caplog):
    image = np.arange(10_000, dtype=np.uint16).reshape(100, 100) + 1
    path = with_a_damaged_chunk(tmp_path / "plain.zarr", image, 40, "1/2")
    with open_large_image(path) as large:
        with pytest.raises(DataError, match="damaged"):
            coarse_pixels(large)
        found = coarse_pixels(large, pass_over=True)
    unknown = np.zeros((100, 100), bool)
    unknown[40:80, 80:] = True
    np.testing.assert_array_equal(found.known, ~unknown)
    np.testing.assert_array_equal(found.pixels[found.known], image[~unknown])
    assert "rows 40 to 80, columns 80 to 100" in caplog.text


@pytest.mark.slow
def test_a_damaged_chunk_costs_the_blocks_that_look_at_it(slide, tmp_path, caplog):
    image = np.tile(read_image(slide.path), (2, 2))
    path = with_a_damaged_chunk(tmp_path / "plain.zarr", image, 80, "9/10")
    found = Slide(path, replace(slide.config, images=(path,))).segment("b", block=256)
    assert not found.failed
    (part,) = found.slides.values()
    assert "3_3" in part.failed
    assert not {"0_0", "0_1", "1_0", "1_1"} & set(part.failed)
    assert "rows 720 to 800, columns 800 to 840" in caplog.text
    assert labels_of(part.folder)[:512].any()
