"""Pixel sizes from the first file to the last table."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage.io import imsave

from cellflow.config import (
    FilesConfig,
    OutputConfig,
    PredictConfig,
    PrepareConfig,
    RuntimeConfig,
    check_config,
)
from cellflow.engine.data.prepare import prepare
from cellflow.engine.prediction.ensemble import predict
from cellflow.errors import ConfigError, DataError
from cellflow.io.dataset import Dataset
from cellflow.io.images import read_image, read_labels, write_labels
from cellflow.io.pixel_size import read_pixel_size


@pytest.fixture
def source(shared: Path, tmp_path: Path) -> Path:
    """Two images of which one says the size of its pixels."""
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    image = read_image(shared / "data" / "kaggle_layout" / "test" / "set37_0.png")[:200, :240]
    scale = {"imagej": True, "resolution": (2, 4), "metadata": {"unit": "um"}}
    tifffile.imwrite(folder / "images" / "known.tif", image, **scale)
    imsave(folder / "images" / "unknown.png", image[::-1], check_contrast=False)
    for name in ("known", "unknown"):
        write_labels(folder / "masks" / f"{name}.tif", np.eye(200, 240, dtype=np.int32))
    return folder


def test_datasets_keep_them(source: Path, tmp_path: Path) -> None:
    prepare(PrepareConfig(source=source, out=tmp_path / "data"))
    dataset = Dataset.open(tmp_path / "data")
    assert dataset.pixel_size("known") == (0.25, 0.5)
    assert dataset.pixel_size("unknown") is None
    assert read_pixel_size(dataset.path / "labels" / "known.tif") == pytest.approx((0.25, 0.5))
    text = pd.read_csv(dataset.path / "images.csv", dtype=str, keep_default_na=False)
    assert text["pixel_height_um"].tolist() == ["0.25", ""]


@pytest.fixture
def config(shared: Path, source: Path, tmp_path: Path) -> PredictConfig:
    return PredictConfig(
        images=(source / "images",),
        model=str(shared / "models" / "usiigaci_unet"),
        output=OutputConfig(out=tmp_path / "out", name="one"),
        runtime=RuntimeConfig(device="cpu", amp="off"),
    )


def test_predictions_use_them(config: PredictConfig) -> None:
    result = predict(config)
    table = pd.read_csv(result.table).set_index("id")
    known, unknown = table.loc[["known"]], table.loc[["unknown"]]
    assert len(known) and len(unknown)
    np.testing.assert_allclose(known["area_um2"], known["area"] * 0.125)
    assert unknown["area_um2"].isna().all()
    assert table["diameter_used"].nunique() == 1
    assert read_pixel_size(result.masks / "known.tif") == pytest.approx((0.25, 0.5))
    assert read_pixel_size(result.masks / "unknown.tif") is None
    with pytest.raises(DataError, match=r"pixel_size: None -> 0\.65"):
        predict(replace(config, files=FilesConfig(pixel_size=0.65)))


def test_a_size_that_is_given(config: PredictConfig) -> None:
    config = replace(config, files=FilesConfig(pixel_size=0.5))
    first = replace(config, output=replace(config.output, export=("submission",)))
    predict(first)
    result = predict(config)
    table = pd.read_csv(result.table)
    np.testing.assert_allclose(table["area_um2"], table["area"] * 0.25)
    for name in ("known", "unknown"):
        assert read_pixel_size(result.masks / f"{name}.tif") == pytest.approx((0.5, 0.5))
    with pytest.raises(ConfigError, match="--pixel_size must lie between"):
        check_config(replace(config, files=FilesConfig(pixel_size=0.0)))


def test_a_cell_table_of_an_older_cellflow_is_made_again(
    config: PredictConfig, caplog: pytest.LogCaptureFixture
) -> None:
    result = predict(config)
    before = pd.read_csv(result.table)
    before.iloc[:, :10].to_csv(result.table, index=False)
    with caplog.at_level(logging.INFO, "cellflow"):
        predict(config)
    pd.testing.assert_frame_equal(pd.read_csv(result.table), before)
    assert read_labels(result.masks / "known.tif").max() == (before["id"] == "known").sum()
