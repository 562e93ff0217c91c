"""Text that looks like a missing value or a number comes back as it was, from every table and record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellflow.config.catalog import RunsConfig
from cellflow.engine.prediction.result_folder import ResultFolder
from cellflow.engine.runs.catalog import list_runs
from cellflow.engine.runs.contents import TEXT_COLUMNS, read_table
from cellflow.engine.runs.metadata import build_metadata
from cellflow.engine.runs.state import run_labels
from cellflow.engine.segmentation.result import Prediction
from cellflow.engine.validation.cv_table import cross_validation
from cellflow.errors import RunError
from cellflow.io.formats.submission import read_submission
from cellflow.io.tables import read_frame
from cellflow.storage.atomic import write_csv, write_json
from cellflow.storage.run_folder import RunFolder

IDS = ("NA", "nan", "None", "007", "1e5", 'a,"b"', "a;b", "ü 中", "-1", "true", "=1+1")
ANY_TEXT = st.one_of(
    st.sampled_from(["", *IDS, "null", "N/A", "a\rb", "a\nb", " x "]),
    st.text(st.characters(exclude_categories=("Cs",))),
)
quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def prediction(cell_type: str) -> Prediction:
    labels = np.zeros((12, 12), np.int32)
    labels[2:6, 2:6], labels[8:11, 8:11] = 1, 2
    zeros = np.zeros((12, 12), np.float32)
    return Prediction(np.stack([zeros, zeros]), zeros, zeros, labels, 5.0, zeros, cell_type)


def test_tables_of_a_prediction(tmp_path: Path) -> None:
    image = np.zeros((12, 12), np.uint8)
    for names in (IDS[:5], IDS):  # the second time the first rows come from the tables
        with ResultFolder.open(tmp_path / "p", {}) as folder:
            for name in names:
                if name not in folder.done():
                    cells = folder.writer.write(name, prediction(cell_type=name), image)
                    folder.note({name: cells})
            folder.finish(names)
    cells = read_frame(folder.path / "cells.csv", ["id"], text=("id", "cell_type"))
    assert cells["id"].tolist() == [name for name in IDS for _ in range(2)]
    assert cells["cell_type"].tolist() == cells["id"].tolist()
    assert list(read_submission(folder.path / "submission.csv")) == list(IDS)


@quick
@given(texts=st.lists(st.tuples(ANY_TEXT.filter(bool), ANY_TEXT, ANY_TEXT), min_size=2, max_size=6))
def test_tables_of_a_run(tmp_path: Path, texts: list[tuple[str, str, str]]) -> None:
    scores = read_scores(tmp_path, texts)
    assert list(zip(scores["id"], scores["cell_type"], scores["group"], strict=True)) == texts
    cv = cross_validation(scores)
    write_csv(tmp_path / "cv.csv", cv)
    back = read_frame(tmp_path / "cv.csv", text=TEXT_COLUMNS)
    assert back["name"].tolist() == cv["name"].tolist()
    assert np.array_equal(back["best_epoch"], cv["best_epoch"])
    assert back["cross_fitted"].isna().all()


def read_scores(folder: Path, texts: list[tuple[str, str, str]]) -> pd.DataFrame:
    table = pd.DataFrame(texts, columns=["id", "cell_type", "group"])
    numbers = dict.fromkeys(("score", "ap50", "ap75", "last_epoch_score"), 0.1 + 0.2)
    table = table.assign(fold=0, n_true=3, selection_bias=0.0, **numbers)
    write_csv(folder / "scores.csv", table)
    return read_table(folder / "scores.csv", ["id", "fold", "score"])


@quick
@given(comment=ANY_TEXT)
def test_comments(tmp_path: Path, comment: str) -> None:
    run = RunFolder(tmp_path / "runs" / "a")
    run.path.mkdir(parents=True, exist_ok=True)
    record = {"data": "d", "data_hash": "h", "folds_hash": "f", "folds": [0], "config": {}}
    run.write_record(record)
    write_json(run.tracking, {"settings": {"comment": comment}, "links": {}})
    assert run_labels(run, None).comment == comment
    assert build_metadata(run)["comment"] == comment
    table = list_runs(RunsConfig(runs_dir=tmp_path / "runs"))
    assert table["comment"].tolist() == [comment]


def test_a_table_without_ids_or_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for text, message in (
        ("id,fold\n,1\n", "expected a value as id"),
        ("id,fold\na,\n", "expected a value as fold"),
        ("id,fold\n", "expected rows, found none"),
        ("id,fold\na,x\n", "line 2: expected a number as fold, found 'x'. Repeat the command"),
        ("id\na\n", "not found: fold"),
    ):
        path.write_text(text)
        with pytest.raises(RunError, match=message):
            read_table(path, ["id", "fold"])
