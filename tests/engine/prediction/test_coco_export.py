"""``--export coco``: read by pycocotools and by ourselves, to the pixel; resumed as any other export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from skimage.io import imsave
from torch import nn

from cellflow import cli
from cellflow.config import MaskConfig
from cellflow.engine.exports.coco import Coco
from cellflow.engine.exports.export import PredictedImage
from cellflow.engine.prediction.predict_images import predict_images
from cellflow.engine.prediction.result_folder import ResultFolder
from cellflow.engine.segmentation.member import Member
from cellflow.engine.segmentation.result import Prediction
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.errors import DataError
from cellflow.io.formats import ReadOptions, read_source
from cellflow.io.image_source import find_images
from cellflow.io.images import read_image, read_labels
from cellflow.nn.networks import Network
from cellflow.nn.runners import TorchRunner
from cellflow.synthetic import synthetic_dataset

Labels = NDArray[np.int32]


def cellflow(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main([str(word) for word in words])
    return int(left.value.code or 0)


def labels_of(coco: COCO, image_id: int, key: str = "label") -> Labels:
    """The label map that pycocotools makes of the annotations of an image."""
    shown = coco.imgs[image_id]
    labels = np.zeros((shown["height"], shown["width"]), np.int32)
    for number, cell in enumerate(coco.imgToAnns[image_id], 1):
        pixels = coco.annToMask(cell).astype(bool)
        assert not labels[pixels].any()
        labels[pixels] = cell.get(key, number)
    return labels


@pytest.fixture(scope="module")
def result(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images, one in a sub-folder and one without cells, predicted by a real model."""
    folder = tmp_path_factory.mktemp("coco")
    image = read_image(shared / "data" / "kaggle_layout" / "test" / "set37_0.png")[:200, :240]
    (folder / "plate" / "day1").mkdir(parents=True)
    imsave(folder / "plate" / "grey.png", image, check_contrast=False)
    imsave(folder / "plate" / "day1" / "grey.png", image[::-1], check_contrast=False)
    imsave(folder / "plate" / "flat.png", np.full((60, 70), 7, np.uint8), check_contrast=False)
    model = shared / "models" / "usiigaci_unet"
    words = (
        "predict",
        folder / "plate",
        "--model",
        model,
        "--chan",
        0,
        "--recursive",
        "--device",
        "cpu",
    )
    out = ("--out", folder / "predictions", "--name")
    assert cellflow(*words, *out, "all", "--export", "masks", "cells", "coco") == 0
    assert cellflow(*words, *out, "only", "--export", "coco") == 0
    return folder / "predictions" / "all"


def test_pycocotools_reads_just_the_label_maps(result: Path) -> None:
    coco = COCO(str(result / "coco.json"))
    names = {item["cellflow_id"]: number for number, item in coco.imgs.items()}
    assert {item["file_name"] for item in coco.imgs.values()} == {
        "grey.png",
        "day1/grey.png",
        "flat.png",
    }
    table = pd.read_csv(result / "cells.csv").set_index(["id", "label"])
    counts = {"polygons": 0, "run lengths": 0}
    assert names.keys() == {"grey", "day1__grey", "flat"}
    for name, number in names.items():
        labels = read_labels(result / "masks" / f"{name}.tif")
        np.testing.assert_array_equal(labels_of(coco, number), labels)
        for cell in coco.imgToAnns[number]:
            row = table.loc[name, cell["label"]]
            box = row[["box_x0", "box_y0", "box_x1", "box_y1"]].to_numpy(int)
            assert cell["bbox"] == [*box[:2], *(box[2:] - box[:2])]
            assert (cell["area"], cell["iscrowd"]) == (row["area"], 0)
            assert cell["score"] == pytest.approx(row["confidence"], abs=1e-6)
            counts["polygons" if isinstance(cell["segmentation"], list) else "run lengths"] += 1
    assert len(table) == sum(counts.values())
    assert counts["polygons"] > 5
    assert [category["name"] for category in coco.cats.values()] == ["cell"]


def test_the_results_belong_to_the_annotations(result: Path) -> None:
    coco = COCO(str(result / "coco.json"))
    found = coco.loadRes(str(result / "coco_results.json"))
    for number in coco.imgs:
        np.testing.assert_array_equal(
            labels_of(found, number, "none") > 0, labels_of(coco, number) > 0
        )
    assert {cell["area"] for cell in found.anns.values()} == {
        cell["area"] for cell in coco.anns.values()
    }
    for cell in coco.anns.values():
        cell["ignore"] = 0
    evaluation = COCOeval(coco, found, "segm")
    evaluation.params.maxDets = [1, 10, 10_000]
    evaluation.evaluate()
    evaluation.accumulate()
    assert evaluation.eval["precision"][:, :, 0, 0, -1].min() > 0.999


def test_a_result_that_has_only_coco_is_scored(result: Path, tmp_path: Path) -> None:
    only = result.with_name("only")
    assert not (only / "masks").exists()
    for pred in (
        only,
        only / "coco.json",
        only / "coco_results.json",
        result / "coco_results.json",
    ):
        assert (
            cellflow("score", pred, "--truth", result / "masks", "--out", tmp_path / "rows.csv")
            == 0
        )
        rows = pd.read_csv(tmp_path / "rows.csv")
        assert rows["score"].tolist() == [1.0] * 3
        assert rows["n_true"].sum() == len(pd.read_csv(result / "cells.csv"))
    assert cellflow("score", only / "coco.json", "--truth", only / "coco.json") == 0
    assert (
        read_source(result, ReadOptions("prediction")).layout == "label-maps"
    )  # which are there too


def test_a_prediction_is_prepared_again(result: Path, tmp_path: Path) -> None:
    plate = result.parent.parent / "plate"
    words = ("--images", plate, "--out", tmp_path / "data")
    assert cellflow("prepare", result.with_name("only") / "coco.json", *words) == 0
    for name in ("grey", "day1__grey"):
        labels = read_labels(tmp_path / "data" / "labels" / f"{name}.tif")
        np.testing.assert_array_equal(labels, read_labels(result / "masks" / f"{name}.tif"))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shape=array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))
def test_any_label_map_comes_back(
    data: st.DataObject, shape: tuple[int, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Holes, parts, parts that meet at a corner, numbers with gaps and above 65,535."""
    labels = data.draw(arrays(np.int32, shape, elements=st.sampled_from([0, 1, 1, 2, 70_000])))
    folder = tmp_path_factory.mktemp("any")
    zero = np.zeros(shape, np.float32)
    prediction = Prediction(
        np.stack([zero, zero]), zero, zero, labels, 5.0, zero, cell_type="round"
    )
    export = Coco()
    export.write(folder, PredictedImage("a", zero, labels, None, prediction))
    export.finish(folder, ["a"], lambda name: None)
    found = read_source(folder / "coco.json", ReadOptions("prediction")).images["a"].labels(shape)
    np.testing.assert_array_equal(
        found, np.unique(np.append(labels, 0), return_inverse=True)[1][:-1].reshape(shape)
    )
    coco = COCO(str(folder / "coco.json"))
    np.testing.assert_array_equal(labels_of(coco, 1), labels)
    if labels.any():
        found = coco.loadRes(str(folder / "coco_results.json"))
        np.testing.assert_array_equal(labels_of(found, 1, "none") > 0, labels > 0)
        assert {cell["score"] for cell in found.anns.values()} == {0.5}
        assert [item["name"] for item in coco.cats.values()] == ["round"]


def test_polygons_are_written_where_they_are_exact(tmp_path: Path) -> None:
    labels = np.zeros((12, 12), np.int32)
    labels[1:5, 1:5] = 1
    labels[6:10, 1:5] = 2
    labels[7:9, 2:4] = 0
    labels[1:3, 7:9] = 3
    labels[3:5, 9:11] = 3  # meets its other part at a corner
    zero = np.zeros(labels.shape, np.float32)
    prediction = Prediction(np.stack([zero, zero]), zero, zero, labels, 5.0, zero)
    Coco().write(tmp_path, PredictedImage("a", zero, labels, None, prediction))
    cells = json.loads((tmp_path / ".parts" / "a.coco").read_text())["cells"]
    assert [type(cell["segmentation"]) for cell in cells] == [list, dict, dict]
    assert sorted(cells[0]["segmentation"][0]) == [1] * 4 + [5] * 4


# ----------------------------------------------------------------------------------------- resumed


class BrightNet(Network):
    """Bright pixels are cells, and flow uphill."""

    style_size = 256

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.calls = 0

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        smooth = nn.functional.avg_pool2d(batch[:, :1], 9, stride=1, padding=4)
        flow = torch.stack(torch.gradient(smooth[:, 0], dim=(1, 2)), 1)
        flow = 5 * flow / flow.norm(dim=1, keepdim=True).clamp(min=1e-6)
        return torch.cat([flow, smooth - 0.4], 1), torch.ones(len(batch), 256)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for name, item in zip(
        "abc", synthetic_dataset(3, shape=(64, 66), seed=3, per_group=1), strict=True
    ):
        imsave(folder / f"{name}.png", item.image, check_contrast=False)
    return folder


def predict(path: Path, images: Path, names: str, *exports: str, **opening: Any) -> int:
    """One command; how many images the network saw."""
    net = BrightNet()
    segmenter = Segmenter(
        [Member("bright", TorchRunner(net.eval()), 0, 0, 17.0, 17.0)],
        MaskConfig(flow_threshold=0.0),
    )
    readers = find_images([images / f"{name}.png" for name in names])
    with ResultFolder.open(path, {"members": ["x"]}, exports=set(exports), **opening) as folder:
        predict_images(segmenter, readers, folder, title="predict")
    return net.calls


def files(path: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in path.glob("coco*.json")}


def test_images_that_come_later_are_added(tmp_path: Path, images: Path) -> None:
    predict(tmp_path / "fresh", images, "abc", "coco")
    fresh = files(tmp_path / "fresh")
    assert len(fresh) == 2 and len(json.loads(fresh["coco_results.json"])) > 10
    assert predict(tmp_path / "later", images, "b", "coco") == 1
    assert not (tmp_path / "later" / ".parts").exists()
    assert predict(tmp_path / "later", images, "abc", "coco") == 2
    assert files(tmp_path / "later") == fresh
    assert predict(tmp_path / "later", images, "abc", "coco") == 0


@pytest.mark.parametrize("lost", ["coco.json", "coco_results.json"])
def test_a_file_that_is_gone_is_made_again(tmp_path: Path, images: Path, lost: str) -> None:
    predict(tmp_path / "one", images, "ab", "coco", "masks")
    before = files(tmp_path / "one")
    (tmp_path / "one" / lost).unlink()
    assert predict(tmp_path / "one", images, "ab", "coco", "masks") == 2
    assert files(tmp_path / "one") == before


def test_other_exports_are_made_of_it(tmp_path: Path, images: Path) -> None:
    predict(tmp_path / "one", images, "ab", "coco")
    assert predict(tmp_path / "one", images, "ab", "masks") == 0
    predict(tmp_path / "two", images, "ab", "masks")
    for name in "ab":
        found, expected = (
            read_labels(tmp_path / which / "masks" / f"{name}.tif") for which in ("one", "two")
        )
        np.testing.assert_array_equal(found, expected)


def test_an_image_that_has_changed_is_written_anew(tmp_path: Path, images: Path) -> None:
    path = tmp_path / "one"
    predict(path, images, "ab", "coco", fingerprints={"a": "1", "b": "1"})
    before = files(path)
    assert predict(path, images, "ab", "coco", fingerprints={"a": "1", "b": "2"}) == 1
    assert files(path) == before


def test_a_damaged_file_is_one_error_and_overwrite_removes_both(
    tmp_path: Path, images: Path
) -> None:
    path = tmp_path / "one"
    predict(path, images, "a", "coco")
    whole = (path / "coco.json").read_text()
    for damaged in (
        whole[:-40],
        whole.replace('"cellflow_id"', '"x"'),
        whole.replace('"label"', '"x"'),
    ):
        (path / "coco.json").write_text(damaged)
        with pytest.raises(DataError, match=r"coco\.json"):
            predict(path, images, "ab", "coco")
    assert predict(path, images, "b", "masks", overwrite=True) == 1
    assert files(path) == {}
