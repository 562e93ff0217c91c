"""A queue of experiments in real processes: killed, started again, recorded everywhere, reproduced."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import nbformat
import pandas as pd
import pytest
from skimage.io import imread, imsave

from cellflow import rle_decode, rle_encode
from cellflow.config import (
    FoldsConfig,
    OptimConfig,
    PrepareConfig,
    PublishConfig,
    QueueConfig,
    RuntimeConfig,
    SamplingConfig,
    TrainConfig,
)
from cellflow.engine.data.make_folds import make_folds
from cellflow.engine.data.prepare import prepare
from cellflow.engine.experiments.queue import run_queue
from cellflow.engine.publishing.publish import plan_publication
from cellflow.engine.runs.metadata import schema
from cellflow.engine.training.train import train
from cellflow.errors import RunError
from cellflow.storage.locks import hold_lock
from cellflow.storage.run_folder import RunFolder
from cellflow.tracking import read_journal

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tracking"))
from fake_sheets import FakeSheets

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "KAGGLE_KEY": "kagglesecret-4711",
    "SLACK_WEBHOOK_URL": "http://127.0.0.1:9/services/slacksecret-4711",
}
SIDE = 224
SEASON = """
defaults:
  data: data
  images: input/sartorius-cell-instance-segmentation/test
  k: 2
  pretrained_model: {model}
  learning_rate: 1e-6
  device: cpu
  wandb: true
  sheet: Season
  publish: kaggle
  notebook: true
  policy: dataset
experiments:
  - name: sgd
  - name: adam
    optimizer: adamw
    comment: "with, a comma"
"""


def queue(folder: Path, sheets: FakeSheets) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cellflow", "queue", "season.yaml", "--debug"],
        cwd=folder,
        env=os.environ | SECRETS | {"CELLFLOW_SHEETS_URL": sheets.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def cut_layout(source: Path, folder: Path) -> Path:
    """The competition's files with the first corner of some images: a tile of the network each."""
    for part, every in (("train", 4), ("test", 1)):
        (folder / part).mkdir(parents=True)
        for path in sorted((source / part).iterdir())[::every]:
            imsave(folder / part / path.name, imread(path)[:SIDE, :SIDE], check_contrast=False)
    table = pd.read_csv(source / "train.csv")
    table = table[[(folder / "train" / f"{name}.png").exists() for name in table["id"]]]
    shapes = zip(table["height"], table["width"], strict=True)
    masks = [
        rle_decode(rle, shape)[:SIDE, :SIDE]
        for rle, shape in zip(table["annotation"], shapes, strict=True)
    ]
    table = table.assign(
        annotation=[rle_encode(mask) for mask in masks],
        height=table["height"].clip(upper=SIDE),
        width=table["width"].clip(upper=SIDE),
    )
    table[[mask.any() for mask in masks]].to_csv(folder / "train.csv", index=False)
    return folder


def start_model(folder: Path) -> Path:
    """A model file of a narrow network that finds cells in the images."""
    data = folder / "start"
    shutil.copytree(folder / "data", data)
    make_folds(FoldsConfig(data=data, k=2))
    config = TrainConfig(
        data=data, fold="0", name="start", runs_dir=folder / "start_runs", eval_every=20,
        optim=OptimConfig(optimizer="adamw", schedule="cosine", n_epochs=20, batch_size=4),
        sampling=SamplingConfig(bsize=112, nimg_per_epoch=16, min_train_masks=1),
        runtime=RuntimeConfig(device="cpu", amp="off"),
    )  # fmt: skip
    train(config)
    return RunFolder(config.runs_dir / config.name).fold(0).best


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Path]:
    """A folder in which the season was run: killed in the middle of its second experiment, started again."""
    folder = tmp_path_factory.mktemp("season")
    layout = cut_layout(shared / "data" / "kaggle_layout", folder / "layout")
    prepare(PrepareConfig(source=layout, out=folder / "data"))
    model = start_model(folder)
    images = folder / "input" / "sartorius-cell-instance-segmentation"
    images.mkdir(parents=True)
    (images / "test").symlink_to(layout / "test")
    text = SEASON.format(model=model)
    (folder / "season.yaml").write_text(text, encoding="utf-8")
    with FakeSheets("Season") as sheets:
        first = queue(folder, sheets)
        wait_for(folder / "runs" / "adam-debug" / "fold_0" / "last.pt", first)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        second = queue(folder, sheets)
        said = second.communicate()[0]
        (folder / "said.txt").write_text(said, encoding="utf-8")
        (folder / "sheet.json").write_text(json.dumps(sheets.records()), encoding="utf-8")
    assert second.returncode == 0, said
    yield folder


@pytest.mark.slow
def test_what_was_done_is_skipped_and_what_died_goes_on(season: Path) -> None:
    said = (season / "said.txt").read_text()
    assert "sgd (1 of 2) is done" in said
    assert "adam (2 of 2) starts" in said
    states = json.loads((season / "queues" / "season" / "queue.json").read_text())["experiments"]
    assert {name: state["status"] for name, state in states.items()} == {
        "sgd": "done",
        "adam": "done",
    }
    log = (season / "queues" / "season" / "adam.log").read_text()
    assert log.count("Would be published") == 1
    assert "fold_0/best.pt" in log and "last.pt" not in log.split("Would be published")[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_every_run_is_recorded_everywhere(season: Path, name: str) -> None:
    run = RunFolder(season / "runs" / f"{name}-debug")
    metadata = json.loads(run.metadata.read_text())
    jsonschema.validate(metadata, schema())
    assert (metadata["status"], metadata["debug"]) == ("calibrated", True)
    assert metadata["comment"] == ("with, a comma" if name == "adam" else "")
    assert set(metadata["trackers"]) == {"wandb", "sheet"}
    assert len(metadata["cv"]["per_threshold"]) == 10
    overall = pd.read_csv(run.cv).iloc[-1]
    assert metadata["cv"]["raw"] == pytest.approx(overall["best_epoch"])
    rows = [row for row in json.loads((season / "sheet.json").read_text())
            if row["experiment"] == run.name]  # fmt: skip
    assert sorted(str(row["fold"]) for row in rows) == ["0", "1", "all"]
    (of_run,) = (row for row in rows if row["fold"] == "all")
    assert float(of_run["CV raw"]) == pytest.approx(overall["best_epoch"], abs=1e-4)
    events = read_journal(run.journal)
    for fold in (0, 1):
        history = pd.read_csv(run.fold(fold).history)
        told = [event for event in events if event["event"] == "epoch" and event["fold"] == fold]
        assert [event["row"]["epoch"] for event in told] == history["epoch"].tolist()
        assert list(run.path.glob(f"wandb/offline-run-*-fold_{fold}/*.wandb"))
    assert list(run.path.glob("wandb/offline-run-*-run/*.wandb"))


@pytest.mark.slow
def test_no_secret_is_written_anywhere(season: Path) -> None:
    files = [path for path in season.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 50
    words = [secret.encode() for secret in (*SECRETS.values(), "slacksecret", "kagglesecret")]
    assert not [str(path) for path in files if any(word in path.read_bytes() for word in words)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd-debug", "adam-debug"])
def test_the_notebook_reproduces_the_submission(season: Path, tmp_path: Path, name: str) -> None:
    """Its cells, run one after the other on what would have been published."""
    run = RunFolder(season / "runs" / name)
    plan = plan_publication(
        PublishConfig(
            what=str(run.path), ensembles_dir=season / "ensembles", wheels="none", dry_run=True
        )
    )
    mounted = tmp_path / "input" / plan.slug
    for file, _ in plan.files:
        (mounted / file).parent.mkdir(parents=True, exist_ok=True)
        (mounted / file).write_bytes((run.path / file).read_bytes())
    (tmp_path / "input" / "sartorius-cell-instance-segmentation").symlink_to(
        season / "input" / "sartorius-cell-instance-segmentation"
    )
    notebook = nbformat.read(run.path / f"{name}-kaggle.ipynb", as_version=4)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    places = {
        "CELLFLOW_KAGGLE_INPUT": str(tmp_path / "input"),
        "CELLFLOW_KAGGLE_WORKING": str(tmp_path / "working"),
    }
    script = tmp_path / "cells.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=os.environ | places,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    expected = (season / "predictions" / name / "submission.csv").read_bytes()
    assert expected.count(b"\n") > 20  # there are cells in it
    assert (tmp_path / "working" / "submission.csv").read_bytes() == expected


@pytest.mark.slow
def test_a_failure_stops_nobody_and_is_tried_again(
    tmp_path: Path, tiny_data: Path, trained: TrainConfig
) -> None:
    path = tmp_path / "tries.yaml"
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_data, damaged)
    image = next((damaged / "images").iterdir())
    image.write_bytes(image.read_bytes()[:100])  # what no check without reading it knows
    path.write_text(
        f"""
defaults: {{data: {tiny_data}, runs_dir: {tmp_path / "runs"}, ensembles_dir: {tmp_path / "e"},
            pretrained_model: {trained.runs_dir / trained.name},
            device: cpu, amp: off, policy: dataset}}
experiments:
  - {{name: bad, data: {damaged}}}
  - {{name: good}}
"""
    )
    config = QueueConfig(file=path, queues_dir=tmp_path / "queues", debug=True)
    shown = run_queue(replace(config, dry_run=True))
    assert shown.table["status"].tolist() == ["waiting", "waiting"]
    assert not (tmp_path / "queues").exists()
    result = run_queue(config)
    assert result.table["status"].tolist() == ["failed", "done"]
    assert result.failed == ["bad"]
    log = (tmp_path / "queues" / "tries" / "good.log").read_text()
    again = run_queue(config)
    assert again.table["status"].tolist() == ["failed", "done"]
    assert (tmp_path / "queues" / "tries" / "good.log").read_text() == log  # was not run again
    bad = (tmp_path / "queues" / "tries" / "bad.log").read_text()
    assert bad.count("cellflow:") == 2  # was tried again


def test_a_queue_that_runs_is_not_run_twice(tmp_path: Path, tiny_data: Path) -> None:
    path = tmp_path / "q.yaml"
    path.write_text(f"experiments: [{{name: a, data: {tiny_data}}}]")
    with (
        hold_lock(tmp_path / "queues" / "q" / ".lock", "Queue"),
        pytest.raises(RunError, match="process"),
    ):
        run_queue(QueueConfig(file=path, queues_dir=tmp_path / "queues"))
