"""ONNX files: onnxruntime gives what our network gives, and the script in the docs makes masks of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import NarrowUNet
from skimage.io import imread

import cellflow
from cellflow.config import ModelExportConfig, TrainConfig
from cellflow.errors import PackageError
from cellflow.io.images import read_labels
from cellflow.nn.checkpoint import load_model_file
from cellflow.nn.onnx_file import save_onnx
from cellflow.nn.runners import make_runner
from cellflow.numeric.normalize import network_channels
from cellflow.storage.run_folder import RunFolder

pytest.importorskip("onnx", reason="the package onnx is not installed")
runtime = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")

DOCS = Path(__file__).resolve().parents[3] / "docs" / "models.md"


def export(config: TrainConfig, out: Path, **settings: Any) -> Any:
    told = {"run": config.name, "to": "onnx", "out": out, "runs_dir": config.runs_dir}
    return cellflow.export_model(ModelExportConfig(**told | settings))


def session(path: Path) -> Any:
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NarrowUNet]:
    """A file and the network that it was made of."""
    file, net = tmp_path_factory.mktemp("onnx") / "a.onnx", NarrowUNet.build(seed=3).eval()
    save_onnx(file, [net], {"name": "a"})
    return file, net


@pytest.mark.parametrize(
    "shape", [(1, 64, 64), (3, 32, 224), (2, 16, 16), (1, 24, 40), (5, 96, 48)]
)
def test_any_batch_and_size(
    converted: tuple[Path, NarrowUNet], shape: tuple[int, int, int]
) -> None:
    """Sides are multiples of 8."""
    count, height, width = shape
    file, net = converted
    tiles = np.random.default_rng(0).normal(size=(count, 2, height, width)).astype(np.float32)
    output, style = session(file).run(["output", "style"], {"image": tiles})
    expected, styles = make_runner(net).run(tiles)
    np.testing.assert_allclose(output, expected, atol=1e-3)
    np.testing.assert_allclose(style, styles, atol=1e-3)


@pytest.fixture(scope="module")
def exported(real_once: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, name = tmp_path_factory.mktemp("onnx") / "out", real_once.name
    made = export(real_once, folder, merged=True)
    names = [f"{name}_fold_0.onnx", f"{name}_fold_1.onnx", "merged.onnx", "README.md"]
    assert [path.name for path, _ in made.files] == names
    return folder


@pytest.mark.slow
def test_real_tiles_and_random_ones(
    exported: Path, real_once: TrainConfig, photographs: Path
) -> None:
    run = RunFolder(real_once.runs_dir / real_once.name)
    nets = [load_model_file(run.fold(fold).best).net for fold in (0, 1)]
    image = network_channels(imread(photographs / "a.png"))[:, :192, :224]
    noise = np.random.default_rng(1).normal(size=image.shape).astype(np.float32)
    for tiles in (image[np.newaxis], noise[np.newaxis], np.stack([noise[:, :64, :64]] * 3)):
        outputs = [make_runner(net).run(tiles)[0] for net in nets]
        for fold, expected in enumerate(outputs):
            file = exported / f"{real_once.name}_fold_{fold}.onnx"
            found = session(file).run(["output"], {"image": tiles})[0]
            assert np.abs(found - expected).max() < 1e-3
        merged = session(exported / "merged.onnx").run(None, {"image": tiles})
        assert len(merged) == 1
        assert np.abs(merged[0] - np.mean(outputs, axis=0)).max() < 1e-3
    facts = session(exported / f"{real_once.name}_fold_1.onnx").get_modelmeta().custom_metadata_map
    assert (float(facts["diam_mean"]), float(facts["diameter"])) == (30.0, 51.0)
    assert (facts["folds"], facts["multiple"], facts["flow_scale"]) == ("1", "16", "5.0")


@pytest.mark.slow
def test_the_script_in_the_docs(
    exported: Path, real_once: TrainConfig, photographs: Path, tmp_path: Path
) -> None:
    """From an image to masks without torch; they are those of the fold's model."""
    (block,) = re.findall(r"```python\n(import cv2.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(block.splitlines()) <= 25
    run = RunFolder(real_once.runs_dir / real_once.name)
    script = block.replace(
        "exp-onnx/exp_fold_0.onnx", str(exported / f"{real_once.name}_fold_0.onnx")
    )
    script = script.replace("image.png", str(photographs / "a.png"))
    assert str(exported) in script and str(photographs) in script
    (tmp_path / "script.py").write_text("import sys\nsys.modules['torch'] = None\n" + script)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = read_labels(tmp_path / "masks.tif")
    image = imread(photographs / "a.png")
    ours = cellflow.load_model(run.fold(0).best, device="cpu", amp="off").predict(image).labels
    assert ours.max() >= 3
    assert cellflow.average_precision([ours], [found], [0.75]).mean >= 0.95


def test_a_missing_package_is_said(
    trained: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PackageError, match=r"pip install 'cellflow\[onnx\]'"):
        export(trained, tmp_path / "out")
    assert not (tmp_path / "out").exists()
