"""Channels by the names that files give them, from the files of a microscope to masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
import yaml
from zarr_files import write_image

from cellflow import cli
from cellflow.config import (
    FoldsConfig,
    ModelConfig,
    PrepareConfig,
    RuntimeConfig,
    TrainConfig,
)
from cellflow.engine.data.make_folds import make_folds
from cellflow.engine.data.prepare import prepare
from cellflow.engine.segmentation.channels import channel_numbers
from cellflow.engine.training.train import train
from cellflow.errors import ConfigError, DataError
from cellflow.io.dataset import Dataset
from cellflow.io.images import read_image, read_labels, write_labels
from cellflow.nn.checkpoint import load_model_file
from cellflow.nn.networks import UNet
from cellflow.synthetic import synthetic_dataset

NAMES = ("empty", "DAPI", "GFP", "Cyto", "Cy5")
IMAGES = list(synthetic_dataset(4, shape=(96, 112), seed=5, per_group=1))
CPU = RuntimeConfig(device="cpu", amp="off")


def stained(image: np.ndarray) -> np.ndarray:
    """Five channels, the cells in the fourth."""
    grey = image if image.ndim == 2 else image.mean(axis=-1).astype(image.dtype)
    return np.stack(
        [grey * 0, grey[::-1], 255 - grey, grey, grey.T[:96, :96].repeat(2, 1)[:, :112]]
    )


def write_ome(path: Path, planes: np.ndarray, names: tuple[str, ...] = NAMES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"axes": "CYX", "Channel": {"Name": list(names)}}
    tifffile.imwrite(path, planes, ome=True, metadata=facts, photometric="minisblack")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stained") / "source"
    for item in IMAGES:
        write_ome(folder / "images" / f"{item.id}.tif", stained(item.image))
        write_labels(folder / "masks" / f"{item.id}.tif", item.labels)
    return folder


@pytest.fixture(scope="module")
def data(source: Path) -> Path:
    path = source.parent / "data"
    prepare(PrepareConfig(source, out=path))
    make_folds(FoldsConfig(data=path, k=2))
    return path


@pytest.fixture(scope="module")
def run(data: Path, tiny_config: TrainConfig) -> TrainConfig:
    """A training on the fourth channel and the second, by their names."""
    config = replace(
        tiny_config,
        data=data,
        runs_dir=data.parent / "runs",
        model=ModelConfig(diam_mean=17.0, chan="Cyto", chan2="dapi"),
        optim=replace(tiny_config.optim, n_epochs=1),
        eval_every=1,
    )
    train(config)
    return config


def test_prepare_says_the_names(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["prepare", str(source), "--out", str(tmp_path / "data")])
    assert "5 channels (empty, DAPI, GFP, Cyto, Cy5)" in capsys.readouterr().out


def test_the_dataset_keeps_names_and_channels(data: Path) -> None:
    table = pd.read_csv(data / "images.csv")
    assert set(table["channel_names"]) == {"empty;DAPI;GFP;Cyto;Cy5"}
    assert set(table["channels"]) == {5}
    dataset = Dataset.open(data)
    for item in IMAGES:
        assert np.array_equal(dataset.image(item.id), np.moveaxis(stained(item.image), 0, -1))
        assert dataset.channel_names(item.id) == NAMES


def test_datasets_of_before_have_no_names(data: Path, tmp_path: Path) -> None:
    import shutil

    old = shutil.copytree(data, tmp_path / "old")
    pd.read_csv(old / "images.csv").drop(columns="channel_names").to_csv(
        old / "images.csv", index=False
    )
    dataset = Dataset.open(old)
    assert dataset.channel_names(IMAGES[0].id) == ()
    with pytest.raises(ConfigError, match=r"--chan Cyto: expected(.|\n)*not known: 4 images"):
        train(TrainConfig(data=old, runs_dir=tmp_path, model=ModelConfig(chan="Cyto")))


@pytest.mark.slow
def test_numbers_travel_with_the_model(run: TrainConfig) -> None:
    folder = run.runs_dir / "tiny"
    record = yaml.safe_load((folder / "config.yaml").read_text())
    assert (record["config"]["model"]["chan"], record["config"]["model"]["chan2"]) == (4, 2)
    for fold in (0, 1):
        facts = load_model_file(folder / f"fold_{fold}" / "best.pt")[1]
        assert (facts["chan"], facts["chan2"]) == (4, 2)
    by_number = replace(run, model=replace(run.model, chan=4, chan2=2))
    assert [result.finished for result in train(by_number)] == ["epochs", "epochs"]  # the same run


def predict(*words: object) -> int:
    return command("predict", *words, "--amp", "off")


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as done:
        cli.main([*map(str, words), "--device", "cpu"])
    return int(done.value.code or 0)


@pytest.mark.slow
def test_predict_with_the_run(run: TrainConfig, tmp_path: Path) -> None:
    for item in IMAGES[:2]:
        write_image(tmp_path / "zarrs" / f"{item.id}.zarr", stained(item.image), names=NAMES)
    common = ["--model", run.runs_dir / "tiny", "--out", tmp_path / "out"]
    assert predict(tmp_path / "zarrs", *common, "--name", "plain") == 0
    named = ["--name", "named", "--chan", "Cyto", "--chan2", "DAPI"]
    assert predict(tmp_path / "zarrs", *common, *named) == 0
    for item in IMAGES[:2]:
        one, other = (
            read_labels(tmp_path / "out" / name / "masks" / f"{item.id}.tif")
            for name in ("plain", "named")
        )
        assert one.shape == item.labels.shape and np.array_equal(one, other)


def test_another_channel_than_the_run_was_trained_on(
    run: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "a.zarr", stained(IMAGES[0].image), names=NAMES)
    assert predict(tmp_path / "a.zarr", "--model", run.runs_dir / "tiny", "--chan", "GFP") == 1
    assert "trained with --chan 4 --chan2 2, found --chan 3 --chan2 0" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_file_that_does_not_say_its_channels(tmp_path: Path, shared: Path) -> None:
    """The named channel gives the masks of that channel alone."""
    planes = stained(IMAGES[0].image)
    write_ome(tmp_path / "images" / "a.tif", planes)
    tifffile.imwrite(tmp_path / "single.tif", planes[3])
    model = ["--model", shared / "models" / "usiigaci_unet", "--diameter", 20]
    common = [*model, "--out", tmp_path / "out", "--flow_threshold", 0]
    assert predict(tmp_path / "images", *common, "--name", "named", "--chan", "cyto") == 0
    assert predict(tmp_path / "images", *common, "--name", "number", "--chan", 4) == 0
    assert predict(tmp_path / "images", *common, "--name", "other", "--chan", "GFP") == 0
    assert predict(tmp_path / "single.tif", *common, "--name", "single") == 0
    maps = {
        name: read_image(next((tmp_path / "out" / name / "masks").iterdir()))
        for name in ("named", "number", "other", "single")
    }
    assert maps["single"].max() > 0
    assert np.array_equal(maps["named"], maps["single"])
    assert np.array_equal(maps["number"], maps["single"])
    assert not np.array_equal(maps["other"], maps["single"])


def test_names_that_lie_differently(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planes = stained(IMAGES[0].image)
    write_ome(tmp_path / "in" / "a.tif", planes)
    write_ome(tmp_path / "in" / "b.tif", planes[::-1], NAMES[::-1])
    tifffile.imwrite(tmp_path / "in" / "c.tif", planes[0])
    torch.save(UNet.build(diam_mean=17.0, seed=0).state_dict(), tmp_path / "model")
    assert predict(tmp_path / "in", "--model", tmp_path / "model", "--chan", "DAPI") == 2
    said = capsys.readouterr().err
    assert "--chan DAPI: expected one channel of this name, at the same place in every" in said
    assert "1 empty, 2 DAPI, 3 GFP, 4 Cyto, 5 Cy5: 1 image (a)" in said
    assert "1 Cy5, 2 Cyto, 3 GFP, 4 DAPI, 5 empty: 1 image (b)" in said
    assert "not known: 1 image (c)" in said


def test_which_name_fits() -> None:
    def numbers(chan: int | str, *names: str) -> int:
        return channel_numbers(chan, 0, lambda: {"a": names})[0]

    assert numbers("dapi", "GFP", "DAPI") == 2
    assert numbers("dapi", "DAPI", "dapi") == 2
    assert numbers("2", "2", "1") == 2  # a number is a number
    for names in (("DAPI", "DAPI"), ("DAPI", "Dapi"), ()):
        with pytest.raises(ConfigError, match="one channel of this name"):
            numbers("dApI", *names)
    assert channel_numbers(3, 1, lambda: pytest.fail("no name was given")) == (3, 1)


def test_more_channels_than_an_image_has(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--chan 6: 4 images .* with 5 channels(.|\n)*0 to 5"):
        train(TrainConfig(data=data, runs_dir=tmp_path, model=ModelConfig(chan=6), runtime=CPU))


def test_a_name_in_a_config_file(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "train.yaml"
    settings.write_text(f"data: {data}\nruns_dir: {tmp_path}\nmodel:\n  chan: Cyto\n  chan2: 2\n")
    words = ["train", "--config", settings, "--dry_run", "--bsize", 64, "--min_train_masks", 1]
    assert command(*words) == 0
    settings.write_text(settings.read_text().replace("Cyto", "Other"))
    assert command(*words) == 2
    assert "--chan Other: expected one channel" in capsys.readouterr().err
