"""The pictures of a training: there from the first epoch on, new at every evaluation, and never in its way."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.io import imread

from cellflow.config import TrainConfig
from cellflow.engine.training import fold_pictures
from cellflow.engine.training.examples import choose_examples
from cellflow.engine.training.fold_pictures import FoldPictures
from cellflow.engine.training.progress import EpochSums, Progress
from cellflow.engine.training.train import train
from cellflow.io.dataset import Dataset
from cellflow.nn.checkpoint import load_state
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import FoldFolder, RunFolder

BATCHES = "val_batch_truth.png", "val_batch_predicted.png"


@pytest.fixture
def config(tiny_config: TrainConfig, tmp_path: Path) -> TrainConfig:
    """One fold, in a folder of its own."""
    return replace(tiny_config, runs_dir=tmp_path / "runs", fold=("0",))


def files_of(config: TrainConfig) -> FoldFolder:
    return RunFolder(config.runs_dir / config.name).fold(0)


def same_weights(ours: TrainConfig, theirs: TrainConfig) -> bool:
    one, other = (load_state(files_of(item).last)["net"] for item in (ours, theirs))
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Name, title or epochs, and hash of every picture in the order of writing."""
    found: list[tuple[str, str, str]] = []

    def watched(name: str) -> None:
        write = getattr(fold_pictures, name)

        def and_note(path: Path, shown: Any, **more: Any) -> None:
            write(path, shown, **more)
            what = str(len(shown)) if name == "plot_history" else more["title"]
            found.append((path.name, what, hash_file(path)))

        monkeypatch.setattr(fold_pictures, name, and_note)

    watched("plot_history")
    watched("write_mosaic")
    return found


def test_curves_at_every_epoch_and_images_at_every_evaluation(
    config: TrainConfig, trained: TrainConfig, written: list[tuple[str, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(fold_pictures, "SHARE", 1e9)
    train(config)
    curves = [(what, digest) for name, what, digest in written if name == "history.png"]
    assert [what for what, _ in curves] == ["1", "2", "3", "3"]
    assert len({digest for _, digest in curves}) == 3
    for name in BATCHES:
        batches = [(what, digest) for known, what, digest in written if known == name]
        assert ["epoch 2:" in batches[0][0], "epoch 3:" in batches[1][0]] == [True, True]
        assert len({digest for _, digest in batches}) == len(batches) == 2
    truth, predicted = (imread(files_of(config).path / name) for name in BATCHES)
    assert truth.shape == predicted.shape
    assert same_weights(config, trained)


def test_a_training_leaves_its_pictures(trained: TrainConfig) -> None:
    for fold in (0, 1):
        files = RunFolder(trained.runs_dir / trained.name).fold(fold)
        for path in (files.plot, files.true_batch, files.predicted_batch):
            assert imread(path).min() < 100
        assert not list(files.path.glob(".*.tmp*"))


def test_what_cannot_be_drawn_is_told_once_and_changes_nothing(
    config: TrainConfig, trained: TrainConfig, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def broken(*rest: object, **more: object) -> None:
        raise RuntimeError("no fonts")

    for name in ("plot_history", "write_mosaic"):
        monkeypatch.setattr(fold_pictures, name, broken)
    assert train(config)[0].finished
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    for name in ("history.png", *BATCHES):
        assert len([text for text in told if f"{name} could not be drawn: no fonts" in text]) == 1
    assert same_weights(config, trained)


def test_an_image_that_cannot_be_drawn_is_left_out(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*rest: object) -> None:
        raise RuntimeError("odd image")

    monkeypatch.setattr(fold_pictures.Tile, "compare", broken)
    pictures, dataset = pictures_of(config), Dataset.open(config.data)
    for name in dataset.ids:
        pictures.watch("net")(name, np.zeros((96, 112), np.int32), {"score": 0.0})
    pictures.evaluation(1, "net", 0.0)
    assert caplog.text.count("could not be drawn: odd image") == 1
    assert not files_of(config).true_batch.exists()


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def pictures_of(
    config: TrainConfig, *, share: list[str] | None = None, first: bool = True
) -> FoldPictures:
    dataset = Dataset.open(config.data)
    ids = dataset.ids if share is None else share
    ranks = SimpleNamespace(first=first)
    validator: Any = SimpleNamespace(share=ids, machine=SimpleNamespace(ranks=ranks))
    return FoldPictures(RunFolder(config.runs_dir / config.name), 0, dataset, validator)


def progress_of(epochs: int) -> Progress:
    progress = Progress(5)
    for epoch in range(1, epochs + 1):
        progress.keep(epoch, EpochSums().row(), with_average=False)
    return progress


def test_drawing_between_evaluations_takes_a_fiftieth_of_the_time(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, drawn = Clock(), []

    def slow(*rest: object, **more: object) -> None:
        clock.now += 0.25
        drawn.append(clock.now)

    monkeypatch.setattr(fold_pictures, "time", clock)
    monkeypatch.setattr(fold_pictures, "plot_history", slow)
    pictures, progress = pictures_of(config), progress_of(1)
    for _ in range(1000):
        clock.now += 1.0
        pictures.epoch(progress)
    assert drawn[0] == 1.25  # the first epoch is shown at once
    assert 0.015 < 0.25 * len(drawn) / clock.now <= 0.02
    at_evaluations = len(drawn)
    for _ in range(5):
        pictures.curves(progress)
    assert len(drawn) == at_evaluations + 5


def test_only_the_first_process_draws(config: TrainConfig) -> None:
    pictures = pictures_of(config, first=False)
    name = Dataset.open(config.data).ids[0]
    pictures.watch("net")(name, np.zeros((96, 112), np.int32), {"score": 0.0})
    pictures.evaluation(1, "net", 0.0)
    pictures.epoch(progress_of(1))
    pictures.curves(progress_of(1))
    assert not files_of(config).path.exists()


def test_the_weights_that_are_the_better_ones_are_shown(
    config: TrainConfig, written: list[tuple[str, str, str]]
) -> None:
    pictures, dataset = pictures_of(config), Dataset.open(config.data)
    for weights in ("net", "ema"):
        for name in dataset.ids:
            pictures.watch(weights)(name, np.zeros((96, 112), np.int32), {"score": 0.0})
    pictures.evaluation(7, "ema", 0.125)
    titles = [what for _, what, _ in written]
    assert titles == [
        "tiny, fold 0, epoch 7, moving average of the weights: truth",
        "tiny, fold 0, epoch 7, moving average of the weights: prediction "
        "(score of all validation images 0.1250)",
    ]
    pictures.evaluation(8, "net", 0.5)  # nothing was seen since
    assert len(written) == 2


def test_only_the_chosen_images_are_held(config: TrainConfig) -> None:
    pictures, dataset = pictures_of(config, share=[]), Dataset.open(config.data)
    for name in dataset.ids:
        pictures.watch("net")(name, np.zeros((96, 112), np.int32), {"score": 0.0})
    assert not pictures._tiles
    assert not pictures._pairs


def test_examples_are_spread_over_types_and_within_them(tiny_data: Path) -> None:
    dataset = Dataset.open(tiny_data)
    ids = [f"{kind}{at:02d}" for kind in ("a", "b", "c") for at in range({"c": 2}.get(kind, 20))]
    types = [name[0] for name in ids]
    dataset.images = pd.DataFrame({"cell_type": types}, index=pd.Index(ids, name="id"))
    chosen = choose_examples(dataset, ids[::-1], 8)
    assert chosen == ["a00", "a10", "a19", "b00", "b10", "b19", "c00", "c01"]
    assert choose_examples(dataset, ids, 8) == chosen
    assert choose_examples(dataset, ids, 100) == ids
    assert choose_examples(dataset, [], 8) == []
    dataset.images = dataset.images.drop(columns="cell_type")
    assert choose_examples(dataset, ids, 3) == ["a00", "b00", "c01"]
