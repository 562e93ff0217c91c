from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cellflow.config import TrainConfig
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.storage.run_folder import RunFolder


@pytest.fixture
def real(predicted: TrainConfig, shared: Path) -> TrainConfig:
    """The predicted run with networks that find cells in real images, in place of its own."""
    run = RunFolder(predicted.runs_dir / predicted.name)
    for fold in (0, 1):
        facts = load_model_file(run.fold(fold).best).facts
        net = load_model_file(shared / "models" / "usiigaci_unet").net
        net.output[2].bias.data += 0.01 * fold  # type: ignore[index,operator]
        net.set_diam_labels(50.0 + fold)
        save_model_file(run.fold(fold).best, net, facts)
    return predicted


@pytest.fixture
def photographs(shared: Path, tmp_path: Path) -> Path:
    """A folder with a part of a real image."""
    from skimage.io import imsave

    from cellflow.io.images import read_image

    image = read_image(shared / "data" / "kaggle_layout" / "test" / "set37_0.png")
    folder = tmp_path / "photographs"
    folder.mkdir()
    imsave(folder / "a.png", image[:200, :240], check_contrast=False)
    return folder


def hide(config: TrainConfig, away: Path) -> None:
    """Move a run away, as if this were another machine."""
    shutil.move(config.runs_dir / config.name, away)
