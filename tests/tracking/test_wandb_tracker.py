from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from wandb_file import recorded

from cellflow.config.tracking import TrackingConfig
from cellflow.tracking.wandb_tracker import WandbTracker

SUMMARY = {"fold": 0, "finished": "epochs", "best_score": 0.31, "best_epoch": 2, "events": []}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb-cache"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def tracker(folder: Path, **config: Any) -> WandbTracker:
    settings = TrackingConfig(wandb=True, wandb_project="project", **config)
    return WandbTracker(settings, folder, experiment="exp", uid="u1")


def test_fold_is_recorded_with_everything(
    tmp_path: Path, start: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "best.pt"
    model.write_bytes(b"weights")
    hooks, variables = (sys.exit, sys.excepthook), dict(os.environ)
    wandb = tracker(tmp_path)
    wandb.start_fold(0, start | {"comment": "first", "environment": "kaggle"})
    for epoch in (1, 2):
        scores = {"val_score": 0.3, "score/cort": 0.4} if epoch == 2 else {"val_score": math.nan}
        row = {"epoch": epoch, "train_loss": 1 / epoch, "learning_rate": 0.1} | scores
        wandb.log_epoch(0, row)
    wandb.log_examples(0, 2, {"cell-1": np.full((8, 9, 3), 7, np.uint8)})
    links = wandb.links()
    wandb.end_fold(0, SUMMARY, model)
    wandb.close()

    (found,) = recorded(tmp_path)
    assert (found.run.run_id, found.run.project, found.run.run_group) == (
        "u1-fold_0",
        "project",
        "exp",
    )
    assert (found.run.job_type, found.run.display_name) == ("fold", "exp fold 0")
    assert (found.run.notes, found.run.host) == ("first", "kaggle")
    assert found.config["optim"] == {"n_epochs": 3}
    assert (found.config["fold"], found.config["training"]) == (0, 12)
    assert found.config["host"] == {"environment": "kaggle", "cores": 4}
    assert found.metrics["*"] == "epoch"
    first, second, pictures = found.rows
    assert (first["epoch"], first["train_loss"]) == (1, 1.0) and "val_score" not in first
    assert (second["epoch"], second["score/cort"], second["learning_rate"]) == (2, 0.4, 0.1)
    assert (pictures["epoch"], pictures["examples/cell-1.caption"]) == (2, "cell-1")
    assert (found.summary["best_score"], found.exit_code) == (0.31, 0)
    (artifact,) = found.artifacts
    assert (artifact.type, artifact.name) == ("model", "exp-fold_0")
    assert [Path(item.local_path) for item in artifact.manifest.contents] == [model]
    folder = tmp_path / links["wandb"]["fold_0"]  # type: ignore[index]
    (picture,) = folder.glob("files/media/images/**/*.png")
    assert picture.name in str(pictures["examples/cell-1.path"])

    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if b"anna-laptop" in path.read_bytes()]
    assert (sys.exit, sys.excepthook) == hooks
    assert dict(os.environ) == variables
    assert capfd.readouterr() == ("", "")


def test_run_as_a_whole(tmp_path: Path, metadata: dict[str, Any]) -> None:
    wandb = tracker(tmp_path)
    wandb.update_run(metadata | {"cv": None, "thresholds": None, "status": "trained"})
    wandb.update_run(metadata)
    wandb.finish(metadata)
    assert list(wandb.links()["wandb"]) == ["run"]
    (found,) = recorded(tmp_path)
    assert (found.run.run_id, found.run.job_type) == ("u1-run", "cv")
    assert found.run.display_name == "exp"
    assert (found.summary["cv/raw"], found.summary["cv/post"]) == (0.3123123, 0.3301)
    assert found.summary["cv/per_type/cort/best_epoch"] == 0.4
    assert (found.summary["status"], found.config["config_hash"]) == ("calibrated", "c1")
    tables = {
        path.name.partition("_")[0]: json.loads(path.read_text())
        for path in tmp_path.glob("wandb/*/files/media/table/*.json")
    }
    assert tables["thresholds"] == {
        "columns": ["cell type", "cellprob_threshold", "flow_threshold"],
        "data": [["all types", 0.0, 0.4], ["cort", -0.5, 0.6]],
    }
    assert len(tables["folds"]["data"]) == 2


def test_folds_one_after_another_and_the_run_beside_them(
    tmp_path: Path, start: dict[str, Any], metadata: dict[str, Any]
) -> None:
    wandb = tracker(tmp_path)
    for fold in (0, 1):
        wandb.start_fold(fold, start)
        wandb.log_epoch(fold, {"epoch": 1, "train_loss": float(fold)})
        wandb.end_fold(fold, SUMMARY, tmp_path / "none.pt")
    wandb.update_run(metadata)
    wandb.close()
    found = {item.run.run_id: item for item in recorded(tmp_path)}
    assert sorted(found) == ["u1-fold_0", "u1-fold_1", "u1-run"]
    assert [found[f"u1-fold_{fold}"].rows[0]["train_loss"] for fold in (0, 1)] == [0, 1]
    assert {item.exit_code for item in found.values()} == {0}


RESUMED = """
import sys
from pathlib import Path
from cellflow.config.tracking import TrackingConfig
from cellflow.tracking import open_trackers
with open_trackers(TrackingConfig(wandb=True), Path(sys.argv[1]), experiment="exp") as trackers:
    trackers.start_fold(0, {"config": {}})
    for epoch in map(int, sys.argv[2:]):
        trackers.log_epoch(0, {"epoch": epoch, "train_loss": 0.5})
    if epoch == 2:
        raise KeyboardInterrupt
    trackers.end_fold(0, {"best_score": 0.3}, Path("none"))
"""


@pytest.mark.slow
def test_resume_in_another_process_goes_on_under_the_same_id(tmp_path: Path) -> None:
    for epochs in ("1 2", "3"):
        subprocess.run(
            [sys.executable, "-c", RESUMED, tmp_path, *epochs.split()], capture_output=True
        )
    first, second = recorded(tmp_path)
    assert first.run.run_id == second.run.run_id
    assert [row["epoch"] for row in first.rows + second.rows] == [1, 2, 3]
    assert (first.exit_code, second.exit_code) == (1, 0)
    assert second.metrics["*"] == "epoch"


@pytest.mark.parametrize("opened", [True, False])
def test_failure_marks_what_is_open_and_the_run(
    tmp_path: Path, start: dict[str, Any], opened: bool
) -> None:
    wandb = tracker(tmp_path)
    if opened:
        wandb.start_fold(0, start)
    wandb.fail("fold 0", "no disk")
    found = recorded(tmp_path)
    assert len(found) == 1 + opened
    assert {(item.summary["failed"], item.exit_code) for item in found} == {("fold 0: no disk", 1)}


def test_without_credentials_it_asks_nobody_and_records_offline(tmp_path: Path) -> None:
    code = """
import logging, sys
from pathlib import Path
from cellflow.config.tracking import TrackingConfig
from cellflow.tracking import open_trackers
logging.basicConfig(format="%(levelname)s %(message)s")
with open_trackers(TrackingConfig(wandb=True), Path(sys.argv[1]), experiment="exp") as trackers:
    for fold in (0, 1):
        trackers.start_fold(fold, {"config": {}})
        trackers.end_fold(fold, {}, Path("none"))
"""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environ |= {"HOME": str(tmp_path / "home"), "NETRC": str(tmp_path / "none")}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "run"],
        capture_output=True, text=True, env=environ, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("WARNING") == len(done.stderr.splitlines()) == 1
    assert "no credentials" in done.stderr and "wandb sync" in done.stderr
    assert len(recorded(tmp_path / "run")) == 2


ONLINE = """
import logging, sys
from pathlib import Path
import cellflow.tracking.wandb_tracker as module
from cellflow.config.tracking import TrackingConfig
from cellflow.tracking import open_trackers
module._SETTINGS["init_timeout"] = 1.0
logging.basicConfig(format="%(levelname)s %(message)s")
with open_trackers(TrackingConfig(wandb=True), Path(sys.argv[1]), experiment="exp") as trackers:
    trackers.start_fold(0, {"config": {}})
    trackers.end_fold(0, {"best_score": 0.25}, Path("none"))
"""


@pytest.mark.parametrize(
    ("answers", "said"), [(False, "cannot be reached"), (True, "refuses to record")]
)
def test_online_that_does_not_work_becomes_offline(
    tmp_path: Path, hook: Any, answers: bool, said: str
) -> None:
    hook.status = 401
    key = "0123456789abcdef0123456789abcdef01234567"
    url = "http://" + urlsplit(hook.url).netloc if answers else "http://127.0.0.1:9"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environ |= {"WANDB_API_KEY": key, "WANDB_BASE_URL": url}
    done = subprocess.run(
        [sys.executable, "-c", ONLINE, tmp_path],
        capture_output=True, text=True, env=environ, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert said in done.stderr and "wandb sync" in done.stderr
    assert done.stderr.count("WARNING") == 1
    assert [item.summary["best_score"] for item in recorded(tmp_path)] == [0.25]
    assert key not in done.stderr + done.stdout
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if key.encode() in path.read_bytes()]


def test_disabled_by_the_environment(tmp_path: Path) -> None:
    environ = os.environ | {"WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", RESUMED, tmp_path, "3"], capture_output=True, text=True, env=environ
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not recorded(tmp_path)
