"""The page of a run of which something is elsewhere: pruned, published, a debug run, data that have moved."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cellflow.cli import COMMANDS, run_command
from cellflow.cli.parsing import parse
from cellflow.config import TrainConfig
from cellflow.engine.pages.run_page import gather_run
from cellflow.storage.run_folder import RunFolder


def folder(config: TrainConfig) -> RunFolder:
    return RunFolder(config.runs_dir / config.name)


def report(run: RunFolder, *words: str) -> str:
    """Write the page as it is typed; what it says as text."""
    path = run.report if "--out" not in words else Path(words[words.index("--out") + 1])
    run_command("report", [str(run.path), *words])
    text = re.sub(r"(?s)<(script|style).*?</\1>", "", path.read_text("utf-8"))
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def explored(page: Path) -> list[dict[str, Any]]:
    """The images of the explorer, as its script reads them."""
    found = re.search(r'(?s)id="explorer-data">(.*?)</script>', page.read_text("utf-8"))
    return [] if found is None else json.loads(found[1])["images"]


def test_a_pruned_run(predicted: TrainConfig) -> None:
    run = folder(predicted)
    full = report(run)
    before = explored(run.report)
    place = ["--runs_dir", str(predicted.runs_dir)]
    run_command("prune", [str(run.path), *place, "--flows", "--no-caches", "--yes"])
    assert not run.flows.exists() and not run.fold(0).last.exists()
    text = report(run)
    after = explored(run.report)
    assert "flows.zarr is not here (cellflow prune --flows removes it" in text
    assert "is not here" not in full and "Make them again" not in text
    assert [item["layers"] for item in before] == [["image", "flow", "cellprob"]] * 6
    assert [item["layers"] for item in after] == [["image"]] * 6
    kept = ("id", "fold", "score", "counts", "n_missed", "n_false")  # all else is as it was
    assert [[item[key] for key in kept] for item in after] == [
        [item[key] for key in kept] for item in before
    ]


def test_flows_that_cannot_be_read_are_not_called_removed(predicted: TrainConfig) -> None:
    run = folder(predicted)
    (run.flows / "zarr.json").write_text("{")
    text = report(run)
    assert "flows.zarr cannot be read" in text and "prune" not in text


@pytest.fixture
def published(predicted: TrainConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunFolder:
    """The run as it arrives where it was published."""
    pytest.importorskip("kaggle", reason="needs the extra: pip install cellflow[kaggle]")
    path = Path(__file__).parents[2] / "io" / "fake_kaggle.py"
    spec = importlib.util.spec_from_file_location("fake_kaggle", path)
    assert spec is not None and spec.loader is not None
    fake = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fake_kaggle", fake)  # its dataclasses look there
    spec.loader.exec_module(fake)
    with fake.FakeKaggle() as server:
        server.point_client(monkeypatch, tmp_path / "home")
        words = ["--owner", "ada", "--wheels", "none", "--title", "tiny run"]
        run_command("publish", [str(folder(predicted).path), *words])
        mounted = server.mount(tmp_path / "input") / "tiny-run"
    shutil.copytree(mounted, tmp_path / "elsewhere" / "tiny")
    monkeypatch.chdir(tmp_path / "elsewhere")
    return RunFolder(tmp_path / "elsewhere" / "tiny")


def test_a_published_run(published: RunFolder, predicted: TrainConfig) -> None:
    text = report(published)
    assert explored(published.report) == [] and not published.report_files.exists()
    assert "No image can be shown. The data of run 'tiny' is not at data." in text
    assert "a published run comes without them" in text and "prune" not in text
    assert "The settings of its commands (train.yaml, oof.yaml) are not here" in text
    facts, whole = gather_run(published), gather_run(folder(predicted))
    assert facts.again == [] and facts.use and facts.problems == ()
    assert facts.tiles == whole.tiles
    assert [kind for kind, _ in facts.hints] == [kind for kind, _ in whole.hints]
    assert facts.scores is not None and whole.scores is not None
    pd.testing.assert_frame_equal(facts.scores, whole.scores)


def test_a_published_run_with_its_data(
    published: RunFolder, predicted: TrainConfig, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    text = report(published, "--data", str(predicted.data), "--out", str(page))
    assert "oof/masks is not here (a published run comes without)" in text
    assert "The predicted outlines are those of" not in text
    images = explored(page)
    assert [item["layers"] for item in images] == [["image"]] * 6
    assert [item["counts"] for item in images] == [None] * 6  # errors of no prediction: none told


@pytest.mark.slow
def test_a_debug_run(tiny_config: TrainConfig, tmp_path: Path) -> None:
    words = ["--data", str(tiny_config.data), "--runs_dir", str(tmp_path), "--name", "try"]
    words += ["--fold", "all", "--debug", "--device", "cpu", "--amp", "off"]
    run_command("train", words)
    run = RunFolder(tmp_path / "try-debug")
    text = report(run)
    assert "This is a debug run" in text and "No out-of-fold predictions yet" in text
    assert "best, at epoch 2 of 2" in text and "so far" not in text
    facts = gather_run(run)
    assert facts.cv is None and facts.scores is None and facts.thresholds is None
    train = next(text for what, text in facts.again if what.startswith("train"))
    again = shlex.split(train)[1:]
    known = parse(again[0], again[1:], config=COMMANDS["train"].config)
    assert known.debug and known.name == "try-again-debug"  # the name that the training keeps


def test_data_that_have_moved(predicted: TrainConfig, tiny_data: Path, tmp_path: Path) -> None:
    """What `--data` says holds for the page too, also for the one that oof leaves."""
    run = folder(predicted)
    moved = shutil.copytree(tiny_data, tmp_path / "moved")
    record = run.read_record()
    run.write_record(record | {"data": str(tmp_path / "gone")})
    text = report(run)
    assert "Say where it is with --data." in text
    assert text.count("Say where it is") == 1
    assert [item["layers"] for item in explored(run.report)] == [["flow", "cellprob"]] * 6
    report(run, "--data", str(moved))
    assert [item["layers"][0] for item in explored(run.report)] == ["image"] * 6
    run.report.unlink()
    words = ["--policy", "dataset", "--device", "cpu", "--amp", "off"]
    run_command("oof", [str(run.path), "--data", str(moved), *words])
    assert [item["layers"][0] for item in explored(run.report)] == ["image"] * 6
