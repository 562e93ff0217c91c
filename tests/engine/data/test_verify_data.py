"""`cellflow verify` of sources and datasets: everything wrong is found in one reading, and nothing is changed."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from cellflow import cli
from cellflow.config import FoldsConfig, PrepareConfig, ReadingConfig, VerifyConfig
from cellflow.engine.data.make_folds import make_folds
from cellflow.engine.data.prepare import prepare
from cellflow.engine.validation.verify import verify
from cellflow.errors import DataError

SHAPE = (64, 80)


def good(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and four separate cells inside."""
    labels = np.zeros(SHAPE, np.uint16)
    for number, (y, x) in enumerate(((5, 5), (5, 40), (35, 5), (35, 40)), 1):
        labels[y : y + 15, x : x + 20] = number
    return rng.integers(0, 255, SHAPE, np.uint8), labels


def write(root: Path, name: str, image: np.ndarray | None, labels: np.ndarray | None) -> None:
    for folder, pixels in (("images", image), ("masks", labels)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        if pixels is not None:
            tifffile.imwrite(root / folder / f"{name}.tif", pixels)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three images without a fault."""
    rng = np.random.default_rng(0)
    for name in "abc":
        write(tmp_path / "source", name, *good(rng))
    return tmp_path / "source"


def cellflow(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    return int(end.value.code or 0)


def found(place: Path, **settings: object) -> set[tuple[str, str, int | None]]:
    result = verify(VerifyConfig(place, **settings))
    return {(item.kind, item.id, item.cell) for item in result.findings}


def test_a_config_of_another_program_makes_no_run(source: Path) -> None:
    before = found(source)
    (source / "config.yaml").write_text("nothing: of ours\n")
    assert found(source) == before


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_sound_source_has_nothing_to_tell_and_nothing_is_written(source: Path, capsys):
    before = snapshot(source.parent)
    assert cellflow("verify", source) == 0
    text = capsys.readouterr().out
    assert "3 images, 12 cells, 64 x 80 pixels (height x width), uint8 (3)" in text
    assert text.endswith(f"No problems.\nNext: cellflow prepare {source}\n")
    assert snapshot(source.parent) == before


def test_the_table_does_not_go_into_what_is_read(source: Path, capsys):
    assert cellflow("verify", source, "--out", source / "all.csv") == 2
    assert "lies in what is read" in capsys.readouterr().err
    assert not (source / "all.csv").exists()


def test_all_that_prepare_would_refuse_is_told_at_once(source: Path, capsys, tmp_path: Path):
    rng = np.random.default_rng(1)
    image, labels = good(rng)
    write(source, "alone", image, None)
    write(source, "orphan", None, labels)
    write(source, "other", image, labels[:50])
    write(source, "photo", image, rng.integers(0, 200, SHAPE, np.uint8))
    (source / "images" / "broken.tif").write_bytes(b"II*\0 no image")
    write(source, "broken", None, labels)
    for number in range(30):  # more than one error of `prepare` takes
        write(source, f"lone{number}", image, None)
    out = tmp_path / "all.csv"
    assert cellflow("verify", source, "--out", out) == 1
    text = capsys.readouterr().out
    assert "35 problems, marked with !" in text
    assert f"Next: cellflow verify {source}, once that is mended" in text
    rows = pd.read_csv(out, dtype=str).fillna("").query("kind == 'refused'").set_index("id")
    assert set(rows["verdict"]) == {"problem"}
    assert set(rows.index) == {"alone", "orphan", "other", "photo", "broken"} | {
        f"lone{n}" for n in range(30)
    }
    assert "no mask" in rows.at["alone", "reason"]
    assert "a mask without an image" in rows.at["orphan", "reason"]
    assert "the mask is 50 x 80 (height x width)" in rows.at["other", "reason"]
    assert "found a picture" in rows.at["photo", "reason"]
    with pytest.raises(DataError):
        prepare(PrepareConfig(source, out=tmp_path / "data"))


def test_faults_of_cells_are_told_cell_by_cell(source: Path, tmp_path: Path):
    image, labels = good(np.random.default_rng(2))
    labels[8:12, 8:12] = 0  # cell 1 is hollow
    labels[20, 40] = 2  # a speck beside cell 2 (touches it)
    labels[60, 78] = 2  # a speck far from it
    labels[35:50, 10:16] = 0  # cell 3 falls into two parts
    labels[0, 0:20] = 5  # at the border
    labels[30, 30:33] = 6  # tiny
    write(source, "d", image, labels)
    expected = {
        ("hollow", "d", 1), ("with specks", "d", 2), ("in parts", "d", 3), ("at the border", "d", 5),
        ("tiny", "d", 6),
    }  # fmt: skip
    assert found(source) == expected
    result = verify(VerifyConfig(source))
    assert result.problems == 0
    assert result.next == f"cellflow prepare {source} --fix fill"  # largest would cut cell 3 too
    assert cellflow(*shlex.split(result.next)[1:], "--out", tmp_path / "data") == 0
    assert found(tmp_path / "data") == expected - {("hollow", "d", 1)}


def test_specks_are_removed_where_no_cell_is_in_parts(source: Path, tmp_path: Path):
    image, labels = good(np.random.default_rng(2))
    labels[60, 78] = 2
    write(source, "d", image, labels)
    result = verify(VerifyConfig(source))
    assert result.next == f"cellflow prepare {source} --fix largest"
    assert cellflow(*shlex.split(result.next)[1:], "--out", tmp_path / "data") == 0
    assert found(tmp_path / "data") == set()


def test_foreground_is_told_and_the_next_command_mends_it(source: Path, tmp_path: Path, capsys):
    image, labels = good(np.random.default_rng(3))
    write(source, "fore", image, (labels > 0).astype(np.uint8) * 255)
    assert cellflow("verify", source) == 1
    text = capsys.readouterr().out
    assert "! many cells in one" in text
    assert "1 label over 23% of the image in 4 parts" in text
    assert f"Next: cellflow prepare {source} --fix split" in text
    assert cellflow("prepare", source, "--fix", "split", "--out", tmp_path / "data") == 0
    assert cellflow("verify", tmp_path / "data") == 0


def test_images_of_one_value_are_wrong_only_with_cells(source: Path):
    _, labels = good(np.random.default_rng(4))
    write(source, "flat", np.full(SHAPE, 7, np.uint8), labels)
    write(source, "blank", np.zeros(SHAPE, np.uint8), np.zeros_like(labels))
    result = verify(VerifyConfig(source))
    assert {(item.id, item.wrong) for item in result.findings} == {("flat", True), ("blank", False)}
    assert {item.kind for item in result.findings} == {"one value"}


def test_overlaps_and_repeats_of_a_table(tmp_path: Path):
    root = tmp_path / "kaggle"
    (root / "train").mkdir(parents=True)
    tifffile.imwrite(
        root / "train" / "a.tif", np.random.default_rng(0).integers(0, 255, (10, 12), np.uint8)
    )
    runs = ["14 5 26 5 38 5 50 5", "52 6 64 6 76 6 88 6", "14 5 26 5 38 5 50 5"]
    lines = ["id,annotation,width,height", *(f"a,{run},12,10" for run in runs)]
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    assert found(root) == {
        ("repeated", "a", None),
        ("overlapping", "a", 1),
        ("overlapping", "a", 2),
    }


def test_what_is_left_out_is_told_with_the_table(source: Path, capsys):
    (source / "images" / "more").mkdir()
    shutil.copyfile(source / "images" / "a.tif", source / "images" / "more" / "x.tif")
    assert cellflow("verify", source) == 0
    captured = capsys.readouterr()
    assert "- remark" in captured.out
    assert "1 image in sub-folders" in captured.out
    assert "sub-folders" not in captured.err


def test_the_flags_of_the_reading_are_those_of_prepare(source: Path, tmp_path: Path, capsys):
    (source / "masks").rename(source / "my maps")
    assert cellflow("verify", source, "--masks", source / "my maps") == 0
    command = capsys.readouterr().out.splitlines()[-1].removeprefix("Next: ")
    assert command == f"cellflow prepare {source} --masks '{source / 'my maps'}'"
    assert cellflow(*shlex.split(command)[1:], "--out", tmp_path / "data") == 0
    own = {
        PrepareConfig: {"audit", "out", "split", "fix", "overwrite"},
        VerifyConfig: {"out", "data", "runs_dir"},
    }
    for config, more in own.items():
        names = {item.name for item in dataclasses.fields(config)}
        assert names == {item.name for item in dataclasses.fields(ReadingConfig)} | more


@pytest.fixture
def data(source: Path, tmp_path: Path) -> Path:
    table = tmp_path / "table.csv"
    table.write_text("id,group\na,one\nb,one\nc,two\n")
    prepare(PrepareConfig(source, out=tmp_path / "data", table=table))
    make_folds(FoldsConfig(data=tmp_path / "data", k=2))
    return tmp_path / "data"


def test_a_sound_dataset_goes_on_to_the_training(data: Path, capsys):
    before = snapshot(data)
    assert cellflow("verify", data) == 0
    text = capsys.readouterr().out
    assert "folds      folds 0 1, groups group, seed 0, 0 of 3 images reserved" in text
    assert text.endswith(f"No problems.\nNext: cellflow train --fold all --data {data}\n")
    assert snapshot(data) == before


def test_a_group_in_two_folds_is_told(data: Path):
    (data / "folds.csv").write_text("id,fold\na,0\nb,1\nc,1\n")
    result = verify(VerifyConfig(data))
    (item,) = (item for item in result.findings if item.wrong)
    assert item.kind == "over several folds"
    assert item.reason == "group one: a in fold 0, b in fold 1"
    assert result.next == f"cellflow folds --data {data} --overwrite"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("id,fold\na,0\nb,0\n", "'c' has no row"),
        ("id,fold\na,0\nb,x\nc,1\n", "expected a fold number"),
    ],
)
def test_a_fold_table_that_does_not_fit_is_told(data: Path, text: str, word: str):
    (data / "folds.csv").write_text(text)
    (item,) = (item for item in verify(VerifyConfig(data)).findings if item.wrong)
    assert item.kind == "over several folds"
    assert word in item.reason


def test_files_that_changed_since_are_told(data: Path):
    tifffile.imwrite(data / "images" / "a.tif", np.zeros(SHAPE, np.uint8))
    tifffile.imwrite(data / "labels" / "b.tif", np.ones(SHAPE, np.uint16))
    (data / "images" / "stray.tif").write_bytes(b"")
    kinds = found(data)
    assert ("changed", "a", None) in kinds
    assert ("changed", "b", None) in kinds
    assert ("left out", "images/stray.tif", None) in kinds
    assert ("one value", "a", None) in kinds


def test_a_changed_table_and_a_missing_image_are_told(data: Path):
    table = pd.read_csv(data / "instances.csv", dtype=str)
    table.iloc[1:].to_csv(data / "instances.csv", index=False)
    (data / "images" / "c.tif").unlink()
    result = verify(VerifyConfig(data))
    wrong = {(item.kind, item.id) for item in result.findings if item.wrong}
    assert {("changed", ""), ("changed", "a"), ("refused", "c")} <= wrong


def test_a_dataset_with_faults_is_mended_into_another(source: Path, data: Path, tmp_path: Path):
    image, labels = good(np.random.default_rng(5))
    labels[8:12, 8:12] = 0
    write(source, "d", image, labels)
    prepare(PrepareConfig(source, out=data, overwrite=True))
    result = verify(VerifyConfig(data))
    assert result.next == f"cellflow prepare {data} --fix fill --out {data}-fixed"
    assert cellflow(*shlex.split(result.next)[1:]) == 0
    assert found(tmp_path / "data-fixed") == set()


def test_a_damaged_dataset_is_an_error(data: Path, capsys):
    (data / "dataset.json").write_text(json.dumps({"format": "other"}))
    assert cellflow("verify", data) == 1
    assert "not the description of a cellflow dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("case", "kinds"),
    [
        (
            "calibrate-no-celltype/c6_mix",
            {"refused", "in parts", "hollow", "tiny", "at the border"},
        ),
        ("colmajor-rle/c5_colmajor", {"remark"}),
        ("csv-duplicates/c5_dupall", {"repeated"}),
        ("csv-header-only/c5_headeronly", {"refused"}),
        ("exif-rotated/c3exif", set()),
        ("float-small/x_tiny", set()),
        ("id-na/c4oof", set()),
        ("mask-binary-few/c2_binmixed", {"many cells in one"}),
        ("mask-jpeg/c2_labjpg", {"refused"}),
        ("mask-palette/c2_pal", set()),
        ("pairs-other-endings/c1a", {"remark"}),
        ("subfolders/c4d", {"remark"}),
        ("names-hidden/c4flows", {"same image"}),
    ],
)
def test_small_odd_inputs(shared: Path, case: str, kinds: set[str]):
    result = verify(VerifyConfig(shared / "cases" / case))
    assert {item.kind for item in result.findings} == kinds
    assert bool(result.problems) == bool(kinds & {"refused", "many cells in one"})


def test_real_images_have_no_problem_and_no_copies(shared: Path):
    result = verify(VerifyConfig(shared / "data" / "kaggle_layout"))
    assert result.problems == 0
    kinds = [item.kind for item in result.findings]
    assert not set(kinds) & {"near copy", "same image", "overlapping"}
    assert kinds.count("shared pixels") == 19  # two crops of each source image


def test_crops_of_one_image_in_two_folds_are_told(tmp_path: Path):
    rng = np.random.default_rng(6)
    large, labels = rng.integers(0, 255, (64, 144), np.uint8), good(rng)[1]
    for name, x in (("left", 0), ("right", 64)):
        write(tmp_path / "source", name, large[:, x : x + 80], labels)
    write(tmp_path / "source", "other", *good(rng))
    prepare(PrepareConfig(tmp_path / "source", out=tmp_path / "data"))
    (tmp_path / "data" / "folds.csv").write_text("id,fold\nleft,0\nright,0\nother,1\n")
    assert found(tmp_path / "data") == {("shared pixels", "right", None)}
    (tmp_path / "data" / "folds.csv").write_text("id,fold\nleft,0\nright,1\nother,1\n")
    (item,) = (item for item in verify(VerifyConfig(tmp_path / "data")).findings if item.wrong)
    assert item.reason == (
        "right is a crop beside left, with 64 x 16 pixels in common: left in fold 0, right in fold 1"
    )
