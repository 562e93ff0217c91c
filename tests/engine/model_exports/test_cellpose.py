"""Files for Cellpose: Cellpose itself loads them and finds what we find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import Oracle
from skimage.io import imread

import cellflow
from cellflow.config import ModelExportConfig, TrainConfig
from cellflow.errors import CheckpointError, DataError
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.nn.networks import NETWORKS, UNet
from cellflow.storage.run_folder import RunFolder

cellpose_models = Oracle("models")

IN_ITS_GUI = """
import json, sys
from cellpose import io, models
from skimage.io import imread
io.add_model(sys.argv[1])
name = models.get_user_models()[0]
model = models.CellposeModel(gpu=False, model_type=name)
print(json.dumps([name, float(model.diam_mean), float(model.diam_labels)]))
"""
"""What *Models > Add custom torch model to GUI* does, and then the choice of the model."""


def export(config: TrainConfig, out: Path, **settings: Any) -> Any:
    told = {"run": config.name, "to": "cellpose", "out": out, "runs_dir": config.runs_dir}
    return cellflow.export_model(ModelExportConfig(**told | settings))


@pytest.mark.slow
def test_cellpose_finds_the_same_cells(
    real_once: TrainConfig, photographs: Path, tmp_path: Path
) -> None:
    """Without a diameter, at the defaults of both, for each fold."""
    made = export(real_once, tmp_path / "out")
    names = [path.name for path, _ in made.files]
    assert names == [f"{real_once.name}_fold_0", f"{real_once.name}_fold_1", "README.md"]
    image = imread(photographs / "a.png")
    for fold in (0, 1):
        file = tmp_path / "out" / names[fold]
        theirs = cellpose_models.CellposeModel(gpu=False, pretrained_model=str(file))
        masks = theirs.eval(image, channels=[0, 0])[0].astype(np.int32)
        best = RunFolder(real_once.runs_dir / real_once.name).fold(fold).best
        ours = cellflow.load_model(best, device="cpu", amp="off").predict(image)
        assert ours.diameter == pytest.approx(50.0 + fold)
        assert float(theirs.diam_labels) == pytest.approx(ours.diameter)
        assert ours.labels.max() >= 3
        assert cellflow.average_precision([masks], [ours.labels], [0.75]).mean >= 0.95


@pytest.mark.slow
def test_a_diameter_of_the_run_is_that_of_the_file(
    real: TrainConfig, photographs: Path, tmp_path: Path
) -> None:
    """Where out-of-fold predictions were made with one diameter for all images, so does Cellpose."""
    run = RunFolder(real.runs_dir / real.name)
    record = json.loads(run.oof_record.read_text())
    models = {str(n): cellflow.storage.hashing.hash_file(run.fold(n).best) for n in (0, 1)}
    run.oof_record.write_text(json.dumps(record | {"diameter": 45.0, "models": models}))
    export(real, tmp_path / "out", fold=(1,))
    file = tmp_path / "out" / f"{real.name}_fold_1"
    theirs = cellpose_models.CellposeModel(gpu=False, pretrained_model=str(file))
    assert float(theirs.diam_labels) == pytest.approx(45.0)
    image = imread(photographs / "a.png")
    ours = cellflow.load_model(run.fold(1).best, device="cpu", amp="off").predict(image)
    assert ours.diameter == 45.0
    masks = theirs.eval(image, channels=[0, 0])[0].astype(np.int32)
    assert cellflow.average_precision([masks], [ours.labels], [0.75]).mean >= 0.95
    assert "45.0 pixels" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
def test_cellposes_gui_lists_it(real_once: TrainConfig, tmp_path: Path) -> None:
    Oracle("io").add_model  # noqa: B018  # skips where there is no Cellpose 3
    export(real_once, tmp_path / "out", fold=(0,))
    file = tmp_path / "out" / f"{real_once.name}_fold_0"
    env = os.environ | {"CELLPOSE_LOCAL_MODELS_PATH": str(tmp_path / "models")}
    (tmp_path / "models").mkdir()  # as its first start does
    done = subprocess.run(
        [sys.executable, "-c", IN_ITS_GUI, str(file)],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    name, diam_mean, diam_labels = json.loads(done.stdout.splitlines()[-1])
    expected = load_model_file(file).net.diameters
    assert (name, diam_mean, diam_labels) == (file.name, *map(pytest.approx, expected))


def test_our_facts_stay_in_the_file(trained: TrainConfig, tmp_path: Path) -> None:
    export(trained, tmp_path / "out", fold=(0,))
    best = load_model_file(RunFolder(trained.runs_dir / trained.name).fold(0).best)
    found = load_model_file(tmp_path / "out" / f"{trained.name}_fold_0")
    assert found.facts == best.facts
    for name, value in best.net.state_dict().items():
        np.testing.assert_array_equal(found.net.state_dict()[name], value)


def test_only_an_export_is_replaced(trained: TrainConfig, tmp_path: Path) -> None:
    """A folder with anything else in it stays, whatever was asked for."""
    out = tmp_path / "out"
    export(trained, out, fold=(0,))
    with pytest.raises(DataError, match="--overwrite"):
        export(trained, out, fold=(1,))
    export(trained, out, fold=(1,), overwrite=True)
    names = {f"{trained.name}_fold_1", "README.md"}
    assert {path.name for path in out.iterdir()} == names
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="found something else"):
        export(trained, out, overwrite=True)
    assert {path.name for path in out.iterdir()} == {*names, "thesis.tex"}


def test_another_network_is_refused(
    copied: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stranger(cellflow.nn.networks.Network):
        kind, title = "other", "another network"

        def __init__(self, diam_mean: float = 30.0):
            super().__init__(diam_mean)
            self.inner = UNet(diam_mean, widths=(4, 8))

        def forward(self, tiles: Any) -> Any:
            return self.inner(tiles)

    monkeypatch.setitem(NETWORKS, "other", Stranger)
    run = RunFolder(copied.runs_dir / copied.name)
    for fold in (0, 1):
        facts = load_model_file(run.fold(fold).best).facts
        save_model_file(run.fold(fold).best, Stranger(), facts)
    with pytest.raises(CheckpointError, match="Cellpose has no network 'another network'"):
        export(copied, tmp_path / "out")
    assert not (tmp_path / "out").exists()
