"""Channels that images do not have, from the training to the prediction of images of both kinds."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage.io import imread, imsave

from cellflow.config import (
    FoldsConfig,
    ModelConfig,
    OofConfig,
    OutputConfig,
    PredictConfig,
    PrepareConfig,
    RuntimeConfig,
    TrainConfig,
)
from cellflow.engine.data.make_folds import make_folds
from cellflow.engine.data.prepare import prepare
from cellflow.engine.prediction.ensemble import predict
from cellflow.engine.segmentation.loaded_model import load_model
from cellflow.engine.training.train import train
from cellflow.engine.validation.oof import oof


def of_channels(path: Path, count: int) -> None:
    """Write an image again with another number of channels."""
    pixels = imread(path)
    grey = pixels if pixels.ndim == 2 else pixels[..., 0]
    imsave(path, grey if count == 1 else np.stack([grey] * count, -1), check_contrast=False)


@pytest.fixture(scope="module")
def mixed(tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Config of a training on red and green, of which two images have one channel."""
    folder = tmp_path_factory.mktemp("mixed")
    shutil.copytree(tiny_source, folder / "source")
    for place, path in enumerate(sorted((folder / "source" / "images").iterdir())):
        of_channels(path, 1 if place in (1, 4) else 3)
    prepare(PrepareConfig(source=folder / "source", out=folder / "data"))
    make_folds(FoldsConfig(data=folder / "data", k=2))
    return TrainConfig(data=folder / "data", runs_dir=folder / "runs", name="mixed")


def grey_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [text for text in caplog.messages if "one channel" in text]
    caplog.clear()
    return lines


@pytest.mark.slow
def test_grey_images_among_others_are_said(
    mixed: TrainConfig,
    tiny_config: TrainConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = sorted(path.stem for path in (mixed.data / "images").iterdir())
    grey = f"({names[1]}, {names[4]})"
    said = "have one channel {}: it is taken for --chan 2, and --chan2 1 is empty."
    config = replace(
        tiny_config,
        data=mixed.data,
        runs_dir=mixed.runs_dir,
        model=ModelConfig(diam_mean=17.0, chan=2, chan2=1),
        optim=replace(tiny_config.optim, n_epochs=1),
        eval_every=1,
    )
    caplog.set_level(logging.WARNING)
    train(config)
    assert grey_lines(caplog) == [f"2 of 6 images {said.format(grey)}"]

    runtime = RuntimeConfig(device="cpu", amp="off")
    oof(OofConfig(run="tiny", runs_dir=mixed.runs_dir, runtime=runtime, policy="dataset"))
    assert grey_lines(caplog) == [f"2 of 6 images {said.format(grey)}"]

    folder = mixed.data / "images"
    images = PredictConfig(
        images=(folder,),
        model="tiny",
        runs_dir=mixed.runs_dir,
        output=OutputConfig(out=tmp_path / "out"),
        runtime=runtime,
    )
    result = predict(images)
    assert not result.failed
    assert grey_lines(caplog) == [f"2 of 6 images {said.format(grey)}"]

    model = load_model("tiny", runs_dir=mixed.runs_dir, device="cpu", amp="off")
    paths = sorted(folder.iterdir())
    model.predict(paths[:2])
    assert grey_lines(caplog) == [f"1 of 2 images {said.format(f'({paths[1]})')}"]
    model.predict(imread(paths[0]))
    assert not grey_lines(caplog)
