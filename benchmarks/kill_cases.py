"""The commands that `kills.py` kills, what they find, and data and networks so small that each takes a moment."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import forked
import numpy as np
import pandas as pd
import torch
from blobs import Blobs
from narrow import NarrowUNet
from scipy.ndimage import gaussian_filter
from skimage.io import imsave
from torch import nn

from cellflow.io.images import write_labels
from cellflow.nn.checkpoint import save_model_file
from cellflow.nn.networks import NETWORKS
from cellflow.synthetic import synthetic_dataset

SHAPE, IMAGES, NEW = (64, 72), 4, 2
RUNTIME = ("--device", "cpu", "--amp", "off", "--threads", "1")
TRAINING = (
    "--adam", "--schedule", "constant", "--learning_rate", "1e-5", "--batch_size", "2", "--bsize", "64",
    "--min_train_masks", "1", "--eval_every", "1",
)  # fmt: skip
TRAIN = ("train", "--init", "spots.pt", *TRAINING, *RUNTIME)
SEASON = """
defaults: {data: cellflow-data, pretrained_model: unet.pt, learning_rate: 1e-5, optimizer: adamw, batch_size: 2,
  bsize: 64, min_train_masks: 1, n_epochs: 1, schedule: constant, device: cpu, amp: 'off', threads: 1, policy: dataset}
experiments: [{name: first}, {name: second, seed: 1}]
"""


class Spots(Blobs):
    """Sees bright spots, as `Blobs` does, and has a style."""

    kind, title, style_size = "spots", "spots with a style", 4

    def __init__(self, diam_mean: float = 12.0, least: float = 0.4):
        super().__init__(diam_mean, least)
        self.look = nn.Conv2d(1, 4, 5, padding=2)

    def forward(self, tiles: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.layer(tiles), self.look(tiles).relu().mean((2, 3))


def know_spots() -> None:
    """Let this process load such networks."""
    NETWORKS[Spots.kind] = Spots


@dataclass(frozen=True)
class Case:
    """A command that is disturbed.

    Attributes
    ----------
    name : str
    words : tuple of str
        The command.
    finds : str
        Step of `STEPS` after which it is called.
    share : float
        Of the kills, beside 1 of most others.
    of_the_day : tuple of str
        Names of files that are only to be there, as they say how long something took.
    """

    name: str
    words: tuple[str, ...]
    finds: str
    share: float = 1.0
    of_the_day: tuple[str, ...] = ()


STEPS = {
    "start": (),
    "prepare": ("prepare", "source", "--table", "source/table.csv"),
    "folds": ("folds", "--k", "2"),
    "train": (*TRAIN, "--fold", "all", "--n_epochs", "1"),
    "oof": ("oof", "exp", "--policy", "dataset", *RUNTIME),
    "calibrate": ("calibrate", "exp", *RUNTIME),
}
"""From files to a calibrated run: each finds what those before it have written."""
CASES = {
    case.name: case
    for case in (
        Case("prepare", STEPS["prepare"], "start"),
        Case("prepare --overwrite", ("prepare", "source", "--overwrite"), "folds"),
        Case("folds", STEPS["folds"], "prepare"),
        Case("folds --overwrite", ("folds", "--k", "3", "--overwrite"), "folds"),
        Case("train", (*TRAIN, "--fold", "0", "--n_epochs", "1"), "folds", 0.4),
        Case("train, longer", (*TRAIN, "--fold", "0", "--n_epochs", "2"), "calibrate", 0.2),
        Case("oof", STEPS["oof"], "train", 0.6),
        Case("oof again", ("oof", "exp", "--policy", "image", *RUNTIME), "calibrate", 0.4),
        Case("calibrate", STEPS["calibrate"], "oof", 0.2),
        Case("predict", ("predict", "new", "--model", "exp", "--export", "masks", "cells", "submission", "outlines",
                         "geojson", "coco", *RUNTIME), "calibrate"),
        Case("predict, blocks", ("predict", "new", "--model", "exp", "--block", "256", "--export", "masks", "cells",
                                 "geojson", *RUNTIME), "calibrate", 0.4, ("slides.csv",)),
        Case("ensemble", ("ensemble", "exp", "--images", "new", "--name", "all", *RUNTIME), "calibrate"),
        Case("report", ("report", "exp"), "calibrate"),
        Case("eda", ("eda",), "folds"),
        Case("audit", ("audit", "exp"), "calibrate"),
        Case("suggest", ("suggest", "exp", "--images", "new", "--n", "1", *RUNTIME), "calibrate"),
        Case("pseudo", ("pseudo", "exp", "--images", "new", "--name", "round1", *RUNTIME), "calibrate"),
        Case("distil", ("distil", "exp", "--name", "student", "--n-epochs", "1", *RUNTIME), "calibrate", 0.2),
        Case("export", ("export", "exp", "--to", "archive"), "calibrate"),
        Case("queue", ("queue", "season.yaml"), "folds", 0.06, ("report.html",)),
    )
}  # fmt: skip

WARM = ("predict", "report", "pseudo", "distil", "export")
"""Cases that are run once before anything is forked, beside `STEPS`."""


def write_source(folder: Path) -> None:
    """Images with masks and a table, new images, two networks to start from, and a file of experiments."""
    for name in ("source/images", "source/masks", "new"):
        (folder / name).mkdir(parents=True)
    rows, rng = [], np.random.default_rng(0)
    for number, item in enumerate(
        synthetic_dataset(IMAGES + NEW, shape=SHAPE, seed=5, per_group=1)
    ):
        bright = 30 + 150 * gaussian_filter((item.labels > 0).astype(float), 1.5)
        image = (bright + rng.normal(0, 3, SHAPE)).round().astype("uint8")
        if number >= IMAGES:
            imsave(folder / "new" / f"{item.id}.png", image, check_contrast=False)
            continue
        imsave(folder / "source/images" / f"{item.id}.png", image, check_contrast=False)
        write_labels(folder / "source/masks" / f"{item.id}.tif", item.labels)
        rows.append(
            {"id": item.id, "cell_type": ("round", "flat")[number % 2], "group": item.group}
        )
    pd.DataFrame(rows).to_csv(folder / "source/table.csv", index=False)
    torch.manual_seed(0)
    save_model_file(folder / "spots.pt", Spots(17.0), {})
    save_model_file(folder / "unet.pt", NarrowUNet(17.0), {})
    (folder / "season.yaml").write_text(SEASON)


def make_states(folder: Path, wanted: Sequence[str]) -> None:
    """Make the folders ``before/NAME`` that commands find, each from the one before it, undisturbed."""
    work, before = folder / "work", folder / "before"
    shutil.rmtree(work, ignore_errors=True)
    write_source(work)
    last = max(list(STEPS).index(name) for name in wanted)
    for name, words in list(STEPS.items())[: last + 1]:
        if words:
            ended = forked.run(words, work)
            if ended.code:
                raise SystemExit(f"cellflow {' '.join(words)} failed:\n{ended.said}")
        shutil.copytree(work, before / name)
