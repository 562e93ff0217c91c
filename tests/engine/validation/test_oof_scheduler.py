"""Out-of-fold predictions by workers are those of one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import cellflow
from cellflow.config import OofConfig, RuntimeConfig


def _files(run: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(run)): path.read_bytes()
        for place in (run / "oof", run / "fold_0" / "styles.json", run / "fold_1" / "styles.json")
        for path in ([place] if place.is_file() else sorted(place.rglob("*")))
        if path.is_file()
    }


@pytest.mark.slow
def test_workers_leave_the_bytes_of_one_process(copied, monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = OofConfig(
        "tiny", runs_dir=copied.runs_dir, policy="image", runtime=RuntimeConfig(device="cpu", amp="off")
    )  # fmt: skip
    here = cellflow.oof(config)
    expected, report = _files(here.run.path), (here.run.path / "cv.csv").read_bytes()
    for fold in (0, 1):
        here.run.fold(fold).styles.unlink()
    there = cellflow.oof(replace(config, scheduler="local:2"))
    assert _files(there.run.path) == expected
    assert (there.run.path / "cv.csv").read_bytes() == report
    assert not list(there.run.path.glob(".*.tmp"))
