"""`Model.predict` and `Model.eval` on everything that people hand them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import NarrowUNet
from oracle import Oracle
from PIL import Image
from skimage.io import imsave

import cellflow
from cellflow.engine.segmentation.loaded_model import Model
from cellflow.errors import CellflowError, DataError
from cellflow.io.images import read_image
from cellflow.nn.checkpoint import save_model_file
from cellflow.storage.atomic import write_json
from cellflow.storage.run_folder import ensemble_record
from cellflow.synthetic import synthetic_dataset

cellpose_models = Oracle("models")

IMAGE = next(iter(synthetic_dataset(1, shape=(64, 80), seed=2, per_group=1))).image
RGB = np.stack([IMAGE, IMAGE // 2, 255 - IMAGE], axis=-1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """An untrained network: shapes and values, no cells."""
    path = tmp_path_factory.mktemp("model") / "tiny.pt"
    save_model_file(path, NarrowUNet.build(diam_mean=17.0, seed=1).eval(), {})
    return cellflow.load_model(path, device="cpu", amp="off")


@pytest.fixture(scope="module")
def pair(shared: Path) -> tuple[Model, Any]:
    """The real network, ours and Cellpose's."""
    path = shared / "models" / "usiigaci_unet"
    ours = cellflow.load_model(path, device="cpu", amp="off")
    return ours, cellpose_models.CellposeModel(gpu=False, pretrained_model=str(path), mkldnn=False)


@pytest.fixture(scope="module")
def crop(shared: Path) -> np.ndarray:
    return read_image(shared / "data" / "kaggle_layout" / "test" / "set37_0.png")[:256, :256]


def same(ours: Any, theirs: Any) -> None:
    """Answers of equal shapes and types, and nearly equal values."""
    for found, expected in zip((ours[0], ours[2]), (theirs[0], theirs[2]), strict=True):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert len(ours[1]) == len(theirs[1])
    for found, expected in zip(ours[1], theirs[1], strict=True):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(ours[1][1], theirs[1][1], atol=2e-3)
    np.testing.assert_allclose(ours[1][2], theirs[1][2], atol=2e-3)
    assert (np.abs(ours[1][0].astype(int) - theirs[1][0]) > 1).mean() < 1e-3
    np.testing.assert_allclose(ours[2], theirs[2], atol=1e-4)
    if ours[0].size and theirs[0].max():
        planes = (ours[0], theirs[0]) if ours[0].ndim > 2 else (ours[0][None], theirs[0][None])
        pairs = [[plane.astype(np.int32) for plane in part] for part in planes]
        assert cellflow.average_precision(pairs[1], pairs[0], [0.75]).mean > 0.9


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"diameter": 40},
        {"diameter": 0, "rescale": 0.8},
        {"normalize": {"percentile": [5.0, 95.0]}},
        {"normalize": {"lowhigh": [0, 200]}},
        {"invert": True},
        {"augment": True, "batch_size": 2},
        {"compute_masks": False},
        {"min_size": -1, "max_size_fraction": 0.01, "flow_threshold": 0.0, "niter": 50},
        {"do_3D": False, "stitch_threshold": 0.0, "anisotropy": None, "resample": True},
    ],
    ids=str,
)
def test_eval_answers_as_cellpose(
    pair: tuple[Model, Any], crop: np.ndarray, arguments: dict[str, Any]
) -> None:
    ours, theirs = pair
    same(
        ours.eval(crop, channels=[0, 0], **arguments),
        theirs.eval(crop, channels=[0, 0], **arguments),
    )


def test_eval_without_normalisation(pair: tuple[Model, Any], crop: np.ndarray) -> None:
    ours, theirs = pair
    scaled = (crop / 255).astype(np.float32)
    try:
        expected = theirs.eval(scaled, channels=[0, 0], normalize=False)
    finally:
        theirs.eval(scaled, channels=[0, 0], normalize=True)  # upstream keeps it for later calls
    same(ours.eval(scaled, 4, True, [0, 0], normalize=False), expected)


@pytest.mark.parametrize(
    ("axes", "arguments"),
    [
        ((2, 0, 1), {"channels": [2, 1]}),
        ((0, 2, 1), {"channels": [3, 0], "channel_axis": 1}),
        ((0, 1, 2), {"channels": [[2, 1]], "channel_axis": -1}),
    ],
)
def test_eval_finds_channels_as_cellpose(
    pair: tuple[Model, Any],
    crop: np.ndarray,
    axes: tuple[int, int, int],
    arguments: dict[str, Any],
) -> None:
    ours, theirs = pair
    colour = np.stack([crop[::-1], crop, crop.T], axis=-1)[:96, :128].transpose(axes)
    same(ours.eval(colour, **arguments), theirs.eval(colour, **arguments))


@pytest.mark.parametrize("axis", [0, 2, None])
def test_eval_takes_a_stack_as_planes(
    pair: tuple[Model, Any], crop: np.ndarray, axis: int | None
) -> None:
    ours, theirs = pair
    parts = [crop[i : i + 96, :128] for i in range(0, 120, 20)]
    stack = np.stack(parts, axis=axis or 0)
    found = ours.eval(stack, channels=[0, 0], z_axis=axis)
    assert found[0].shape == (6, 96, 128)
    same(found, theirs.eval(stack, channels=[0, 0], z_axis=axis))
    np.testing.assert_array_equal(found[0][2], ours.eval(parts[2])[0])


def test_eval_of_a_list(tiny: Model) -> None:
    seen: list[int] = []

    class Bar:
        def setValue(self, value: int) -> None:
            seen.append(value)

    masks, flows, styles = tiny.eval(
        [RGB, IMAGE], channels=[[2, 1], [0, 0]], diameter=[17, 34], progress=Bar()
    )
    assert seen == [50, 100]
    assert [item.shape for item in masks] == [(64, 80)] * 2
    np.testing.assert_array_equal(flows[0][1], tiny.eval(RGB, channels=[2, 1], diameter=17)[1][1])
    np.testing.assert_array_equal(flows[1][1], tiny.eval(IMAGE, diameter=34)[1][1])
    assert len(styles) == 2
    assert tiny.eval([]) == ([], [], [])
    five = np.stack([np.stack([RGB, RGB])] * 3)
    assert [item.shape for item in tiny.eval(five, channel_axis=-1, z_axis=0)[0]] == [
        (2, 64, 80)
    ] * 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"do_3D": True}, "do_3D=True: only 2D"),
        ({"stitch_threshold": 0.3}, "stitch_threshold=0.3: only 2D"),
        ({"anisotropy": 2.0}, "anisotropy=2.0: only 2D"),
        ({"resample": False}, "resample=False: masks are always made at the size"),
        ({"bsize": 256, "interp": False}, "bsize=256: .*; interp=False: "),
        ({"normalize": {"sharpen_radius": 3}}, "sharpen_radius 3 cannot be done"),
        ({"normalize": {"percentil": 3}}, "found 'percentil'"),
        ({"normalize": {"percentile": 3}}, "percentile as"),
        ({"normalize": "yes"}, "True, False or a dictionary"),
        ({"normalize": False, "invert": True}, "cannot be inverted"),
        ({"channels": [1, 2, 3]}, "expected two whole numbers"),
        ({"diameter": [1, 2]}, "diameter: expected one for each of 1 image, found 2"),
        ({"channel_axis": 0, "z_axis": 0}, "both"),
        ({"z_axis": 5}, r"expected an axis of an image of shape \(64, 80, 3\), found 5"),
    ],
    ids=str,
)
def test_what_eval_refuses_by_name(tiny: Model, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        tiny.eval(RGB, **arguments)


@pytest.mark.parametrize(
    "given",
    [
        IMAGE[np.newaxis],
        IMAGE[..., np.newaxis],
        IMAGE[np.newaxis, ..., np.newaxis],
        (IMAGE / 255).astype(np.float64),
        IMAGE.astype(np.uint16) * 100,
        IMAGE.tolist(),
        Image.fromarray(IMAGE),
        Image.fromarray(IMAGE).convert("P"),
        IMAGE > 100,
    ],
    ids=["1HW", "HW1", "1HW1", "float", "uint16", "lists", "PIL", "palette", "bool"],
)
def test_predict_takes_what_can_only_be_meant_so(tiny: Model, given: Any) -> None:
    is_mask = getattr(given, "dtype", None) == np.dtype(bool)
    plain = (IMAGE > 100).astype(np.uint8) if is_mask else IMAGE
    expected = tiny.predict(plain)
    np.testing.assert_allclose(tiny.predict(given).flow, expected.flow, atol=1e-3)


def test_predict_takes_paths_and_lists(tiny: Model, tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    imsave(path, RGB, check_contrast=False)
    expected = tiny.predict(RGB).flow
    found = tiny.predict([str(path), path, RGB, np.moveaxis(RGB, -1, 0)[np.newaxis, 0]])
    assert isinstance(found, list)
    assert len(found) == 4
    for item in found[:3]:
        np.testing.assert_array_equal(item.flow, expected)
    assert tiny.predict([]) == []
    with pytest.raises(DataError, match=r"is a folder.*cellflow predict"):
        tiny.predict(tmp_path)


@pytest.mark.parametrize(
    ("stack", "advice"),
    [
        (np.stack([IMAGE] * 6), "[model.predict(plane) for plane in stack]"),
        (np.stack([IMAGE] * 3), "[model.predict(plane) for plane in stack]"),
        (np.stack([IMAGE] * 3), "model.predict(image, channel_axis=0)"),
        (np.stack([IMAGE] * 6, axis=-1), "for plane in np.moveaxis(stack, 2, 0)]"),
        (np.stack([RGB] * 5), "[model.predict(plane) for plane in stack]"),
        (np.stack([np.stack([RGB] * 2)] * 2), "for plane in stack.reshape(-1, *stack.shape[-3:])]"),
        (np.stack([np.stack([IMAGE] * 2)] * 2), "in stack.reshape(-1, *stack.shape[-2:])]"),
    ],
    ids=["ZHW", "3HW", "CHW", "HWZ", "THWC", "TZHWC", "TZHW"],
)
def test_predict_refuses_stacks_and_says_what_to_type(
    tiny: Model, stack: np.ndarray, advice: str
) -> None:
    with pytest.raises(DataError) as caught:
        tiny.predict(stack)
    message = str(caught.value)
    assert str(stack.shape) in message
    assert advice in message
    typed = message[message.index("[model") :].rpartition("]")[0] + "]"
    found = eval(typed, {"model": tiny, "stack": stack, "np": np})
    assert {item.labels.shape for item in found} == {(64, 80)}


def test_predict_takes_channels_where_they_are_said(tiny: Model) -> None:
    np.testing.assert_array_equal(
        tiny.predict(np.moveaxis(RGB, -1, 0), channel_axis=0).flow, tiny.predict(RGB).flow
    )
    many = np.concatenate([RGB, RGB], axis=-1)
    assert tiny.predict(many, channel_axis=-1).labels.shape == (64, 80)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros(5), r"found \(5,\)"),
        (None, "found NoneType"),
        ({"image": IMAGE}, "found dict"),
        (np.array(["a"]), "dtype <U1"),
        (IMAGE.astype(complex), "complex"),
    ],
)
def test_predict_refuses_what_is_no_image(tiny: Model, given: Any, words: str) -> None:
    for call in (tiny.predict, tiny.eval):
        with pytest.raises(CellflowError, match=words if call == tiny.predict else "."):
            call(given)


def test_representations_fit_a_line(tiny: Model) -> None:
    text = repr(tiny)
    assert text == (
        "Model('tiny', 1 member, cpu, diameter 17.0, thresholds: those of the training, not calibrated)"
    )
    result = tiny.predict(IMAGE)
    for item in (result, tiny.opened, tiny.segmenter, tiny.opened.thresholds, [result, result]):
        assert "\n" not in repr(item)
        assert len(repr(item)) <= 120 * (len(item) if isinstance(item, list) else 1)
    assert repr(result).startswith("Prediction(flow=float32 2x64x80, cellprob=float32 64x80, ")


@pytest.mark.parametrize("diameter", [-3, float("nan"), float("inf"), "x"])
def test_diameters_that_are_none(tiny: Model, diameter: Any) -> None:
    image = np.zeros((40, 40), np.uint8)
    for call in (tiny.predict, tiny.eval):
        with pytest.raises(DataError, match="diameter: expected a number above 0"):
            call(image, diameter=diameter)
    with pytest.raises(DataError, match="batch_size: expected 1 or more, found 0"):
        tiny.eval(image, batch_size=0)


def test_rounds_that_cannot_be(tiny: Model) -> None:
    with pytest.raises(DataError, match="diameter_rounds: expected 0 or more, found -1"):
        tiny.predict(IMAGE, diameter_rounds=-1)
    with pytest.raises(DataError, match="diameter_rounds: the diameter is given, 20 pixels"):
        tiny.predict(IMAGE, diameter=20, diameter_rounds=2)
    given = dataclasses.replace(tiny, opened=dataclasses.replace(tiny.opened, diameter=18.0))
    with pytest.raises(DataError, match="diameter_rounds: the diameter is given, 18 pixels"):
        given.predict(IMAGE, diameter_rounds=2)


def test_names_of_many_models_make_one_of_a_folder(tmp_path: Path) -> None:
    """Of an ensemble's calibration, and of its predictions."""
    paths = [tmp_path / f"{letter * 90}.pt" for letter in "abc"]
    for seed, path in enumerate(paths):
        save_model_file(path, NarrowUNet.build(diam_mean=17.0, seed=seed).eval(), {})
    settings: dict[str, Any] = {"device": "cpu", "amp": "off", "ensembles_dir": tmp_path}
    names = [
        cellflow.load_model(given, **settings).opened.name
        for given in (paths, paths[::-1], paths[:1])
    ]
    for name in names:
        (tmp_path / name).mkdir()  # all differ
    assert names[0].startswith(f"{'a' * 90}+{'b' * 90}+") and names[2] == "a" * 90
    stems = [path.stem for path in paths]
    record = ensemble_record(tmp_path, stems)
    assert record == ensemble_record(tmp_path, stems[::-1]) != ensemble_record(tmp_path, stems[1:])
    write_json(record, {})
