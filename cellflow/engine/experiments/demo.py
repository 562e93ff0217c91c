"""The whole job on built-in images."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from skimage.io import imsave

from cellflow.config import (
    CalibrateConfig,
    DemoConfig,
    EnsembleConfig,
    FoldsConfig,
    ModelConfig,
    OofConfig,
    OptimConfig,
    OutputConfig,
    PrepareConfig,
    SamplingConfig,
    TrainConfig,
    check_config,
)
from cellflow.engine.data.make_folds import make_folds
from cellflow.engine.data.prepare import prepare
from cellflow.engine.prediction.ensemble import ensemble
from cellflow.engine.training.train import train
from cellflow.engine.validation.calibrate import calibrate
from cellflow.engine.validation.oof import oof
from cellflow.errors import DataError
from cellflow.io.images import read_labels, write_labels
from cellflow.numeric.score import competition_score
from cellflow.report.comparison import Comparison, write_overview
from cellflow.storage.atomic import write_csv, write_text
from cellflow.synthetic import SyntheticImage, synthetic_dataset
from cellflow.types import one_line

__all__ = ["DemoResult", "demo"]

MARK = "made-by-cellflow-demo"
"""File that marks a folder as one that a new demo may replace."""

_log = logging.getLogger(__name__)


@one_line
@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo gave.

    Attributes
    ----------
    cv : pandas.DataFrame
        Cross-validation per fold, per cell type and overall.
    score : float
        Competition score of the ensemble on images that no fold saw.
    unseen, members : int
        Numbers of such images, and of networks averaged.
    submission, masks, picture : Path
        Results.
    reports : tuple of Path
        Page of the run, where it could be written.
    seconds : float
        Time the demo took.
    """

    cv: pd.DataFrame
    score: float
    unseen: int
    members: int
    submission: Path
    masks: Path
    picture: Path
    reports: tuple[Path, ...]
    seconds: float


def demo(config: DemoConfig) -> DemoResult:
    """Make images, prepare, split, train all folds, predict out of fold, calibrate, average, submit, score.

    Raises
    ------
    DataError
        If the folder to write is not empty and not an earlier demo.

    Examples
    --------
    One epoch teaches nothing, and takes seconds; `DemoConfig()` takes minutes and finds most cells:

    >>> from cellflow import DemoConfig, demo
    >>> result = demo(DemoConfig(k=2, images=6, unseen=2, n_epochs=1))
    >>> result.members, result.unseen
    (2, 2)
    >>> result.submission.as_posix()
    'cellflow-demo/predictions/demo/submission.csv'
    """
    check_config(config)
    started = time.monotonic()
    _empty_folder(config.out)
    everything = list(synthetic_dataset(config.images + config.unseen, seed=config.seed))
    unseen = everything[config.images :]
    _log.info("made %d images; %d of them no fold will see", len(everything), len(unseen))
    _write_images(config.out / "source", everything[: config.images])
    _write_images(config.out / "unseen", unseen)

    data, runs_dir = config.out / "data", config.out / "runs"
    prepare(
        PrepareConfig(source=config.out / "source", out=data, table=config.out / "source/table.csv")
    )
    make_folds(FoldsConfig(data=data, k=config.k, seed=config.seed))
    train(_recipe(config, data, runs_dir))
    oof(OofConfig(run="demo", runs_dir=runs_dir, runtime=config.runtime))
    (cv,) = calibrate(
        CalibrateConfig(
            runs=("demo",), runs_dir=runs_dir, ensembles_dir=config.out / "ensembles",
            runtime=config.runtime,
        )
    ).cv  # fmt: skip
    result = ensemble(
        EnsembleConfig(
            images=(config.out / "unseen" / "images",),
            runs=("demo",),
            runs_dir=runs_dir,
            ensembles_dir=config.out / "ensembles",
            output=OutputConfig(out=config.out / "predictions"),
            runtime=config.runtime,
        )
    )
    found = [read_labels(result.masks / f"{item.id}.tif") for item in unseen]
    score = competition_score([item.labels for item in unseen], found)
    picture = config.out / "outlines.png"
    write_overview(picture, _first_of_each_type(unseen, found))
    return DemoResult(
        cv=cv,
        score=score.mean,
        unseen=len(unseen),
        members=result.members,
        submission=result.submission,
        masks=result.masks,
        picture=picture,
        reports=result.reports,
        seconds=time.monotonic() - started,
    )


def _recipe(config: DemoConfig, data: Path, runs_dir: Path) -> TrainConfig:
    """A training that learns these images in a minute on two cores: small crops, half the diameter."""
    return TrainConfig(
        data=data,
        name="demo",
        runs_dir=runs_dir,
        seed=config.seed,
        eval_every=max(1, config.n_epochs // 2),
        recipe="cellpose",
        model=ModelConfig(diam_mean=17.0),
        optim=OptimConfig(
            optimizer="adamw", schedule="cosine", n_epochs=config.n_epochs, batch_size=4
        ),
        sampling=SamplingConfig(bsize=112, min_train_masks=1),
        runtime=config.runtime,
    )


def _write_images(folder: Path, items: Iterable[SyntheticImage]) -> None:
    """Write images, masks and a table as a person would bring them."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for item in items:
        imsave(folder / "images" / f"{item.id}.png", item.image, check_contrast=False)
        write_labels(folder / "masks" / f"{item.id}.tif", item.labels)
        rows.append({"id": item.id, "cell_type": item.cell_type, "group": item.group})
    write_csv(folder / "table.csv", pd.DataFrame(rows))


def _empty_folder(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise DataError(
                f"{folder} is not empty and no earlier demo. Choose another with --out."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / MARK, "A new demo may replace this folder.\n")


def _first_of_each_type(
    items: list[SyntheticImage], found: list[NDArray[np.int32]]
) -> list[Comparison]:
    shown: dict[str, Comparison] = {}
    for item, labels in zip(items, found, strict=True):
        shown.setdefault(item.cell_type, Comparison(item.id, item.image, item.labels, labels))
    return list(shown.values())
