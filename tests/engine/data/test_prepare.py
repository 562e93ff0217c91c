"""Prepare from both layouts; every kind of bad input gives one message and leaves nothing behind."""

from __future__ import annotations

import builtins
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tifffile

from cellflow.config import FoldsConfig, PrepareConfig
from cellflow.engine.data.make_folds import make_folds
from cellflow.engine.data.prepare import prepare
from cellflow.errors import DataError, RleError
from cellflow.io.dataset import Dataset
from cellflow.numeric.rle import rles_from_instances, rles_from_labels

RNG = np.random.default_rng(0)
HEADER = "id,annotation,width,height,cell_type,sample_id\n"


def write_png(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(pixels))


def image(shape: tuple[int, ...] = (20, 30)) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """Three images: two with cells (one pair overlaps), one without."""
    source = tmp_path / "kaggle"
    for name in ("a", "b", "c"):
        write_png(source / "train" / f"{name}.png", image())
    (source / "train.csv").write_text(
        HEADER
        + "b,1 5 31 5,30,20,astro,007\n"
        + "a,1 3,30,20,cort,008\n"
        + "a,2 9,30,20,cort,008\n"
        + "c,,30,20,cort,\n"
    )
    return source


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two images with label maps in folders of their own; gaps and a cell of two parts."""
    source = tmp_path / "folders"
    masks = np.zeros((20, 30), np.uint16)
    masks[2:5, 2:5], masks[10:13, 2:6], masks[16:19, 20:25] = 4, 9, 4
    for name in ("x", "y"):
        write_png(source / "images" / f"{name}.png", image((20, 30, 3)))
        write_png(source / "masks" / f"{name}.png", masks)
    return source


def run(source: Path, **options: Any) -> Dataset:
    return prepare(PrepareConfig(source=source, out=source.parent / "data", **options))


def fails(source: Path, kind: type[Exception] = DataError, **options: Any) -> str:
    """Prepare must fail; return its message after checking that nothing is left behind."""
    before = sorted(source.parent.rglob("*"))
    with pytest.raises(kind) as caught:
        run(source, **options)
    assert sorted(source.parent.rglob("*")) == before, "something half-written is left"
    return str(caught.value)


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


# --------------------------------------------------------------------------------- what it should do


def test_kaggle_layout(kaggle: Path) -> None:
    dataset = run(kaggle)
    assert dataset.ids == ["a", "b", "c"]
    assert dataset.images["n_instances"].tolist() == [2, 1, 0]
    assert dataset.images["cell_type"].tolist() == ["cort", "astro", "cort"]
    assert dataset.images["sample_id"].tolist() == ["008", "007", ""]
    assert dataset.images.loc["c", "median_diameter"] == 0
    assert rles_from_instances(dataset.instances("a")) == ["1 3", "2 9"]
    labels = dataset.labels("a")
    assert labels.dtype == np.int32
    assert np.bincount(labels.ravel()).tolist() == [590, 3, 7], "a disputed pixel to the smaller"
    copied = dataset.path / "images" / "a.png"
    assert copied.read_bytes() == (kaggle / "train" / "a.png").read_bytes()
    assert len(dataset.instances("c")) == 0
    assert (dataset.path / "instances.csv").read_text().splitlines() == [
        "id,annotation",
        "a,1 3",
        "a,2 9",
        "b,1 5 31 5",
    ]


def test_folders_layout_keeps_cells_of_several_parts_whole(folders: Path) -> None:
    dataset = run(folders)
    assert dataset.images["n_instances"].tolist() == [2, 2]
    assert dataset.images["channels"].tolist() == [3, 3]
    assert dataset.instances("x").areas.tolist() == [24, 12]
    assert np.bincount(dataset.labels("x").ravel()).tolist() == [564, 24, 12]


def test_paired_files_as_cellpose_writes_them(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_png(source / "one.png", image())
    tifffile.imwrite(source / "one_masks.tif", np.eye(20, 30, dtype=np.uint16))
    tifffile.imwrite(source / "one_flows.tif", np.zeros((20, 30), np.float32))
    assert run(source).ids == ["one"]
    (source / "one_masks.tif").rename(source / "one-label.tif")
    assert run(source, mask_filter="-label", overwrite=True).ids == ["one"]


def test_masks_in_a_folder_elsewhere(folders: Path, tmp_path: Path) -> None:
    (folders / "masks").rename(tmp_path / "elsewhere")
    assert run(folders, masks=tmp_path / "elsewhere").ids == ["x", "y"]


def test_table_is_joined_on_the_id(folders: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("name,kind,well,height\ny.png,neuro,W1,tall\nx,glia,W2,small\n")
    dataset = run(folders, table=table, id_column="name", cell_type_column="kind")
    assert dataset.images.loc["x", ["cell_type", "well"]].tolist() == ["glia", "W2"]
    assert dataset.images.loc["y", "source_height"] == "tall"
    assert dataset.images.loc["y", "height"] == 20


def test_columns_of_cells_are_left_out(kaggle: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = pd.read_csv(kaggle / "train.csv", dtype=str).assign(cell=list("wxyz"))
    table.to_csv(kaggle / "train.csv", index=False)
    assert "cell" not in run(kaggle).images
    assert "differ between the cells of one image are left out: cell" in caplog.text


def test_images_without_a_row_are_left_out(kaggle: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_png(kaggle / "train" / "more.png", image())
    assert run(kaggle).ids == ["a", "b", "c"]
    assert "1 of 4 images" in caplog.text
    assert "more" in caplog.text


def test_the_same_image_under_two_names_is_a_warning(
    kaggle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(kaggle / "train" / "a.png", kaggle / "train" / "b.png")
    run(kaggle)
    assert "same image under 2 names: a, b" in caplog.text


def test_unused_table_is_mentioned(folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folders / "classes.csv").write_text("id,cell_type\n")
    with caplog.at_level(logging.INFO):
        run(folders)
    assert "--table" in caplog.text


def test_hash_is_of_the_content(kaggle: Path, tmp_path: Path) -> None:
    first = run(kaggle).hash
    lines = (kaggle / "train.csv").read_text().splitlines()
    edit(kaggle / "train.csv", lambda _: "\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    assert run(kaggle, overwrite=True).hash == first
    edit(kaggle / "train.csv", lambda text: text.replace("a,2 9", "a,2 8"))
    assert run(kaggle, overwrite=True).hash != first


def test_overwrite_keeps_folds_of_the_same_images(
    kaggle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = run(kaggle)
    make_folds(FoldsConfig(data=dataset.path, k=2))
    before = dataset.folds_hash()
    assert run(kaggle, overwrite=True).folds_hash() == before
    edit(kaggle / "train.csv", lambda text: text.replace("c,,30,20,cort,\n", ""))
    assert not run(kaggle, overwrite=True).folds_path.exists()
    assert "folds.csv was for other images and is gone" in caplog.text


# -------------------------------------------------------------------------------------- bad input


def test_existing_target_is_refused(kaggle: Path) -> None:
    run(kaggle)
    message = fails(kaggle)
    assert "exists already" in message
    assert "--overwrite" in message


def test_overwrite_replaces_datasets_only(kaggle: Path) -> None:
    (kaggle.parent / "data").mkdir()
    (kaggle.parent / "data" / "thesis.txt").write_text("precious")
    assert "is not a dataset folder" in fails(kaggle, overwrite=True)


def test_target_around_the_source_is_refused(kaggle: Path) -> None:
    with pytest.raises(DataError, match="cannot replace its own source"):
        prepare(PrepareConfig(source=kaggle, out=kaggle.parent, overwrite=True))
    assert (kaggle / "train.csv").exists()


def test_source_that_is_not_there(tmp_path: Path) -> None:
    assert "expected a folder of annotated images, found nothing there" in fails(tmp_path / "gone")


def test_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = fails(tmp_path / "empty")
    assert "no annotated images" in message
    for part in ("train.csv with train/", "images/ with masks/", "NAME_masks.EXT", "--masks"):
        assert part in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("b,1 5", "zz,1 5", "train.csv line 2: unknown id 'zz': there is no"),
        ("2 9", "598 9", "train.csv line 4 (image a): the string: run 1 (598 9) ends at pixel 606"),
        ("2 9", "2 9 20", "train.csv line 4 (image a): the string: expected pairs"),
        ("2 9", "2 nine", "train.csv line 4 (image a): the string: expected whole numbers"),
        ("2 9,30", "2 9,31", "train.csv line 4: width 31, but the image is 20 x 30"),
        ("2 9,30,20", "2 9,30,21", "train.csv line 4: height 21, but the image is 20 x 30"),
        ("2 9,30,20", "2 9,30", "train.csv line 4: expected 6 values, found 5"),
        ("a,2 9,30,20,cort", "a,2 9,30,20,astro", "line 4: cell_type of image a is 'astro' here"),
        ("a,2 9,", "a,,", "train.csv line 4: an empty annotation, but the image has cells"),
        ("annotation", "rle", "line 1: expected the columns id, annotation; not found: annotation"),
        (HEADER, "", "not found: id, annotation. Found: b, 1 5 31 5, 30, 20, astro, 007"),
    ],
)
def test_bad_rows(kaggle: Path, old: str, new: str, expected: str) -> None:
    edit(kaggle / "train.csv", lambda text: text.replace(old, new, 1))
    assert expected in fails(kaggle)


def test_malformed_runs_are_data_errors() -> None:
    assert issubclass(RleError, DataError)


def test_truncated_image(kaggle: Path) -> None:
    path = kaggle / "train" / "b.png"
    path.write_bytes(path.read_bytes()[:200])
    message = fails(kaggle)
    assert "b.png: damaged or truncated PNG" in message
    assert "Copy or export the file again" in message


def test_image_of_another_size_than_the_table_says(kaggle: Path) -> None:
    write_png(kaggle / "train" / "b.png", image((30, 20)))
    assert "train.csv line 2: height 20, but the image is 30 x 20" in fails(kaggle)


def test_mask_of_another_shape(folders: Path) -> None:
    write_png(folders / "masks" / "y.png", np.zeros((20, 29), np.uint8))
    message = fails(folders)
    assert "the mask is 20 x 29 (height x width), its image y.png is 20 x 30" in message


def test_image_without_mask_and_mask_without_image(folders: Path) -> None:
    (folders / "masks" / "x.png").rename(folders / "masks" / "q.png")
    message = fails(folders)
    assert message.startswith("2 problems:")
    assert "x.png: no mask; expected" in message
    assert "q.png: a mask without an image" in message


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_two_files_of_one_name(folders: Path, folder: str) -> None:
    shutil.copy(folders / folder / "x.png", folders / folder / "x.jpg")
    assert "x.jpg and x.png have the same id 'x'" in fails(folders)


def test_names_that_differ_in_capitals(folders: Path) -> None:
    if (folders / "IMAGES").exists():
        pytest.skip("file names ignore capitals here")
    for folder in ("images", "masks"):
        shutil.copy(folders / folder / "x.png", folders / folder / "X.png")
    assert "differ in capitals only" in fails(folders)


def test_names_that_are_no_file_names_elsewhere(folders: Path) -> None:
    for folder in ("images", "masks"):
        (folders / folder / "x.png").rename(folders / folder / "a:b.png")
    assert "'a:b' cannot be a file name" in fails(folders)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id,kind\nx,1\ny,2\nz,3\n", "table.csv line 4: unknown id 'z'"),
        ("id,kind\nx,1\nx,2\ny,1\n", "table.csv line 3: the id 'x' has a row already"),
        ("id,kind\nx,1\n", "table.csv: the image y has no row"),
        ("name,kind\nx,1\n", "expected the columns id; not found: id. Found: name, kind"),
        ("", "Found: no header"),
        ("id,id\nx,1\n", "the column id is there more than once"),
    ],
)
def test_bad_table(folders: Path, text: str, expected: str) -> None:
    table = folders.parent / "table.csv"
    table.write_text(text)
    assert expected in fails(folders, table=table)


def test_table_that_is_not_text(folders: Path) -> None:
    table = folders.parent / "table.csv"
    table.write_bytes(b"id,kind\nx,\xff\xfe\n")
    assert "expected UTF-8" in fails(folders, table=table)


def test_problems_of_one_cause_are_one_line(kaggle: Path) -> None:
    rows = "".join(f"u{number},1 1,30,20,cort,1\n" for number in range(50))
    edit(kaggle / "train.csv", lambda text: text + rows)
    message = fails(kaggle)
    assert len(message.splitlines()) == 1
    assert "line 6: unknown id 'u0'" in message
    assert "The same for 49 more (u1, u10, u11, u12, u13 and 44 more)." in message


def test_many_causes_come_together_but_not_all(kaggle: Path) -> None:
    rows = "".join(f"{'u' * (1 + number)}!,1 1,30,20,cort,{number}\n" for number in range(30))
    edit(kaggle / "train.csv", lambda text: text + rows)
    for number in range(30):
        kind = "xyz"[number % 3] * (2 + number)
        write_png(kaggle / "train" / f"{kind}.png", image())
        edit(
            kaggle / "train.csv",
            lambda text, kind=kind: f"{text}{kind},1 {'q' * len(kind)},30,20,cort,\n",
        )
    message = fails(kaggle)
    assert message.startswith("The first 49 problems:")
    assert len(message.splitlines()) == 21


def test_problems_of_table_and_pixels_come_together(kaggle: Path) -> None:
    edit(kaggle / "train.csv", lambda text: text.replace("2 9", "598 9") + "zz,,30,20,cort,1\n")
    (kaggle / "train" / "b.png").write_bytes(b"nothing")
    message = fails(kaggle)
    assert message.startswith("3 problems:")


def test_full_disk_leaves_nothing(kaggle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    message = fails(kaggle)
    assert "No space left on device" in message
    assert "Nothing half-written was left" in message


def test_full_disk_at_the_tables_keeps_the_old_dataset(
    kaggle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(kaggle).hash
    real = pd.DataFrame.to_csv

    def full(self: pd.DataFrame, *args: Any, **kwargs: Any) -> Any:
        real(self, *args, **kwargs)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    assert "No space left" in fails(kaggle, overwrite=True)
    monkeypatch.undo()
    assert Dataset.open(kaggle.parent / "data").hash == before


def test_interrupt_leaves_nothing(kaggle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", interrupt)
    before = sorted(kaggle.parent.rglob("*"))
    with pytest.raises(builtins.KeyboardInterrupt):
        run(kaggle)
    assert sorted(kaggle.parent.rglob("*")) == before


# -------------------------------------------------------------------------------------- real images


def test_real_kaggle_layout(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "kaggle_layout"
    dataset = prepare(PrepareConfig(source=source, out=tmp_path / "data"))
    assert len(dataset) == 84
    assert dataset.images["n_instances"].sum() == 2439
    kinds = dataset.images["cell_type"].value_counts().to_dict()
    assert kinds == {"t98g": 38, "fluo": 30, "histology": 16}
    assert {"plate_time", "sample_date", "elapsed_timedelta"} <= set(dataset.images)
    truth = pd.read_csv(source / "train.csv").query("id == 'set01_0'")["annotation"].tolist()
    assert rles_from_instances(dataset.instances("set01_0")) == truth


def test_real_folders(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "usiigaci"
    dataset = prepare(PrepareConfig(source=source, out=tmp_path / "data"))
    assert len(dataset) == 22
    assert dataset.images["n_instances"].sum() == 1482
    assert set(dataset.images["dtype"]) == {"uint16"}
    first = dataset.ids[0]
    labels = dataset.labels(first)
    assert rles_from_labels(labels) == rles_from_instances(dataset.instances(first))


def test_real_folders_with_a_table(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "dsb2018"
    config = PrepareConfig(source=source, out=tmp_path / "data", table=source / "classes.csv")
    dataset = prepare(config)
    assert dataset.images["n_instances"].sum() == 5556
    kinds = dataset.images["cell_type"].value_counts().to_dict()
    assert kinds == {"fluo_dark": 150, "histology_color": 24, "gray_bright": 6}
    colour = dataset.images.query("channels == 3")
    assert len(colour) == 24
    assert dataset.image(str(colour.index[0])).ndim == 3
