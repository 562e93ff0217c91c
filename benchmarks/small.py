"""A training of seconds: few small synthetic images, and the U-Net with a quarter of its feature maps."""

from __future__ import annotations

import sys
from pathlib import Path

import imagecodecs

from cellflow import FoldsConfig, PrepareConfig, TrainConfig, make_folds, prepare
from cellflow.config import ModelConfig, OptimConfig, RuntimeConfig, SamplingConfig
from cellflow.engine.training import start_network
from cellflow.io.images import write_labels
from cellflow.synthetic import synthetic_dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from narrow import NarrowUNet

__all__ = ["NarrowUNet", "small_training"]


def small_training(
    folder: Path, *, images: int = 6, shape: tuple[int, int] = (96, 112)
) -> TrainConfig:
    """Prepare a dataset in two folds, and say how it is trained; new networks of this process are narrow."""
    start_network.DEFAULT = NarrowUNet
    source = folder / "source"
    (source / "images").mkdir(parents=True)
    for item in synthetic_dataset(images, shape=shape, seed=5, per_group=1):
        (source / "images" / f"{item.id}.png").write_bytes(imagecodecs.png_encode(item.image))
        write_labels(source / "masks" / f"{item.id}.tif", item.labels)
    prepare(PrepareConfig(source=source, out=folder / "data"))
    make_folds(FoldsConfig(data=folder / "data", k=2))
    return TrainConfig(
        data=folder / "data",
        runs_dir=folder / "runs",
        name="small",
        fold=("0",),
        eval_every=2,
        recipe="cellpose",
        model=ModelConfig(diam_mean=17.0),
        optim=OptimConfig(optimizer="adamw", schedule="cosine", n_epochs=4, batch_size=2),
        sampling=SamplingConfig(bsize=64, min_train_masks=1),
        runtime=RuntimeConfig(device="cpu", amp="off", threads=1),
    )
