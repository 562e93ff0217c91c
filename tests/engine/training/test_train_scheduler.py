"""Folds on the workers of a real cluster; workers are lost in the middle."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster
from narrow import NarrowUNet
from training_runs import assert_equal_runs

from cellflow.config import ModelConfig, RuntimeConfig, TrainConfig
from cellflow.engine.training.train import train
from cellflow.nn.checkpoint import load_state, save_model_file
from cellflow.storage.locks import is_locked
from cellflow.storage.run_folder import FoldFolder, RunFolder


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
    ) as started:
        yield started


@pytest.fixture(scope="module")
def config(tiny_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A training of seconds, from a narrow model, which processes of their own train too."""
    start = tmp_path_factory.mktemp("start") / "start.pt"
    save_model_file(start, NarrowUNet.build(diam_mean=17.0, seed=3), {})
    runtime = RuntimeConfig(device="cpu", amp="off", threads=1)
    model = ModelConfig(pretrained_model=str(start))
    return replace(tiny_config, model=model, runtime=runtime, name="exp")


@pytest.fixture(scope="module")
def undisturbed(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    done = replace(long(config), runs_dir=tmp_path_factory.mktemp("undisturbed"))
    train(done)
    return done


def long(config: TrainConfig) -> TrainConfig:
    """The same with time for something to happen in the middle."""
    return replace(config, optim=replace(config.optim, n_epochs=5), eval_every=2)


def fold_files(config: TrainConfig, fold: int) -> FoldFolder:
    return RunFolder(config.runs_dir / config.name).fold(fold)


def is_amid(files: FoldFolder) -> bool:
    """Whether two of the epochs are done."""
    return files.log.exists() and "epoch 2/" in files.log.read_text()


def holder(files: FoldFolder) -> psutil.Process:
    """The process that trains a fold."""
    return psutil.Process(int(files.lock.read_text().split()[1]))


def wait_for(what: Callable[[], object], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


@pytest.mark.slow
def test_two_folds_on_two_workers(
    config: TrainConfig, cluster: LocalCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short = replace(config, optim=replace(config.optim, n_epochs=2))
    alone = replace(short, runs_dir=tmp_path / "alone")
    ours = replace(
        short,
        runs_dir=tmp_path / "ours",
        scheduler=cluster.scheduler_address,
        savedir=tmp_path / "best",
    )
    with caplog.at_level(logging.INFO, logger="cellflow"):
        results = train(ours)
    assert results == train(alone)
    for fold in (0, 1):
        assert_equal_runs(fold_files(ours, fold), fold_files(alone, fold))
        assert f"fold {fold} is complete" in caplog.text
        machine = json.loads(fold_files(ours, fold).summary.read_text())["machine"]
        assert (machine["hostname"], machine["device"]) == (socket.gethostname(), "cpu")
        assert "is complete" in fold_files(ours, fold).log.read_text()
        assert (tmp_path / "best" / f"exp_fold_{fold}.pt").is_file()
    assert f"tasks run on {cluster.scheduler_address}: 2 workers" in caplog.text
    assert list((tmp_path / "ours" / "exp").glob(".*.tmp")) == []
    assert train(ours) == results  # what is finished is not trained again


@pytest.mark.slow
def test_a_lost_worker_s_fold_goes_on_elsewhere(
    config: TrainConfig,
    undisturbed: TrainConfig,
    cluster: LocalCluster,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours = replace(long(config), runs_dir=tmp_path, scheduler=cluster.scheduler_address)
    files, killed = fold_files(ours, 1), []

    def kill() -> None:
        wait_for(lambda: is_amid(files))
        process = holder(files)
        worker = process.parent()
        assert worker is not None
        for one in (worker, process):  # as when their host is lost
            one.kill()
            killed.append(one.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    with caplog.at_level(logging.INFO, logger="cellflow"):
        results = train(ours)
    killer.join()
    assert len(killed) == 2
    assert "fold 1 goes on" in caplog.text
    assert [result.finished for result in results] == ["epochs", "epochs"]
    for fold in (0, 1):
        assert_equal_runs(fold_files(ours, fold), fold_files(undisturbed, fold))


@pytest.mark.slow
def test_a_fold_saves_its_state_when_its_worker_is_lost(
    config: TrainConfig, undisturbed: TrainConfig, cluster: LocalCluster, tmp_path: Path
) -> None:
    ours = replace(
        long(config), runs_dir=tmp_path, fold=("1",), scheduler=cluster.scheduler_address
    )
    files, killed = fold_files(ours, 1), []

    def kill() -> None:
        wait_for(lambda: is_amid(files))
        worker = holder(files).parent()
        assert worker is not None
        worker.kill()
        killed.append(worker.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    train(ours)
    killer.join()
    assert len(killed) == 1
    assert "interrupted" in files.log.read_text()
    assert_equal_runs(files, fold_files(undisturbed, 1))


@pytest.mark.slow
def test_ctrl_c_saves_every_fold(
    config: TrainConfig, undisturbed: TrainConfig, cluster: LocalCluster, tmp_path: Path
) -> None:
    """Nothing trains any more when the command has ended, and the same command goes on."""
    ours = replace(long(config), runs_dir=tmp_path, scheduler=cluster.scheduler_address)
    words = [
        *("train", "--data", str(ours.data), "--runs_dir", str(tmp_path), "--init"),
        *(ours.model.pretrained_model, "--recipe", "cellpose", "--adam"),
        *("--schedule", "cosine", "--n_epochs", "5"),
        *("--batch_size", "2", "--bsize", "64", "--min_train_masks", "1", "--eval_every", "2"),
        *("--device", "cpu", "--amp", "off", "--threads", "1", "--scheduler", str(ours.scheduler)),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "cellflow", *words], stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: any(is_amid(fold_files(ours, fold)) for fold in (0, 1)))
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert not any(is_locked(fold_files(ours, fold).lock) for fold in (0, 1))
    states = [
        load_state(fold_files(ours, fold).last)
        for fold in (0, 1)
        if fold_files(ours, fold).last.exists()
    ]
    assert any(state["progress"]["epoch"] < 5 for state in states)
    train(ours)
    for fold in (0, 1):
        assert_equal_runs(fold_files(ours, fold), fold_files(undisturbed, fold))
