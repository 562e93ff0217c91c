from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from slide_files import LOOSE, Slide

from cellflow.config import EnsembleConfig, OutputConfig, RuntimeConfig, TrainConfig
from cellflow.synthetic import synthetic_dataset


@pytest.fixture(scope="session")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiled TIFF of 560 x 620 pixels with cells everywhere."""
    path = tmp_path_factory.mktemp("mosaic") / "mosaic.tif"
    parts = [item.image for item in synthetic_dataset(4, shape=(280, 310), seed=3, per_group=1)]
    image = np.block([[parts[0], parts[1]], [parts[2], parts[3]]])
    tifffile.imwrite(path, image, tile=(128, 128))
    return path


@pytest.fixture
def slide(mosaic: Path, trained: TrainConfig, tmp_path: Path) -> Slide:
    """The mosaic, segmented by both folds of the tiny run."""
    config = EnsembleConfig(
        images=(mosaic,),
        runs=("tiny",),
        runs_dir=trained.runs_dir,
        mask=LOOSE,
        output=OutputConfig(out=tmp_path / "out"),
        runtime=RuntimeConfig(device="cpu", amp="off"),
    )
    return Slide(mosaic, config)
