"""folds.csv, folds.json and folds.yaml belong together, whenever the writing ends."""

from __future__ import annotations

import errno
import itertools
import json
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from faults import failing, killed

from cellflow.config import FoldsConfig
from cellflow.engine.data.folds import check_leaks, load_folds
from cellflow.engine.data.make_folds import make_folds
from cellflow.errors import FoldError, LeakError
from cellflow.io.dataset import Dataset, DatasetWriter
from cellflow.io.fold_table import (
    read_fold_facts,
    read_fold_table,
    write_fold_table,
)
from cellflow.io.source import FileImage
from cellflow.numeric.rle import instances_from_rles

PLATES, DAYS = [0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 8 images with two columns that may stand for groups."""
    place = tmp_path_factory.mktemp("folds")
    folder = place / "data"
    folder.mkdir()
    file = place / "tiny.png"
    file.write_bytes(imagecodecs.png_encode(np.zeros((2, 2), np.uint8)))
    cells = instances_from_rles([], (2, 2))
    writer = DatasetWriter(folder)
    for number, (plate, day) in enumerate(zip(PLATES, DAYS, strict=True)):
        columns = {"plate": f"p{plate}", "day": f"d{day}"}
        source = FileImage(f"i{number}", file, columns)
        writer.add(source, np.zeros((2, 2), np.uint8), cells, pixel_hash=f"h{number}")
    writer.finish("test")
    return folder


def splits(data: Path) -> tuple[FoldsConfig, FoldsConfig]:
    """The split that stands, and the one that replaces it: other groups, another number of folds."""
    old = FoldsConfig(data=data, k=2, group="plate")
    return old, FoldsConfig(data=data, k=4, group="day", overwrite=True)


def group_and_folds(data: Path) -> tuple[object, int]:
    """What a reader sees: both of one split, and a leak check that looks at its column."""
    dataset = Dataset.open(data)
    folds = load_folds(dataset)
    facts = read_fold_facts(dataset.folds_path)
    assert "seed" in facts, "they are those of the table"
    first = dataset.images.index[0]
    leaking = folds.copy()
    leaking[first] = (leaking[first] + 1) % facts["k"]
    with pytest.raises(LeakError, match=facts["group"]):
        check_leaks(dataset.images, leaking, facts["group"])
    return facts["group"], facts["k"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_disk_that_fails_at_any_step(
    whole: Path, tmp_path: Path, replaced: bool, code: int
) -> None:
    for at in itertools.count(1):
        data = tmp_path / f"{at}"
        shutil.copytree(whole, data)
        old, new = splits(data)
        if replaced:
            make_folds(old)
        wanted = new if replaced else old
        with failing(at, code) as steps:
            try:
                make_folds(wanted)
            except OSError as error:
                assert "folds" in str(error.filename)
        if not steps.hit:
            break
        if (data / "folds.csv").exists():
            assert group_and_folds(data) in (
                [("plate", 2), ("day", 4)] if replaced else [("plate", 2)]
            )
        make_folds(wanted)
        assert group_and_folds(data) == (("day", 4) if replaced else ("plate", 2))
        assert "replaces" not in json.loads((data / "folds.json").read_text())
    assert at > 9


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [False, True])
def test_killed_at_any_step(whole: Path, tmp_path: Path, replaced: bool) -> None:
    for at in itertools.count(1):
        data = tmp_path / f"{at}"
        shutil.copytree(whole, data)
        old, new = splits(data)
        if replaced:
            make_folds(old)
        wanted = new if replaced else old
        if not killed(at, make_folds, wanted):
            break
        if (data / "folds.csv").exists():
            assert group_and_folds(data) in (
                [("plate", 2), ("day", 4)] if replaced else [("plate", 2)]
            )
        assert not killed(None, make_folds, wanted)  # the same command ends well
        assert group_and_folds(data) == (("day", 4) if replaced else ("plate", 2))
        assert not list(data.glob(".*"))
        assert f"group: {'day' if replaced else 'plate'}" in (data / "folds.yaml").read_text()
    assert at > 9


def test_facts_of_another_table_are_known(whole: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(whole, data)
    path = data / "folds.csv"
    assert read_fold_facts(path) == {}
    make_folds(splits(data)[0])
    facts = read_fold_facts(path)
    assert facts["seed"] == 0
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], *reversed(rows[1:])]) + "\n")
    assert read_fold_facts(path) == facts  # another order of rows is the same split
    path.write_text("id,fold\n" + "".join(f"i{number},{number % 3}\n" for number in range(8)))
    assert "seed" not in read_fold_facts(path)
    # replaced with a kill before the table: it is as it was, facts that do not fit and all
    write_fold_table(path, read_fold_table(path), {"group": "day"})
    assert read_fold_facts(path)["group"] == "day"


def test_what_is_wrong_fits_a_screen(tmp_path: Path) -> None:
    path = tmp_path / "folds.csv"
    rows = [f"{'x' * 5_000}{number},{'9' * 5_000}" for number in range(30)]
    path.write_text("\n".join(["id,fold", *rows]))
    for ids in (["a"], None):
        with pytest.raises(FoldError) as caught:
            read_fold_table(path, ids)
        assert len(str(caught.value)) < 3_000
        assert "and 1" in str(caught.value)  # more problems than are shown
