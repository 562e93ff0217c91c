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
    """A tiled TIFF of 400 x 420 pixels with cells everywhere."""
    path = tmp_path_factory.mktemp("mosaic") / "mosaic.tif"
    parts = [item.image for item in synthetic_dataset(4, shape=(200, 210), seed=3, per_group=1)]
    image = np.block([[parts[0], parts[1]], [parts[2], parts[3]]])
    tifffile.imwrite(path, image, tile=(128, 128))
    return path


def _slide(mosaic: Path, trained: TrainConfig, out: Path, runs: tuple[str, ...]) -> Slide:
    config = EnsembleConfig(
        images=(mosaic,),
        runs=runs,
        runs_dir=trained.runs_dir,
        mask=LOOSE,
        output=OutputConfig(out=out),
        runtime=RuntimeConfig(device="cpu", amp="off"),
    )
    return Slide(mosaic, config)


def _one_model(trained: TrainConfig) -> tuple[str, ...]:
    return (str(trained.runs_dir / "tiny" / "fold_0" / "best.pt"),)


@pytest.fixture
def slide(mosaic: Path, trained: TrainConfig, tmp_path: Path) -> Slide:
    """The mosaic, segmented by one model."""
    return _slide(mosaic, trained, tmp_path / "out", _one_model(trained))


@pytest.fixture
def ensemble_slide(mosaic: Path, trained: TrainConfig, tmp_path: Path) -> Slide:
    """The mosaic, segmented by both folds of the run."""
    return _slide(mosaic, trained, tmp_path / "out", ("tiny",))


@pytest.fixture(scope="session")
def undisturbed(
    mosaic: Path, trained: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of the slide, segmented by one model in four blocks; tests read it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    result = _slide(mosaic, trained, folder, _one_model(trained)).segment("a", block=256)
    return result.slides["mosaic"].folder
