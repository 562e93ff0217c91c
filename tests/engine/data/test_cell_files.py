"""The layouts of the Data Science Bowl of 2018: one file for each cell, and its table of runs."""

from __future__ import annotations

import logging
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cellflow import cli
from cellflow.config import PrepareConfig
from cellflow.engine.data.prepare import prepare
from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.io.formats import ReadOptions, read_source
from cellflow.numeric.rle import rle_encode

SHAPE = (60, 90)
Mask = NDArray[np.bool_]


def disc(y: int, x: int, radius: int = 8) -> Mask:
    rows, columns = np.indices(SHAPE)
    return np.asarray(np.hypot(rows - y, columns - x) < radius)


CELLS = {
    "a": [disc(20, 20), disc(20, 32), disc(40, 70)],  # the first two overlap
    "b": [disc(15, 15) | disc(45, 60)],  # one cell in two parts
    "c": [],
}


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 200, (*SHAPE, 4), np.uint8)
    noise[..., 3] = 255
    Image.fromarray(noise).save(path)


def bowl(root: Path) -> Path:
    for name, cells in CELLS.items():
        write_image(root / name / "images" / f"{name}.png")
        (root / name / "masks").mkdir()
        for index, cell in enumerate(cells):
            Image.fromarray(255 * cell.astype(np.uint8)).save(
                root / name / "masks" / f"{7919 * (index + 1):06x}.png"
            )
    return root


def command(*words: object) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([str(word) for word in words])
    assert left.value.code == 0


def fails(source: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        prepare(PrepareConfig(source=source, out=source.parent / "data", **options))
    return str(caught.value)


def pixels_of(dataset: Dataset, name: str) -> list[list[int]]:
    """Pixels of each cell, in any order."""
    cells = dataset.instances(name)
    runs = [
        [(s, n) for s, n in zip(*cells.runs(index), strict=True)] for index in range(len(cells))
    ]
    return sorted([p for s, n in cell for p in range(s, s + n)] for cell in runs)


def wanted(name: str) -> list[list[int]]:
    return sorted(np.flatnonzero(cell).tolist() for cell in CELLS[name])


def test_from_files_to_a_dataset(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = bowl(tmp_path / "stage1_train")
    write_image(source / "d" / "images" / "d.png")
    command("prepare", source, "--out", tmp_path / "data")
    dataset = Dataset.open(tmp_path / "data")
    assert dataset.ids == ["a", "b", "c"]
    for name in CELLS:
        assert pixels_of(dataset, name) == wanted(name)
    assert dataset.image("a").shape == (*SHAPE, 3)
    assert "1 image without masks/ left out (d)" in caplog.text


def test_as_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = bowl(tmp_path / "stage1_train")
    command("prepare", source, "--out", tmp_path / "data")
    shape = "c"  # nobody knows how large an image without cells is
    (source / shape / "masks").rmdir()
    (source / shape / "images" / "c.png").unlink()
    (source / shape / "images").rmdir()
    command("score", tmp_path / "data" / "labels", "--truth", source)
    assert "2 images that match by name" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (np.zeros(SHAPE, np.uint8), "found an empty mask. Remove it, or draw its cell"),
        (np.arange(5400, dtype=np.uint8).reshape(SHAPE) // 64, "found 3 values besides 0"),
        (np.ones((60, 80), np.uint8), "the mask is 60 x 80 (height x width), its image is 60 x 90"),
    ],
)
def test_masks_that_are_no_cell(mask: NDArray[np.uint8], told: str, tmp_path: Path) -> None:
    source = bowl(tmp_path / "s")
    Image.fromarray(mask).save(source / "a" / "masks" / "ffff.png")
    Image.fromarray(mask).save(source / "b" / "masks" / "ffff.png")
    message = fails(source)
    assert "a/masks/ffff.png" in message
    assert told in message
    assert "The same for 1 more (b)" in message


def test_folders_that_are_not_whole(tmp_path: Path) -> None:
    source = bowl(tmp_path / "s")
    write_image(source / "a" / "images" / "second.png")
    (source / "e" / "masks").mkdir(parents=True)
    message = fails(source)
    assert "expected one image, found 2 (a.png, second.png)" in message
    assert "e: masks, but no images/" in message


def test_the_same_name_for_masks_is_another_layout(tmp_path: Path) -> None:
    """A data set in a folder is no image of a larger one."""
    write_image(tmp_path / "s" / "inner" / "images" / "x.png")
    (tmp_path / "s" / "inner" / "masks").mkdir()
    Image.fromarray(disc(20, 20).astype(np.uint8)).save(tmp_path / "s/inner/masks/x.png")
    assert fails(tmp_path / "s").endswith(f"cellflow prepare {tmp_path / 's' / 'inner'}")


def test_a_folder_too_deep_or_too_high(tmp_path: Path) -> None:
    source = bowl(tmp_path / "all" / "stage1_train")
    for given in (source / "a", tmp_path / "all"):
        assert fails(given).endswith(f"cellflow prepare {source}")


# -------------------------------------------------------------------------------------------- its table


def table(path: Path, *, sizes: bool = False) -> None:
    lines = ["ImageId,EncodedPixels" + ",Height,Width,Usage" * sizes]
    for name, cells in CELLS.items():
        runs = [rle_encode(cell, "F") for cell in cells] or [""]
        lines += [f"{name},{run}" + f",{SHAPE[0]},{SHAPE[1]},Public" * sizes for run in runs]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("layout", ["{}/images/{}.png", "{}.png"])
def test_the_table_of_the_bowl(
    layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name in CELLS:
        write_image(tmp_path / "s" / "stage1_train" / layout.format(name, name))
    table(tmp_path / "s" / "stage1_train_labels.csv")
    command("prepare", tmp_path / "s", "--out", tmp_path / "data")
    dataset = Dataset.open(tmp_path / "data")
    for name in CELLS:
        assert pixels_of(dataset, name) == wanted(name)
    assert "images are in the column ImageId, runs in EncodedPixels" in caplog.text
    assert "the runs go column by column" in caplog.text


def test_square_images_of_the_bowl_go_column_by_column(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Their cells are as compact one way as the other, and nothing says that they are turned."""
    square = disc(20, 40)[:, :60]
    (tmp_path / "s" / "stage1_train").mkdir(parents=True)
    Image.fromarray(np.zeros((60, 60), np.uint8)).save(tmp_path / "s" / "stage1_train" / "a.png")
    for heading, order, way in (("ImageId,EncodedPixels", "F", "F"), ("id,annotation", "C", "C")):
        runs = rle_encode(square, order)  # type: ignore[arg-type]
        (tmp_path / "s" / "stage1_train_labels.csv").write_text(f"{heading}\na,{runs}\n")
        command("prepare", tmp_path / "s", "--out", tmp_path / way)
        assert np.array_equal(Dataset.open(tmp_path / way).labels("a") > 0, square)
        assert ("where all images are square nothing else tells" in caplog.text) == (way == "F")
        caplog.clear()


def test_the_table_with_sizes_as_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("prepare", bowl(tmp_path / "s"), "--out", tmp_path / "data")
    table(tmp_path / "stage1_solution.csv", sizes=True)
    command("score", tmp_path / "data" / "labels", "--truth", tmp_path / "stage1_solution.csv")
    assert "3 images that match by name" in capsys.readouterr().out


def test_many_large_cell_files_are_held_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "a" / "masks").mkdir(parents=True)
    (tmp_path / "a" / "images").mkdir()
    mask = np.zeros((500, 500), np.uint8)
    Image.fromarray(mask).save(tmp_path / "a" / "images" / "a.png")
    for index in range(60):
        mask[:] = 0
        mask[8 * index, 5:9] = 255
        Image.fromarray(mask).save(tmp_path / "a" / "masks" / f"{index:02}.png")
    image = read_source(tmp_path, ReadOptions("truth")).images["a"]
    tracemalloc.start()
    cells = image.instances()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert cells.areas.tolist() == 60 * [4]
    assert cells.starts.tolist() == [4000 * index + 5 for index in range(60)]
    assert peak < 40 * mask.nbytes


def test_truth_without_a_cell_has_the_size_of_its_image(tmp_path: Path) -> None:
    source = read_source(bowl(tmp_path), ReadOptions("truth"))
    assert {name: item.instances().shape for name, item in source.images.items()} == dict.fromkeys(
        CELLS, SHAPE
    )


def test_capitals_of_folders_do_not_count(tmp_path: Path) -> None:
    write_image(tmp_path / "x" / "Images" / "x.png")
    (tmp_path / "x" / "Masks").mkdir()
    Image.fromarray(255 * disc(20, 20).astype(np.uint8)).save(tmp_path / "x" / "Masks" / "m1.png")
    source = read_source(tmp_path, ReadOptions("prepare"))
    assert source.layout == "cell-files" and list(source.images) == ["x"]
