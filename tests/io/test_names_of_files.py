"""Names that people give images and their masks: what stands around the id, found or said with a filter."""

from __future__ import annotations

import json
import logging
import shlex
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from cellflow import (
    PrepareConfig,
    ScoreConfig,
    prepare,
    score_masks,
)
from cellflow.config import FilesConfig, check_config
from cellflow.errors import ConfigError, DataError
from cellflow.io.dataset import Dataset
from cellflow.io.file_names import id_of, image_filter, mask_filters, match_id, name_of
from cellflow.io.formats import ReadOptions, read_source
from cellflow.io.formats.seg_npy import write_seg_npy
from cellflow.io.image_source import find_images
from cellflow.io.problems import EveryProblem
from cellflow.io.source import SourceImage, check_ids

TEXT = st.text(string.ascii_lowercase + string.digits + "_-. ", min_size=1, max_size=6)


def labels(number: int) -> np.ndarray:
    found = np.zeros((60, 80), np.uint16)
    found[5 : 20 + number, 5:25], found[35:50, 40 : 60 + number] = 1, 2
    return found


def write(folder: Path, images: list[str], masks: list[str]) -> None:
    """Images and masks in folders of these names, or without one; the same place has the same cells."""
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        for name, pixels in ((image, 20 + 60 * (labels(number) > 0)), (mask, labels(number))):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            kind = np.uint8 if name == image else np.uint16
            tifffile.imwrite(folder / f"{name}.tif", pixels.astype(kind))


def prepared(folder: Path, **options: Any) -> Dataset:
    return prepare(PrepareConfig(folder, out=folder / "out", overwrite=True, **options))


FORMS = [
    ("{}", "gt_{}"),
    ("{}", "{}_gt"),
    ("{}", "{}_GT"),
    ("{}", "label_{}"),
    ("{}", "seg_{}"),
    ("{}", "{} Mask"),
    ("{}", "{}.mask"),
    ("{}", "{}_segmentation"),
    ("img_{}", "mask_{}"),
    ("image{}", "label{}"),
    ("t{}", "man_seg{}"),
    ("{}_raw", "{}_labels"),
    ("{}_0000", "{}_annotation"),
    ("{} ch1", "{} GroundTruth"),
]


@pytest.mark.parametrize(("image", "mask"), FORMS)
@pytest.mark.parametrize("places", [("images/", "masks/"), ("", "")])
@pytest.mark.parametrize("count", [1, 3])
def test_names_with_a_word_for_masks_are_paired(
    image: str, mask: str, places: tuple[str, str], count: int, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    ids = ["007", "12", "3"][:count]
    write(
        tmp_path,
        [places[0] + image.format(name) for name in ids],
        [places[1] + mask.format(name) for name in ids],
    )
    with caplog.at_level(logging.WARNING):
        found = prepared(tmp_path)
    assert found.ids == ids
    for number, name in enumerate(ids):
        assert np.array_equal(found.labels(name), labels(number))
    said = next(text for text in caplog.messages if "so that is taken" in text)
    words = shlex.split(said.split(" pairs fit ")[1].split(", so that")[0])
    options = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
    caplog.clear()
    assert prepared(tmp_path, **options).ids == ids
    assert "so that is taken" not in caplog.text


@pytest.mark.parametrize(
    ("images", "masks"), [("imagesTr", "labelsTr"), ("images", "masks")], ids=["nnunet", "ours"]
)
def test_masks_with_the_id_alone(images: str, masks: str, tmp_path: Path) -> None:
    write(
        tmp_path,
        [f"{images}/case_1_0000", f"{images}/case_2_0000"],
        [f"{masks}/case_1", f"{masks}/case_2"],
    )
    assert prepared(tmp_path).ids == ["case_1", "case_2"]


def test_names_that_do_not_belong_together_are_no_pairs(tmp_path: Path) -> None:
    write(tmp_path, ["images/img_12", "images/img_2"], ["masks/mask_1", "masks/mask_2"])
    with pytest.raises(DataError, match=r"img_12\.tif: no mask"):
        prepared(tmp_path)


def test_several_channels_are_not_guessed(tmp_path: Path) -> None:
    write(tmp_path, ["images/a_0000", "images/a_0001"], ["masks/a", "masks/b"])
    with pytest.raises(DataError, match=r"a_0000\.tif: no mask"):
        prepared(tmp_path)


def test_predictions_with_more_before_the_id(tmp_path: Path) -> None:
    write(tmp_path / "t", ["x/a", "x/b"], ["masks/a", "masks/b"])
    write(tmp_path / "f", ["x/a", "x/b"], ["masks/mask_a", "masks/mask_b"])
    plain = ScoreConfig(str(tmp_path / "f"), truth=tmp_path / "t" / "masks")
    for config in (plain, replace(plain, mask_filter="mask_*")):
        assert list(score_masks(config).images["score"]) == [1, 1]


def test_images_to_segment_with_more_before_the_id(tmp_path: Path) -> None:
    write(tmp_path, ["img_a", "img_b"], ["mask_a", "mask_b"])
    assert list(find_images(tmp_path, img_filter="img_*")) == ["a", "b"]
    with pytest.raises(DataError, match="no images in this folder named pic_NAME"):
        find_images(tmp_path, img_filter="pic_*")


def test_outlines_with_more_before_the_id(tmp_path: Path) -> None:
    write(tmp_path, ["img_a"], ["unused/a"])
    square = [[[5, 5], [25, 5], [25, 20], [5, 20], [5, 5]]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": square}}
    content = {"type": "FeatureCollection", "features": [feature | {"properties": {}}]}
    (tmp_path / "cells_a.geojson").write_text(json.dumps(content))
    found = prepared(tmp_path, img_filter="img_*", mask_filter="cells_*")
    assert found.ids == ["a"]
    assert len(found.instances("a")) == 1


@pytest.mark.parametrize("text", ["*", "*_x", "a*b*", "*a*", "masks/*", "..\\*"])
def test_filters_that_mean_nothing(text: str, tmp_path: Path) -> None:
    for config in (
        PrepareConfig(tmp_path, mask_filter=text),
        ScoreConfig("a", truth=tmp_path, mask_filter=text),
        FilesConfig(img_filter=text),
    ):
        with pytest.raises(ConfigError, match="_filter must be an ending such as"):
            check_config(config)


@pytest.mark.parametrize(
    ("image", "mask"), [("banana", "a"), ("cell_12", "c"), ("photo", "_masks")]
)
def test_a_part_of_a_word_is_no_id(image: str, mask: str, tmp_path: Path) -> None:
    write(tmp_path, [f"images/{image}"], [f"masks/{mask}"])
    with pytest.raises(DataError, match=r"no mask|one image with a file for each cell"):
        prepared(tmp_path)


def test_images_of_the_gui_are_no_masks_of_others(tmp_path: Path) -> None:
    write(tmp_path, ["1", "2"], ["gt_1", "gt_2"])
    for name in ("1", "2", "gt_1", "gt_2"):
        write_seg_npy(tmp_path / f"{name}_seg.npy", labels(0))
    assert prepared(tmp_path).ids == ["1", "2", "gt_1", "gt_2"]


def test_a_folder_of_nnunet(tmp_path: Path) -> None:
    write(tmp_path, ["imagesTr/c_1_0000", "imagesTr/c_2_0000"], ["labelsTr/c_1", "labelsTr/c_2"])
    content = {"channel_names": {"0": "x"}, "labels": {"cell": 1}, "file_ending": ".tif"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    found = prepared(tmp_path)
    assert found.ids == ["c_1", "c_2"]
    score = score_masks(ScoreConfig(str(tmp_path / "labelsTr"), truth=found.path))
    assert list(score.images["score"]) == [1, 1]
    source = tmp_path.with_name("source")
    write(source, ["a"], ["a_masks"])
    with pytest.raises(DataError, match="is not a dataset folder"):
        prepare(PrepareConfig(source, out=tmp_path, overwrite=True))
    write(tmp_path, ["images/a"], ["labels/a"])  # ours go first
    assert prepared(tmp_path).ids == ["a"]


@pytest.mark.parametrize(
    ("given", "more", "text"),
    [
        ("mask_*", "mask_{}_x", "'mask_\\*_x'"),
        ("_m", "y_{}_m", "'y_\\*_m'"),
        ("_m", "{}_y_m", "_y_m"),
    ],
)
def test_the_filter_that_is_proposed_fits(given: str, more: str, text: str, tmp_path: Path) -> None:
    write(tmp_path / "t", ["x/a", "x/b"], ["masks/a", "masks/b"])
    masks = [f"masks/{more.format(name)}" for name in "ab"]
    write(tmp_path / "f", ["x/a", "x/b"], masks)
    config = ScoreConfig(str(tmp_path / "f"), truth=tmp_path / "t" / "masks", mask_filter=given)
    with pytest.raises(DataError, match=f"add --mask_filter {text}") as error:
        score_masks(config)
    said = shlex.split(str(error.value).split("add --mask_filter ")[1])[0].rstrip(".")
    assert list(score_masks(replace(config, mask_filter=said)).images["score"]) == [1, 1]


def test_outlines_expect_the_name_of_the_image(tmp_path: Path) -> None:
    write(tmp_path, ["img_a"], ["unused/a"])
    for name in "ab":
        (tmp_path / f"cells_{name}.geojson").write_text(
            '{"type":"FeatureCollection","features":[]}'
        )
    with pytest.raises(DataError, match=r"expected an image named img_b\b"):
        prepared(tmp_path, img_filter="img_*", mask_filter="cells_*")


@given(TEXT, TEXT, TEXT)
def test_names_and_ids(image_id: str, start: str, end: str) -> None:
    for name_filter in (end, f"{start}*", f"*{end}", f"{start}*{end}", ""):
        assert id_of(name_of(image_id, name_filter), name_filter) == image_id
    assert id_of(end, f"{end}*{end}") is None


@given(st.sets(st.text("ab01", min_size=1, max_size=3), min_size=1, max_size=5), TEXT, TEXT)
def test_the_filter_of_images_gives_their_ids(ids: set[str], start: str, end: str) -> None:
    names = {start + name + end for name in ids}
    found = image_filter(names, ids)
    if found is None:  # an id would be a part of a number or a word
        assert start[-1].isalnum() or end[0].isalnum()
    else:
        assert {name_of(name, found) for name in ids} == names


def test_words_for_masks() -> None:
    assert mask_filters(["gt_1", "a_GT", "Labels 3"]) == ["gt_*", "_GT", "Labels *"]
    assert mask_filters(["segment_1", "gta", "unlabel", "masks", "mosaic_1"]) == []


@pytest.mark.parametrize(
    ("image", "mask"),
    [("a.ome.tif", "a_masks.ome.tif"), ("a.ome.tif", "a_masks.tif"), ("a.ome.tif", "a.ome_masks.tif"),
     ("a.tif", "a_masks.ome.tif")],
)  # fmt: skip
def test_the_ome_before_an_ending_is_no_part_of_the_words(
    image: str, mask: str, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    tifffile.imwrite(folder / image, np.arange(4800, dtype=np.uint16).reshape(60, 80))
    tifffile.imwrite(folder / mask, labels(1))
    name = Path(image).stem
    assert prepared(folder).ids == [name]
    assert list(read_source(folder, ReadOptions("truth")).images) == [name]
    files = read_source(folder, ReadOptions("images")).images
    assert [item.path.name for item in files.values()] == [image]


def test_a_file_that_is_named_as_an_ending_is_an_image(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "_masks.tif", labels(1))
    tifffile.imwrite(tmp_path / "_seg.tif", labels(1))
    assert list(read_source(tmp_path, ReadOptions("images")).images) == ["_masks", "_seg"]


def test_names_that_other_computers_do_not_have(tmp_path: Path) -> None:
    problems = EveryProblem()
    names = ["CON", "lpt1.x", "caf\u00e9", "cafe\u0301", "a", "A", "console"]
    check_ids([SourceImage(name, tmp_path / name) for name in names], problems)
    texts = [text for text, _ in problems]
    assert ["on Windows" in text for text in texts] == [True, True, False, False]
    assert "only in the way accents are written" in texts[2] and "in capitals only" in texts[3]


@pytest.mark.parametrize(
    ("text", "known", "found"),
    [("a", {"a.ome"}, "a.ome"), ("a.ome", {"a"}, "a"), ("a.ome.tif", {"a.ome"}, "a.ome"),
     ("a", {"a", "a.ome"}, "a"), ("a.ome", {"a", "a.ome"}, "a.ome"), ("b", {"a"}, None)],
)  # fmt: skip
def test_ids_with_and_without_ome(text: str, known: set[str], found: str | None) -> None:
    assert match_id(text, known) == found
