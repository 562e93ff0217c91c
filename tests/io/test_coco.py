"""COCO files as people have them, through `prepare` and `score`; and what is wrong with them, each in one error."""

from __future__ import annotations

import json
import logging
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as masks
from pycocotools.coco import COCO

from cellflow import cli
from cellflow.config import PrepareConfig, ScoreConfig
from cellflow.engine.data.prepare import prepare
from cellflow.engine.validation.score_masks import score_masks
from cellflow.errors import ConfigError, DataError
from cellflow.io.dataset import Dataset
from cellflow.io.formats import ReadOptions, find_format, read_source
from cellflow.io.image_source import find_images
from cellflow.io.images import write_labels
from cellflow.io.pixel_limit import at_most
from cellflow.types import Instances

H, W = 40, 60
SQUARE = [2.0, 3.0, 12.0, 3.0, 12.0, 15.0, 2.0, 15.0]
RNG = np.random.default_rng(0)
Json = dict[str, Any]


def ring(hole: bool = True) -> NDArray[np.uint8]:
    pixels = np.zeros((H, W), np.uint8)
    pixels[20:34, 30:50] = 1
    pixels[24:28, 36:42] = not hole
    return pixels


def packed(pixels: NDArray[np.uint8]) -> Json:
    found = masks.encode(np.asfortranarray(pixels))
    return {"size": found["size"], "counts": found["counts"].decode()}


def plain(pixels: NDArray[np.uint8]) -> Json:
    flat = np.concatenate([[0], pixels.ravel(order="F"), [2]])
    edges = np.flatnonzero(np.diff(flat))
    counts = np.diff(edges, prepend=0).tolist()
    return {"size": [H, W], "counts": counts}


def cell(number: int, image: int, segmentation: object, **more: object) -> Json:
    return {"id": number, "image_id": image, "category_id": 1, "segmentation": segmentation,
            "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0} | more  # fmt: skip


def image(number: int, file_name: str, **more: object) -> Json:
    return {"id": number, "file_name": file_name, "height": H, "width": W} | more


def table(images: list[Json], cells: list[Json], *names: str) -> Json:
    categories = [{"id": i, "name": name} for i, name in enumerate(names or ("cell",), 1)]
    return {
        "info": {"year": 2026},
        "images": images,
        "annotations": cells,
        "categories": categories,
    }


def write(folder: Path, content: Json | list[Json], name: str = "cells.json", **files: str) -> Path:
    """The file, and images where their names say."""
    folder.mkdir(exist_ok=True, parents=True)
    for place in files.values():
        write_labels(folder / place, RNG.integers(0, 255, (H, W)))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder / name


def two_images(folder: Path, cells: list[Json] | None = None, *names: str) -> Path:
    listed = [image(1, "a.tif"), image(7, "b.tif")]
    some = [cell(1, 1, [SQUARE]), cell(2, 7, packed(ring())), cell(3, 7, [SQUARE])]
    return write(
        folder, table(listed, some if cells is None else cells, *names), a="a.tif", b="b.tif"
    )


def run(source: Path, **options: Any) -> Dataset:
    out = source.parent / "data" if source.is_file() else source.with_name("data")
    return prepare(PrepareConfig(source=source, out=out, overwrite=True, **options))


def fails(source: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        run(source, **options)
    assert not list(source.parent.rglob("dataset.json"))
    return str(caught.value)


def pixels(cells: Instances) -> NDArray[np.bool_]:
    flat = np.zeros((len(cells), H * W), dtype=bool)
    for row, (starts, lengths) in zip(flat, cells, strict=True):
        for start, length in zip(starts, lengths, strict=True):
            row[start : start + length] = True
    return flat.reshape(-1, H, W)


SEGMENTATIONS: dict[str, object] = {
    "polygon": [SQUARE],
    "polygon between pixels": [[2.3, 3.7, 12.9, 4.2, 11.5, 15.9, 7.1, 9.4]],
    "two parts": [SQUARE, [20.0, 20.0, 30.0, 20.0, 25.0, 31.5]],
    "parts that overlap": [SQUARE, [5.0, 5.0, 30.0, 5.0, 30.0, 20.0, 5.0, 20.0]],
    "one that crosses itself": [[2, 2, 30, 30, 30, 2, 2, 30]],
    "a part of two points, which is no box": [SQUARE, [20, 20, 15, 15]],
    "compressed, with a hole": packed(ring()),
    "plain, with a hole": plain(ring()),
    "the whole image": plain(np.ones((H, W), np.uint8)),
}


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_the_pixels_are_those_of_pycocotools(tmp_path: Path, name: str) -> None:
    segmentation: Any = SEGMENTATIONS[name]
    file = write(tmp_path, table([image(1, "a.tif")], [cell(5, 1, segmentation)]), a="a.tif")
    cells = run(file).instances("a")
    if name.startswith("a part of two"):
        segmentation = [SQUARE]
    coco = COCO(str(file))
    expected = coco.annToMask(cell(5, 1, segmentation))
    np.testing.assert_array_equal(pixels(cells), expected[None].astype(bool))
    assert expected.any()


def test_overlapping_cells_stay(tmp_path: Path) -> None:
    moved = [value + 4 for value in SQUARE]
    file = two_images(tmp_path, [cell(1, 1, [SQUARE]), cell(2, 1, [moved])])
    cells = run(file).instances("a")
    assert len(cells) == 2
    assert pixels(cells).sum(axis=0).max() == 2


def test_an_image_without_annotation_has_no_cells_and_one_not_listed_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = two_images(tmp_path, [cell(1, 1, [SQUARE])])
    write_labels(tmp_path / "other.tif", ring())
    dataset = run(tmp_path)
    assert dataset.images["n_instances"].to_dict() == {"a": 1, "b": 0}
    assert f"1 image not listed in {file} and left out: other.tif" in caplog.text


def test_what_is_no_cell_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    beyond = [50.0, 30.0, 70.0, 30.0, 70.0, 38.0, 50.0, 38.0]
    cells = [
        cell(1, 1, [SQUARE]),
        cell(2, 1, plain(ring()), iscrowd=1),
        cell(3, 1, []),
        cell(4, 1, [[5.0, 5.0, 6.0, 6.0]]),
        cell(5, 1, [[5.1, 5.1, 5.15, 5.1, 5.15, 5.15]]),
        cell(6, 7, [beyond]),
        cell(7, 7, None),
    ]
    dataset = run(two_images(tmp_path, cells))
    assert dataset.images["n_instances"].to_dict() == {"a": 1, "b": 1}
    assert dataset.instances("b").areas.tolist() == [80]
    for said in (
        "1 annotation marked as iscrowd and left out: crowds are no single cells: 2 of a.tif.",
        "2 annotations without a mask (a box at most) and left out: 3 of a.tif, 7 of b.tif.",
        "2 annotations left out, for they cover no pixel of their image: 4 of a.tif, 5 of a.tif.",
        "1 annotation reach out of their image, where they are cut off: 6 of b.tif.",
    ):
        assert said in caplog.text


def test_categories_become_cell_types(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cells = [cell(1, 1, [SQUARE], category_id=2), cell(2, 1, plain(ring())),
             cell(3, 1, [[1, 20, 9, 20, 9, 30]], category_id=2), cell(4, 7, [SQUARE])]  # fmt: skip
    dataset = run(two_images(tmp_path, cells, "round", "long"))
    assert dataset.images["cell_type"].to_dict() == {"a": "long", "b": "round"}
    assert "1 image with cells of several categories (a.tif)" in caplog.text
    caplog.clear()
    one = run(two_images(tmp_path, None, "round", "never used"))
    assert "cell_type" not in one.images
    assert "categories" not in caplog.text


@pytest.mark.parametrize(
    ("listed", "there", "options"),
    [
        ("a.tif", "a.tif", {}),
        ("a.tif", "images/a.tif", {}),
        ("a.tif", "Images/a.tif", {}),
        ("train/a.tif", "train/a.tif", {}),
        ("train\\a.tif", "images/train/a.tif", {}),
        ("train/a.tif", "a.tif", {}),
        ("a.tif", "cells/a.tif", {}),
        ("a.tif", "images/some/where/a.tif", {}),
        ("a.tif", "elsewhere/a.tif", {"images": "elsewhere"}),
        ("x/a.tif", "elsewhere/x/a.tif", {"images": "elsewhere"}),
        ("a.tif", "elsewhere/deep/a.tif", {"images": "elsewhere"}),
    ],
)
def test_images_are_found(tmp_path: Path, listed: str, there: str, options: dict[str, str]) -> None:
    file = write(tmp_path / "set", table([image(1, listed)], [cell(1, 1, [SQUARE])]), a=there)
    given = {name: tmp_path / "set" / value for name, value in options.items()}
    assert run(file, **given).ids == ["a"]
    assert run(tmp_path / "set", **given).ids == ["a"]


def test_annotations_in_a_folder_of_their_own(tmp_path: Path) -> None:
    content = table([image(1, "a.tif")], [cell(1, 1, [SQUARE])])
    write(tmp_path / "set", content, "annotations/instances_train.json", a="train/a.tif")
    assert run(tmp_path / "set").ids == ["a"]
    write(tmp_path / "set", content, "annotations/instances_val.json")
    several = (
        "expected one file of COCO annotations, found instances_train.json, instances_val.json"
    )
    with pytest.raises(DataError, match=several):
        run(tmp_path / "set")


def test_folders_in_front_of_names_tell_images_apart(tmp_path: Path) -> None:
    names = ["p/day1/a.tif", "p/day2/a.tif", "p/b.tif"]
    listed = [image(i, name) for i, name in enumerate(names)]
    file = write(
        tmp_path, table(listed, [cell(1, 0, [SQUARE])]), **dict(zip("abc", names, strict=True))
    )
    assert run(file).ids == ["b", "day1__a", "day2__a"]
    assert run(file, img_filter="a").ids == ["day1__a", "day2__a"]


def test_sections_in_any_order_and_annotations_by_their_id(tmp_path: Path) -> None:
    content = table([image(1, "a.tif")], [])
    some = {"1": cell(1, 1, [SQUARE]), "2": cell(2, 1, packed(ring()))}
    file = write(
        tmp_path,
        {"annotations": some} | {k: content[k] for k in ("categories", "images")},
        a="a.tif",
    )
    assert list(json.loads(file.read_text())) == ["annotations", "categories", "images"]
    assert len(run(file).instances("a")) == 2


def test_sizes_that_are_not_said_are_those_of_the_images(tmp_path: Path) -> None:
    bare = {"id": 1, "file_name": "a.tif"}
    file = write(tmp_path, table([bare], [cell(1, 1, [SQUARE])]), a="a.tif")
    assert run(file).instances("a").areas.tolist() == [120]


def test_sizes_of_another_image_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, table([image(1, "a.tif", height=W, width=H)], []), a="a.tif")
    assert "the cells of a are on 60 x 40 pixels (height x width), the image has 40 x 60" in fails(
        file
    )


def test_label_maps_go_before_a_table_beside_them(tmp_path: Path) -> None:
    two_images(tmp_path / "set", [cell(1, 1, [SQUARE])])
    for name in "ab":
        write_labels(tmp_path / "set" / f"{name}_masks.tif", ring())
    assert run(tmp_path / "set").images["n_instances"].tolist() == [1, 1]


def test_a_file_a_cell_and_files_of_the_gui_go_before_a_table_too(tmp_path: Path) -> None:
    for name in ("gui", "cells"):
        write(tmp_path / name, table([image(1, "a.tif")], [cell(1, 1, [SQUARE])]))
    write_labels(tmp_path / "gui" / "a.tif", RNG.integers(0, 255, (H, W)))
    np.save(tmp_path / "gui" / "a_seg.npy", np.array({"masks": ring().astype(np.uint16)}))
    for at, name in enumerate(("images/a", "masks/1", "masks/2")):
        (tmp_path / "cells" / "a" / name).parent.mkdir(exist_ok=True, parents=True)
        write_labels(tmp_path / "cells" / "a" / f"{name}.tif", np.roll(ring(), 3 * at))
    assert run(tmp_path / "gui").instances("a").areas.tolist() == [ring().sum()]
    assert len(run(tmp_path / "cells").instances("a")) == 2


@pytest.mark.parametrize("other", ["images", "categories"])
def test_another_json_in_a_folder_is_no_coco(tmp_path: Path, other: str) -> None:
    """A web page's list of images, or a table of categories, is not what cells are in."""
    (tmp_path / "set").mkdir()
    write_labels(tmp_path / "set" / "a.tif", ring())
    (tmp_path / "set" / "notes.json").write_text(json.dumps({other: [{"id": 1, "name": "x"}]}))
    assert score(tmp_path / "set", tmp_path / "set") == {"a": 1.0}


def test_annotations_may_stand_far_from_the_images(tmp_path: Path) -> None:
    content = table([image(1, "a.tif")], [cell(1, 1, [SQUARE])])
    file = write(tmp_path / "set", {"info": "x" * 100_000} | content | {"more": "y"}, a="a.tif")
    assert run(file.parent).ids == ["a"]


@pytest.mark.parametrize(
    ("content", "form"),
    [
        ({"type": "Polygon", "coordinates": [[[1, 1], [9, 1], [9, 9], [1, 9], [1, 1]]]}, "geojson"),
        (
            table([image(1, "a.tif")], [cell(1, 1, [SQUARE], attributes={"type": "Polygon"})]),
            "coco",
        ),
    ],
)
def test_what_comes_first_says_whether_json_is_geojson_or_coco(
    tmp_path: Path, content: Json, form: str
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = find_format(tmp_path / "a.json", ReadOptions("prediction"))
    assert found is not None and found.name == form


# ------------------------------------------------------------------------------------------- score


def score(pred: Path, truth: Path, **options: Any) -> dict[str, float]:
    found = score_masks(ScoreConfig(pred=str(pred), truth=truth, **options))
    return found.images.set_index("id")["score"].to_dict()


def test_score(tmp_path: Path) -> None:
    truth = two_images(tmp_path / "truth")
    half = write(
        tmp_path,
        table([image(3, "b.tif"), image(4, "a.tif")], [cell(9, 4, [SQUARE]), cell(1, 3, [SQUARE])]),
        "found.json",
    )
    assert score(truth, truth) == {"a": 1.0, "b": 1.0}
    assert score(half, truth) == {"a": 1.0, "b": 0.5}
    assert score(half, run(truth).path) == {"a": 1.0, "b": 0.5}
    assert score(half, tmp_path / "truth", outlines=True, outlines_dir=tmp_path / "drawn")
    assert (tmp_path / "drawn" / "worst.png").is_file()


def test_score_of_results(tmp_path: Path) -> None:
    truth = two_images(tmp_path / "truth")
    listed = [{"image_id": 1, "category_id": 1, "segmentation": [SQUARE], "score": 0.8},
              {"image_id": 7, "category_id": 1, "segmentation": packed(ring()), "score": 0.4}]  # fmt: skip
    results = write(tmp_path / "found", listed, "results.json")
    assert score(results, truth) == {"a": 1.0, "b": 0.5}
    with pytest.raises(DataError, match=r"results name images by numbers.*found none"):
        score(results, run(truth).path)
    beside = write(tmp_path / "truth", listed, "results.json")
    assert score(beside, truth.parent / "data") == {"a": 1.0, "b": 0.5}


def test_images_of_a_file_are_those_it_lists(tmp_path: Path) -> None:
    file = two_images(tmp_path, [cell(1, 1, [SQUARE])])
    write_labels(tmp_path / "other.tif", ring())
    assert list(find_images(file)) == ["a", "b"]
    assert list(find_images(tmp_path)) == ["a", "b", "other"]
    (tmp_path / "b.tif").unlink()
    with pytest.raises(DataError, match=r"the image b\.tif is not there"):
        find_images(file)


def test_truth_without_images_has_no_pictures(tmp_path: Path) -> None:
    file = write(tmp_path, table([image(1, "a.tif")], [cell(1, 1, [SQUARE])]))
    assert score(file, file) == {"a": 1.0}
    with pytest.raises(ConfigError, match=r"--outlines needs the images"):
        score(file, file, outlines=True)


# --------------------------------------------------------------------------------- what is refused


def changed(change: Callable[[Json], object]) -> Json:
    content = table(
        [image(1, "a.tif"), image(2, "b.tif")], [cell(1, 1, [SQUARE]), cell(2, 2, plain(ring()))]
    )
    change(content)
    return content


def annotation(**values: object) -> Callable[[Json], object]:
    return lambda content: content["annotations"][1].update(values)


def listed(**values: object) -> Callable[[Json], object]:
    return lambda content: content["images"][1].update(values)


LONG = [float(v) for i in range(150_000) for v in (i % 2 * 110, i % 2 * 70)]
HOSTILE: dict[str, tuple[Callable[[Json], object], str]] = {
    "a name above": (listed(file_name="../../x.png"), "image '../../x.png': expected the name of a file"),
    "a name above, as Windows has it": (listed(file_name="..\\x.png"), "expected the name of a file"),
    "a name from the root": (listed(file_name="/etc/x.png"), "expected the name of a file"),
    "a name on a drive": (listed(file_name="C:\\x.png"), "expected the name of a file"),
    "no name": (listed(file_name=""), "expected the name of a file"),
    "a name with a zero": (listed(file_name="x\0.png"), "expected the name of a file"),
    "a name with a command for the terminal": (listed(file_name="x\x1b[2J.png"), "expected the name of a file"),
    "a name that no system has": (listed(file_name="x\ud800.png"), "expected the name of a file"),
    "a name that is too long": (listed(file_name="x" * 5000 + ".png"), "expected the name of a file"),
    "a category that cannot be written": (
        lambda content: content["categories"][0].update(name="\ud800"), "which no table can hold"),
    "a name that is none": (listed(file_name=5), "needs an id and a file_name"),
    "an id above": (listed(cellflow_id="../../x"), "the id '../../x' cannot be a file name"),
    "an id twice": (listed(id=1), "the image id 1 comes twice, for 'a.tif' and 'b.tif'"),
    "a name twice": (listed(file_name="a.tif"), "have the same id 'a'"),
    "an id that is none": (listed(id=[1]), "needs an id and a file_name"),
    "a size without end": (listed(height=10**3000, width=10**3000), "claims over 10^12 x over 10^12 pixels"),
    "a huge size": (listed(height=10**9, width=10**9), "claims 1,000,000,000 x 1,000,000,000 pixels"),
    "a negative size": (listed(height=-5), "expected a height and a width of at least 1, found -5 x 60"),
    "no width": (listed(width=None), "expected a height and a width of at least 1"),
    "a size of text": (listed(height="40"), "found '40' x 60"),
    "a size that is not finite": (listed(height=math.nan), "found nan x 60"),
    "the same cell id": (annotation(id=1), "the annotation id 1 comes twice"),
    "a cell id that is none": (annotation(id={}), "no whole number"),
    "an unknown image": (annotation(image_id=9), "annotation 2 is of the image 9, which is not in images"),
    "an image that is none": (annotation(image_id=[2]), "which is not in images"),
    "NaN": (annotation(segmentation=[[1, 2, math.nan, 4, 5, 6]]), "expected finite numbers in a polygon"),
    "infinity": (annotation(segmentation=[[1, 2, math.inf, 4, 5, 6]]), "expected finite numbers in a polygon"),
    "too large": (annotation(segmentation=[[1, 2, 10**400, 4, 5, 6.5]]), "expected numbers in a polygon"),
    "text": (annotation(segmentation=[[1, 2, "3", 4, 5, 6]]), "expected numbers in a polygon"),
    "odd": (annotation(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "pairs of x and y, found 7 numbers"),
    "flat": (annotation(segmentation=SQUARE), "expected polygons as lists of numbers, found '2.0'"),
    "far outside": (annotation(segmentation=[[1, 2, 1e9, 4, 5, 6]]), "far outside of the image (x from 1 to 1e+09"),
    "too long": (annotation(segmentation=[LONG]), "pixels long, which is no outline of a cell"),
    "a word": (annotation(segmentation="cell"), "expected polygons or run lengths, found str"),
    "too many counts": (annotation(segmentation={"size": [H, W], "counts": [0, 2500]}), "counts of 2500 pixels"),
    "too few counts": (annotation(segmentation={"size": [H, W], "counts": [0, 5]}), "counts of 5 pixels for an image"),
    "huge counts": (annotation(segmentation={"size": [H, W], "counts": [2**70]}), "pixels for an image of 40 x 60"),
    "negative counts": (annotation(segmentation={"size": [H, W], "counts": [-1, 2401]}), "a negative count (-1)"),
    "counts of text": (annotation(segmentation={"size": [H, W], "counts": ["a"]}), "whole numbers, found"),
    "no counts": (annotation(segmentation={"size": [H, W]}), "whole numbers, found 'None'"),
    "packed counts": (annotation(segmentation={"size": [H, W], "counts": "oooo3"}), "counts of "),
    "broken counts": (annotation(segmentation={"size": [H, W], "counts": "5P"}), "no run-length string of COCO"),
    "odd counts": (annotation(segmentation={"size": [H, W], "counts": "\u20ac"}), "no run-length string of COCO"),
    "another size": (annotation(segmentation={"size": [W, H], "counts": [2400]}), "run lengths for the size [60, 40]"),
    "a cell that is none": (lambda content: content["annotations"].append(5), "annotation number 3 is no object"),
    "no images": (lambda content: content.update(images=[]), "found no images"),
}  # fmt: skip


WITH_ANOTHER = ("an id twice", "an id that is none")
"""Cells without an image."""


@pytest.mark.parametrize("name", HOSTILE)
def test_one_error_says_what_is_wrong(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    change, said = HOSTILE[name]
    file = write(tmp_path / "set", changed(change), a="a.tif", b="b.tif")
    message = fails(file)
    assert said in message
    assert ("problems:" in message) == (name in WITH_ANOTHER)  # what only follows is not told
    with pytest.raises(SystemExit) as left:
        cli.main(["score", str(file), "--truth", str(file)])
    assert left.value.code == 1
    found = capfd.readouterr().err
    assert said.split(",")[0][:25] in " ".join(found.split())
    assert "Traceback" not in found


BROKEN: dict[str, tuple[bytes, str]] = {
    "nested": (b'{"annotations": [' + b"[" * 1_000_000, "brackets nested too deeply"),
    "nested from the start": (b"[" * 1_000_000, "brackets nested too deeply"),
    "objects": (b'{"annotations": ' + b'{"a":' * 1_000_000, "brackets nested too deeply"),
    "cut off": (
        json.dumps(changed(lambda _: None)).encode()[:-300],
        "the end of the file: it is not whole",
    ),
    "cut off in a text": (b'{"images": [{"file_name": "a', "the end of the file: it is not whole"),
    "cut off in front of a section": (b'{"images": [], ', "the end of the file: it is not whole"),
    "empty": (b"", "found an empty file"),
    "a word": (b"cells", "expected a list or an object at character 1, found 'c'"),
    "results": (
        b'[{"image_id": 1, "segmentation": []}]',
        "found a list of results, which is a prediction",
    ),
    "an error": (b'{"images": [{"id" 1}]' + b" " * 99, "an error (Expecting ':' delimiter)"),
    "a key that is none": (b'{5: [{"id" 1}]}', "expected a key in quotes"),
    "more than one": (b'{"images": []} {}', "expected the end of the file at character 16"),
    "a long number": (b'{"images": [' + b"9" * 5000 + b"]}", "expected JSON"),
    "Latin": ('{"info": ["\xe9\xe8"]}'.encode("latin-1"), "expected JSON as UTF-8 text"),
    "another file": (b'{"version": 1, "log": {"entries": []}}', "found no images"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_error(tmp_path: Path, name: str) -> None:
    content, said = BROKEN[name]
    (tmp_path / "cells.json").write_bytes(content)
    assert said in fails(tmp_path / "cells.json")


def test_images_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    names = [f"{name}.tif" for name in "abcdefg"]
    file = write(tmp_path, table([image(i, name) for i, name in enumerate(names)], []), a="a.tif")
    said = fails(file)
    assert "the image b.tif is not there; looked for it in" in said
    assert "The same for 5 more" in said
    assert "--images" in said


def test_one_file_is_not_two_images(tmp_path: Path) -> None:
    listed = [image(1, "day1/a.tif"), image(2, "day2/a.tif")]
    file = write(tmp_path, table(listed, []), a="a.tif")
    assert "a.tif was found for day1/a.tif and for day2/a.tif" in fails(file)


@pytest.mark.parametrize(
    ("named", "there"), [("day1/a.tif", "day2/a.tif"), ("p/day1/a.tif", "q/day1/a.tif")]
)
def test_an_image_of_another_folder_is_not_the_one_that_is_named(
    tmp_path: Path, named: str, there: str
) -> None:
    file = write(tmp_path, table([image(1, named)], [cell(1, 1, [SQUARE])]), a=f"images/{there}")
    said = fails(file)
    assert f"the image {named} is not there" in said and f"images/{there} is in another" in said
    assert score(file, file) == {"a": 1.0}  # which needs no image


def test_the_folders_of_a_name_go_before_its_end(tmp_path: Path) -> None:
    content = table([image(1, "day1/a.tif")], [cell(1, 1, [SQUARE])])
    file = write(tmp_path, content, a="a.tif", b="images/day1/a.tif")
    [found] = read_source(file, ReadOptions("prepare")).images.values()
    assert found.path == tmp_path / "images" / "day1" / "a.tif"


def test_the_limit_of_pixels_holds_for_declared_sizes(tmp_path: Path) -> None:
    file = write(tmp_path, table([image(1, "a.tif")], []))
    with at_most(2399), pytest.raises(DataError, match=r"--max_pixels 2400"):
        read_source(file, ReadOptions("truth"))


def test_a_large_file_is_read_a_piece_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Pieces of a few characters: every place at which one can end."""
    monkeypatch.setattr("cellflow.io.json_entries._CHUNK", 3)
    monkeypatch.setattr("cellflow.io._coco_table._LARGE", 10)
    caplog.set_level(logging.INFO)
    content = changed(lambda _: None) | {"licenses": [12345, -1.5e-3, None, True, 'a\\"b\u00e9']}
    (tmp_path / "cells.json").write_text(json.dumps(content, indent=1, ensure_ascii=False))
    found = read_source(tmp_path / "cells.json", ReadOptions("truth"))
    assert [len(item.instances()) for item in found.images.values()] == [1, 1]
    assert "cells.json: reading" in caplog.text


def test_memory_is_that_of_the_masks_and_not_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small twin of `benchmarks/coco_reading.py`: 5 MB here, 724 MB there."""
    angle = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    circle = np.stack([30 + 9 * np.cos(angle), 20 + 9 * np.sin(angle)], axis=-1).reshape(-1)
    cells = [cell(i, i % 50, [circle.tolist()]) for i in range(4000)]
    file = write(tmp_path, table([image(i, f"{i}.tif") for i in range(50)], cells))
    size = file.stat().st_size
    del cells
    read_source(file, ReadOptions("truth"))  # what is imported and compiled does not count
    monkeypatch.setattr("cellflow.io.json_entries._CHUNK", 1 << 16)
    tracemalloc.start()
    source = read_source(file, ReadOptions("truth"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(len(item.instances()) for item in source.images.values()) == 4000
    assert size > 4_000_000
    assert peak < size / 3


def test_a_crowd_beside_what_has_no_mask_is_a_crowd(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crowd = cell(2, 1, packed(ring()), iscrowd=1)
    path = two_images(tmp_path, [cell(1, 1, []), crowd])
    cells = {
        name: len(item.instances())
        for name, item in read_source(path, ReadOptions("truth")).images.items()
    }
    assert set(cells.values()) == {0}
    assert "crowds are no single cells" in caplog.text


def test_a_category_without_a_name(tmp_path: Path) -> None:
    path = two_images(tmp_path)
    content = json.loads(path.read_text())
    content["categories"] = [{"id": 1, "name": None}]
    path.write_text(json.dumps(content))
    images = read_source(path, ReadOptions("truth")).images
    assert all("None" not in image.columns.values() for image in images.values())


def test_numbers_that_cancel_out(tmp_path: Path) -> None:
    path = two_images(tmp_path, [cell(1, 1, [[10**400, 1, -(10**400), 2, 3, 3]])])
    assert "expected numbers in a polygon" in fails(path)


def test_a_category_is_taken_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nuclei inside of cells would be cut out of them."""
    cells = [cell(1, 1, packed(ring()))]
    cells += [cell(n, place, packed(ring()), category_id=2) for n, place in ((2, 1), (3, 7))]
    path = two_images(tmp_path, cells, "cell", "nucleus")
    caplog.set_level(logging.INFO)
    source = read_source(path, ReadOptions("truth"))
    assert "--category cell (there are 2 of nucleus, 1 of cell)" in caplog.text
    assert [len(item.instances()) for item in source.images.values()] == [2, 1]
    source = read_source(path, ReadOptions("truth", category=("cell",)))
    assert [len(item.instances()) for item in source.images.values()] == [1, 0]
    assert "left out, as --category says: 2 of nucleus" in caplog.text
    with pytest.raises(
        DataError, match=r"no category 'Zelle' \(--category\); there are cell, nucleus"
    ):
        read_source(path, ReadOptions("truth", category=("Zelle",)))


def test_an_image_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    path = two_images(tmp_path)
    (tmp_path / "a.tif").unlink()
    text = fails(path)
    assert "a.tif" in text and "\n" not in text
