"""`cellflow prepare --fix`, from files to files: what is mended, and that nothing else changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from cellflow import cli
from cellflow.io.dataset import Dataset
from cellflow.numeric.cell_faults import cell_facts


def faulty() -> np.ndarray:
    """Four cells: a ring, a ring around cell 3, cell 3, and one in two parts."""
    labels = np.zeros((64, 80), np.uint16)
    labels[4:14, 4:14] = 1
    labels[8:10, 8:10] = 0
    labels[20:40, 20:40] = 2
    labels[24:36, 24:36] = 0
    labels[24:36, 24:30] = 3
    labels[50:60, 50:60] = 4
    labels[50:56, 66:70] = 4
    return labels


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "source" / folder).mkdir(parents=True)
    for name in ("a", "b", "c"):
        image = rng.integers(0, 255, (64, 80), np.uint8)
        tifffile.imwrite(
            tmp_path / "source" / "images" / f"{name}.tif",
            image,
            resolution=(2e4, 2e4),
            resolutionunit=3,
        )
        labels = faulty() if name != "c" else np.where(faulty() == 3, 3, 0).astype(np.uint16)
        tifffile.imwrite(tmp_path / "source" / "masks" / f"{name}.tif", labels)
    (tmp_path / "table.csv").write_text("id,cell_type,well\na,round,1\nb,round,2\nc,long,3\n")
    return tmp_path / "source"


def cellflow(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("fixes", "areas", "said"),
    [
        ((), [96, 256, 72, 124], ""),
        (("keep",), [96, 256, 72, 124], ""),
        (("fill",), [100, 328, 72, 124], "holes of 4 cells filled, 152 pixels, in 2 images (a, b)"),
        (
            ("largest",),
            [96, 256, 72, 100],
            "the largest part kept of 2 cells, 48 pixels of others left out",
        ),
        (
            ("split",),
            [96, 256, 72, 100, 24],
            "the parts of 8 cells made 10 cells, in 2 images (a, b)",
        ),
        (("split", "fill"), [100, 328, 72, 100, 24], "--fix fill: holes of 4 cells"),
        (("largest", "split"), [96, 256, 72, 100], "--fix split: nothing to do"),
    ],
)
def test_prepare_mends_what_it_was_told_to(source, tmp_path, capsys, fixes, areas, said):
    out = tmp_path / "data"
    flags = ("--fix", *fixes) if fixes else ()
    assert cellflow("prepare", source, "--out", out, *flags) == 0
    dataset = Dataset.open(out)
    assert sorted(dataset.instances("a").areas) == sorted(areas)
    assert sorted(np.bincount(dataset.labels("a").ravel())[1:]) == sorted(areas)
    assert dataset.instances("c").areas.tolist() == [72]
    assert yaml.safe_load((out / "prepare.yaml").read_text())["fix"] == list(fixes)
    assert said in capsys.readouterr().err


def test_the_old_flag_is_the_same_function(source, tmp_path):
    assert cellflow("prepare", source, "--out", tmp_path / "one", "--split") == 0
    assert cellflow("prepare", source, "--out", tmp_path / "two", "--fix", "split") == 0
    one, two = (Dataset.open(tmp_path / name) for name in ("one", "two"))
    assert one.hash == two.hash


def test_keep_beside_another_is_refused(source, tmp_path, capsys):
    assert cellflow("prepare", source, "--out", tmp_path / "data", "--fix", "keep", "fill") == 2
    assert "--fix keep changes nothing, so it stands alone: keep fill" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_dataset_is_mended_into_another_and_keeps_all_else(source, tmp_path):
    old, new = tmp_path / "data", tmp_path / "mended"
    assert cellflow("prepare", source, "--out", old, "--table", tmp_path / "table.csv") == 0
    assert cellflow("folds", "--data", old, "--k", 3, "--group", "well") == 0
    shutil.rmtree(source)  # the folder alone is enough
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    assert cellflow("prepare", old, "--out", new, "--fix", "fill", "largest") == 0
    assert before == {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    was, now = Dataset.open(old), Dataset.open(new)
    assert list(now.images) == list(was.images)
    same = was.images.columns.difference(["n_instances", "median_diameter"])
    assert now.images[same].equals(was.images[same])
    assert now.pixel_size("a") == was.pixel_size("a") is not None
    assert now.folds().equals(was.folds())
    assert (new / "folds.json").read_bytes() == (old / "folds.json").read_bytes()
    assert now.hash != was.hash
    facts = cell_facts(now.instances("a"))
    assert facts.areas.tolist() == [100, 328, 72, 100]
    assert not facts.holes.any()
    for name in was.ids:
        assert (new / "images" / f"{name}.tif").read_bytes() == (
            old / "images" / f"{name}.tif"
        ).read_bytes()


def test_a_dataset_is_not_mended_in_its_own_place(source, tmp_path, capsys):
    data = tmp_path / "data"
    assert cellflow("prepare", source, "--out", data) == 0
    assert cellflow("prepare", data, "--out", data, "--overwrite", "--fix", "fill") == 1
    assert "Choose another --out" in capsys.readouterr().err
    assert Dataset.open(data).instances("a").areas.tolist() == [96, 256, 72, 124]
    assert cellflow("prepare", data, "--out", tmp_path / "other") == 1
    assert "is a dataset folder that `cellflow prepare` made already" in capsys.readouterr().err


def test_a_dataset_that_was_changed_is_refused(source, tmp_path, capsys):
    data = tmp_path / "data"
    assert cellflow("prepare", source, "--out", data) == 0
    table = data / "instances.csv"
    table.write_text(table.read_text().replace("c,", "b,", 1))
    assert cellflow("prepare", data, "--out", tmp_path / "other", "--fix", "fill") == 1
    assert "has changed since" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
