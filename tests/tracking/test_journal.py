from __future__ import annotations

import json
import math
import multiprocessing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from cellflow.tracking import read_journal
from cellflow.tracking.journal import Journal


def test_one_line_per_event_with_utc_time_and_null_for_what_was_not_measured(
    tmp_path: Path, start: dict[str, Any]
) -> None:
    path = tmp_path / "run" / "events.jsonl"
    journal = Journal(path)
    journal.start_fold(0, start)
    journal.log_epoch(0, {"epoch": 1, "train_loss": np.float32(0.5), "val_score": math.nan})
    journal.log_examples(0, 1, {"a": np.zeros((2, 2, 3), np.uint8)})
    journal.end_fold(0, {"best_score": math.inf}, tmp_path / "best.pt")
    journal.fail("fold 1", "no disk\nat all")
    lines = path.read_text(encoding="utf-8").splitlines()
    events = [json.loads(line, parse_constant=lambda name: 1 / 0) for line in lines]
    assert [event["event"] for event in events] == ["start", "epoch", "examples", "end", "failed"]
    assert events[1]["row"] == {"epoch": 1, "train_loss": 0.5, "val_score": None}
    assert events[2]["images"] == ["a"]
    assert events[3]["summary"] == {"best_score": None}
    for event in events:
        assert datetime.fromisoformat(event["time"]).utcoffset() == timedelta(0)


def test_half_line_of_a_kill_is_mended_by_the_next_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    journal = Journal(path)
    journal.log_epoch(0, {"epoch": 1})
    whole = path.read_bytes()
    long = b'{"time": "2025", "event": "epoch", "fold": 0, "text": "' + b"x" * 200_000
    path.write_bytes(whole + long)
    assert [event["row"]["epoch"] for event in read_journal(path)] == [1]
    journal.log_epoch(0, {"epoch": 2})
    assert path.read_bytes().startswith(whole) and b"xxx" not in path.read_bytes()
    assert [event["row"]["epoch"] for event in read_journal(path)] == [1, 2]


def test_file_that_is_nothing_but_a_half_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "ep')
    Journal(path).log_epoch(0, {"epoch": 1})
    assert len(path.read_bytes().splitlines()) == len(read_journal(path)) == 1


def test_after_a_resume_the_last_row_of_an_epoch_counts(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    journal = Journal(path)
    for fold, epoch, loss in ((0, 1, 0.9), (0, 2, 0.8), (1, 2, 0.7), (0, 2, 0.6), (0, 3, 0.5)):
        journal.log_epoch(fold, {"epoch": epoch, "train_loss": loss})
    rows = [(event["fold"], event["row"]["train_loss"]) for event in read_journal(path)]
    assert rows == [(0, 0.9), (1, 0.7), (0, 0.6), (0, 0.5)]


def test_no_file_no_events(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "events.jsonl") == []


def write_many(path: Path, fold: int) -> None:
    for epoch in range(50):
        Journal(path).log_epoch(fold, {"epoch": epoch, "text": fold * 10**3000})


def test_folds_side_by_side_share_the_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_many, args=(path, fold)) for fold in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(path.read_bytes().splitlines()) == len(read_journal(path)) == 100
