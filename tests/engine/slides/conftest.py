from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from slide_files import LOOSE, Slide

import cellflow
from cellflow.config import EnsembleConfig, OutputConfig, RuntimeConfig, TrainConfig
from cellflow.engine.runtime.machine import choose_machine
from cellflow.engine.segmentation.member import load_member
from cellflow.engine.segmentation.styles import fit_style_models, write_style_models
from cellflow.io.dataset import Dataset
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.rng import generator
from cellflow.synthetic import synthetic_dataset


@pytest.fixture(scope="session")
def slide_run(tiny_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run whose one fold finds cells, also where blocks meet."""
    config = replace(
        tiny_config,
        fold="0",
        runs_dir=tmp_path_factory.mktemp("slide_run"),
        eval_every=12,
        optim=replace(tiny_config.optim, n_epochs=12, batch_size=4),
        sampling=replace(tiny_config.sampling, nimg_per_epoch=32),
    )
    cellflow.train(config)
    run = config.runs_dir / config.name
    # what the pass out of fold does, which wants all folds
    member = load_member(run / "fold_0" / "best.pt", "tiny", choose_machine(config.runtime))
    dataset = Dataset.open(config.data)
    styles = fit_style_models(member, dataset, list(dataset.images.index))
    assert styles is not None
    write_style_models(run / "fold_0" / "styles.json", styles)
    return run


@pytest.fixture(scope="session")
def models(slide_run: Path) -> tuple[str, str]:
    """Model files: that of the run, and one whose weights differ from its by noise."""
    best, other = slide_run / "fold_0" / "best.pt", slide_run.parent / "other.pt"
    net, facts = load_model_file(best)
    rng = generator(0, "members")
    for weight in net.parameters():
        if weight.ndim > 1:
            noise = rng.standard_normal(tuple(weight.shape)).astype(np.float32)
            weight.data *= 1 + 0.02 * weight.data.new_tensor(noise)
    save_model_file(other, net, facts)
    return str(best), str(other)


@pytest.fixture(scope="session")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiled TIFF of 400 x 420 pixels with cells everywhere."""
    path = tmp_path_factory.mktemp("mosaic") / "mosaic.tif"
    parts = [item.image for item in synthetic_dataset(4, shape=(200, 210), seed=3, per_group=1)]
    image = np.block([[parts[0], parts[1]], [parts[2], parts[3]]])
    tifffile.imwrite(path, image, tile=(128, 128))
    return path


def _slide(mosaic: Path, out: Path, runs: tuple[str, ...]) -> Slide:
    config = EnsembleConfig(
        images=(mosaic,),
        runs=runs,
        runs_dir=Path(runs[0]).parents[2],
        mask=LOOSE,
        output=OutputConfig(out=out),
        runtime=RuntimeConfig(device="cpu", amp="off"),
    )
    return Slide(mosaic, config)


@pytest.fixture
def slide(mosaic: Path, models: tuple[str, str], tmp_path: Path) -> Slide:
    """The mosaic, segmented by one model."""
    return _slide(mosaic, tmp_path / "out", models[:1])


@pytest.fixture
def ensemble_slide(mosaic: Path, models: tuple[str, str], tmp_path: Path) -> Slide:
    """The mosaic, segmented by two models."""
    return _slide(mosaic, tmp_path / "out", models)


@pytest.fixture(scope="session")
def undisturbed(
    mosaic: Path, models: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of the slide, segmented by one model in four blocks; tests read it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    result = _slide(mosaic, folder, models[:1]).segment("a", block=256)
    return result.slides["mosaic"].folder
