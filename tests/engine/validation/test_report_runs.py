"""Runs side by side in one page, from files to a file."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cellflow import CompareConfig, ReportConfig, compare_runs, write_report
from cellflow.cli import run_command
from cellflow.config import TrainConfig
from cellflow.engine.validation.compare_page import _largest
from cellflow.engine.validation.report_runs import _compare_path
from cellflow.errors import ConfigError
from cellflow.storage.run_folder import RunFolder


def differ(run: RunFolder) -> None:
    """Runs of three epochs find next to nothing: scores that differ from those of another such run."""
    scores = pd.read_csv(run.scores, dtype={"id": str}, keep_default_na=False)
    scores["score"] = [0.1 * (place + 1) for place in range(len(scores))]
    scores.to_csv(run.scores, index=False)


def test_a_page_of_runs_with_long_names_has_one_that_a_disk_takes(tmp_path: Path) -> None:
    runs = [RunFolder(tmp_path / (letter * 60)) for letter in "日月火"]
    for some in (runs, runs[::-1]):
        path = _compare_path(ReportConfig(()), some)
        assert not path.exists() and path.parent == tmp_path
        path.touch()


def test_two_runs_side_by_side(two_runs: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    runs_dir = two_runs.runs_dir
    differ(RunFolder(runs_dir / "second"))
    run_command("report", ["tiny", "second", "--runs_dir", str(runs_dir)])
    path = runs_dir / "compare-tiny-second.html"
    assert capsys.readouterr().out == f"Written: {path}\n"
    page = path.read_text("utf-8")
    found = compare_runs(CompareConfig("tiny", "second", runs_dir=runs_dir))
    overall = found.table[found.table["scope"] == "overall"].iloc[0]
    assert f"{overall['difference']:,.4f}" in page
    assert '<td data-sort="seed">seed</td>' in page
    different = int((found.images["difference"] != 0).sum())
    assert page.count("<h4>") == different == 6
    assert page.count("data:image/webp") == 3 * different
    assert "not calibrated" in page


def test_what_cannot_be_compared_is_said(two_runs: TrainConfig, tmp_path: Path) -> None:
    """Other data; a run without predictions; predictions whose masks are gone."""
    first, second = (RunFolder(two_runs.runs_dir / name) for name in ("tiny", "second"))
    differ(second)
    shutil.rmtree(second.oof / "masks")
    out = tmp_path / "pages" / "both.html"
    config = ReportConfig(("tiny", "second"), runs_dir=two_runs.runs_dir, out=out)
    assert write_report(config) == out
    page = out.read_text("utf-8")
    assert "They cannot be drawn" in page and 'id="difference-1"' in page
    record = second.read_record()
    second.write_record(record | {"data_hash": "another"})
    page = write_report(config).read_text("utf-8")
    assert "no difference is taken" in page and 'id="difference-1"' not in page
    shutil.rmtree(first.oof)
    page = write_report(config).read_text("utf-8")
    assert "no out-of-fold scores; make them with" in page


def test_three_runs(two_runs: TrainConfig) -> None:
    shutil.copytree(two_runs.runs_dir / "second", two_runs.runs_dir / "third")
    page = write_report(
        ReportConfig(("tiny", "second", "third"), runs_dir=two_runs.runs_dir)
    ).read_text("utf-8")
    assert "second against tiny" in page and "third against tiny" in page
    config = replace(ReportConfig(("tiny", "second", "tiny")), runs_dir=two_runs.runs_dir)
    with pytest.raises(ConfigError, match="named twice"):
        write_report(config)


def test_largest_differences_are_of_both_signs() -> None:
    images = pd.DataFrame(
        {"id": list("abcdefghijkl"), "difference": [-0.5, -0.4, -0.3, *[0.1] * 8, 0.9]}
    )
    shown = _largest(images)
    assert len(shown) == 8 and shown["id"].iloc[0] == "l"
    assert set("abc") < set(shown["id"])  # all that speak for A
    assert len(_largest(images.head(3))) == 3
