"""Plates and folders of many images: tables by well, and images as tasks of workers, from files to files."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scheduled
from skimage.io import imsave
from slide_files import LOOSE
from zarr_files import write_group, write_image

from cellflow import cli
from cellflow.config import EnsembleConfig, OutputConfig, RuntimeConfig, SlidesConfig, TrainConfig
from cellflow.engine.prediction import ensemble as command
from cellflow.engine.prediction import image_tasks
from cellflow.engine.prediction.ensemble import EnsembleResult, ensemble
from cellflow.engine.runtime.scheduler import Scheduler, open_scheduler
from cellflow.engine.segmentation.cell_table import CELL_COLUMNS
from cellflow.errors import RunError
from cellflow.io.image_source import find_images
from cellflow.io.plates import places_in_plates
from cellflow.napari.reader import reader_of
from cellflow.synthetic import synthetic_dataset

PICTURES = [
    np.asarray(item.image if item.image.ndim == 2 else item.image[..., 0])
    for item in synthetic_dataset(4, shape=(72, 80), seed=5, per_group=1)
]
WELLS = {"B/03": 2, "C/11": 1}


def write_plate(path: Path, version: str = "0.5", first: int = 0) -> Path:
    """A plate of two wells with two fields and one."""
    write_group(path, {"plate": {"wells": [{"path": well} for well in WELLS]}}, version)
    number = first
    for well, count in WELLS.items():
        fields = {"well": {"images": [{"path": str(field)} for field in range(count)]}}
        write_group(path / well, fields, version)
        for field in range(count):
            write_image(
                path / well / str(field), PICTURES[number % 4], "yx", version=version, levels=1
            )
            number += 1
    return path


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plate(tmp_path_factory.mktemp("plates") / "one.ome.zarr")


@pytest.fixture
def config(trained: TrainConfig, tmp_path: Path) -> EnsembleConfig:
    """Predicts with one small model; images are to be named."""
    return EnsembleConfig(
        images=(tmp_path,),
        runs=(str(trained.runs_dir / "tiny" / "fold_0" / "best.pt"),),
        mask=LOOSE,
        output=OutputConfig(out=tmp_path / "out", name="result"),
        runtime=RuntimeConfig(device="cpu", amp="off"),
    )


def run(config: EnsembleConfig, *images: Path, **output: Any) -> EnsembleResult:
    return ensemble(replace(config, images=images, output=replace(config.output, **output)))


def tree(path: Path) -> dict[str, bytes]:
    """Every file of a result but the settings, which name the scheduler."""
    files = (item for item in path.rglob("*") if item.is_file())
    but = (".lock", "ensemble.yaml")
    return {str(f.relative_to(path)): f.read_bytes() for f in files if f.name not in but}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_places(tmp_path: Path, version: str) -> None:
    place = write_plate(tmp_path / "P.1.zarr", version)
    write_image(tmp_path / "alone.zarr", PICTURES[0], "yx", version=version)
    imsave(tmp_path / "a.png", PICTURES[0], check_contrast=False)
    images = find_images([place, tmp_path / "alone.zarr", tmp_path / "a.png"])
    assert places_in_plates(images) == {
        "P.1.zarr__B__03__0": ("P.1", "B03", "0"),
        "P.1.zarr__B__03__1": ("P.1", "B03", "1"),
        "P.1.zarr__C__11__0": ("P.1", "C11", "0"),
    }
    field = find_images(place / "B" / "03" / "1")
    assert [*places_in_plates(field).values()] == [("P.1", "B03", "1")]


def test_cells_have_their_well_and_wells_a_table(
    config: EnsembleConfig, plate: Path, tmp_path: Path
) -> None:
    model, out = config.runs[0], tmp_path / "out"
    words = [
        "predict", plate, "--model", model, "--out", out, "--name", "result", "--device", "cpu",
        "--amp", "off", "--cellprob_threshold", -1, "--flow_threshold", 2, "--min_size", 5,
    ]  # fmt: skip
    with pytest.raises(SystemExit) as done:
        cli.main([*map(str, words)])
    assert not done.value.code
    cells = pd.read_csv(out / "result" / "cells.csv", dtype={"well": str, "field": str})
    assert list(cells) == ["id", "well", "field", *CELL_COLUMNS]
    names = cells["id"].str.split("__", expand=True)
    assert (names[1] + names[2] == cells["well"]).all() and (names[3] == cells["field"]).all()

    wells = pd.read_csv(out / "result" / "wells.csv").set_index("well")
    assert list(wells.index) == ["B03", "C11"]
    for well, images in (("B03", 2), ("C11", 1)):
        own = cells[cells["well"] == well]
        assert len(own) > 3
        assert wells.loc[well].to_dict() == pytest.approx(
            {
                "images": images,
                "cells": len(own),
                "mean_area": own["area"].mean(),
                "mean_intensity": own["mean_intensity"].mean(),
                "cells_per_mm2": len(own) / (images * 72 * 80 * 0.5 * 0.25 / 1e6),
            }
        )

    read = reader_of(str(out / "result"))
    assert read is not None
    shown = [facts["features"] for _, facts, kind in read(None) if kind == "labels"]
    assert {well for table in shown for well in table["well"].dropna()} == {"B03", "C11"}


def test_a_second_plate_joins(config: EnsembleConfig, tmp_path: Path) -> None:
    """What was predicted of the first plate is kept, and the tables are those of one command for all."""
    plate = write_plate(tmp_path / "one.ome.zarr")
    second = write_plate(tmp_path / "two.zarr", first=1)
    imsave(tmp_path / "a.png", PICTURES[3], check_contrast=False)
    every = plate, second, tmp_path / "a.png"
    first = run(config, plate, tmp_path / "a.png")
    assert list(pd.read_csv(first.table))[:3] == ["id", "well", "field"]
    table = first.table.read_bytes()
    written = {path: path.stat().st_mtime_ns for path in first.masks.iterdir()}
    run(config, *every)
    assert written.items() <= {p: p.stat().st_mtime_ns for p in first.masks.iterdir()}.items()
    fresh = run(config, *every, name="fresh")
    for name in ("cells.csv", "wells.csv"):
        assert (first.folder / name).read_bytes() == (fresh.folder / name).read_bytes()
    cells = pd.read_csv(fresh.table, keep_default_na=False)
    assert list(cells)[:4] == ["id", "plate", "well", "field"]
    assert set(cells["plate"]) == {"one", "two", ""}
    assert set(cells.loc[cells["id"] == "a", "well"]) == {""}
    wells = pd.read_csv(fresh.folder / "wells.csv")
    assert wells[["plate", "well"]].to_numpy().tolist() == [
        ["one", "B03"], ["one", "C11"], ["two", "B03"], ["two", "C11"],
    ]  # fmt: skip
    run(config, plate, tmp_path / "a.png", overwrite=True)
    assert first.table.read_bytes() == table


def test_other_images_have_no_wells(config: EnsembleConfig, plate: Path, tmp_path: Path) -> None:
    imsave(tmp_path / "a.png", PICTURES[3], check_contrast=False)
    result = run(config, plate)
    assert (result.folder / "wells.csv").is_file()
    result = run(config, tmp_path / "a.png", overwrite=True)
    assert list(pd.read_csv(result.table)) == ["id", *CELL_COLUMNS]
    assert not (result.folder / "wells.csv").exists()


def test_a_well_without_a_readable_image_has_a_row(
    config: EnsembleConfig, plate: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(plate, tmp_path / "one.ome.zarr")
    (broken / "C" / "11" / "0" / "0" / "zarr.json").write_text("{")
    result = run(config, broken)
    assert list(result.failed) == ["one.ome.zarr__C__11__0"]
    row = pd.read_csv(result.folder / "wells.csv").set_index("well").loc["C11"]
    assert (row["images"], row["cells"]) == (0, 0)
    assert row[["mean_area", "mean_intensity", "cells_per_mm2"]].isna().all()


def test_slides_have_a_table_beside_other_images(
    config: EnsembleConfig, plate: Path, tmp_path: Path
) -> None:
    for name, picture in zip("ab", PICTURES, strict=False):
        imsave(tmp_path / f"{name}.png", picture, check_contrast=False)
    blocks = replace(config, slides=SlidesConfig(block=256))
    result = run(blocks, tmp_path / "a.png", tmp_path / "b.png")
    table = pd.read_csv(result.folder / "slides.csv")
    assert list(table) == ["id", "cells", "blocks", "failed_blocks", "pixels", "seconds"]
    assert dict(zip(table["id"], table["cells"], strict=True)) == result.cells
    assert table[["blocks", "failed_blocks", "pixels"]].to_numpy().tolist() == [[1, 0, 5760]] * 2
    assert (table["seconds"] > 0).all()
    images = run(config, plate)  # into the same folder
    assert len(images.cells) == 3 and (result.folder / "slides.csv").is_file()


@pytest.fixture(scope="module")
def local() -> Iterator[Scheduler]:
    with open_scheduler("local:2") as scheduler:
        yield scheduler


@pytest.fixture
def workers(local: Scheduler, monkeypatch: pytest.MonkeyPatch) -> SlidesConfig:
    """Settings of a command whose tasks go to the two processes of `local`."""

    @contextmanager
    def opened(text: str) -> Iterator[Scheduler]:
        yield local

    monkeypatch.setattr(command, "open_scheduler", opened)
    return SlidesConfig(scheduler="local:2")


@pytest.mark.slow
def test_workers_leave_the_same_bytes(
    config: EnsembleConfig, plate: Path, tmp_path: Path, workers: SlidesConfig,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of a plate and other images, of which one is damaged; from a relative path, and when gone on with."""
    monkeypatch.chdir(tmp_path)
    for name, picture in zip("abc", PICTURES, strict=False):
        imsave(tmp_path / f"{name}.png", picture, check_contrast=False)
    (tmp_path / "bad.png").write_bytes(b"no image")
    images = plate, *(Path(f"{name}.png") for name in ("a", "bad", "b", "c"))
    config = replace(config, output=replace(config.output, export=("masks", "cells")))
    here = run(config, *images, name="here")
    spread = replace(config, slides=workers)
    there = run(spread, *images, name="there")
    assert not list(there.folder.rglob(".*.tmp"))
    assert tree(there.folder) == tree(here.folder)
    assert there.cells == here.cells and list(there.failed) == list(here.failed) == ["bad"]
    assert "bad.png" in there.failed["bad"]

    kept = there.masks / "a.tif"
    before = kept.stat().st_mtime_ns
    (there.masks / "b.tif").unlink()
    with caplog.at_level(logging.INFO, logger="cellflow"):
        again = run(spread, *images, name="there")
    assert "5 of 7 images are there" in caplog.text
    assert kept.stat().st_mtime_ns == before
    assert tree(again.folder) == tree(here.folder)


@pytest.mark.slow
def test_a_lost_worker_loses_only_what_it_had_not_finished(
    config: EnsembleConfig, tmp_path: Path, workers: SlidesConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an image whose task fails whatever is tried is named; the others of its task are done."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(8):
        imsave(folder / f"{number}.png", PICTURES[number % 4], check_contrast=False)
    here = run(config, folder, name="here")
    faults = {"1": "dies once", "5": "breaks"}
    found = command.find_images

    def find(*args: Any, **options: Any) -> Any:
        return {
            name: scheduled.FaultyImage(
                image.id, image.path, notes=tmp_path, fault=faults.get(name, "")
            )
            for name, image in found(*args, **options).items()
        }

    monkeypatch.setattr(command, "find_images", find)
    monkeypatch.setattr(image_tasks, "CHUNKS", 1)  # two tasks of four images
    there = run(replace(config, slides=workers), folder, name="there")
    assert list(there.failed) == ["5"]
    assert there.failed["5"] == f"{folder / '5.png'}: RuntimeError: 5 breaks"
    assert there.cells == {name: cells for name, cells in here.cells.items() if name != "5"}
    for name in there.cells:
        mask = f"{name}.tif"
        assert (there.masks / mask).read_bytes() == (here.masks / mask).read_bytes()
    assert len(scheduled.notes(tmp_path, "read 1")) == 2
    assert len(scheduled.notes(tmp_path, "read 4")) <= 4


@pytest.mark.slow
def test_a_cause_of_no_image_ends_the_command(
    config: EnsembleConfig, tmp_path: Path, workers: SlidesConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that find other models predict nothing with them."""
    imsave(tmp_path / "a.png", PICTURES[0], check_contrast=False)
    real = command.Workers

    def other(scheduler: Any, settings: Any, channels: Any, members: Any) -> Any:
        return real(scheduler, settings, channels, ("0" * 64,))

    monkeypatch.setattr(command, "Workers", other)
    with pytest.raises(RunError, match=r"No image could be predicted: .*finds other models"):
        run(replace(config, slides=workers), tmp_path / "a.png")
