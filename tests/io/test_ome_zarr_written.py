"""OME-Zarr images that are written: valid, read back whole, and by the tools they are for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellflow.io.channel_names import read_channel_names
from cellflow.io.formats import ReadOptions, read_source
from cellflow.io.formats.ome_zarr import write_ome_zarr
from cellflow.io.images import read_image, read_masks
from cellflow.io.pixel_size import PixelSize, read_pixel_size

RNG = np.random.default_rng(0)
SHAPE = (1301, 900)
IMAGE = RNG.integers(0, 60_000, (*SHAPE, 3), dtype=np.uint16)
LABELS = np.zeros(SHAPE, np.int32)
LABELS[10:60, 20:90] = 3
LABELS[400:401, 500:900] = 70_000
LABELS[1000:1301, 100:333] = 255
ROWS = [{"label": number, "area": 9.5} for number in (3, 255, 70_000)]
NAMES = ("DAPI", "GFP", "Cy5")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "a.zarr"
    size = PixelSize(0.5, 0.25)
    write_ome_zarr(
        path, IMAGE, LABELS, channel_names=NAMES, pixel_size=size, properties=ROWS
    )  # fmt: skip
    return path


def test_it_is_valid(written: Path) -> None:
    for place in ("", "labels", "labels/cells"):
        yaozarrs.validate_zarr_store(str(written / place))
    found = yaozarrs.open_group(str(written)).ome_metadata()
    assert isinstance(found, yaozarrs.v05.Image)
    label = yaozarrs.open_group(str(written / "labels" / "cells")).ome_metadata()
    assert isinstance(label, yaozarrs.v05.LabelImage)


def test_it_comes_back(written: Path) -> None:
    assert np.array_equal(read_image(written), IMAGE)
    assert np.array_equal(read_masks(written / "labels" / "cells"), LABELS)
    assert read_channel_names(written) == NAMES
    assert read_pixel_size(written) == (0.5, 0.25)


def levels_of(group: Path) -> list[tuple[dict[str, Any], np.ndarray[Any, Any]]]:
    """Levels by hand, through the metadata, with the scales and shifts that go with them."""
    facts = json.loads((group / "zarr.json").read_text())["attributes"]["ome"]
    (multiscale,) = facts["multiscales"]
    found = []
    for dataset in multiscale["datasets"]:
        steps = {step["type"]: step for step in dataset["coordinateTransformations"]}
        found.append((steps, np.asarray(zarr.open_array(group / dataset["path"], mode="r"))))
    return found


def test_levels_of_image_and_labels_lie_on_each_other(written: Path) -> None:
    images, labels = levels_of(written), levels_of(written / "labels" / "cells")
    assert [level.shape for _, level in images] == [(3, 1301, 900), (3, 651, 450), (3, 326, 225)]
    assert len(labels) == len(images)
    for (steps, image), (label_steps, label) in zip(images, labels, strict=True):
        assert image.shape[1:] == label.shape
        assert steps["scale"]["scale"][1:] == label_steps["scale"]["scale"]
        assert set(np.unique(label)) <= {0, 3, 255, 70_000}
    half = IMAGE[:1300].reshape(650, 2, 450, 2, 3).mean(axis=(1, 3)).round().transpose(2, 0, 1)
    assert np.array_equal(images[1][1][:, :650], half)
    assert np.array_equal(images[1][1][:, 650], IMAGE[1300].reshape(450, 2, 3).mean(1).round().T)
    # the centre of the first pixel of the third level is the mean of the first four of the finest
    assert images[2][0]["translation"]["translation"] == [0, 1.5 * 0.5, 1.5 * 0.25]


def test_pieces_are_no_larger_than_viewers_like(written: Path) -> None:
    array = zarr.open_array(written / "0", mode="r")
    assert array.chunks == (1, 1024, 900)
    assert "blosc" in json.dumps(array.metadata.to_dict()["codecs"])
    assert zarr.open_array(written / "labels" / "cells" / "0", mode="r").dtype == np.uint32


def test_what_is_said_of_labels(written: Path) -> None:
    facts = json.loads((written / "labels" / "cells" / "zarr.json").read_text())
    label = facts["attributes"]["ome"]["image-label"]
    assert label["source"] == {"image": "../../"}
    assert [row["label-value"] for row in label["colors"]] == [3, 255, 70_000]
    assert label["properties"][2] == {"label-value": 70_000, "area": 9.5}
    assert len({tuple(row["rgba"]) for row in label["colors"]}) == 3


@pytest.mark.parametrize(
    ("top", "dtype"), [(0, "u1"), (255, "u1"), (256, "u2"), (65_535, "u2"), (65_536, "u4")]
)
def test_the_smallest_type_that_holds_all_numbers(tmp_path: Path, top: int, dtype: str) -> None:
    labels = np.full((4, 5), top, np.int32)
    write_ome_zarr(tmp_path / "a.zarr", np.zeros((4, 5), np.uint8), labels)
    found = read_image(tmp_path / "a.zarr" / "labels" / "cells")
    assert found.dtype == dtype and np.array_equal(found, labels)
    yaozarrs.validate_zarr_store(str(tmp_path / "a.zarr"))


@given(
    data=st.data(),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.integers(0, 6),
    dtype=st.sampled_from(["u1", "u2", "u4", "i2", "i8", "f2", "f4", "f8", ">u2"]),
)
@settings(max_examples=25, deadline=None)
def test_any_image_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    height: int,
    width: int,
    channels: int,
    dtype: str,
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.zarr"
    shape = (height, width, channels) if channels else (height, width)
    values = st.integers(0, 100)
    image = data.draw(arrays(np.uint8, shape, elements=values)).astype(dtype)
    labels = data.draw(arrays(np.int32, shape[:2], elements=st.integers(0, 2**31 - 1)))
    write_ome_zarr(path, image, labels)
    expected = image[..., 0] if channels == 1 else image
    found = read_image(path)
    assert found.dtype == image.dtype.newbyteorder("=") and np.array_equal(found, expected)
    assert np.array_equal(read_masks(path / "labels" / "cells"), labels)
    assert read_pixel_size(path) is None
    yaozarrs.validate_zarr_store(str(path))


def test_channels_of_a_colour_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_ome_zarr(path, np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.int32))
    omero = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["omero"]
    assert [channel["label"] for channel in omero["channels"]] == ["red", "green", "blue"]
    assert [channel["color"] for channel in omero["channels"]] == ["FF0000", "00FF00", "0000FF"]
    for channel in omero["channels"]:  # though all values are the same
        assert channel["window"]["start"] < channel["window"]["end"]


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zarr"

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zarr, "create_group", fail)
    with pytest.raises(OSError, match="No space left"):
        write_ome_zarr(path, IMAGE, LABELS)
    assert list(tmp_path.iterdir()) == []


def test_as_a_source(written: Path) -> None:
    source = read_source(written, ReadOptions("truth"))
    assert list(source.images) == ["a"] and source.layout == "ome-zarr"
    cells = source.images["a"].instances(SHAPE)
    assert sorted(cells.areas) == sorted(np.bincount(LABELS.ravel())[[3, 255, 70_000]])


def test_in_napari(written: Path) -> None:
    """Its reader of OME-Zarr gives one layer a channel, and the labels on them with their measurements."""
    reader = pytest.importorskip("napari_ome_zarr._reader", reason="needs napari-ome-zarr")
    layers = reader.napari_get_reader(str(written))(str(written))
    (image, facts, kind), (labels, label_facts, label_kind) = layers
    assert (kind, label_kind) == ("image", "labels")
    assert np.array_equal(image[0], IMAGE.transpose(2, 0, 1)) and len(image) == 3
    assert facts["name"] == list(NAMES) and tuple(facts["scale"]) == (0.5, 0.25)
    assert np.array_equal(labels[0], LABELS)
    assert tuple(label_facts["scale"]) == (0.5, 0.25)
    assert label_facts["properties"]["index"] == [3, 255, 70_000]
