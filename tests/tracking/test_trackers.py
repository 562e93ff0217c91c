from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_sheets import FakeSheets

from cellflow.config import check_config
from cellflow.config.tracking import TrackingConfig
from cellflow.errors import ConfigError
from cellflow.tracking import (
    NO_TRACKERS,
    Trackers,
    open_trackers,
    read_journal,
    reopen_trackers,
)
from cellflow.tracking.journal import Journal
from cellflow.tracking.tracker import Links, Tracker, TrackerUnavailableError

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "KAGGLE_KEY": "kaggle-s3cr3t",
    "KAGGLE_API_TOKEN": "KGAT_s3cr3t-token",
    "MY_PASSWORD": "pass-s3cr3t-word",
}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


class Recorder(Tracker):
    """A tracker that keeps what it is told, and fails when asked to."""

    name, advice, takes_pictures = "recorder", "do something", True

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.error: BaseException | None = None

    def _tell(self, what: str, content: Any = None) -> None:
        if self.error is not None:
            raise self.error
        self.told.append((what, content))

    def start_fold(self, fold: int, start: Mapping[str, Any]) -> None:
        self._tell("start", start)

    def log_epoch(self, fold: int, row: Mapping[str, float]) -> None:
        self._tell("epoch", row)

    def log_examples(self, fold: int, epoch: float, pictures: Any) -> None:
        self._tell("examples", pictures)

    def end_fold(self, fold: int, summary: Mapping[str, Any], model: Path) -> None:
        self._tell("end", summary)

    def update_run(self, metadata: Mapping[str, Any]) -> None:
        self._tell("run", metadata)

    def fail(self, what: str, message: str) -> None:
        self._tell("fail", (what, message))

    def finish(self, metadata: Mapping[str, Any]) -> None:
        self._tell("finish", metadata)

    def close(self) -> None:
        self._tell("close")

    def links(self) -> Links:
        return {"recorder": "somewhere"}


class Diary(Tracker):
    """A whole tracker: all that a newcomer writes."""

    name = "diary"

    def __init__(self) -> None:
        self.pages: list[str] = []

    def end_fold(self, fold: int, summary: Mapping[str, Any], model: Path) -> None:
        self.pages.append(f"fold {fold}: {summary['best_score']}")


def test_a_new_tracker_says_only_what_it_does(start: dict[str, Any]) -> None:
    diary = Diary()
    with Trackers([diary]) as trackers:
        trackers.start_fold(0, start)
        trackers.log_epoch(0, {"epoch": 1})
        trackers.end_fold(0, {"best_score": 0.5}, Path("best.pt"))
        trackers.finish({})
        assert trackers.links() == {}
    assert diary.pages == ["fold 0: 0.5"]


@pytest.mark.usefixtures("secrets")
def test_a_tracker_that_raises_warns_once_and_the_others_go_on(
    tmp_path: Path, start: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    broken = Recorder()
    broken.error = OSError("no route with pass-s3cr3t-word")
    path = tmp_path / "events.jsonl"
    with Trackers([broken, Journal(path)]) as trackers:
        trackers.start_fold(0, start)
        trackers.log_epoch(0, {"epoch": 1})
        trackers.log_epoch(0, {"epoch": 2})
        broken.error = None
        trackers.log_epoch(0, {"epoch": 3})  # in the pause
        trackers.end_fold(0, {}, tmp_path / "best.pt")
        trackers.log_epoch(0, {"epoch": 4})
        broken.error = OSError("again")
        trackers.update_run({})
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    for part in (
        "recorder",
        "start of fold 0",
        "no route with ***",
        "do something",
        "Training goes on",
    ):
        assert part in warning.getMessage()
    assert [what for what, _ in broken.told] == ["end", "epoch"]
    events = [event["event"] for event in read_journal(path)]
    assert events == ["start", "epoch", "epoch", "epoch", "end", "epoch", "run"]


def test_an_unavailable_tracker_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    gone = Recorder()
    gone.error = TrackerUnavailableError("there is no package; install it with: pip install it")
    trackers = Trackers([gone])
    assert trackers.takes_pictures
    trackers.update_run({})
    gone.error = None
    trackers.update_run({})
    trackers.close()
    assert not gone.told and not trackers.takes_pictures
    (warning,) = caplog.messages
    assert "pip install it" in warning


def test_ctrl_c_passes(start: dict[str, Any]) -> None:
    stopped = Recorder()
    stopped.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        Trackers([stopped]).start_fold(0, start)


def test_comment_environment_and_links_reach_every_tracker(
    start: dict[str, Any], metadata: dict[str, Any]
) -> None:
    one, two = Recorder(), Recorder()
    config = TrackingConfig(comment="mine", environment="my box")
    trackers = Trackers([one, two], config=config)
    trackers.start_fold(0, start)
    trackers.update_run(metadata)
    trackers.finish(metadata)
    for recorder in (one, two):
        for _, told in recorder.told:
            assert (told["comment"], told["environment"]) == ("mine", "my box")
            assert told["trackers"] == {"recorder": "somewhere"}


def test_what_was_detected_counts_where_nothing_is_given(start: dict[str, Any]) -> None:
    recorder = Recorder()
    Trackers([recorder]).start_fold(0, start)
    assert recorder.told[0][1]["environment"] == "kaggle"


@pytest.mark.usefixtures("secrets")
def test_no_secret_reaches_a_tracker(start: dict[str, Any]) -> None:
    recorder = Recorder()
    text = " and ".join(SECRETS.values())
    trackers = Trackers([recorder], config=TrackingConfig(comment=text))
    trackers.start_fold(0, start | {"config": {"a": [text]}})
    trackers.end_fold(0, {"events": [text]}, Path("best.pt"))
    trackers.update_run({"x": {"y": text}})
    trackers.fail("fold 0", text)
    for secret in SECRETS.values():
        assert secret not in repr(recorder.told)


def test_no_trackers_do_nothing(start: dict[str, Any], metadata: dict[str, Any]) -> None:
    with NO_TRACKERS as trackers:
        trackers.start_fold(0, start)
        trackers.log_epoch(0, {"epoch": 1})
        trackers.finish(metadata)
    assert not NO_TRACKERS and not NO_TRACKERS.takes_pictures
    assert NO_TRACKERS.links() == {}


@pytest.mark.usefixtures("secrets")
def test_journal_is_always_written_and_settings_are_kept(
    tmp_path: Path, start: dict[str, Any], metadata: dict[str, Any]
) -> None:
    config = TrackingConfig(comment="first pass-s3cr3t-word")
    with open_trackers(config, tmp_path, experiment="exp") as trackers:
        trackers.start_fold(0, start)
    kept = json.loads((tmp_path / "tracking.json").read_text())
    assert kept["settings"]["comment"] == "first ***"
    with reopen_trackers(tmp_path, experiment="exp") as trackers:
        trackers.update_run(metadata)
    assert json.loads((tmp_path / "tracking.json").read_text())["uid"] == kept["uid"]
    first, second = read_journal(tmp_path / "events.jsonl")
    assert first["start"]["comment"] == second["comment"] == "first ***"


def test_damaged_settings_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "tracking.json").write_text('{"uid": 3, "settings": [')
    with reopen_trackers(tmp_path, experiment="exp") as trackers:
        trackers.fail("oof", "no disk")
    assert len(read_journal(tmp_path / "events.jsonl")) == 1


def open_once(folder: Path, answers: Any) -> None:
    with open_trackers(TrackingConfig(), folder, experiment="exp"):
        answers.put(json.loads((folder / "tracking.json").read_text())["uid"])


def test_folds_side_by_side_have_one_uid(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    workers = [context.Process(target=open_once, args=(tmp_path, answers)) for _ in range(8)]
    for worker in workers:
        worker.start()
    uids = {answers.get(timeout=30) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(uids) == 1


@pytest.mark.slow
def test_everything_at_once_and_no_secret_in_any_file(
    tmp_path: Path,
    start: dict[str, Any],
    metadata: dict[str, Any],
    hook: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    secrets = SECRETS | {"SLACK_WEBHOOK_URL": hook.url}
    for name, value in (secrets | {"WANDB_MODE": "offline"}).items():
        monkeypatch.setenv(name, value)
    text = " ".join(secrets.values())
    model = tmp_path / "best.pt"
    model.write_bytes(b"weights")
    config = TrackingConfig(wandb=True, sheet="Season", slack=True, comment=f"try {text}")
    with FakeSheets("Season") as sheets:
        monkeypatch.setenv("CELLFLOW_SHEETS_URL", sheets.url)
        with open_trackers(config, tmp_path, experiment="exp") as trackers:
            trackers.start_fold(0, start)
            trackers.log_epoch(0, {"epoch": 1, "train_loss": 0.5})
            trackers.log_examples(0, 1, {"a": np.zeros((8, 8, 3), np.uint8)})
            trackers.end_fold(0, {"best_score": 0.3, "events": [text]}, model)
        with reopen_trackers(tmp_path, experiment="exp") as trackers:
            trackers.update_run(metadata)
            trackers.fail("oof", f"bad {text}")
            trackers.finish(metadata)
            links = trackers.links()
        rows = sheets.records()
    assert not [
        item for item in caplog.records if item.name.startswith("cellflow")
    ]  # wandb has its own
    assert sorted(links) == ["sheet", "wandb"] and sorted(links["wandb"]) == ["fold_0", "run"]
    assert json.loads((tmp_path / "tracking.json").read_text())["links"] == links
    assert [row["fold"] for row in rows] == [0, "all"]
    assert rows[0]["run link"] == links["wandb"]["fold_0"]  # type: ignore[index]
    assert "try ***" in str(rows[1]["comment"]) and len(hook.texts) == 2
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    held = {
        (path.name, name)
        for path in files
        for name, value in (secrets | {"path": "s3cr3t"}).items()
        if value.encode() in path.read_bytes()
    }
    assert not held
    sent = json.dumps(rows) + json.dumps(hook.texts)
    assert not [value for value in secrets.values() if value in sent]


def test_places_that_are_down_do_not_stop_anything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLFLOW_SHEETS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SLACK_WEBHOOK_URL", "http://127.0.0.1:9/services/s3cr3t-path")
    config = TrackingConfig(sheet="Season", slack=True)
    with open_trackers(config, tmp_path, experiment="exp") as trackers:
        trackers.fail("fold 0", "no disk")
        trackers.fail("fold 1", "no disk")
    (warning,) = caplog.messages
    assert "slack did not record the failure of fold 0" in warning and "s3cr3t" not in warning
    assert len(read_journal(tmp_path / "events.jsonl")) == 2


def test_what_cannot_be_opened_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLACK_WEBHOOK_URL", raising=False)
    with open_trackers(TrackingConfig(slack=True), tmp_path, experiment="e") as trackers:
        trackers.fail("fold 0", "no disk")
    (warning,) = caplog.messages
    assert "slack records nothing: SLACK_WEBHOOK_URL is not set" in warning
    assert len(read_journal(tmp_path / "events.jsonl")) == 1


def test_folder_that_cannot_be_written(
    tmp_path: Path, start: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with open_trackers(TrackingConfig(), blocked / "run", experiment="exp") as trackers:
        trackers.start_fold(0, start)
    assert len(caplog.messages) == 1 and list(tmp_path.iterdir()) == [blocked]


def test_settings_report_all_problems_together() -> None:
    check_config(TrackingConfig(sheet="https://docs.google.com/spreadsheets/d/abc_-1/edit#gid=3"))
    wrong = TrackingConfig(
        wandb_project="a/b", wandb_entity=" ", sheet="https://example.org/x", environment=""
    )
    with pytest.raises(ConfigError, match="4 problems") as caught:
        check_config(wrong)
    for name in ("--wandb_project", "--wandb_entity", "--sheet", "--environment"):
        assert name in str(caught.value)
