"""What is wrong with folds is said of all of them, before the first is trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skimage.io import imsave

from cellflow.config import (
    ChainConfig,
    FoldsConfig,
    ModelConfig,
    PrepareConfig,
    SamplingConfig,
    TrainConfig,
)
from cellflow.engine.data.make_folds import make_folds
from cellflow.engine.data.prepare import prepare
from cellflow.engine.experiments.chain import run_chain
from cellflow.engine.training.train import train
from cellflow.engine.training.training_plan import plan_training
from cellflow.errors import DataError, FoldError, LeakError
from cellflow.io.dataset import Dataset
from cellflow.io.images import write_labels
from cellflow.synthetic import synthetic_dataset


@pytest.fixture
def few(tmp_path: Path, tiny_config: TrainConfig) -> TrainConfig:
    """Four images, RGB; `a` and `b` are empty, the others have cells."""
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    for name, item in zip("abcd", synthetic_dataset(4, shape=(64, 64), seed=3), strict=True):
        labels = item.labels * (name in "cd")
        picture = np.stack([item.image + len(name), item.image, item.image // 2], axis=-1)
        picture[0, 0] = ord(name)
        imsave(source / "images" / f"{name}.png", picture, check_contrast=False)
        write_labels(source / "masks" / f"{name}.tif", labels)
    prepare(PrepareConfig(source=source, out=tmp_path / "data"))
    return replace(tiny_config, data=tmp_path / "data", runs_dir=tmp_path / "runs")


def bring(data: Path, folds: list[int]) -> None:
    rows = [f"{name},{fold}" for name, fold in zip("abcd", folds, strict=True)]
    (data / "folds.csv").write_text("\n".join(["id,fold", *rows]) + "\n")


WAYS: list[Callable[[TrainConfig], object]] = [
    train,
    plan_training,
    lambda config: train(replace(config, debug=True)),
    lambda config: run_chain(ChainConfig(train=config)),
]


@pytest.mark.parametrize("way", WAYS, ids=["train", "dry_run", "debug", "run"])
def test_empty_folds_are_said_of_all_folds(
    few: TrainConfig, way: Callable[[TrainConfig], object]
) -> None:
    bring(few.data, [0, 0, 1, 1])
    with pytest.raises(DataError) as caught:
        way(few)
    text = str(caught.value)
    assert "fold 0 validates on 2 images (a, b) without a single cell" in text
    assert "fold 1 has no training image with at least 1 cells" in text
    assert not list(few.runs_dir.glob("*/fold_*"))


def test_too_few_cells_everywhere(few: TrainConfig) -> None:
    bring(few.data, [0, 1, 0, 1])
    many = replace(few, sampling=replace(few.sampling, min_train_masks=500))
    with pytest.raises(DataError, match=r"(?s)fold 0 has no .* 500 cells; the most is .*fold 1"):
        train(many)
    with pytest.raises(DataError, match="fold 1") as caught:
        train(replace(many, fold=("1",)))
    assert "fold 0" not in str(caught.value)


def test_files_and_channels_that_are_not_there(few: TrainConfig) -> None:
    bring(few.data, [0, 1, 0, 1])
    (few.data / "images" / "c.png").unlink()
    (few.data / "labels" / "d.tif").unlink()
    table = pd.read_csv(few.data / "images.csv", dtype=str)
    table["channels"] = "2"
    table.to_csv(few.data / "images.csv", index=False)
    with pytest.raises(DataError) as caught:
        train(replace(few, model=ModelConfig(chan=3, chan2=1)))
    text = str(caught.value)
    assert "images are missing: 1 (c.png)" in text and "label maps are missing: 1 (d.tif)" in text
    assert "--chan 3: 4 images (a, b, c, d) with 2 channels" in text and "--chan2" not in text


def test_what_is_well_is_trained(few: TrainConfig) -> None:
    bring(few.data, [0, 1, 0, 1])
    plan = plan_training(replace(few, sampling=SamplingConfig(bsize=64, min_train_masks=0)))
    assert (plan.training, plan.validation) == (2, 2)


def test_a_training_image_without_cells_tells_no_diameter(few: TrainConfig) -> None:
    """That of which the time of an evaluation is estimated may be one."""
    bring(few.data, [1, 0, 1, 0])
    sampling = SamplingConfig(bsize=64, min_train_masks=0)
    plan = plan_training(replace(few, sampling=sampling, eval_diameter="image"))
    assert (plan.training, plan.evaluation_seconds > 0) == (2, True)


@pytest.fixture
def split(tiny_data: Path, tiny_config: TrainConfig, tmp_path: Path) -> ChainConfig:
    """A chain on data that is split in two folds, by group."""
    shutil.copytree(tiny_data, tmp_path / "data")
    return ChainConfig(
        train=replace(tiny_config, data=tmp_path / "data", runs_dir=tmp_path / "runs", name="a")
    )


def test_settings_that_are_not_those_of_the_split(split: ChainConfig) -> None:
    other = replace(split, k=4, group="cell_type", calibration=0.25)
    for config in (other, replace(other, train=replace(split.train, debug=True))):
        with pytest.raises(FoldError) as caught:
            run_chain(config)
        text = str(caught.value)
        for part in (
            "--k 4, but there are 2 folds",
            "--group cell_type, but groups are group",
            "--calibration 0.25, but 0 of 6 images are reserved",
            f"cellflow folds --data {split.train.data} --k 4 --group cell_type --calibration 0.25 --overwrite",
        ):
            assert part in text
    assert not split.train.runs_dir.exists()


def test_a_table_that_was_brought_along_is_looked_at(split: ChainConfig) -> None:
    data = split.train.data
    (data / "folds.json").unlink()
    (data / "folds.csv").write_text(
        "id,fold\n" + "".join(f"{name},{n % 2}\n" for n, name in enumerate(Dataset.open(data).ids))
    )
    with pytest.raises(LeakError, match="cell_type"):
        run_chain(replace(split, group="cell_type"))
    with pytest.raises(FoldError, match="--k 3"):
        run_chain(replace(split, k=3))


def test_a_holdout_is_no_split_in_k(split: ChainConfig) -> None:
    make_folds(FoldsConfig(data=split.train.data, split="holdout", overwrite=True))
    with pytest.raises(FoldError, match="--k 2, but it is one holdout"):
        run_chain(replace(split, k=2))


@pytest.mark.slow
def test_settings_that_were_not_given_are_those_of_the_split(
    split: ChainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    short = replace(split.train, time_budget="0.001s", seed=7)
    for config in (replace(split, train=short), replace(split, k=2, group="group", train=short)):
        assert run_chain(config).calibration is None
    assert "folds 0 1, groups group, seed 0, 0 of 6 images reserved" in caplog.text
