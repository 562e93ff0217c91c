"""`cellflow audit` and `cellflow prepare --audit`, from files to files."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from audit_runs import Seen, seen_by_model

import cellflow
from cellflow import AuditConfig, PrepareConfig, VerifyConfig, cli
from cellflow.errors import RunError
from cellflow.io.audit_list import read_audit_list, write_audit_list
from cellflow.io.dataset import Dataset
from cellflow.numeric.rle import rle_decode, rles_from_instances


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    return int(end.value.code or 0)


def without(number: int):
    return lambda labels: np.where(labels == number, 0, labels)


def with_corner(labels: np.ndarray) -> np.ndarray:
    """With a cell of 12 x 12 pixels in the emptiest corner."""
    corners = [
        labels[y, x] for y in (slice(12), slice(-12, None)) for x in (slice(12), slice(-12, None))
    ]
    corner = min(corners, key=np.count_nonzero)
    corner[corner == 0] = 99
    return labels


def two_as_one(labels: np.ndarray) -> np.ndarray:
    """The two cells that touch most are one."""
    pairs = np.stack([labels[:, 1:].ravel(), labels[:, :-1].ravel()])
    pairs = np.sort(pairs[:, (pairs[0] != pairs[1]) & pairs.all(axis=0)], axis=0)
    if not pairs.size:
        pytest.skip("no two cells touch in this image")
    found, counts = np.unique(pairs, axis=1, return_counts=True)
    first, second = found[:, counts.argmax()]
    return np.where(labels == second, first, labels)


@pytest.fixture
def seen(predicted) -> Seen:
    names = Dataset.open(predicted.data).ids
    changes = {names[0]: two_as_one, names[1]: with_corner, names[4]: without(1)}
    return seen_by_model(predicted, changes)


def test_files_to_files(seen, tmp_path, capsys, caplog):
    assert command("audit", *seen.words) == 0
    said = capsys.readouterr().out
    assert "6 images looked at, 3 suspicions" in said
    table, page = seen.run.path / "audit.csv", seen.run.path / "audit.html"
    assert str(page) in said
    rows = read_audit_list(table)
    names = seen.data.ids
    assert {row.id: row.kind for row in rows} == {
        names[0]: "split", names[1]: "missing", names[4]: "unseen",
    }  # fmt: skip
    with table.open(newline="") as file:
        raw = {row["id"]: row for row in csv.DictReader(file)}
    assert all(0.85 < float(row["suspicion"]) <= 1 for row in raw.values())
    box = [int(raw[names[4]][key]) for key in ("box_y0", "box_x0", "box_y1", "box_x1")]
    y, x = np.nonzero(seen.data.labels(names[4]) == 1)
    assert box == [y.min(), x.min(), y.max() + 1, x.max() + 1]
    text = page.read_text()
    assert text.count('class="card"') == 3
    assert "data:image/webp" in text

    # One is fixed, one added, one dropped.
    verdicts = {"split": "fix", "missing": "fix", "unseen": "drop"}
    marked = tmp_path / "list.csv"
    write_audit_list(marked, [replace(row, verdict=verdicts[row.kind]) for row in rows])
    out = tmp_path / "audited"
    assert command("prepare", seen.data.path, "--audit", marked, "--out", out) == 0
    log = caplog.text
    assert f"{names[0]}: 1 fixed; " in log
    assert f"{names[1]}: 1 added; " in log
    assert f"{names[4]}: 1 dropped; " in log
    new, old = Dataset.open(out), seen.data
    counts = [
        new.images.at[name, "n_instances"] - old.images.at[name, "n_instances"] for name in names
    ]
    assert counts == [-1, 1, 0, 0, -1, 0]
    # What the model saw is what is annotated now; what was not marked has not changed.
    masks = {name: new.labels(name) for name in names}
    from cellflow.io.images import read_labels

    for name in (names[0], names[1], names[4]):
        wanted = read_labels(seen.run.oof / "masks" / f"{name}.tif")
        ours = {tuple(np.flatnonzero(masks[name] == n)) for n in np.unique(masks[name])[1:]}
        assert ours == {tuple(np.flatnonzero(wanted == n)) for n in np.unique(wanted)[1:]}
    for name in (names[2], names[3], names[5]):
        assert rles_from_instances(new.instances(name)) == rles_from_instances(old.instances(name))
        assert np.array_equal(new.image(name), old.image(name))
    assert new.folds().equals(old.folds())
    assert yaml.safe_load((out / "prepare.yaml").read_text())["audit"] == str(marked)
    found = cellflow.verify(VerifyConfig(out))
    assert found.problems == 0


def as_trained_on(seen: Seen, data: Path) -> None:
    """The run's record says that it was trained on another dataset, whose cells it sees as before."""
    record = yaml.safe_load(seen.run.record_path.read_text())
    record |= {"data": str(data), "data_hash": Dataset.open(data).hash}
    seen.run.record_path.write_text(yaml.safe_dump(record))


def test_what_was_found_right_is_not_asked_again(seen, tmp_path):
    result = cellflow.audit(AuditConfig(seen.run.name, runs_dir=seen.runs_dir))
    names = seen.data.ids
    verdicts = {"split": "ok", "missing": "ok", "unseen": "ok"}
    write_audit_list(
        tmp_path / "l.csv", [replace(row, verdict=verdicts[row.kind]) for row in result.rows]
    )
    audited = cellflow.prepare(
        PrepareConfig(seen.data.path, audit=tmp_path / "l.csv", out=tmp_path / "audited")
    )
    assert audited.hash == seen.data.hash  # nothing was changed
    as_trained_on(seen, audited.path)
    again = cellflow.audit(AuditConfig(seen.run.name, runs_dir=seen.runs_dir))
    assert (again.rows, again.decided) == ((), 3)
    assert "3 more are not shown" in again.page.read_text()
    # Also where the dataset is prepared once more, for another reason.
    mended = cellflow.prepare(PrepareConfig(audited.path, fix=("keep",), out=tmp_path / "mended"))
    as_trained_on(seen, mended.path)
    assert cellflow.audit(AuditConfig(seen.run.name, runs_dir=seen.runs_dir)).decided == 3
    # Of the old dataset nobody has decided anything.
    as_trained_on(seen, seen.data.path)
    assert len(cellflow.audit(AuditConfig(seen.run.name, runs_dir=seen.runs_dir)).rows) == 3
    assert names == audited.ids


def test_an_annotation_that_was_dropped_is_not_missed_again(predicted, tmp_path):
    name = Dataset.open(predicted.data).ids[4]
    seen = seen_by_model(predicted, {name: without(1)})
    (row,) = cellflow.audit(AuditConfig(seen.run.name, runs_dir=seen.runs_dir)).rows
    write_audit_list(tmp_path / "l.csv", [replace(row, verdict="drop")])
    audited = cellflow.prepare(
        PrepareConfig(seen.data.path, audit=tmp_path / "l.csv", out=tmp_path / "audited")
    )
    other = seen_by_model(predicted)  # sees the cell that is not annotated any more
    as_trained_on(other, audited.path)
    result = cellflow.audit(AuditConfig(seen.run.name, runs_dir=seen.runs_dir))
    assert (result.rows, result.decided) == ((), 1)


def test_without_flows_the_masks_speak(seen, caplog):
    with_flows = cellflow.audit(AuditConfig(seen.run.name, runs_dir=seen.runs_dir))
    shutil.rmtree(seen.run.flows)
    result = cellflow.audit(AuditConfig(seen.run.name, runs_dir=seen.runs_dir))
    assert not result.flows
    assert {(row.id, row.kind, row.cells) for row in result.rows} == {
        (row.id, row.kind, row.cells) for row in with_flows.rows
    }
    assert "flows.zarr is not there" in caplog.text
    assert "flows of the out-of-fold predictions are gone" in result.page.read_text()


def test_masks_that_are_gone_are_said(seen):
    shutil.rmtree(seen.run.oof / "masks")
    with pytest.raises(RunError, match=r"no out-of-fold masks .* cellflow oof"):
        cellflow.audit(AuditConfig(seen.run.name, runs_dir=seen.runs_dir))


def test_the_page_shows_the_first_and_the_table_all(seen):
    result = cellflow.audit(AuditConfig(seen.run.name, runs_dir=seen.runs_dir, n=1))
    text = result.page.read_text()
    assert text.count('class="card"') == 1
    assert "The other 2 are in audit.csv" in text
    assert len(read_audit_list(result.table)) == 3
    (data,) = re.findall(r'id="audit-data">(.*?)</script>', text)
    assert [row["id"] for row in json.loads(data)["rows"]] == [result.rows[0].id]


def test_right_annotations_give_an_empty_page_and_list(predicted):
    seen = seen_by_model(predicted)
    result = cellflow.audit(AuditConfig(seen.run.name, runs_dir=seen.runs_dir))
    assert result.rows == ()
    assert "Nothing is suspected" in result.page.read_text()
    assert read_audit_list(result.table) == []


def test_the_proposal_is_the_predicted_cell(seen):
    rows = cellflow.audit(AuditConfig(seen.run.name, runs_dir=seen.runs_dir)).rows
    row = next(row for row in rows if row.kind == "missing")
    from cellflow.io.images import read_labels

    labels = read_labels(seen.run.oof / "masks" / f"{row.id}.tif")
    assert np.array_equal(rle_decode(row.proposal[0], labels.shape), labels == row.predicted[0])
