"""Another export, of a few lines: written, resumed, and added to a finished result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellflow.engine import exports
from cellflow.engine.exports.export import ImageExport, PredictedImage
from cellflow.engine.prediction.predict_images import predict_images
from cellflow.engine.prediction.result_folder import ResultFolder
from cellflow.engine.segmentation.result import Prediction
from cellflow.errors import DataError

NAMES = ("a", "b", "c")
IMAGE = np.zeros((6, 8), np.uint8)
LABELS = np.repeat(np.array([[0, 1, 2, 2]], np.int32), 6, axis=0).repeat(2, axis=1)


class CellCount(ImageExport):
    """``counts/ID.npy``: how many cells an image has."""

    path, content, ending = "counts", "numbers of cells", ".npy"

    def write(self, folder: Path, item: PredictedImage) -> None:
        self.file(folder, item.id).parent.mkdir(exist_ok=True)
        np.save(self.file(folder, item.id), item.labels.max())


class Segmenter:
    """Finds two cells in every image."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def stream(self, images: Any, finish: Any) -> Any:
        for name, _ in images:
            self.seen.append(name)
            fields = np.zeros((2, *IMAGE.shape), np.float32)
            finish(name, Prediction(fields, fields[0], fields[0], LABELS, 5.0, fields[0]))
            yield name


def predict(path: Path, names: set[str], bad: str = "") -> list[str]:
    """One command; the images that the network saw."""

    def read(name: str) -> Any:
        if name == bad:
            raise DataError("damaged")
        return IMAGE

    segmenter: Any = Segmenter()
    readers = {name: lambda name=name: read(name) for name in NAMES}
    with ResultFolder.open(path, {"members": ["x"]}, exports=names) as folder:
        predict_images(segmenter, readers, folder, title="predict")  # type: ignore[arg-type]
    return list(segmenter.seen)


def counts(path: Path) -> dict[str, int]:
    return {item.stem: int(np.load(item)) for item in sorted((path / "counts").glob("*"))}


def test_another_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(exports.EXPORTS, "counts", CellCount())
    path = tmp_path / "new"
    assert predict(path, {"masks", "counts"}, bad="b") == ["a", "c"]
    assert counts(path) == {"a": 2, "c": 2}
    assert predict(path, {"masks", "counts"}) == ["b"]
    assert counts(path) == dict.fromkeys(NAMES, 2)


@pytest.mark.parametrize("before", [{"masks"}, {"submission"}, {"masks", "submission", "cells"}])
def test_an_export_that_comes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: set[str]
) -> None:
    """The result was written before there was such an export; nothing is predicted again."""
    path = tmp_path / "later"
    assert predict(path, before) == list(NAMES)
    monkeypatch.setitem(exports.EXPORTS, "counts", CellCount())
    assert predict(path, {"counts"}) == []
    assert counts(path) == dict.fromkeys(NAMES, 2)
    assert predict(path, {"counts"}, bad="a") == []


def test_every_export_can_be_asked_for() -> None:
    from typing import get_args

    from cellflow.config.prediction import ExportName

    assert set(get_args(ExportName)) == exports.EXPORTS.keys()
