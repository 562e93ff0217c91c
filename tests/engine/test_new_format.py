"""A new format is one class in one table: `prepare`, `score` and `predict` read it without knowing of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cellflow.config import (
    OutputConfig,
    PredictConfig,
    PrepareConfig,
    RuntimeConfig,
    ScoreConfig,
    TrainConfig,
)
from cellflow.engine.data.prepare import prepare
from cellflow.engine.prediction.ensemble import predict
from cellflow.engine.validation.score_masks import score_masks
from cellflow.errors import DataError
from cellflow.io.formats import FORMATS, ReadOptions, SourceFormat
from cellflow.io.images import read_labels
from cellflow.io.source import Source, SourceImage
from cellflow.numeric.labels import instances_from_labels
from cellflow.synthetic import synthetic_dataset
from cellflow.types import Instances


@dataclass(frozen=True, eq=False)
class NpzImage(SourceImage):
    def pixels(self) -> NDArray[Any]:
        return np.load(self.path)[f"{self.id} image"]

    def instances(self, shape: tuple[int, int] | None = None) -> Instances:
        return instances_from_labels(np.load(self.path)[f"{self.id} labels"])


class Npz(SourceFormat):
    """Many images and their label maps in one file."""

    name = "npz"
    uses = frozenset({"prepare", "truth", "prediction", "images"})

    def recognises(self, path: Path, options: ReadOptions) -> bool:
        return path.suffix == ".npz"

    def read(self, path: Path, options: ReadOptions) -> Source:
        names = sorted({key.split()[0] for key in np.load(path)})
        return Source(path, self.name, {name: NpzImage(name, path) for name in names}, "npz file")


@pytest.fixture
def npz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("cellflow.io.formats.FORMATS", [Npz(), *FORMATS])
    arrays = {}
    for item in synthetic_dataset(3, shape=(96, 112), per_group=1):
        colour = np.dstack([item.image, item.image // 2, item.image // 3])
        arrays[f"{item.id} image"] = colour if item.id.startswith("spread") else item.image
        arrays[f"{item.id} labels"] = item.labels
    np.savez(tmp_path / "many.npz", **arrays)
    return tmp_path / "many.npz"


def test_prepare(npz: Path, tmp_path: Path) -> None:
    dataset = prepare(PrepareConfig(source=npz, out=tmp_path / "data"))
    stored = np.load(npz)
    assert dataset.ids == ["round_000_0", "spindle_001_0", "spread_002_0"]
    for name in dataset.ids:
        np.testing.assert_array_equal(dataset.image(name), stored[f"{name} image"])
        np.testing.assert_array_equal(dataset.labels(name), stored[f"{name} labels"])


def test_score_as_truth_and_as_prediction(npz: Path, tmp_path: Path) -> None:
    dataset = prepare(PrepareConfig(source=npz, out=tmp_path / "data"))
    for pred, truth in ((npz, npz), (npz, dataset.path), (dataset.path / "labels", npz)):
        result = score_masks(
            ScoreConfig(
                pred=str(pred), truth=truth, outlines=True, outlines_dir=tmp_path / "pictures"
            )
        )
        assert result.images["score"].tolist() == [1.0] * 3
        assert result.outlines is not None


def test_predict(npz: Path, tmp_path: Path, trained: TrainConfig) -> None:
    config = PredictConfig(
        images=npz,
        model="tiny",
        runs_dir=trained.runs_dir,
        ensembles_dir=tmp_path / "ensembles",
        output=OutputConfig(out=tmp_path / "predictions", name="one"),
        runtime=RuntimeConfig(device="cpu", amp="off"),
    )
    result = predict(config)
    assert not result.failed
    names = sorted(path.stem for path in result.masks.iterdir())
    assert names == ["round_000_0", "spindle_001_0", "spread_002_0"]
    assert read_labels(result.masks / f"{names[0]}.tif").shape == (96, 112)


def test_cells_of_another_size_than_the_image_are_refused(npz: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(npz))
    arrays["round_000_0 labels"] = arrays["round_000_0 labels"][:, 1:]
    np.savez(npz, **arrays)
    with pytest.raises(DataError, match=r"cells of round_000_0 are on 96 x 111"):
        prepare(PrepareConfig(source=npz, out=tmp_path / "data"))
