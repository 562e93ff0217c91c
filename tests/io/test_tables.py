from __future__ import annotations

import gzip
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellflow.errors import DataError
from cellflow.io.dataset import Dataset, DatasetWriter
from cellflow.io.fold_table import read_fold_table, write_fold_table
from cellflow.io.formats.submission import read_submission, write_submission
from cellflow.io.source import FileImage
from cellflow.io.tables import find_table, read_frame, read_rows, whole_number
from cellflow.numeric.rle import instances_from_rles
from cellflow.storage.atomic import write_csv

NASTY = (
    "", "NA", "NaN", "nan", "None", "null", "N/A", "#N/A", "-inf", "True", "007", "1e5", "1_0", "0x1F",
    '"quoted"', "a,b", "a;b", "a\tb", "a\nb", "a\rb", "a\r\nb", "ü中文🔬", " blanks ", "=1+1", "#",
)  # fmt: skip
"""Texts that readers of tables like to spoil."""
ANY_TEXT = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=("Cs",))))
STRIPPED = ANY_TEXT.map(str.strip)
IDS = st.lists(STRIPPED.filter(bool), min_size=2, max_size=6, unique=True)

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

HEADER = ("id", "annotation")
TABLE = "id,annotation,cell_type\na,1 3,astro\nb,,cört\n"


@quick
@given(rows=st.lists(st.tuples(ANY_TEXT, ANY_TEXT, st.floats() | st.none()), max_size=8))
def test_what_is_written_comes_back(
    tmp_path: Path, rows: list[tuple[str, str, float | None]]
) -> None:
    table = pd.DataFrame(rows, columns=["id", "cell_type", "score"]).assign(fold=range(len(rows)))
    table["score"] = table["score"].astype(float)
    write_csv(tmp_path / "t.csv", table)
    back = read_frame(tmp_path / "t.csv", ["id", "score"], text=("id", "cell_type", "group"))
    assert list(back.columns) == list(table.columns)
    assert back["id"].tolist() == [row[0] for row in rows]
    assert back["cell_type"].tolist() == [row[1] for row in rows]
    assert np.array_equal(back["score"], table["score"], equal_nan=True)
    if rows:
        assert back["fold"].dtype == np.int64


@quick
@given(ids=IDS)
def test_fold_tables_and_submissions_keep_ids(tmp_path: Path, ids: list[str]) -> None:
    folds = pd.Series([place % 2 for place in range(len(ids))], ids, name="fold")
    write_fold_table(tmp_path / "folds.csv", folds, {})
    back = read_fold_table(tmp_path / "folds.csv", ids)
    assert back.to_dict() == folds.to_dict()
    cells = [[], ["1 2"], ["3 4", "9 1"]]
    rows = [(image_id, cells[place % 3]) for place, image_id in enumerate(ids)]
    write_submission(tmp_path / "submission.csv", rows)
    assert read_submission(tmp_path / "submission.csv") == dict(rows)


@quick
@given(texts=st.lists(st.tuples(STRIPPED, STRIPPED, STRIPPED), min_size=1, max_size=4))
def test_images_keep_what_is_known_of_them(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("data")
    file = folder / "x.png"
    file.write_bytes(b"")
    writer = DatasetWriter(folder)
    names = ("cell_type", "group", "comment")
    ids = ("NA", "007", "1e5", "null")[: len(texts)]
    for image_id, values in zip(ids, texts, strict=True):
        columns = dict(zip(names, values, strict=True))
        source = FileImage(image_id, file, columns)
        cells = instances_from_rles(["1 3"], (4, 4))
        writer.add(source, np.zeros((4, 4), np.uint8), cells, pixel_hash="nan")
    writer.finish("test")
    images = Dataset.open(folder).images
    assert {name: tuple(images.loc[name, list(names)]) for name in ids} == dict(
        zip(ids, texts, strict=True)
    )
    assert set(images["pixel_hash"]) == {"nan"}
    assert Dataset.open(folder).hash


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("packed", [False, True])
def test_tables_of_other_programs(
    tmp_path: Path,
    encoding: str,
    separator: str,
    packed: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    content = TABLE.replace(",", separator).replace("\n", "\r\n").encode(encoding)
    path = tmp_path / ("train.csv.gz" if packed else "train.csv")
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    assert find_table(tmp_path, "train.csv") == path
    columns, rows = read_rows(path, HEADER)
    found = list(rows)
    assert columns == ["id", "annotation", "cell_type"]
    assert [row.line for row in found] == [2, 3]
    assert found[1].values == {"id": "b", "annotation": "", "cell_type": "cört"}
    assert ("separated by" in caplog.text) == (separator != ",")


def test_columns_without_a_name_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "train.csv"
    path.write_text(",Unnamed: 0,id,annotation,\n0,0,a,1 3,\n\n,,,,\n1,1,b,,\n")
    columns, rows = read_rows(path, HEADER)
    assert columns == ["id", "annotation"]
    assert [(row.line, row.values["id"]) for row in rows] == [(2, "a"), (5, "b")]
    assert "3 columns without a name left out" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TABLE.encode("latin-1"), r"line 3: expected UTF-8 text, found the byte 0xf6 .*b,,cört"),
        (TABLE.encode("utf-16")[:-1], "damaged UTF-16"),
        (gzip.compress(TABLE.encode(), mtime=0)[:-9], "cannot be read"),
        (b"\x1f\x8b\x08" + bytes(40), "cannot be read"),
        (b"PK\x03\x04" + bytes(40), "an Excel workbook"),
        (b"", "no header"),
        (b"ID,annotation\na,\n", "Capitals count: rename ID to id, or say --id_column ID"),
        (b"name,annotation\na,\n", "say which: --id_column NAME"),
        (b"id,annotation,x,x\n", "the column x is there more than once"),
        (b"id,annotation\na,1 2,3\n", "line 2: expected 2 values, found 3"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_rows(path, HEADER, options={"id": "--id_column"})[1])


def test_a_table_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path, HEADER)


def test_text_where_a_number_belongs(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,score\na,0.5\nb,high\n")
    with pytest.raises(DataError, match=r"t.csv line 3: expected a number as score, found 'high'"):
        read_frame(tmp_path / "t.csv", ["id"], text=("id",))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("64", 64), ("64.0", 64), ("64.", 64), (" 7 ", 7), ("-1", -1), ("007", 7),
        ("64.5", None), ("", None), ("nan", None), ("1e3", None), ("٣", None), ("9" * 19, None),
    ],
)  # fmt: skip
def test_whole_numbers(text: str, number: int | None) -> None:
    assert whole_number(text) == number


def test_a_gzip_that_is_neither_text_nor_whole(tmp_path: Path) -> None:
    """What looked for the line of the odd byte met the wrong sum in its turn."""
    path = tmp_path / "train.csv.gz"
    data = bytearray(gzip.compress(b"id,annotation\na,1 2\n\xff\xfe," + b"x" * 100))
    data[-8:-4] = b"abcd"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"train\.csv\.gz"):
        read_rows(path, ("id",))


def test_lines_of_blanks_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(" \nid,annotation\na,1 2\n\t\n   \nb,3 4\n \n")
    assert [row.values["id"] for row in read_rows(path, ("id", "annotation"))[1]] == ["a", "b"]
