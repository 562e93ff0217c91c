"""Packages for bioimage.io: its own library tests them."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
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


@pytest.fixture
def small(copied: TrainConfig) -> TrainConfig:
    """The trained run with small networks in place of its own, which are tested in seconds."""
    run = RunFolder(copied.runs_dir / copied.name)
    for fold in (0, 1):
        facts = load_model_file(run.fold(fold).best).facts
        save_model_file(run.fold(fold).best, UNet(17.0, widths=(4, 8, 8, 16)).eval(), facts)
    return copied


def export(config: TrainConfig, out: Path, **settings: Any) -> Any:
    told = {
        "run": config.name, "to": "bioimageio", "out": out, "runs_dir": config.runs_dir, "fold": (0,),
    }  # fmt: skip
    return cellflow.export_model(ModelExportConfig(**told | settings))


def check_package(path: Path, folder: Path) -> dict[str, Any]:
    """Test it as the Zoo does, and unpack it; its description."""
    from bioimageio.core import test_model

    summary = test_model(path)
    assert summary.status == "passed", summary.display()
    with zipfile.ZipFile(path) as file:
        file.extractall(folder)
    return dict(yaml.safe_load((folder / "rdf.yaml").read_text()))


def test_the_zoo_takes_it(small: TrainConfig, tmp_path: Path) -> None:
    made = export(small, tmp_path / "out", author=("Anna Muster",), license="MIT")
    package = tmp_path / "out" / f"{small.name}_fold_0.zip"
    assert [path for path, _ in made.files] == [package, tmp_path / "out" / "README.md"]
    folder = tmp_path / "unpacked"
    about = check_package(package, folder)
    assert about["license"] == "MIT" and about["authors"] == [{"name": "Anna Muster"}]
    assert set(about["weights"]) == {"pytorch_state_dict", "onnx"}
    assert float(about["config"]["cellflow"]["diam_mean"]) == 17.0
    with Image.open(folder / "cover.png") as cover:
        assert cover.width == 2 * cover.height
    card = (folder / "README.md").read_text()
    assert "## Validation" in card and "Anna Muster" in card and "fold 0" in card
    texts = [path.read_bytes() for path in folder.iterdir() if path.suffix != ".npy"]
    assert not any(str(tmp_path).encode() in text for text in texts)


def test_the_architecture_needs_no_cellflow(small: TrainConfig, tmp_path: Path) -> None:
    export(small, tmp_path / "out")
    folder = tmp_path / "unpacked"
    about = check_package(tmp_path / "out" / f"{small.name}_fold_0.zip", folder)
    tile = np.load(folder / "test_input.npy")
    low, high = np.percentile(tile, (1, 99), axis=(2, 3), keepdims=True)
    np.save(folder / "normal.npy", ((tile - low) / (high - low + 1e-6)).astype(np.float32))
    arguments = about["weights"]["pytorch_state_dict"]["architecture"]["kwargs"]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(arguments)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-3


@pytest.mark.slow
def test_the_real_network_with_an_image_of_ones_own(
    real: TrainConfig, photographs: Path, tmp_path: Path
) -> None:
    export(real, tmp_path / "out", sample=photographs / "a.png", fold=(1,))
    folder = tmp_path / "unpacked"
    check_package(tmp_path / "out" / f"{real.name}_fold_1.zip", folder)
    cover = imagecodecs.png_decode((folder / "cover.png").read_bytes())
    assert (cover[:, :200] != cover[:, 200:]).any()  # outlines of cells


def test_what_cannot_be(
    small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="license"):
        export(small, tmp_path / "out", license="whatever")
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(DataError, match="sample must be larger"):
        export(small, tmp_path / "out", sample=tmp_path / "small.png")

    def broken(net: Any, tiles: Any) -> Any:
        return forward(net, tiles)[0] + 1, None

    forward = UNet.forward
    monkeypatch.setattr(UNet, "forward", broken)  # the test tensor is not what the weights give
    monkeypatch.setattr("cellflow.nn.onnx_file.OPSET", 17)
    with pytest.raises(CellflowError, match="does not pass the test"):
        export(small, tmp_path / "out")
    assert not (tmp_path / "out").exists()
