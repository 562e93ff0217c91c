"""Models of Cellpose's by name, from a real server on this machine, through every door that takes a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from model_server import ModelServer, serve
from narrow import NarrowUNet

import cellflow
from cellflow.cli import run_command
from cellflow.config import ModelConfig, TrainConfig
from cellflow.engine.runs.start_file import start_identity
from cellflow.engine.segmentation.open_models import open_models
from cellflow.engine.training.train import train
from cellflow.errors import CheckpointError, DownloadError, RunError
from cellflow.nn.checkpoint import save_model_file
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder

IMAGE = np.random.default_rng(3).integers(0, 255, (64, 80)).astype(np.uint8)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with serve(tmp_path, monkeypatch) as state:
        for number, name in enumerate(["cyto3", *(f"cytotorch_{index}" for index in range(4))]):
            path = tmp_path / "made.pt"
            save_model_file(path, NarrowUNet.build(seed=number), {})
            state.files[name] = path.read_bytes()
        path.unlink()
        yield state


def test_load_model(server: ModelServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"cyto3 is not in .*models/cyto3: put that file"):
        cellflow.load_model("cyto3", device="cpu", download=False)
    model = cellflow.load_model("cyto3", device="cpu")
    assert model.opened.name == "cyto3"
    there = cellflow.load_model(tmp_path / "models" / "cyto3", device="cpu")
    ours, theirs = (item.predict(IMAGE, diameter=30) for item in (model, there))
    assert np.array_equal(ours.flow, theirs.flow)
    assert server.asked == ["cyto3"]


def test_four_networks_are_averaged(server: ModelServer) -> None:
    together = cellflow.load_model("cytotorch", device="cpu", amp="off")
    assert len(together.opened.members) == 4
    assert together.opened.name == "cytotorch"
    single = [
        cellflow.load_model(f"cytotorch_{index}", device="cpu", amp="off").predict(IMAGE, diameter=30)
        for index in range(4)
    ]  # fmt: skip
    mean = np.mean([item.flow for item in single], axis=0)
    found = together.predict(IMAGE, diameter=30).flow
    assert np.allclose(found, mean, atol=1e-2 * np.abs(mean).max())
    assert not np.allclose(found, single[0].flow, atol=1e-2 * np.abs(mean).max())


def test_predict_and_ensemble(server: ModelServer, tmp_path: Path) -> None:
    from skimage.io import imsave

    imsave(tmp_path / "image.png", IMAGE, check_contrast=False)
    same = ("--device", "cpu", "--diameter", "30")
    with pytest.raises(SystemExit) as stopped:
        run_command("predict", ["image.png", "--model", "cyto3", "--no_download", *same])
    assert stopped.value.code not in (0, None)
    assert not server.asked and not (tmp_path / "predictions").exists()
    run_command("predict", ["image.png", "--model", "cyto3", *same])
    assert (tmp_path / "predictions" / "cyto3" / "masks" / "image.tif").is_file()
    run_command("ensemble", ["cyto3", "cytotorch", "--images", "image.png", *same])
    assert (tmp_path / "predictions" / "cyto3+cytotorch" / "masks" / "image.tif").is_file()
    assert server.asked == ["cyto3", *(f"cytotorch_{index}" for index in range(4))]


def test_a_typo_names_what_is_near(server: ModelServer) -> None:
    with pytest.raises(RunError, match=r"No run 'cyto33'.*looked for cyto33 and .*mean cyto3"):
        open_models(["cyto33"], torch.device("cpu"))
    assert not server.asked


def test_train(server: ModelServer, tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = replace(
        tiny_config, fold=("0",), name="named", runs_dir=tmp_path / "runs",
        model=ModelConfig(pretrained_model="cyto3"),
        optim=replace(tiny_config.optim, n_epochs=1),
    )  # fmt: skip
    with pytest.raises(DownloadError, match="cyto3 is not in"):
        train(replace(config, download=False))
    train(config)
    record = RunFolder(tmp_path / "runs" / "named").read_record()
    digest = hash_file(tmp_path / "models" / "cyto3")
    assert record["config"]["model"]["pretrained_model"] == f"cyto3 ({digest})"
    assert "download" not in record["config"]
    train(replace(config, download=False))  # the same run: it is complete, and nothing is refused
    assert server.asked == ["cyto3"]
    assert start_identity("cyto3", download=False) == f"cyto3 ({digest})"

    four = replace(config, name="four", model=ModelConfig(pretrained_model="cytotorch"))
    with pytest.raises(CheckpointError, match="a training starts from one: give cytotorch_0"):
        train(four)
    assert server.asked == ["cyto3"]
