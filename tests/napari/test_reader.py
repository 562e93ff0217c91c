"""Runs and predictions as layers; napari itself opens them where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cellflow
from cellflow.config import OutputConfig, PredictConfig, TrainConfig
from cellflow.errors import DataError, RunError
from cellflow.io.images import read_image, read_labels, write_labels, write_planes
from cellflow.napari import reader
from cellflow.napari.reader import reader_of

MANIFEST = Path(reader.__file__).with_name("napari.yaml")


@pytest.fixture(scope="module")
def prediction(
    trained: TrainConfig, tiny_source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A prediction, with two cells drawn into one image, which an untrained network does not find."""
    out = tmp_path_factory.mktemp("prediction")
    config = PredictConfig(
        (tiny_source / "images",),
        model=trained.name,
        runs_dir=trained.runs_dir,
        output=OutputConfig(out=out, name="p", export=("masks", "cells")),
    )
    folder = cellflow.predict(config).folder
    first = min((folder / "masks").iterdir())
    labels = np.zeros_like(read_labels(first))
    labels[5:20, 5:20], labels[40:60, 30:70] = 1, 3
    write_labels(first, labels)
    header = (folder / "cells.csv").read_text().splitlines()[0].split(",")
    rows = pd.DataFrame({"id": first.stem, "label": [1, 3], "area": [225, 800]})
    rows.reindex(columns=header).to_csv(folder / "cells.csv", index=False)
    return folder


def test_a_prediction(prediction: Path, tiny_source: Path) -> None:
    read = reader_of(str(prediction))
    assert read is not None
    layers = read(str(prediction))
    names = sorted(path.stem for path in (tiny_source / "images").iterdir())
    assert [settings["name"] for _, settings, _ in layers] == [
        text for name in names for text in (name, f"{name} cells")
    ]
    (pixels, _, kind), (labels, settings, label_kind) = layers[:2]
    assert (kind, label_kind) == ("image", "labels")
    np.testing.assert_array_equal(pixels, read_image(tiny_source / "images" / f"{names[0]}.png"))
    np.testing.assert_array_equal(labels, read_labels(prediction / "masks" / f"{names[0]}.tif"))
    assert settings["features"]["index"].tolist() == [0, 1, 3]
    assert settings["features"]["area"].tolist()[1:] == [225, 800]
    assert [settings["visible"] for _, settings, _ in layers[:3]] == [True, True, False]
    record = reader_of(str(prediction / "prediction.json"))
    assert record is not None and len(record("")) == len(layers)


def prediction_of(place: Path, pixels: np.ndarray, names: tuple[str, ...]) -> Path:
    """As `predict` writes it, for one image ``a``."""
    (place / "images").mkdir()
    write_planes(place / "images" / "a.tif", pixels, names)
    write_labels(place / "p" / "masks" / "a.tif", np.ones(pixels.shape[:2], np.int32))
    record = {"cells": {"a": 1}, "identity": {"images": str(place / "images")}}
    (place / "p" / "prediction.json").write_text(json.dumps(record))
    return place / "p"


@pytest.mark.parametrize(
    ("count", "dtype", "names"),
    [
        (2, "uint8", ("DAPI", "GFP")),
        (4, "uint16", ("DAPI", "GFP", "RFP", "Cy5")),
        (4, "uint8", ()),
        (5, "uint16", ()),
        (3, "float32", ()),
    ],
)
def test_every_channel_is_a_layer(
    tmp_path: Path, plugin: str, count: int, dtype: str, names: tuple[str, ...]
) -> None:
    components = pytest.importorskip("napari.components", reason="napari is not installed here")
    pixels = np.arange(20 * 30 * count).reshape(20, 30, count).astype(dtype)
    folder = prediction_of(tmp_path, pixels, names)
    viewer = components.ViewerModel()
    viewer.open(str(folder), plugin=plugin)
    *channels, cells = viewer.layers
    told = [f"a {name}" for name in names or [f"channel {at}" for at in range(1, count + 1)]]
    assert [layer.name for layer in channels] == told and cells.name == "a cells"
    for at, layer in enumerate(channels):
        assert layer.visible and not layer.rgb
        np.testing.assert_array_equal(layer.data, pixels[..., at])


def test_colours_are_one_layer(tmp_path: Path, plugin: str) -> None:
    components = pytest.importorskip("napari.components", reason="napari is not installed here")
    pixels = np.arange(20 * 30 * 3).reshape(20, 30, 3).astype(np.uint16)
    viewer = components.ViewerModel()
    viewer.open(str(prediction_of(tmp_path, pixels, ())), plugin=plugin)
    image, _ = viewer.layers
    assert image.rgb and image.name == "a"
    np.testing.assert_array_equal(image.data, pixels)


def test_a_prediction_whose_images_are_gone(
    prediction: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "p"
    shutil.copytree(prediction, folder)
    text = (folder / "prediction.json").read_text()
    images = str(
        cellflow.storage.records.load_json(folder / "prediction.json")["identity"]["images"]
    )
    (folder / "prediction.json").write_text(text.replace(images, "/not/there"))
    (folder / "cells.csv").unlink()
    read = reader_of(str(folder))
    assert read is not None
    layers = read(str(folder))
    assert {kind for _, _, kind in layers} == {"labels"} and len(layers) == 6
    assert not any("features" in settings for _, settings, _ in layers)
    assert "/not/there" in caplog.text and "is not where it was" in caplog.text
    record = json.loads((folder / "prediction.json").read_text())
    (folder / "prediction.json").write_text(json.dumps({**record, "cells": None}))
    assert [settings["name"] for _, settings, _ in read(str(folder))] == [
        settings["name"] for _, settings, _ in layers
    ]
    shutil.rmtree(folder / "masks")
    with pytest.raises(DataError, match="--export masks"):
        read(str(folder))


def test_a_run(predicted: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = predicted.runs_dir / predicted.name
    read = reader_of(str(folder))
    assert read is not None
    layers = read(str(folder))
    dataset = cellflow.io.dataset.Dataset.open(predicted.data)
    assert len(layers) == 3 * len(dataset)
    for place, name in enumerate(dataset.ids):
        (pixels, _, _), (truth, settings, _), (cells, _, _) = layers[3 * place : 3 * place + 3]
        np.testing.assert_array_equal(pixels, dataset.image(name))
        np.testing.assert_array_equal(truth, dataset.labels(name))
        np.testing.assert_array_equal(cells, read_labels(folder / "oof" / "masks" / f"{name}.tif"))
        assert settings["name"] == f"{name} truth" and truth.max() > 0
    monkeypatch.setattr(reader, "MOST", 1)
    assert len(read(str(folder))) == 3
    shutil.move(predicted.runs_dir / predicted.name / "oof" / "masks", folder / "away")
    with pytest.raises(DataError, match=f"cellflow oof {predicted.runs_dir / predicted.name}"):
        read(str(folder))


def test_a_run_whose_data_is_gone(predicted: TrainConfig) -> None:
    record = predicted.runs_dir / predicted.name / "config.yaml"
    record.write_text(record.read_text().replace(str(predicted.data.resolve()), "/not/there"))
    read = reader_of(str(record.parent / "oof" / "oof.json"))
    assert read is not None
    with pytest.raises(RunError, match="/not/there"):
        read("")


def test_other_paths_are_for_others(tiny_source: Path, tmp_path: Path) -> None:
    assert reader_of(str(tiny_source)) is None
    assert reader_of(str(tiny_source / "table.csv")) is None
    assert reader_of([str(tiny_source)]) is None
    (tmp_path / "config.yaml").write_text("nothing: of ours\n")
    assert reader_of(str(tmp_path)) is None
    assert reader_of(str(tmp_path / "none")) is None


@pytest.mark.slow
def test_cellflow_does_not_import_napari() -> None:
    program = (
        "import sys, cellflow, cellflow.cli, cellflow.engine.prediction.ensemble\n"
        "print([name for name in sys.modules if name.split('.')[-1] == 'napari'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.fixture
def plugin() -> Iterator[str]:
    """The plugin, known to npe2 as an installed one is."""
    npe2 = pytest.importorskip("npe2", reason="napari is not installed here")
    manifest, manager = npe2.PluginManifest.from_file(MANIFEST), npe2.PluginManager.instance()
    if "cellflow" in manager:  # installed with its entry point
        yield "cellflow"
        return
    manager.register(manifest)
    yield manifest.name
    manager.unregister(manifest.name)


def test_the_manifest_is_valid(plugin: str) -> None:
    import npe2

    npe2.PluginManifest.from_file(MANIFEST).validate_imports()
    readers = npe2.PluginManager.instance().iter_compatible_readers("/some/prediction.json")
    assert [item.plugin_name for item in readers] == [plugin]


def test_napari_opens_a_prediction(plugin: str, prediction: Path) -> None:
    """Without its window."""
    components = pytest.importorskip("napari.components", reason="napari is not installed here")
    viewer = components.ViewerModel()
    layers = viewer.open(str(prediction), plugin=plugin)
    assert len(layers) == 12
    cells = viewer.layers[1]
    assert type(cells).__name__ == "Labels"
    assert cells.features["index"].tolist() == [0, 1, 3]
    assert "area: 800" in str(cells.get_status((50, 50)))
