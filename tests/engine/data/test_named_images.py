"""What people name as images: several paths, patterns, sub-folders, folders with Cellpose's own outputs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from skimage.io import imsave

from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.io.image_source import find_images, source_folders
from cellflow.io.places import OUTPUT_ENDINGS


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(path, np.zeros((6, 7), np.uint8), check_contrast=False)
    return path


def images(folder: Path, *names: str) -> list[Path]:
    return [image(folder / name) for name in names]


def said(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def test_outputs_of_cellpose_are_passed_over(
    shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(shared / "cases" / "predict-cellpose-outputs" / "c8cp", tmp_path / "c")
    assert list(find_images(folder)) == ["x", "y"]
    (line,) = said(caplog).splitlines()
    assert "3 files" in line
    assert "x_cp_masks.tif, x_flows.png, y_masks.tif" in line
    caplog.clear()
    assert list(find_images(folder / "*.tif")) == ["x", "y"]
    assert "2 files" in said(caplog)
    caplog.clear()
    by_shell = sorted(folder.iterdir())
    assert list(find_images(by_shell)) == ["x", "y"]
    assert "3 files" in said(caplog)


@pytest.mark.parametrize("ending", OUTPUT_ENDINGS)
def test_every_ending_of_cellpose(tmp_path: Path, ending: str) -> None:
    images(tmp_path, "a.png", "b.tif", f"a{ending}.png", f"b{ending}.tif", f"gone{ending}.tif")
    assert list(find_images(tmp_path)) == ["a", "b"]


def test_outputs_that_are_all_there_is_are_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images(tmp_path, "a_masks.tif", "b_cp_masks.png")
    assert list(find_images(tmp_path)) == ["a_masks", "b_cp_masks"]
    assert not caplog.records
    images(tmp_path, "cell_flows.tif", "cell_flows_masks.tif")
    assert list(find_images(tmp_path)) == ["a_masks", "b_cp_masks", "cell_flows"]


def test_outputs_that_are_named_are_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images(tmp_path, "a.png", "a_masks.png", "b.png", "b_masks.png")
    assert list(find_images(tmp_path / "a_masks.png")) == ["a_masks"]
    assert list(find_images([tmp_path / "a.png", tmp_path / "b_masks.png"])) == ["a", "b_masks"]
    (tmp_path / "list.txt").write_text("a.png\na_masks.png\n")
    assert list(find_images(tmp_path / "list.txt")) == ["a", "a_masks"]
    assert not caplog.records


def test_several_paths_in_their_order(tmp_path: Path, tiny_data: Path) -> None:
    one, two = images(tmp_path, "far/c.png", "near/b.tif")
    (tmp_path / "list.txt").write_text(f"{one}\n")
    found = find_images([two.parent, tmp_path / "list.txt", tiny_data])
    assert list(found)[:2] == ["b", "c"]
    assert len(found) == 8
    with pytest.raises(DataError, match=r"b\.tif: two images have the same id 'b'.*Ids are names"):
        find_images([two, two.parent])
    with pytest.raises(DataError, match="No images were named"):
        find_images([])


def test_a_dataset(tiny_data: Path) -> None:
    dataset, readers = Dataset.open(tiny_data), find_images(tiny_data)
    assert list(readers) == dataset.ids
    for name, read in readers.items():
        np.testing.assert_array_equal(read(), dataset.image(name))


def test_a_pattern(tmp_path: Path) -> None:
    images(tmp_path, "p/A/t1.tif", "p/A/t2.png", "p/B/s1.tif", "p/x1.tif")
    (tmp_path / "p" / "A" / "t9.csv").write_text("x")
    assert list(find_images(tmp_path / "p" / "*" / "?1.tif")) == ["t1", "s1"]
    assert list(find_images(tmp_path / "p" / "A" / "*")) == ["t1", "t2"]
    assert sorted(find_images(tmp_path / "p" / "**" / "*.tif")) == ["s1", "t1", "x1"]
    with pytest.raises(DataError, match=r"\*\.jpg: no images fit this pattern"):
        find_images(tmp_path / "p" / "*.jpg")
    odd = image(tmp_path / "odd [1].png")
    assert list(find_images(odd)) == ["odd [1]"]


def test_images_in_sub_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images(tmp_path, "day1/a.tif", "day2/a.tif", "day2/deep/b.tif", "day2/b_masks.tif")
    with pytest.raises(DataError, match=r"no images.*4 images \(day1, day2, day2/deep\).*--rec"):
        find_images(tmp_path)
    found = find_images(tmp_path, recursive=True)
    assert list(found) == ["day1__a", "day2__a", "day2__deep__b"]
    assert found["day2__a"].path == tmp_path / "day2" / "a.tif"
    assert "b_masks.tif" in said(caplog)
    caplog.clear()
    image(tmp_path / "top.png")
    assert list(find_images(tmp_path)) == ["top"]
    assert "4 images (day1, day2, day2/deep)" in said(caplog)
    assert "--recursive" in said(caplog)
    assert next(iter(find_images(tmp_path, recursive=True))) == "top"


def test_sub_folders_that_hold_no_images_of_their_own(tmp_path: Path) -> None:
    images(
        tmp_path, "a.png", "images/b.png", "masks/b.png", "labels/b.png", "old/masks/a.tif",
        ".hidden/c.png", "data/images/d.png", "scan/masks/e.png",
    )  # fmt: skip
    (tmp_path / "old" / "prediction.json").write_text("{}")
    (tmp_path / "data" / "dataset.json").write_text("{}")
    assert list(find_images(tmp_path, recursive=True)) == ["a", "images__b", "scan__masks__e"]


def test_ids_of_sub_folders_that_are_equal_are_refused(tmp_path: Path) -> None:
    images(tmp_path, "a__b.png", "a/b.png")
    with pytest.raises(DataError, match=r"a__b\.png and .*b\.png"):
        find_images(tmp_path, recursive=True)


def test_the_ending_of_images(tmp_path: Path) -> None:
    images(tmp_path, "a_img.tif", "a_masks.tif", "b_img.png", "c.png", "deep/d_img.png")
    assert list(find_images(tmp_path, img_filter="_img")) == ["a", "b"]
    assert list(find_images(tmp_path, img_filter="_img", recursive=True)) == ["a", "b", "deep__d"]
    with pytest.raises(DataError, match=r"no images in this folder named NAME_dapi"):
        find_images(tmp_path, img_filter="_dapi")


def test_where_images_come_from(tmp_path: Path) -> None:
    """Files of a folder that are named one by one are of that folder, however many there are."""
    one, two, other = images(tmp_path, "p/a.png", "p/b.png", "q/c.png")
    assert source_folders(one) == str(one)
    assert source_folders([one, two]) == source_folders([two, one, one]) == [str(one.parent)]
    assert source_folders([one.parent, other]) == [str(one.parent), str(other.parent)]


def test_a_run_in_the_place_of_images(tmp_path: Path) -> None:
    for name in ("config.yaml", "folds.csv"):
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"expected images, found a run.*before --images"):
        find_images(tmp_path)


def test_what_cannot_be_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images(tmp_path, "a.png", "b/c.png")
    (tmp_path / "lost.tif").symlink_to(tmp_path / "nowhere.tif")
    for name in ("d.czi", "e.ND2", "b/f.lif", "table.csv", "notes.txt", "a_seg.npy"):
        (tmp_path / name).write_text("x")
    assert list(find_images(tmp_path, recursive=True)) == ["a", "b__c"]
    lines = said(caplog).splitlines()
    for expected in (
        "1 file (lost.tif): a link that leads nowhere",
        "1 file (d.czi): .czi is taken, as a slide, only where",
        "1 file (e.ND2): .nd2 is not read",
        "1 file (f.lif): .lif is not read",
    ):
        assert any(expected in line for line in lines)
    assert len(lines) == 4


def test_names_that_no_table_can_hold(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, two = images(tmp_path, "a.png", "b.png")
    try:
        two.rename(os.fsdecode(bytes(tmp_path) + b"/b\xff.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert list(find_images(tmp_path)) == [one.stem]
    assert r"1 file (b\udcff.png): its name is not UTF-8 text; rename it" in said(caplog)
    assert list(find_images(tmp_path / "*.png")) == [one.stem]
    assert r"1 image whose name is not UTF-8: " in said(caplog)
    odd = next(path for path in tmp_path.iterdir() if path != one)
    with pytest.raises(DataError, match=r"b\\udcff\.png'\. Rename it"):
        find_images(odd)
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/day\xff"))
    folder.mkdir()
    one.rename(folder / "a.png")
    odd.rename(tmp_path / "b.png")
    assert list(find_images(tmp_path, recursive=True)) == ["b"]
    assert r"day\udcff/a.png" in said(caplog)
