"""`cellflow prepare --audit` with lists of all kinds: hostile ids, edited rows, other data, empty lists."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

import cellflow
from cellflow import PrepareConfig, cli
from cellflow.errors import ConfigError, DataError
from cellflow.io.audit_list import (
    COLUMNS,
    AuditRow,
    read_audit_list,
    read_decisions,
    row_check,
    write_audit_list,
)
from cellflow.io.dataset import Dataset
from cellflow.numeric.rle import rle_encode, rles_from_instances

IDS = ["=1+1, it's", "'+2", "b & (c)", "007", "plain"]
SHAPE = (40, 50)


@pytest.fixture(autouse=True)
def _hear_all(caplog):
    caplog.set_level("INFO", logger="cellflow")


def box(y0, x0, y1, x1) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Five images, each with three cells in a row."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "source" / folder).mkdir(parents=True)
    labels = np.zeros(SHAPE, np.uint16)
    for number, x in enumerate((2, 18, 34), 1):
        labels[5:20, x : x + 12] = number
    for name in IDS:
        image = rng.integers(0, 255, SHAPE, np.uint8)
        tifffile.imwrite(tmp_path / "source" / "images" / f"{name}.tif", image)
        tifffile.imwrite(tmp_path / "source" / "masks" / f"{name}.tif", labels)
    return cellflow.prepare(PrepareConfig(tmp_path / "source", out=tmp_path / "data"))


def row(
    data: Dataset, name: str, cells: tuple[int, ...], verdict: str, *proposal: np.ndarray
) -> AuditRow:
    runs = rles_from_instances(data.instances(name))
    texts = tuple(map(rle_encode, proposal))
    check = row_check(name, [runs[cell - 1] for cell in cells], texts)
    return AuditRow(
        name, cells, "outline" if cells else "missing", texts, check, data.hash, verdict, 0.5, "so, \"it\"\nis"
    )  # fmt: skip


def applied(data: Dataset, *rows: AuditRow) -> Dataset:
    path = data.path.parent / "list.csv"
    write_audit_list(path, rows)
    out = data.path.parent / "audited"
    return cellflow.prepare(PrepareConfig(data.path, audit=path, out=out, overwrite=True))


def masks(dataset: Dataset, name: str) -> list[np.ndarray]:
    found = []
    for starts, lengths in dataset.instances(name):
        mask = np.zeros(SHAPE[0] * SHAPE[1], dtype=bool)
        for start, length in zip(starts, lengths, strict=True):
            mask[start : start + length] = True
        found.append(mask.reshape(SHAPE))
    return found


def test_each_mark_does_what_it_says_and_ids_may_hold_anything(data, caplog):
    moved, first, second, new = (
        box(8, 3, 22, 14),
        box(5, 18, 20, 24),
        box(5, 24, 20, 30),
        box(25, 5, 35, 15),
    )
    made = applied(
        data,
        row(data, IDS[0], (1,), "fix", moved),
        row(data, IDS[1], (2,), "fix", first, second),
        row(data, IDS[2], (1, 2), "fix", box(5, 2, 20, 30)),
        row(data, IDS[3], (), "fix", new),
        row(data, IDS[4], (3,), "drop"),
    )
    a, b, c = masks(data, IDS[0])
    expected = [
        [moved, b, c],
        [a, first, second, c],
        [box(5, 2, 20, 30), c],
        [a, b, c, new],
        [a, b],
    ]
    for name, wanted in zip(IDS, expected, strict=True):
        assert [m.tolist() for m in masks(made, name)] == [m.tolist() for m in wanted]
    assert f"--audit: {IDS[1]}: 1 fixed; 4 cells, before 3" in caplog.text
    assert f"--audit: {IDS[3]}: 1 added; 4 cells, before 3" in caplog.text
    assert f"--audit: {IDS[4]}: 1 dropped; 2 cells, before 3" in caplog.text
    assert Dataset.open(data.path).hash == data.hash  # the old one is as it was


def test_what_was_decided_is_kept(data):
    own = rles_from_instances(data.instances("plain"))
    made = applied(data, row(data, "plain", (2,), "ok"), row(data, "plain", (3,), "drop"))
    kept = read_decisions(made.path)
    assert [(item.id, item.verdict, item.annotations) for item in kept] == [
        ("plain", "ok", (own[1],)), ("plain", "drop", (own[2],)),
    ]  # fmt: skip


def test_a_proposal_takes_no_pixel_of_a_neighbour(data):
    wide = box(5, 2, 20, 34)  # over all of the second cell, and parts on both sides of it
    made = applied(data, row(data, "plain", (1,), "fix", wide))
    first, second, third = masks(made, "plain")
    assert np.array_equal(second, masks(data, "plain")[1])
    assert np.array_equal(first, box(5, 2, 20, 18))  # the larger part of what is left
    assert not (first & second).any()
    assert third.any()


def test_two_new_cells_share_no_pixel(data):
    one, other = box(22, 5, 30, 20), box(26, 10, 38, 25)
    made = applied(data, row(data, "plain", (), "fix", one), row(data, "plain", (), "fix", other))
    *_, first, second = masks(made, "plain")
    assert np.array_equal(first, one)
    assert np.array_equal(second, other & ~one)


def refused(data: Dataset, *rows: AuditRow) -> str:
    with pytest.raises(DataError) as error:
        applied(data, *rows)
    assert not (data.path.parent / "audited").exists()
    return str(error.value)


def test_a_list_of_other_data_is_refused(data):
    wrong = replace(row(data, "plain", (1,), "drop"), data_hash="0" * 32)
    said = refused(data, row(data, "007", (1,), "ok"), wrong)
    assert "list.csv line 4" in said  # a reason has two lines
    assert f"expected data hash {data.hash}, found {'0' * 32}" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "other"}, "line 2: no image 'other'"),
        ({"cells": (4,)}, "line 2: no cell 4 in plain, which has 3"),
        ({"cells": (2,)}, "line 2: the cells or the proposal are not those"),
        ({"proposal": ("1 5",)}, "line 2: the cells or the proposal are not those"),
        ({"verdict": "fix"}, "line 2: nothing is proposed for cell 1 of plain. Say ok or drop"),
        ({"verdict": "remove"}, "line 2: expected ok or fix or drop as verdict, or nothing, found 'remove'"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_refused_with_its_line(data, change, said):
    assert said in refused(data, replace(row(data, "plain", (1,), "drop"), **change))


def test_what_cannot_be_done_is_refused(data):
    said = refused(data, row(data, "plain", (), "drop", box(25, 5, 35, 15)))
    assert "no annotation to drop in plain" in said
    said = refused(data, row(data, "plain", (), "fix", box(6, 3, 10, 10)))
    assert "other annotations have all pixels" in said


def test_two_rows_about_one_annotation_must_agree(data):
    twice = [row(data, "plain", (1, 2), "ok"), row(data, "plain", (2,), "drop")]
    assert "line 4: line 2 says ok of cell 1, 2 of plain already" in refused(data, *twice)
    twice = [row(data, "plain", (), "fix", box(25, 5, 35, 15))] * 2
    assert "line 2 says fix of a new cell of plain already" in refused(data, *twice)
    made = applied(data, row(data, "plain", (1, 2), "ok"), row(data, "plain", (2,), "ok"))
    assert made.hash == data.hash


def test_nothing_marked_changes_nothing_and_is_said(data, caplog):
    made = applied(data, row(data, "plain", (1,), ""))
    assert made.hash == data.hash
    assert "nothing is marked, so nothing is changed" in caplog.text
    assert applied(data).hash == data.hash  # no row at all


def test_a_number_that_is_none_is_refused(data, tmp_path):
    path = tmp_path / "list.csv"
    write_audit_list(path, [row(data, "plain", (1,), "drop")])
    path.write_text(path.read_text().replace("plain,1,", "plain,first,"))
    with pytest.raises(
        DataError, match="line 2: expected numbers of cells from 1 as cell, found 'first'"
    ):
        cellflow.prepare(PrepareConfig(data.path, audit=path, out=tmp_path / "audited"))


def test_an_audit_is_of_a_dataset(data, tmp_path):
    path = tmp_path / "list.csv"
    write_audit_list(path, [])
    with pytest.raises(ConfigError, match="--audit is for the dataset folder that was audited"):
        cellflow.prepare(PrepareConfig(tmp_path / "source", audit=path, out=tmp_path / "audited"))


def test_the_marks_come_before_the_fixes(data):
    hollow = box(25, 5, 35, 15) & ~box(28, 8, 32, 12)
    path = data.path.parent / "list.csv"
    write_audit_list(path, [row(data, "plain", (), "fix", hollow)])
    words = [
        "prepare",
        data.path,
        "--audit",
        path,
        "--fix",
        "fill",
        "--out",
        data.path.parent / "audited",
    ]
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    assert not end.value.code
    assert np.array_equal(masks(Dataset.open(words[-1]), "plain")[-1], box(25, 5, 35, 15))


def test_the_list_as_a_spreadsheet_saves_it(data, tmp_path):
    path = tmp_path / "list.csv"
    rows = [replace(row(data, name, (1,), "drop"), fold=0) for name in IDS]
    write_audit_list(path, rows)
    with path.open(newline="") as file:
        table = list(csv.reader(file))
    assert tuple(table[0]) == COLUMNS
    assert not any(field.startswith(("=", "+", "-", "@")) for line in table for field in line)
    head, *body = table
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        shouted = [[*line[:3], line[3].upper(), *line[4:]] for line in body]
        csv.writer(file, delimiter=";").writerows([head, *shouted])
    again = read_audit_list(path)
    assert [(item.id, item.cells, item.verdict, item.check) for item in again] == [
        (item.id, item.cells, item.verdict, item.check) for item in rows
    ]
