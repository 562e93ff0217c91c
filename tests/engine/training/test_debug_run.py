"""Debug runs: few images, few steps, a name of their own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cellflow.config import TrackingConfig, TrainConfig
from cellflow.engine.experiments.chain import debug_images
from cellflow.engine.training.debug_run import debug_config
from cellflow.engine.training.train import train
from cellflow.errors import FoldError
from cellflow.io.dataset import Dataset
from cellflow.io.fold_table import read_fold_facts
from cellflow.storage.run_folder import RunFolder


@pytest.fixture
def wanted(tiny_config: TrainConfig, tmp_path: Path) -> TrainConfig:
    return replace(tiny_config, runs_dir=tmp_path / "runs", debug=True)


def test_the_images_are_a_few_of_every_fold_and_type(wanted: TrainConfig) -> None:
    config = debug_config(wanted)
    assert (config.name, config.data) == ("tiny-debug", wanted.runs_dir / "tiny-debug" / "data")
    whole, part = Dataset.open(wanted.data), Dataset.open(config.data)
    assert set(part.ids) <= set(whole.ids)
    split = whole.folds()
    assert part.folds().to_dict() == split[part.ids].to_dict()
    assert set(part.folds()) == set(split)
    assert read_fold_facts(part.folds_path)["group"] == read_fold_facts(whole.folds_path)["group"]
    counts = part.images.assign(fold=part.folds()).groupby(["fold", "cell_type"]).size()
    assert counts.max() <= 2
    for name in part.ids:
        assert (part.image(name) == whole.image(name)).all()
        assert len(part.instances(name)) == len(whole.instances(name))
        pd.testing.assert_series_equal(part.images.loc[name], whole.images.loc[name])
    assert part.hash  # fits its tables
    assert debug_config(config) == config
    again = debug_config(wanted)
    assert again == config


def test_without_folds_there_is_an_error_that_names_the_whole_dataset(
    wanted: TrainConfig, tmp_path: Path, tiny_data: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    (data / "folds.csv").unlink()
    with pytest.raises(FoldError, match=str(data)):
        debug_config(replace(wanted, data=data))
    config = debug_config(replace(wanted, data=data), folds=2)
    assert not Dataset.open(config.data).folds_path.exists()
    assert len(Dataset.open(config.data)) == 6


def test_a_debug_training_is_tiny_marked_and_uploads_nothing(wanted: TrainConfig) -> None:
    tracking = TrackingConfig(wandb=True, slack=True)
    config = debug_config(replace(wanted, tracking=tracking))
    assert config.tracking.wandb_offline and not config.tracking.slack
    train(replace(wanted, fold=("0",)))
    run = RunFolder(wanted.runs_dir / "tiny-debug")
    assert run.read_record()["config"]["debug"] is True
    assert not (wanted.runs_dir / "tiny").exists()


def test_few_images_are_predicted(wanted: TrainConfig, tiny_data: Path) -> None:
    config = debug_config(wanted)
    listed = debug_images(config, tiny_data).read_text().splitlines()
    assert 0 < len(listed) <= 8
    assert all(Path(line).is_file() for line in listed)


def test_a_name_does_not_make_a_debug_run(wanted: TrainConfig) -> None:
    config = debug_config(replace(wanted, name="mine-debug"))
    assert config.name == "mine-debug"
    assert config.data == wanted.runs_dir / "mine-debug" / "data"
    assert config.optim.n_epochs == 2


def test_other_data_is_cut_again(wanted: TrainConfig, tmp_path: Path, tiny_data: Path) -> None:
    before = Dataset.open(debug_config(wanted).data).folds()
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    table = (data / "folds.csv").read_text()
    (data / "folds.csv").write_text(
        table.replace(",0", ",x").replace(",1", ",0").replace(",x", ",1")
    )
    after = Dataset.open(debug_config(replace(wanted, data=data)).data).folds()
    assert (before != after).all()
