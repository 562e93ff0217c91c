"""Exports for Cellpose, from `cellflow predict` to what Cellpose reads; and flows that join an ensemble."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from cellflow import cli
from cellflow.engine.exports.export import PredictedImage
from cellflow.engine.exports.png import PngMasks
from cellflow.engine.segmentation.result import Prediction
from cellflow.io.dataset import Dataset
from cellflow.io.foreign_flows import read_foreign_flows
from cellflow.io.formats.label_maps import same_cells
from cellflow.io.formats.seg_npy import read_seg_npy
from cellflow.io.images import read_image, read_labels


@pytest.fixture(scope="module")
def cellpose_io() -> Any:
    """Imported when it is needed: it takes seconds."""
    return pytest.importorskip("cellpose.io")


def command(*words: object) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([str(word) for word in words])
    assert left.value.code == 0


def predict(shared: Path, images: Path, out: Path, *words: object) -> None:
    model = shared / "models" / "usiigaci_unet"
    command(
        "predict", images, "--model", model, "--chan", 0, "--ensembles_dir", out / "none", "--out", out,
        "--name", "new", "--device", "cpu", "--amp", "off", "--diameter", 17, "--flow_threshold", 0, *words,
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(shared: Path, tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prediction with all that Cellpose and an ensemble take."""
    out = tmp_path_factory.mktemp("cellpose")
    predict(shared, tiny_source / "images", out, "--export", "masks", "png", "seg", "flows")
    assert sum(int(read_labels(path).max()) for path in (out / "new" / "masks").iterdir()) > 6
    return out / "new"


def names(result: Path) -> list[str]:
    return sorted(path.stem for path in (result / "masks").iterdir())


@pytest.mark.slow
def test_pngs_beside_images_are_what_cellpose_trains_on(
    cellpose_io: Any, result: Path, tiny_source: Path, tmp_path: Path
) -> None:
    for path in (*(tiny_source / "images").iterdir(), *(result / "png").iterdir()):
        shutil.copy(path, tmp_path)
    images, labels, files = cellpose_io.load_images_labels(str(tmp_path), mask_filter="_cp_masks")[
        :3
    ]
    assert [Path(file).stem for file in files] == names(result)
    for name, image, found in zip(names(result), images, labels, strict=True):
        assert np.array_equal(image, read_image(tiny_source / "images" / f"{name}.png"))
        assert found.dtype == np.uint16
        assert np.array_equal(found, read_labels(result / "masks" / f"{name}.tif"))
    listed = cellpose_io.get_label_files([str(file) for file in files], "_cp_masks")[0]
    assert [Path(file).name for file in listed] == [
        f"{name}_cp_masks.png" for name in names(result)
    ]


@pytest.mark.parametrize("folder", ["png", "seg"])
def test_what_is_written_beside_images_is_prepared_again(
    folder: str, result: Path, tiny_source: Path, tmp_path: Path
) -> None:
    (tmp_path / "s").mkdir()
    for path in (*(tiny_source / "images").iterdir(), *(result / folder).iterdir()):
        shutil.copy(path, tmp_path / "s")
    command("prepare", tmp_path / "s", "--out", tmp_path / "data")
    dataset = Dataset.open(tmp_path / "data")
    for name in names(result):
        before = read_labels(result / "masks" / f"{name}.tif")
        assert same_cells(dataset.labels(name).astype(np.int64), before.astype(np.int64))


def test_more_cells_than_a_png_holds(
    cellpose_io: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    export, image = PngMasks(), np.zeros((270, 260), np.uint8)
    many = np.arange(270 * 260, dtype=np.int32).reshape(image.shape)
    export.write(tmp_path, PredictedImage("x", image, many, None))
    assert "70,199 cells" in caplog.text and "--export masks" in caplog.text
    assert export.done(tmp_path, set()) == {"x"}
    assert np.array_equal(cellpose_io.imread(str(tmp_path / "png" / "x_cp_masks.tif")), many)
    export.write(tmp_path, PredictedImage("x", image, many // 100, None))
    assert [path.name for path in (tmp_path / "png").iterdir()] == ["x_cp_masks.png"]
    export.forget(tmp_path, "x")
    assert export.done(tmp_path, set()) == set()


# ------------------------------------------------------------------------------------ the GUI's files


def test_the_keys_are_those_that_cellpose_writes(
    cellpose_io: Any, result: Path, tiny_source: Path, tmp_path: Path
) -> None:
    name = names(result)[0]
    image = tiny_source / "images" / f"{name}.png"
    ours = np.load(result / "seg" / f"{name}_seg.npy", allow_pickle=True).item()
    shape = ours["masks"].shape
    flows = [
        np.zeros((*shape, 3), np.uint8),
        np.zeros((2, *shape), np.float32),
        np.zeros(shape, np.float32),
    ]
    cellpose_io.masks_flows_to_seg(
        read_image(image),
        ours["masks"].astype(np.int32),
        flows,
        str(tmp_path / "a.png"),
        diams=17.0,
    )
    theirs = np.load(tmp_path / "a_seg.npy", allow_pickle=True).item()
    assert np.array_equal(read_seg_npy(tmp_path / "a_seg.npy"), ours["masks"])
    assert theirs.keys() <= ours.keys()
    for key in ("outlines", "masks", "ismanual"):
        assert np.array_equal(ours[key], theirs[key]), key
        assert ours[key].dtype == theirs[key].dtype
    for place in (0, 1, 4):
        assert ours["flows"][place].shape == theirs["flows"][place].shape
        assert ours["flows"][place].dtype == theirs["flows"][place].dtype
    assert ours["filename"] == str(image.resolve())
    assert ours["chan_choose"] == [0, 0]
    assert 5 < ours["diameter"] < 60


class Parent(MagicMock):
    """What `_load_seg` asks of the window of the GUI; it keeps what is set."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if "name" not in settings and "parent" not in settings:
            self.load_3D, self.restore, self.ncells = False, None, 0
            self.colormap = np.random.default_rng(0).integers(0, 255, (1000, 4))
            del self.stack_filtered


def check_loaded(window: Any, result: Path, name: str) -> None:
    labels = read_labels(result / "masks" / f"{name}.tif")
    assert window.loaded
    assert int(window.ncells) == labels.max()
    assert np.array_equal(np.squeeze(window.cellpix), labels)
    assert window.recompute_masks
    assert window.stack.shape[1:3] == labels.shape
    flow, cellprob = read_foreign_flows(result / "flows" / f"{name}.npz")
    assert np.allclose(window.flows[4][:2], flow, rtol=1e-3, atol=1e-3)
    assert np.allclose(window.flows[4][2], cellprob, rtol=1e-3, atol=1e-3)


def test_the_loading_function_of_the_gui(result: Path) -> None:
    gui_io = pytest.importorskip("cellpose.gui.io")
    window, name = Parent(), names(result)[0]
    gui_io._load_seg(window, filename=str(result / "seg" / f"{name}_seg.npy"))
    check_loaded(window, result, name)


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The GUI of Cellpose, on no screen."""
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.setenv("HOME", str(tmp_path))
    pytest.importorskip("pyqtgraph")
    widgets = pytest.importorskip("qtpy.QtWidgets")
    application = widgets.QApplication.instance() or widgets.QApplication([])
    gui = pytest.importorskip("cellpose.gui.gui")
    window = gui.MainW(image=None, logger=logging.getLogger("gui"))
    yield window
    window.close()
    application.processEvents()


def test_the_gui_itself(window: Any, result: Path, tmp_path: Path) -> None:
    from cellpose.gui import io as gui_io

    name = names(result)[0]
    gui_io._load_seg(window, filename=str(result / "seg" / f"{name}_seg.npy"))
    check_loaded(window, result, name)
    saved = np.load(result / "seg" / f"{name}_seg.npy", allow_pickle=True).item()
    assert float(window.Diameter.text()) == pytest.approx(saved["diameter"], abs=0.06)


# ------------------------------------------------------------------------------------------- flows


def test_flows_join_an_ensemble_and_change_nothing(
    result: Path, shared: Path, tiny_source: Path, tmp_path: Path
) -> None:
    """The mean of a model's flows and of what it gave before is what it gave before."""
    assert sorted(path.stem for path in (result / "flows").iterdir()) == names(result)
    with np.load(result / "flows" / f"{names(result)[0]}.npz") as arrays:
        assert sorted(arrays) == ["cellprob", "flow", "scale"]
        assert float(arrays["scale"]) == 5
    command(
        "ensemble", shared / "models" / "usiigaci_unet", "--chan", 0, "--images", tiny_source / "images",
        "--ensembles_dir", tmp_path / "none", "--out", tmp_path, "--name", "joined",
        "--flows", result / "flows", "--device", "cpu", "--amp", "off", "--diameter", 17,
        "--flow_threshold", 0, "--export", "masks", "flows",
    )  # fmt: skip
    for name in names(result):
        before, after = (
            read_foreign_flows(place / "flows" / f"{name}.npz")
            for place in (result, tmp_path / "joined")
        )
        for one, other in zip(before, after, strict=True):
            assert np.allclose(one, other, rtol=2e-3, atol=2e-3)  # float16
        one, other = (
            read_labels(place / "masks" / f"{name}.tif") for place in (result, tmp_path / "joined")
        )
        assert one.max() == other.max()
        assert np.mean(one == other) > 0.999


@pytest.mark.slow
def test_what_is_asked_for_later_is_added(
    result: Path, shared: Path, tiny_source: Path, tmp_path: Path
) -> None:
    """PNGs are made of the label maps; what is of the network's output is predicted again."""
    for names_of_exports in (["masks"], ["png"], ["seg", "flows"]):
        predict(shared, tiny_source / "images", tmp_path, "--export", *names_of_exports)
    (tmp_path / "new" / "png" / f"{names(result)[0]}_cp_masks.png").unlink()
    predict(shared, tiny_source / "images", tmp_path, "--export", "masks")
    for folder in ("png", "seg", "flows", "masks"):
        files = {path.name: path.read_bytes() for path in (result / folder).iterdir()}
        assert {p.name: p.read_bytes() for p in (tmp_path / "new" / folder).iterdir()} == files


def test_a_model_of_two_channels_says_them(tmp_path: Path) -> None:
    from cellflow.engine.exports.seg import GuiFiles

    fields = np.zeros((2, 6, 8), np.float32)
    labels = np.pad(np.ones((2, 3), np.int32), ((2, 2), (2, 3)))
    prediction = Prediction(fields, fields[0], fields[0], labels, 3.0, fields[0], channels=(2, 1))
    item = PredictedImage("a", np.zeros((6, 8), np.uint8), labels, None, prediction)
    GuiFiles().write(tmp_path, item)
    values = np.load(tmp_path / "seg" / "a_seg.npy", allow_pickle=True).item()
    assert values["chan_choose"] == [2, 1]
    assert values["filename"] == "a.tif"
