"""`folds.json` beside a table that was changed, brought along or damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from cellflow.config import FoldsConfig
from cellflow.engine.data.folds import image_groups, load_folds, validation_folds
from cellflow.engine.data.make_folds import make_folds
from cellflow.errors import FoldError, LeakError
from cellflow.io.dataset import Dataset


@pytest.fixture
def dataset(tiny_data: Path, tmp_path: Path) -> Dataset:
    """Six images, each of a group of its own; the first two are made one group."""
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    table = pd.read_csv(data / "images.csv", dtype=str)
    table.loc[1, "group"] = table.loc[0, "group"]
    table.to_csv(data / "images.csv", index=False)
    return Dataset.open(data)


def bring(dataset: Dataset, folds: list[int]) -> None:
    rows = [f"{name},{fold}" for name, fold in zip(dataset.ids, folds, strict=True)]
    dataset.folds_path.write_text("\n".join(["id,fold", *rows]) + "\n")


def test_another_split_than_the_facts_tell_of(
    dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    make_folds(FoldsConfig(data=dataset.path, split="holdout", overwrite=True))
    assert validation_folds(dataset, load_folds(dataset)) == [0]
    assert not caplog.messages or "another split" not in caplog.text
    bring(dataset, [0, 0, 1, 1, 2, 2])
    assert validation_folds(dataset, load_folds(dataset)) == [0, 1, 2]
    told = [text for text in caplog.messages if "another split" in text]
    assert len(told) == 1
    assert str(dataset.path / "folds.json") in told[0] and "--overwrite" in told[0]


def test_leaks_are_looked_for_in_the_default_groups(dataset: Dataset) -> None:
    make_folds(FoldsConfig(data=dataset.path, k=2, group="id", overwrite=True))
    bring(dataset, [0, 1, 0, 1, 0, 1])
    with pytest.raises(LeakError, match="group"):
        load_folds(dataset)
    bring(dataset, [1, 1, 0, 0, 0, 1])
    load_folds(dataset)
    assert image_groups(dataset, dataset.folds_path).nunique() == 5


@pytest.mark.parametrize(
    ("facts", "there"),
    [
        ({"split": "kfold", "k": 3, "group": None}, True),
        ({"split": "kfold", "k": 5, "group": None}, False),
        ({"split": "holdout", "holdout": 0.2, "group": None}, False),
        ({"group": None}, True),
    ],
)
def test_facts_without_a_hash_count_where_they_fit(
    dataset: Dataset, facts: dict[str, object], there: bool
) -> None:
    bring(dataset, [0, 1, 0, 1, 2, 2])
    (dataset.path / "folds.json").write_text(json.dumps(facts))
    if there:
        load_folds(dataset)
    else:
        with pytest.raises(LeakError):
            load_folds(dataset)


@pytest.mark.parametrize(
    "text",
    ["[1]", '{"group": ["a"]}', '{"split": 3}', "{", '{"hash": {}}', '{"k": [2]}', '"x"', "\x00"],
)
def test_facts_that_are_nonsense_are_named(dataset: Dataset, text: str) -> None:
    bring(dataset, [0, 0, 1, 1, 2, 2])
    (dataset.path / "folds.json").write_text(text)
    try:
        load_folds(dataset)
    except FoldError as error:
        assert str(dataset.path / "folds.json") in str(error)
    else:  # a number of folds that cannot be one tells of no table
        assert text == '{"k": [2]}'


def test_a_damaged_file_goes_with_the_table_that_is_replaced(dataset: Dataset) -> None:
    (dataset.path / "folds.json").write_text("[1]")
    make_folds(FoldsConfig(data=dataset.path, k=3, overwrite=True))
    assert validation_folds(dataset, load_folds(dataset)) == [0, 1, 2]
    with pytest.raises(
        FoldError, match=r"exists already .*folds 0 1 2, groups group, seed 0, 0 of 6"
    ):
        make_folds(FoldsConfig(data=dataset.path, k=2))


def test_a_column_of_groups_that_is_gone_is_named(dataset: Dataset) -> None:
    make_folds(FoldsConfig(data=dataset.path, k=2, overwrite=True))
    path = dataset.path / "folds.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "group": "well"}))
    with pytest.raises(FoldError, match=r"folds\.json.*well"):
        load_folds(dataset)


def test_an_edited_table_is_checked_for_both_columns(dataset: Dataset) -> None:
    table = pd.read_csv(dataset.path / "images.csv", dtype=str)
    table["plate"] = list("aabbcc")
    table["group"] = list("uwuvvw")  # whichever plates are apart, a group is
    table.to_csv(dataset.path / "images.csv", index=False)
    dataset = Dataset.open(dataset.path)
    config = FoldsConfig(data=dataset.path, k=2, group="plate", overwrite=True)
    make_folds(config)
    bring(dataset, [0, 1, 0, 0, 1, 1])
    with pytest.raises(LeakError, match="plate a"):
        load_folds(dataset)
    made = dict(zip("abc", make_folds(config)["fold"][::2], strict=True))
    bring(dataset, [1 - made[plate] for plate in table["plate"]])  # the folds change their numbers
    with pytest.raises(LeakError, match="group"):
        load_folds(dataset)
