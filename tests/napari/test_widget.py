"""The widget, without a window and in one that nobody sees."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import NarrowUNet

import cellflow
from cellflow.config import TrainConfig
from cellflow.errors import DataError, RunError
from cellflow.napari.segment import segment
from cellflow.nn.checkpoint import save_model_file
from cellflow.synthetic import synthetic_dataset

LOOSE = {"cellprob_threshold": -50.0, "flow_threshold": 0.0, "min_size": 0}
IMAGE = next(iter(synthetic_dataset(1, shape=(64, 80), seed=2, per_group=1))).image


@pytest.fixture(scope="module")
def two_channels(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "two.pt"
    save_model_file(path, NarrowUNet.build(diam_mean=17.0, seed=1).eval(), {"chan": 2, "chan2": 1})
    return str(path)


def test_an_image(trained: TrainConfig) -> None:
    told: dict[str, Any] = {"model": trained.name, "runs_dir": str(trained.runs_dir)}
    (labels, settings, kind), *others = segment(
        IMAGE, **told, diameter=20.0, thresholds=LOOSE, placed={"scale": (0.5, 0.5)}, name="a"
    )
    expected = cellflow.load_model(trained.name, runs_dir=trained.runs_dir).predict(
        IMAGE, diameter=20.0, **LOOSE
    )
    np.testing.assert_array_equal(labels, expected.labels)
    assert (kind, others, settings["name"], settings["scale"]) == (
        "labels",
        [],
        "a cells",
        (0.5, 0.5),
    )
    assert settings["metadata"] == {"model": trained.name, "diameter": [20.0]}
    assert settings["features"]["index"].tolist() == [0, *expected.cells["label"]]


def test_a_stack_and_colours(two_channels: str) -> None:
    """Every plane by itself, and no number for two cells."""
    stack = np.stack([IMAGE, 255 - IMAGE])
    grey = segment(stack, model=two_channels, nuclei=stack, thresholds=LOOSE, flows=True)
    (logits, hidden, kind), (labels, settings, _) = grey
    assert (logits.shape, kind, hidden["visible"]) == (stack.shape, "image", False)
    assert labels.shape == stack.shape
    alone = segment(IMAGE, model=two_channels, nuclei=IMAGE, thresholds=LOOSE)[0][0]
    np.testing.assert_array_equal(labels[0], alone)
    assert not set(np.unique(labels[0])) & set(np.unique(labels[1])) - {0}
    assert sorted(np.unique(labels)) == sorted(settings["features"]["index"])
    colours = np.stack([IMAGE, IMAGE, IMAGE], axis=-1)
    same = segment(colours, model=two_channels, rgb=True, thresholds=LOOSE)[0][0]
    np.testing.assert_array_equal(same, alone)


def test_alpha_is_no_channel(trained: TrainConfig) -> None:
    """Neither of the mean of all channels, which this model takes."""
    colours = np.stack([IMAGE, IMAGE, IMAGE], axis=-1)
    alpha = np.full((*IMAGE.shape, 1), 255, IMAGE.dtype)
    alpha[:30] = 0
    told: dict[str, Any] = {"model": trained.name, "runs_dir": str(trained.runs_dir), "rgb": True}
    told |= {"diameter": 20.0, "thresholds": LOOSE, "flows": True}
    plain = segment(colours, **told)
    clear = segment(np.concatenate([colours, alpha], axis=-1), **told)
    np.testing.assert_array_equal(clear[0][0], plain[0][0])


def test_what_cannot_be(two_channels: str, trained: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No run"):
        segment(IMAGE, runs_dir=str(tmp_path))
    with pytest.raises(DataError, match="nuclei: expected a layer of the image's size"):
        segment(IMAGE, model=two_channels, nuclei=IMAGE[:5])
    with pytest.raises(DataError, match="choose no nuclei"):
        segment(IMAGE, model=trained.name, runs_dir=str(trained.runs_dir), nuclei=IMAGE)
    with pytest.raises(DataError, match="rows and columns"):
        segment(IMAGE[0], model=two_channels)
    with pytest.raises(DataError, match=r"channels .* last axis.*split"):
        segment(np.stack([IMAGE, IMAGE], axis=-1), model=two_channels)


@pytest.fixture
def viewer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """napari's viewer and Qt offscreen; all but the canvas, which needs OpenGL."""
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    components = pytest.importorskip("napari.components", reason="napari is not installed here")
    pytest.importorskip("qtpy.QtWidgets", reason="no Qt is installed here", exc_type=ImportError)
    from napari.qt import get_qapp

    get_qapp()
    found = components.ViewerModel()
    # What a widget asks for the viewer that it is docked in.
    monkeypatch.setattr("napari.utils._magicgui.find_viewer_ancestor", lambda widget: found)
    return found


def wait(until: Callable[[], bool], seconds: float = 120) -> None:
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it takes too long"
        QApplication.processEvents()
        time.sleep(0.02)


@pytest.mark.slow
def test_the_widget_in_napari(viewer: Any, trained: TrainConfig) -> None:
    from cellflow.napari.widget import segment_widget

    viewer.add_image(IMAGE, name="a", scale=(0.5, 0.5))
    widget = segment_widget()
    assert widget.image.value.name == "a"
    widget.model.value, widget.runs_dir.value = trained.name, trained.runs_dir
    widget.diameter.value, widget.own_thresholds.value = 20.0, False
    widget.cellprob_threshold.value, widget.flow_threshold.value = -50.0, 0.0
    widget.min_size.value = 0
    widget.call_button.native.click()
    assert len(viewer.layers) == 1  # it runs beside the window
    wait(lambda: len(viewer.layers) == 2)
    expected = cellflow.load_model(trained.name, runs_dir=trained.runs_dir).predict(
        IMAGE, diameter=20.0, **LOOSE
    )
    cells = viewer.layers["a cells"]
    np.testing.assert_array_equal(cells.data, expected.labels)
    np.testing.assert_array_equal(cells.scale, (0.5, 0.5))


def test_levels_of_a_pyramid(viewer: Any, trained: TrainConfig) -> None:
    """The first level is the image, and the cells lie on it."""
    from cellflow.napari.widget import segment_widget

    image = viewer.add_image([IMAGE, IMAGE[::2, ::2]], name="a", multiscale=True)
    assert image.multiscale
    widget = segment_widget()
    widget.model.value, widget.runs_dir.value = trained.name, trained.runs_dir
    widget.own_thresholds.value = False
    widget.call_button.native.click()
    wait(lambda: len(viewer.layers) == 2)
    assert viewer.layers["a cells"].data.shape == IMAGE.shape


def test_an_error_is_a_sentence(viewer: Any, tmp_path: Path) -> None:
    from napari.utils.notifications import notification_manager

    from cellflow.napari.widget import segment_widget

    viewer.add_image(IMAGE, name="a")
    widget = segment_widget()
    widget.model.value, widget.runs_dir.value = "nothing", tmp_path
    before = len(notification_manager.records)
    widget.call_button.native.click()
    wait(lambda: len(notification_manager.records) > before)
    assert "No run 'nothing'" in notification_manager.records[-1].message
    assert len(viewer.layers) == 1
