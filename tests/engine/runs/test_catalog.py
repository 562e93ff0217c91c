from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from cellflow.config import MaskConfig, TrainConfig
from cellflow.config.catalog import RunsConfig
from cellflow.engine.runs.catalog import list_runs
from cellflow.engine.runs.metadata import write_metadata
from cellflow.engine.runs.thresholds import Thresholds, write_thresholds
from cellflow.errors import ConfigError, DataError
from cellflow.report.text.runs import runs_text
from cellflow.storage.locks import hold_lock, is_locked
from cellflow.storage.run_folder import RunFolder

Add = Callable[[str], RunFolder]


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    return folder


@pytest.fixture
def add(trained: TrainConfig, runs_dir: Path) -> Add:
    """Add the trained run under a name; its models, which a list never opens, become empty files."""

    def add(name: str) -> RunFolder:
        source = trained.runs_dir / trained.name
        left_out = ("*.pt", "metadata.json", "environment.json", "tracking.json")
        shutil.copytree(source, runs_dir / name, ignore=shutil.ignore_patterns(*left_out))
        run = RunFolder(runs_dir / name)
        for fold in (0, 1):
            run.fold(fold).best.touch()
        return run

    return add


def predicted(run: RunFolder, raw: float, post: float | None) -> None:
    """Tables as `oof` and `calibrate` leave them."""
    run.oof.mkdir()
    rows = [{"id": f"i{k}", "fold": k, "epoch": epoch_of(run, k), "ap50": raw} for k in (0, 1)]
    pd.DataFrame(rows).to_csv(run.scores, index=False)
    run.oof_record.write_text(json.dumps({"policy": "dataset", "models": {}}))
    row = {"scope": "overall", "name": "all", "best_epoch": raw, "cross_fitted": post}
    pd.DataFrame([row | {"low": raw - 0.05, "high": raw + 0.05}]).to_csv(run.cv, index=False)
    if post is not None:
        write_thresholds(run.thresholds, Thresholds(MaskConfig()))


def epoch_of(run: RunFolder, fold: int) -> float:
    return float(json.loads(run.fold(fold).summary.read_text())["best_epoch"])


def listed(runs_dir: Path, **options: object) -> pd.DataFrame:
    return list_runs(RunsConfig(runs_dir=runs_dir, **options))  # type: ignore[arg-type]


def status(runs_dir: Path) -> dict[str, str]:
    table = listed(runs_dir)
    return dict(zip(table["name"], table["status"], strict=True))


def test_status_of_every_kind(add: Add, runs_dir: Path) -> None:
    add("trained")
    add("half").fold(1).summary.unlink()
    predicted(add("predicted"), 0.3, None)
    predicted(add("calibrated"), 0.3, 0.35)
    stale = add("stale")
    predicted(stale, 0.3, 0.35)
    pd.read_csv(stale.scores).assign(epoch=99).to_csv(stale.scores, index=False)
    (runs_dir / "no run").mkdir()
    (runs_dir / "notes.txt").touch()
    assert status(runs_dir) == {
        "trained": "trained",
        "half": "training 1/2 folds",
        "predicted": "predicted",
        "calibrated": "calibrated",
        "stale": "trained",  # its scores are of other models
    }


def test_a_list_of_runs_imports_nothing_heavy(add: Add, runs_dir: Path) -> None:
    add("trained")
    predicted(add("calibrated"), 0.3, 0.35)
    program = (
        "import sys; from cellflow.cli import run_command\n"
        f"run_command('runs', ['--runs_dir', {str(runs_dir)!r}])\n"
        "heavy = {'torch', 'sklearn', 'numba', 'scipy', 'matplotlib', 'zarr'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "calibrated" in done.stdout


def test_damaged_runs_are_shown(add: Add, runs_dir: Path) -> None:
    add("record").record_path.write_text("{")
    add("lost").record_path.unlink()
    add("model").fold(0).best.unlink()
    add("fine").cv.write_bytes(b"\x00\xff")
    table = listed(runs_dir).set_index("name")
    assert dict(table["status"]) == dict.fromkeys(("record", "lost", "model"), "broken") | {
        "fine": "trained"
    }
    text = runs_text(listed(runs_dir))
    assert "model: fold 0: trained, but best.pt is gone" in text
    assert f"lost: {runs_dir / 'lost' / 'config.yaml'} cannot be read" in text
    assert table.loc["fine", "problem"] == ""


def test_a_run_that_is_trained_now(add: Add, runs_dir: Path) -> None:
    run = add("now")
    run.fold(1).summary.unlink()
    with hold_lock(run.fold(1).lock, "fold 1"):
        before = run.fold(1).lock.read_text()
        assert is_locked(run.fold(1).lock) and not is_locked(run.fold(0).lock)
        assert status(runs_dir) == {"now": "running 1/2 folds"}
        assert run.fold(1).lock.read_text() == before
    assert status(runs_dir) == {"now": "training 1/2 folds"}
    assert not is_locked(runs_dir / "none")
    with hold_lock(run.fold(1).lock, "fold 1"):  # a look does not keep it
        pass


def test_columns(add: Add, runs_dir: Path) -> None:
    run = add("exp")
    predicted(run, 0.25, 0.5)
    tracking = {"settings": {"comment": "two\nlines", "environment": "colab"}}
    run.tracking.write_text(json.dumps(tracking))
    record = run.read_record()
    record["config"]["debug"] = True
    run.write_record(record)
    os.utime(run.record_path, (86400, 86400))
    row = listed(runs_dir).iloc[0]
    assert (row["cv_raw"], row["cv_post"], row["folds"]) == (0.25, 0.5, 2)
    assert (row["low"], row["high"]) == pytest.approx((0.2, 0.3))
    assert (row["comment"], row["host"], row["debug"]) == ("two\nlines", "colab", True)
    assert row["date"].startswith("1970-01-02T00:00:00")
    text = runs_text(listed(runs_dir))
    for part in (
        "exp (debug)",
        "0.2500",
        "0.5000",
        "0.200 to 0.300",
        "two lines",
        "1970-01-02 00:00",
    ):
        assert part in text
    assert len(text.splitlines()) == 2


def test_metadata_say_when_a_copy_was_made_first(add: Add, runs_dir: Path) -> None:
    run = add("exp")
    found = write_metadata(run) | {"created": "2001-01-01T00:00:00+00:00", "comment": "kept"}
    run.metadata.write_text(json.dumps(found))
    row = listed(runs_dir).iloc[0]
    assert row["date"].startswith("2001") and row["comment"] == "kept"
    run.metadata.write_text("[]")
    assert not listed(runs_dir).iloc[0]["date"].startswith("2001")


def test_order_and_number(add: Add, runs_dir: Path) -> None:
    for day, (name, raw, post) in enumerate(
        (("b", 0.2, 0.3), ("a", 0.4, None), ("d", 0.1, 0.5), ("c", None, None))
    ):
        run = add(name)
        if raw is not None:
            predicted(run, raw, post)
        os.utime(run.record_path, (day * 86400, day * 86400))
    assert "".join(listed(runs_dir)["name"]) == "cdab"
    assert "".join(listed(runs_dir, sort="cv")["name"]) == "dabc"
    assert "".join(listed(runs_dir, sort="name")["name"]) == "abcd"
    assert "".join(listed(runs_dir, most=2)["name"]) == "cd"
    assert list(listed(runs_dir, sort="cv").index) == [0, 1, 2, 3]


def test_no_runs(runs_dir: Path) -> None:
    table = listed(runs_dir)
    assert table.empty and list(table)[:3] == ["name", "status", "cv_raw"]
    assert runs_text(table) == "no runs"
    with pytest.raises(DataError, match=r"No folder .*none"):
        listed(runs_dir / "none")
    with pytest.raises(ConfigError, match="--most must not be negative"):
        listed(runs_dir, most=-1)


def test_folds_are_in_the_order_of_their_numbers(runs_dir: Path) -> None:
    run = RunFolder(runs_dir / "exp")
    for fold in (10, 2, 0):
        run.fold(fold).path.mkdir(parents=True)
    assert [files.path.name for files in run.fold_folders()] == ["fold_0", "fold_2", "fold_10"]
