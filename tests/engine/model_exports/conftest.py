from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cellflow.config import TrainConfig
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.storage.run_folder import RunFolder


@pytest.fixture(scope="session")
def real_once(
    predicted_once: TrainConfig, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainConfig:
    """The predicted run with networks that find cells in real images, in place of its own; to be read."""
    folder = tmp_path_factory.mktemp("real")
    shutil.copytree(predicted_once.runs_dir, folder / "runs")
    run = RunFolder(folder / "runs" / predicted_once.name)
    for fold in (0, 1):
        facts = load_model_file(run.fold(fold).best).facts
        net = load_model_file(shared / "models" / "usiigaci_unet").net
        net.output[2].bias.data += 0.01 * fold  # type: ignore[index,operator]
        net.set_diam_labels(50.0 + fold)
        save_model_file(run.fold(fold).best, net, facts)
    return replace(predicted_once, runs_dir=folder / "runs")


@pytest.fixture
def real(real_once: TrainConfig, tmp_path: Path) -> TrainConfig:
    """The same, free to be broken."""
    shutil.copytree(real_once.runs_dir, tmp_path / "runs")
    return replace(real_once, runs_dir=tmp_path / "runs")


@pytest.fixture(scope="session")
def photographs(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a part of a real image."""
    from skimage.io import imsave

    from cellflow.io.images import read_image

    image = read_image(shared / "data" / "kaggle_layout" / "test" / "set37_0.png")
    folder = tmp_path_factory.mktemp("photographs")
    imsave(folder / "a.png", image[:320, :340], check_contrast=False)
    return folder
