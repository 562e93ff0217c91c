"""The path of the README on data as people have it: every command, from files to masks and a score."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray
from skimage.draw import disk
from skimage.filters import gaussian
from skimage.io import imsave

from cellflow import cli
from cellflow.io.images import read_labels

pytestmark = pytest.mark.slow

SHAPE = (80, 96)
FROM_SCRATCH = ("--diam_mean", 17, "--n_epochs", 14, "--eval_every", 14, "--nimg_per_epoch", 24)
FINE_TUNING = ("--n_epochs", 2, "--eval_every", 1, "--learning_rate", 0.0005)
RECIPE = [
    "--adam",
    "--schedule",
    "cosine",
    "--bsize",
    "64",
    "--batch_size",
    "4",
    "--min_train_masks",
    "1",
]
"""A training of seconds on small crops."""


def cells(seed: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """A grey image in 0..1 of bright round cells on a dark ground, and its label map."""
    rng = np.random.default_rng([seed, 0xCE11])
    image, labels = np.zeros(SHAPE), np.zeros(SHAPE, np.int32)
    for centre in rng.permutation([(y, x) for y in (14, 40, 66) for x in (14, 37, 60, 83)])[:9]:
        rows, columns = disk(centre + rng.uniform(-2, 2, 2), rng.uniform(7, 9.5), shape=SHAPE)
        image[rows, columns] = rng.uniform(0.5, 0.8)
        labels[rows, columns] = labels.max() + 1
    image = gaussian(image, 1.2) + 0.1 + rng.normal(0, 0.02, SHAPE)
    return np.clip(image, 0, 1), labels


def eight_bit(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.rint(255 * image).astype(np.uint8)


def save(path: Path, pixels: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        imsave(path, pixels, check_contrast=False)
    else:
        tifffile.imwrite(path, pixels)


def run(*words: object) -> None:
    """A command as it is typed; fails the test with what it says if it does not end well."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    assert not end.value.code, f"cellflow {' '.join(map(str, words))}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that has learned such cells, for fine-tuning; it saw none of the images below."""
    folder = tmp_path_factory.mktemp("base")
    for seed in range(6):
        image, labels = cells(1000 + seed)
        save(folder / "source" / "images" / f"base{seed}.png", eight_bit(image))
        save(folder / "source" / "masks" / f"base{seed}.png", labels.astype(np.uint8))
    data, runs = folder / "data", folder / "runs"
    run("prepare", folder / "source", "--out", data)
    run("folds", "--data", data, "--split", "holdout")
    run("train", "--data", data, "--runs_dir", runs, "--name", "base", *RECIPE, *FROM_SCRATCH)
    return runs / "base" / "fold_0" / "best.pt"


Write = Callable[[Path, str, NDArray[np.float64], NDArray[np.int32]], None]


def folders(source: Path, name: str, image: NDArray[np.float64], labels: NDArray[np.int32]) -> None:
    save(source / "images" / f"{name}.png", eight_bit(image))
    save(source / "masks" / f"{name}.tif", labels.astype(np.uint16))


def one_folder(
    source: Path, name: str, image: NDArray[np.float64], labels: NDArray[np.int32]
) -> None:
    save(source / f"{name}.tif", eight_bit(image))
    save(source / f"{name}_masks.tif", labels.astype(np.uint16))


def sixteen_bit(
    source: Path, name: str, image: NDArray[np.float64], labels: NDArray[np.int32]
) -> None:
    save(source / "images" / f"{name}.tif", np.rint(400 + 3000 * image).astype(np.uint16))
    save(source / "masks" / f"{name}.tif", labels.astype(np.uint16))


def rgb(source: Path, name: str, image: NDArray[np.float64], labels: NDArray[np.int32]) -> None:
    picture = np.stack([image, 0.8 * image + 0.1, 0.5 * image], axis=-1)
    save(source / "images" / f"{name}.png", eight_bit(picture))
    save(source / "masks" / f"{name}.png", labels.astype(np.uint8))


def two_channels(
    source: Path, name: str, image: NDArray[np.float64], labels: NDArray[np.int32]
) -> None:
    """Channels first, as ImageJ and Python scripts save them: cells, then their nuclei."""
    nuclei = gaussian(image, 3) ** 2
    planes = np.stack([image, nuclei / nuclei.max()])
    save(source / "images" / f"{name}.tif", np.rint(60_000 * planes).astype(np.uint16))
    save(source / "masks" / f"{name}.tif", labels.astype(np.uint16))


def odd_ids(source: Path, name: str, image: NDArray[np.float64], labels: NDArray[np.int32]) -> None:
    """Names that a table reader may take for a missing value or a number, and capital folders."""
    odd = dict(zip(IDS, ("NA", "null", "007", "1e5"), strict=True))[name]
    save(source / "Images" / f"{odd}.png", eight_bit(image))
    save(source / "Masks" / f"{odd}.png", labels.astype(np.uint8))


IDS = ("w1 a", "w1 b", "w2 a", "w3")


def chain(
    tmp_path: Path,
    base: Path,
    write: Write,
    *,
    prepare: tuple[object, ...] = (),
    folds: tuple[object, ...] = ("--k", 2),
    train: tuple[object, ...] = (),
    fine_tune: bool = True,
) -> pd.DataFrame:
    """All commands on four images, then `predict` and `score` on a fifth; the scores of that one."""
    source, new = tmp_path / "source", tmp_path / "new"
    for seed, name in enumerate(IDS):
        write(source, name, *cells(seed))
    image, labels = cells(99)
    write_new = folders if write is odd_ids else write
    write_new(new, "unseen", image, labels)
    maps = new / "truth"
    save(maps / "unseen.tif", labels.astype(np.uint16))
    images = new / "images" if (new / "images").is_dir() else new
    shutil.rmtree(new / "masks", ignore_errors=True)

    data, places = tmp_path / "data", ("--runs_dir", tmp_path / "runs")
    ensembles = ("--ensembles_dir", tmp_path / "ensembles")
    run("prepare", source, "--out", data, *prepare)
    run("folds", "--data", data, *folds)
    settings = ("--data", data, *places, "--name", "mine", *RECIPE, *train,
                *(FINE_TUNING if fine_tune else FROM_SCRATCH))  # fmt: skip
    if fine_tune:
        settings += ("--pretrained_model", base)
    run("train", *settings, "--fold", "all", "--dry_run")
    run("train", *settings, "--fold", "all")
    run("oof", "mine", *places)
    run("calibrate", "mine", *places, *ensembles)
    out = ("--out", tmp_path / "predictions")
    run("ensemble", "mine", *places, *ensembles, "--images", images, *out, "--name", "ensemble")
    run(
        "predict",
        images,
        "--model",
        "mine",
        *places,
        *ensembles,
        *out,
        "--name",
        "predict",
        "--export",
        "masks",
        "cells",
        "outlines",
    )
    assert np.array_equal(
        read_labels(tmp_path / "predictions" / "ensemble" / "masks" / "unseen.tif"),
        read_labels(tmp_path / "predictions" / "predict" / "masks" / "unseen.tif"),
    )
    table = pd.read_csv(tmp_path / "predictions" / "predict" / "cells.csv")
    found = read_labels(tmp_path / "predictions" / "predict" / "masks" / "unseen.tif")
    assert len(table) == found.max() > 0
    assert (tmp_path / "predictions" / "predict" / "outlines" / "unseen.png").is_file()
    run(
        "score",
        tmp_path / "predictions" / "predict",
        "--truth",
        maps,
        "--out",
        tmp_path / "score.csv",
    )
    run("score", "mine", *places)  # the out-of-fold masks, against the dataset
    run("runs", *places)
    return pd.read_csv(tmp_path / "score.csv")


@pytest.mark.parametrize("write", [folders, one_folder, sixteen_bit, rgb, odd_ids])
def test_own_images_without_a_table(tmp_path: Path, base: Path, write: Write) -> None:
    scores = chain(tmp_path, base, write)
    assert scores["score"].item() > 0.4


def test_two_channels(tmp_path: Path, base: Path) -> None:
    """From new weights, as the start model has never used a second channel."""
    channels = ("--chan", 1, "--chan2", 2)
    holdout = ("--split", "holdout", "--holdout", 0.25)  # one model, which is trained for longer
    scores = chain(tmp_path, base, two_channels, folds=holdout, train=channels, fine_tune=False)
    assert scores["score"].item() > 0.4


def test_a_table_with_blank_types_and_groups(tmp_path: Path, base: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("id;cell_type;well\nw1 a;round;w1\nw1 b;;w1\nw2 a;NA;w2\nw3;round;w3\n")
    scores = chain(
        tmp_path, base, folders, prepare=("--table", table), folds=("--k", 2, "--group", "well")
    )
    assert scores["score"].item() > 0.4
    split = pd.read_csv(tmp_path / "data" / "folds.csv").set_index("id")["fold"]
    assert split["w1 a"] == split["w1 b"]


def test_one_fold(tmp_path: Path, base: Path) -> None:
    """One split into training and validation, and so one model."""
    scores = chain(tmp_path, base, folders, folds=("--split", "holdout", "--holdout", 0.25))
    assert scores["score"].item() > 0.4


def test_one_trained_fold_of_three_predicts(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    for seed, name in enumerate(IDS):
        folders(source, name, *cells(seed))
    data, places = tmp_path / "data", ("--runs_dir", tmp_path / "runs")
    run("prepare", source, "--out", data)
    run("folds", "--data", data, "--k", 3)
    run("train", "--data", data, *places, "--name", "mine", *RECIPE, "--pretrained_model", base,
        "--n_epochs", 1, "--eval_every", 1, "--fold", 1)  # fmt: skip
    capsys.readouterr()
    run("predict", source / "images", "--model", "mine", *places, "--out", tmp_path / "predictions")
    said = capsys.readouterr()
    assert "with fold 1 of 3; folds 0, 2 have no model; train them with:" in said.err
    assert "cells in 4 images" in said.out
    run("score", tmp_path / "predictions" / "mine", "--truth", source / "masks")
