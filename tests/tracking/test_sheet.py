from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from fake_sheets import FakeSheets

from cellflow.tracking import sheet_table
from cellflow.tracking.sheet import COLUMNS, SheetTracker
from cellflow.tracking.tracker import TrackerUnavailableError


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet_table, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(sheet_table, "PATIENCE", 5.0)
    for name in ("CELLFLOW_SHEETS_URL", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)


def tracker(sheets: FakeSheets, target: str | None = None, uid: str = "u1") -> SheetTracker:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELLFLOW_SHEETS_URL", sheets.url)
        return SheetTracker(target or sheets.link, experiment="exp", uid=uid)


def test_row_per_fold_and_one_for_the_run(
    tmp_path: Path, start: dict[str, Any], metadata: dict[str, Any]
) -> None:
    with FakeSheets("Season") as sheets:
        sheet = tracker(sheets, "Season")
        start |= {"comment": "first", "environment": "kaggle"}
        sheet.start_fold(0, start | {"trackers": {"wandb": {"fold_0": "https://w.example/0"}}})
        sheet.end_fold(0, {"best_score": 0.31}, tmp_path / "best.pt")
        metadata |= {"comment": "first", "publication": {"url": "https://kaggle.example/d"}}
        sheet.update_run(metadata)
        assert tuple(sheets.grid[0]) == COLUMNS
        fold, run = sheets.records()
        assert sheet.links() == {"sheet": sheets.link.replace("/edit#", "#")}
    assert fold | {"run id": ""} == {
        "date": "2025-11-24 18:33", "comment": "first", "model": "cellpose CPnet from cyto2", "fold": 0,
        "experiment": "exp", "CV raw": 0.3111, "CV with post-processing": 0.3222, "public LB": "",
        "configuration": "n_epochs=3, pretrained_model=models/cyto2",
        "submission link": "https://kaggle.example/d", "environment": "kaggle",
        "run link": "https://w.example/0", "run id": "",
    }  # fmt: skip
    assert (run["fold"], run["CV raw"], run["CV with post-processing"]) == ("all", 0.31231, 0.3301)
    assert run["date"] == "2025-11-24 18:30"
    assert fold["run id"] != run["run id"]


def test_resume_updates_the_row_and_leaves_people_what_is_theirs(start: dict[str, Any]) -> None:
    with FakeSheets() as sheets:
        tracker(sheets).start_fold(0, start)
        names = sheets.grid[0]
        sheets.grid[1][names.index("public LB")] = 0.329
        sheets.grid[0].append("my notes")
        sheets.grid[1].append("great")
        later = {"started": "2025-11-25T00:00:00+00:00", "comment": "second"}
        tracker(sheets).start_fold(0, start | later)
        tracker(sheets).end_fold(0, {"best_score": 0.4}, Path("best.pt"))
        (row,) = sheets.records()
    assert (row["public LB"], row["my notes"], row["comment"]) == (0.329, "great", "second")
    assert (row["CV raw"], row["date"]) == (0.4, "2025-11-24 18:33")


def test_reordered_header_below_a_title_is_respected(start: dict[str, Any]) -> None:
    grid = [
        ["Our season"],
        ["", "Experiment", "who", " cv  RAW", "fold", "Public LB"],
        ["", "old", "me", 0.2, "all", 0.21],
    ]
    with FakeSheets(grid=grid) as sheets:
        tracker(sheets).start_fold(1, start)
        tracker(sheets).end_fold(1, {"best_score": 0.5}, Path("best.pt"))
        assert sheets.grid[0] == ["Our season"]
        assert sheets.grid[1][:6] == grid[1]
        assert len(sheets.grid[1]) == 6 + len(COLUMNS) - 4
        old, new = sheets.records(header=2)
    assert list(old.values())[:6] == grid[2]
    assert (new["Experiment"], new["who"], new[" cv  RAW"], new["fold"]) == ("exp", "", 0.5, 1)
    assert new["Public LB"] == "" and new["comment"] == "" and new["date"] == "2025-11-24 18:33"


def test_row_whose_id_was_emptied_is_found_by_experiment_and_fold(start: dict[str, Any]) -> None:
    with FakeSheets() as sheets:
        tracker(sheets).start_fold(0, start)
        sheets.grid[1][sheets.grid[0].index("run id")] = ""
        tracker(sheets).end_fold(0, {"best_score": 0.4}, Path("best.pt"))
        (row,) = sheets.records()
    assert row["CV raw"] == 0.4 and row["run id"]


def test_another_run_of_the_same_name_gets_its_own_row(start: dict[str, Any]) -> None:
    with FakeSheets() as sheets:
        tracker(sheets).start_fold(0, start)
        tracker(sheets, uid="u2").start_fold(0, start)
        assert len(sheets.records()) == 2


def test_gap_in_the_table_does_not_shift_a_row(start: dict[str, Any]) -> None:
    with FakeSheets(grid=[["experiment", "", "fold", "run id"]]) as sheets:
        tracker(sheets).start_fold(0, start)
        (row,) = sheets.records()
    assert (row["experiment"], row[""], row["fold"]) == ("exp", "", 0)
    assert row["comment"] == "" and row["environment"] == ""


def test_narrow_tab_is_widened(start: dict[str, Any]) -> None:
    with FakeSheets(grid=[["a", "b"]]) as sheets:
        sheets.columns = 3
        tracker(sheets).start_fold(0, start)
        assert sheets.columns == 2 + len(COLUMNS)
        assert sheets.records()[0]["experiment"] == "exp"


def test_quota_errors_are_retried(start: dict[str, Any]) -> None:
    with FakeSheets() as sheets:
        sheets.failures = [(429, {}), (503, {}), (500, {})]
        tracker(sheets).start_fold(0, start)
        assert len(sheets.records()) == 1 and not sheets.failures


def test_retries_come_to_an_end(start: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeSheets() as sheets:
        sheets.failures = [(429, {})] * 1000
        monkeypatch.setattr(sheet_table, "PATIENCE", 0.1)
        with pytest.raises(Exception, match="429"):
            tracker(sheets).start_fold(0, start)
        assert 2 <= len(sheets.requests) < 20


def test_other_errors_are_not_retried(start: dict[str, Any]) -> None:
    with FakeSheets() as sheets:
        sheets.failures = [(400, {})]
        with pytest.raises(Exception, match="400"):
            tracker(sheets).start_fold(0, start)
        assert len(sheets.requests) == 1


def test_lost_answer_does_not_double_a_row(start: dict[str, Any]) -> None:
    with FakeSheets() as sheets:
        sheets.lose_answers = 1
        tracker(sheets).start_fold(0, start)
        assert len(sheets.records()) == 1
        assert sum(":append" in request for request in sheets.requests) == 1


@pytest.mark.parametrize(
    "target", ["Season", "https://docs.google.com/spreadsheets/d/sheet-0001/edit"]
)
def test_sheet_that_is_not_shared(target: str, start: dict[str, Any]) -> None:
    with FakeSheets("Season") as sheets:
        sheets.shared = False
        with pytest.raises(TrackerUnavailableError, match="share the sheet with"):
            tracker(sheets, target).start_fold(0, start)


def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gspread import auth

    for name in ("DEFAULT_SERVICE_ACCOUNT_FILENAME", "DEFAULT_AUTHORIZED_USER_FILENAME"):
        monkeypatch.setattr(auth, name, tmp_path / "none.json")
    with pytest.raises(TrackerUnavailableError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        SheetTracker("Season", experiment="exp", uid="u")
    broken = tmp_path / "key.json"
    broken.write_text(json.dumps({"type": "service_account", "private_key": "s3cr3t-key"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(broken))
    with pytest.raises(TrackerUnavailableError, match="key file of a service account") as caught:
        SheetTracker("Season", experiment="exp", uid="u")
    assert "s3cr3t" not in str(caught.value)


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "gspread":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TrackerUnavailableError, match=r"pip install 'cellflow\[sheet\]'"):
        SheetTracker("Season", experiment="exp", uid="u")
