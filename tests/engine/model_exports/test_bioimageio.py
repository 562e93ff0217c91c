"""Packages for bioimage.io: its own library tests them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import yaml
from PIL import Image

import cellflow
from cellflow.config import ModelExportConfig, TrainConfig
from cellflow.errors import CellflowError, ConfigError, DataError, PackageError
from cellflow.io import bioimageio_package
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.nn.networks import UNet
from cellflow.storage.run_folder import RunFolder

try:
    bioimageio_package.check_bioimageio()
except PackageError as error:
    pytest.skip(str(error), allow_module_level=True)

ALONE = """
import importlib.util, json, sys
import numpy as np, torch
sys.modules["cellflow"] = None
spec = importlib.util.spec_from_file_location("architecture", "cellpose_unet.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
net = module.PlainUNet(**json.loads(sys.argv[1]))
net.load_state_dict(torch.load("weights.pt", weights_only=True))
with torch.inference_mode():
    output = net.eval()(torch.from_numpy(np.load("normal.npy"))).numpy()
print(float(np.abs(output - np.load("test_output.npy")).max()))
"""
"""The architecture file and the weights, where there is no cellflow."""


@pytest.fixture(scope="module")
def small(predicted_once: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The run with small networks in place of its own, which are tested in seconds."""
    folder = tmp_path_factory.mktemp("small")
    shutil.copytree(predicted_once.runs_dir, folder / "runs")
    run = RunFolder(folder / "runs" / predicted_once.name)
    for fold in (0, 1):
        facts = load_model_file(run.fold(fold).best).facts
        save_model_file(run.fold(fold).best, UNet(17.0, widths=(4, 8, 8, 16)).eval(), facts)
    return replace(predicted_once, runs_dir=folder / "runs")


def export(config: TrainConfig, out: Path, **settings: Any) -> Any:
    told = {
        "run": config.name, "to": "bioimageio", "out": out, "runs_dir": config.runs_dir, "fold": (0,),
    }  # fmt: skip
    return cellflow.export_model(ModelExportConfig(**told | settings))


def unpack(path: Path, folder: Path) -> dict[str, Any]:
    """The description of a package, whose files then lie in the folder."""
    with zipfile.ZipFile(path) as file:
        file.extractall(folder)
    return dict(yaml.safe_load((folder / "rdf.yaml").read_text()))


@pytest.mark.slow
def test_the_zoo_takes_it(small: TrainConfig, tmp_path: Path) -> None:
    """The export runs the Zoo's test, without which there is no package (`test_what_cannot_be`)."""
    made = export(small, tmp_path / "out", author=("Anna Muster",), license="MIT")
    package = tmp_path / "out" / f"{small.name}_fold_0.zip"
    assert [path for path, _ in made.files] == [package, tmp_path / "out" / "README.md"]
    folder = tmp_path / "unpacked"
    about = unpack(package, folder)
    assert about["license"] == "MIT" and about["authors"] == [{"name": "Anna Muster"}]
    assert set(about["weights"]) == {"pytorch_state_dict", "onnx"}
    assert float(about["config"]["cellflow"]["diam_mean"]) == 17.0
    with Image.open(folder / "cover.png") as cover:
        assert cover.width == 2 * cover.height
    card = (folder / "README.md").read_text()
    assert "## Validation" in card and "Anna Muster" in card and "fold 0" in card
    texts = [path.read_bytes() for path in folder.iterdir() if path.suffix != ".npy"]
    assert not any(str(tmp_path).encode() in text for text in texts)
    assert alone(folder, about) < 1e-3


def alone(folder: Path, about: dict[str, Any]) -> float:
    """How far the output is from the test tensor, with the architecture file and without cellflow."""
    tile = np.load(folder / "test_input.npy")
    low, high = np.percentile(tile, (1, 99), axis=(2, 3), keepdims=True)
    np.save(folder / "normal.npy", ((tile - low) / (high - low + 1e-6)).astype(np.float32))
    arguments = about["weights"]["pytorch_state_dict"]["architecture"]["kwargs"]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(arguments)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.slow
def test_the_real_network_with_an_image_of_ones_own(
    real_once: TrainConfig, photographs: Path, tmp_path: Path
) -> None:
    export(real_once, tmp_path / "out", sample=photographs / "a.png", fold=(1,))
    from bioimageio.core import test_model

    folder, package = tmp_path / "unpacked", tmp_path / "out" / f"{real_once.name}_fold_1.zip"
    summary = test_model(package)
    assert summary.status == "passed", summary.display()
    assert alone(folder, unpack(package, folder)) < 1e-3
    cover = imagecodecs.png_decode((folder / "cover.png").read_bytes())
    assert (cover[:, :320] != cover[:, 320:]).any()  # outlines of cells


@pytest.mark.slow
def test_what_cannot_be(
    small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="license"):
        export(small, tmp_path / "out", license="whatever")
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(DataError, match="sample must be larger"):
        export(small, tmp_path / "out", sample=tmp_path / "small.png")

    def broken(net: Any, tiles: Any) -> Any:
        output, style, features = forward(net, tiles)
        return output + 1, style, features

    forward = UNet.forward
    monkeypatch.setattr(UNet, "forward", broken)  # the test tensor is not what the weights give
    with pytest.raises(CellflowError, match="does not pass the test"):
        export(small, tmp_path / "out")
    assert not (tmp_path / "out").exists()
