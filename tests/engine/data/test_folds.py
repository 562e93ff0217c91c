from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellflow.config import FoldsConfig, PrepareConfig
from cellflow.engine.data.folds import (
    check_leaks,
    copy_folds,
    load_folds,
    validation_folds,
)
from cellflow.engine.data.make_folds import make_folds
from cellflow.engine.data.prepare import prepare
from cellflow.errors import ConfigError, FoldError, LeakError
from cellflow.io.dataset import Dataset, DatasetWriter
from cellflow.io.fold_table import fold_table_hash, read_fold_table
from cellflow.io.source import FileImage
from cellflow.numeric.rle import instances_from_rles

Columns = dict[str, Iterable[Any]]


def make_dataset(
    folder: Path, n: int, columns: Columns, twins: dict[int, int] | None = None
) -> Dataset:
    """n tiny images with columns; `twins` says which image has the pixels of which other one."""
    folder.mkdir(parents=True)
    values = {name: [str(value) for value in column] for name, column in columns.items()}
    writer = DatasetWriter(folder)
    file = folder / "tiny.png"
    pixels = np.zeros((2, 2), np.uint8)
    file.write_bytes(imagecodecs.png_encode(pixels))
    cells = instances_from_rles([], (2, 2))
    for number in range(n):
        extra = {name: column[number] for name, column in values.items()}
        source = FileImage(f"i{number:03d}", file, extra)
        twin = (twins or {}).get(number, number)
        writer.add(source, pixels, cells, pixel_hash=f"hash{twin}")
    writer.finish("test")
    return Dataset.open(folder)


def split(dataset: Dataset, **options: Any) -> pd.Series[int]:
    frame = make_folds(FoldsConfig(data=dataset.path, **options))
    return frame.set_index("id")["fold"]


def spread(dataset: Dataset, folds: pd.Series[int], column: str) -> pd.Series[int]:
    """In how many folds the images of one value lie."""
    return folds.groupby(dataset.images[column]).nunique()


def test_folds_are_balanced_grouped_and_written(tmp_path: Path) -> None:
    kinds = np.repeat(["a", "b", "c"], [60, 30, 10])
    wells = np.arange(100) // 2
    dataset = make_dataset(tmp_path / "data", 100, {"cell_type": kinds, "group": wells})
    folds = split(dataset, k=5)
    assert sorted(set(folds)) == [0, 1, 2, 3, 4]
    assert spread(dataset, folds, "group").max() == 1
    counts = pd.crosstab(folds, dataset.images["cell_type"])
    assert np.abs(counts - [12, 6, 2]).to_numpy().max() <= 2
    assert dataset.folds().equals(folds.astype("int64"))
    assert load_folds(dataset).equals(dataset.folds())
    assert (dataset.path / "folds.csv").read_text().startswith("id,fold\ni000,")
    assert validation_folds(dataset, folds) == [0, 1, 2, 3, 4]


def test_same_seed_same_folds(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", 40, {"cell_type": ["a", "b"] * 20})
    hashes = [fold_table_hash(split(dataset, k=4, seed=seed, overwrite=True)) for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("name", ["group", "sample_id"])
def test_group_column_is_found(tmp_path: Path, name: str) -> None:
    dataset = make_dataset(tmp_path / "data", 12, {name: [0, 1, 2] * 4})
    assert spread(dataset, split(dataset, k=3), name).max() == 1


def test_group_may_be_chosen_or_switched_off(tmp_path: Path) -> None:
    columns: Columns = {"sample_id": [0] * 12, "plate": [0, 1, 2, 3] * 3}
    dataset = make_dataset(tmp_path / "data", 12, columns)
    assert spread(dataset, split(dataset, k=2, group="plate"), "plate").max() == 1
    assert load_folds(dataset) is not None, "the chosen column is remembered for the leak check"
    split(dataset, k=2, group="id", overwrite=True)
    assert load_folds(dataset) is not None


def test_images_without_a_group_stand_for_themselves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = make_dataset(tmp_path / "data", 8, {"group": ["", "", "", "", "a", "a", "b", "b"]})
    folds = split(dataset, k=3)
    assert folds.value_counts().min() >= 2
    assert "4 images have no group" in caplog.text


def test_the_same_image_under_two_names_stays_together(tmp_path: Path) -> None:
    twins = {5: 0, 9: 5, 7: 3}  # 5 = 0; 9 has its own pixels' twin
    dataset = make_dataset(tmp_path / "data", 10, {}, twins)
    for seed in range(5):
        folds = split(dataset, k=4, seed=seed, overwrite=True)
        assert spread(dataset, folds, "pixel_hash").max() == 1


def test_groups_joined_by_a_twin_stay_together(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", 12, {"group": np.arange(12) // 2}, {2: 1, 4: 3})
    for seed in range(5):
        folds = split(dataset, k=3, seed=seed, overwrite=True)
        assert folds.iloc[:6].nunique() == 1


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_split_is_whole_and_complete(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    n = data.draw(st.integers(6, 40))
    numbers = st.lists(st.integers(0, 9), min_size=n, max_size=n)
    columns: Columns = {"group": data.draw(numbers), "cell_type": data.draw(numbers)}
    dataset = make_dataset(tmp_path_factory.mktemp("folds") / "data", n, columns)
    options = {
        "k": data.draw(st.integers(2, 4)),
        "calibration": data.draw(st.sampled_from([0.0, 0.2])),
        "split": data.draw(st.sampled_from(["kfold", "holdout"])),
        "seed": data.draw(st.integers(0, 3)),
    }
    n_groups = dataset.images["group"].nunique()
    try:
        folds = split(dataset, **options)
    except FoldError as error:
        assert "folds need at least" in str(error)
        assert n_groups <= options["k"] + n_groups * 0.6
        assert not dataset.folds_path.exists()
        return
    last = options["k"] if options["split"] == "kfold" else 2
    assert set(folds) - {-1} == set(range(last))
    assert (-1 in set(folds)) == (options["calibration"] > 0)
    assert spread(dataset, folds, "group").max() == 1


def test_reserved_images(tmp_path: Path) -> None:
    kinds = np.repeat(["a", "b"], [80, 40])
    dataset = make_dataset(
        tmp_path / "data", 120, {"cell_type": kinds, "group": np.arange(120) // 4}
    )
    folds = split(dataset, k=3, calibration=0.15)
    reserved = dataset.images[folds == -1]["cell_type"].value_counts()
    assert abs(reserved["a"] - 12) <= 4, "15 % of 80, in groups of 4"
    assert abs(reserved["b"] - 6) <= 4
    assert spread(dataset, folds, "group").max() == 1
    assert validation_folds(dataset, folds) == [0, 1, 2]


def test_holdout(tmp_path: Path) -> None:
    kinds = np.repeat(["a", "b"], [40, 20])
    dataset = make_dataset(tmp_path / "data", 60, {"cell_type": kinds, "group": np.arange(60) // 2})
    folds = split(dataset, split="holdout", holdout=0.25)
    assert set(folds) == {0, 1}
    assert abs((folds == 0).sum() - 15) <= 2
    assert validation_folds(dataset, folds) == [0], "fold 1 only trains"
    copy_folds(dataset, tmp_path)
    assert validation_folds(tmp_path, read_fold_table(tmp_path / "folds.csv", dataset.ids)) == [0]


def test_a_large_holdout_leaves_a_group_to_train_on(tmp_path: Path) -> None:
    """Two wells and --holdout 0.8: both would be nearer to that share than one, and nothing would train."""
    dataset = make_dataset(tmp_path / "data", 20, {"group": np.arange(20) // 10})
    assert split(dataset, split="holdout", holdout=0.8).value_counts().to_dict() == {0: 10, 1: 10}


def test_table_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = make_dataset(tmp_path / "data", 12, {"cell_type": ["astro", "cort"] * 6})
    with caplog.at_level(logging.INFO):
        split(dataset, k=2)
    assert "astro" in caplog.text
    assert "total" in caplog.text


# ---------------------------------------------------------------------------------------- bad input


def test_existing_table_is_kept(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", 12, {})
    before = fold_table_hash(split(dataset, k=2))
    with pytest.raises(FoldError, match=r"folds\.csv exists already .*Add --overwrite"):
        split(dataset, k=3)
    with pytest.raises(FoldError, match="--group nope"):  # no advice to overwrite with a mistake
        split(dataset, k=3, group="nope")
    assert dataset.folds_hash() == before


@pytest.mark.parametrize("flag", ["group", "stratify"])
def test_unknown_column(tmp_path: Path, flag: str) -> None:
    dataset = make_dataset(tmp_path / "data", 12, {"well": range(12)})
    with pytest.raises(FoldError, match=rf"--{flag} plate: .* It has: id, file, .*well"):
        split(dataset, **{flag: "plate"})
    assert not dataset.folds_path.exists()


def test_too_few_groups(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", 12, {"group": [0, 1, 2] * 4})
    with pytest.raises(FoldError, match="5 folds need at least 5 groups, found 3"):
        split(dataset, k=5)
    assert not dataset.folds_path.exists()


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", 12, {})
    with pytest.raises(ConfigError, match="--k must be at least 2"):
        split(dataset, k=1)


def test_rare_strata_are_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = make_dataset(tmp_path / "data", 22, {"cell_type": ["a"] * 20 + ["b"] * 2})
    split(dataset, k=5)
    assert "cell_type 'b' has 2 group(s) for 5 folds" in caplog.text


def test_leak_of_a_group_in_a_table_by_hand(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", 4, {"sample_id": ["s1", "s1", "s2", "s3"]})
    dataset.folds_path.write_text("id,fold\ni000,0\ni001,1\ni002,1\ni003,0\n")
    with pytest.raises(LeakError) as caught:
        load_folds(dataset)
    assert "sample_id s1: i000 in fold 0, i001 in fold 1" in str(caught.value)
    assert "cellflow folds --overwrite" in str(caught.value)
    dataset.folds_path.write_text("id,fold\ni000,0\ni001,0\ni002,1\ni003,0\n")
    assert load_folds(dataset).tolist() == [0, 0, 1, 0]


def test_leak_of_one_image_under_two_names(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", 4, {}, {3: 0})
    dataset.folds_path.write_text("id,fold\ni000,0\ni001,0\ni002,1\ni003,1\n")
    with pytest.raises(LeakError, match=r"the same image .*: i000 in fold 0, i003 in fold 1"):
        load_folds(dataset)


def test_a_reserved_image_leaks_too(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", 4, {}, {3: 0})
    folds = pd.Series([0, 0, 1, -1], index=dataset.ids)
    with pytest.raises(LeakError, match="i003 in fold -1"):
        check_leaks(dataset.images, folds, None)


def test_edited_table_is_checked_with_its_own_group(tmp_path: Path) -> None:
    columns: Columns = {"sample_id": range(6), "plate": [0, 0, 1, 1, 2, 2]}
    dataset = make_dataset(tmp_path / "data", 6, columns)
    folds = split(dataset, k=3, group="plate")
    text = dataset.folds_path.read_text()
    other = (folds["i000"] + 1) % 3
    dataset.folds_path.write_text(text.replace(f"i000,{folds['i000']}", f"i000,{other}"))
    with pytest.raises(LeakError, match="plate 0: i000"):
        load_folds(dataset)


def test_many_leaks_are_cut(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", 40, {"group": np.arange(40) // 2})
    folds = pd.Series([0, 1] * 20, index=dataset.ids)
    with pytest.raises(LeakError, match="and 10 more"):
        check_leaks(dataset.images, folds, "group")


def test_missing_group_column_of_an_old_table(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", 6, {"plate": [0, 0, 1, 1, 2, 2]})
    split(dataset, k=3, group="plate")
    edited = (dataset.path / "images.csv").read_text().replace("plate", "dish")
    (dataset.path / "images.csv").write_text(edited)
    with pytest.raises(FoldError, match=r"group in folds\.json plate: images\.csv has no such"):
        load_folds(Dataset.open(dataset.path))


# -------------------------------------------------------------------------------------- real images


def test_real_samples_are_not_split(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "kaggle_layout"
    dataset = prepare(PrepareConfig(source=source, out=tmp_path / "data"))
    folds = split(dataset, k=5, calibration=0.15)
    assert spread(dataset, folds, "sample_id").max() == 1
    counts = pd.crosstab(folds, dataset.images["cell_type"])
    assert counts.to_numpy().min() >= 1
    assert 8 <= (folds == -1).sum() <= 17
