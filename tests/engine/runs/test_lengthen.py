"""A run that was started for some epochs and is to train more."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from cellflow import cli
from cellflow.config import (
    CalibrateConfig,
    OofConfig,
    RuntimeConfig,
    ScoreConfig,
    TrainConfig,
)
from cellflow.config.recipes import plain_training
from cellflow.engine.runs.contents import check_models
from cellflow.engine.runs.metadata import build_metadata
from cellflow.engine.training.train import train
from cellflow.engine.validation.calibrate import calibrate
from cellflow.engine.validation.oof import oof
from cellflow.engine.validation.score_masks import score_masks
from cellflow.errors import CellflowError, RunError
from cellflow.nn.checkpoint import load_state
from cellflow.nn.optim import learning_rate_at, same_rates
from cellflow.storage.hashing import hash_file
from cellflow.storage.locks import hold_lock
from cellflow.storage.run_folder import RunFolder

CPU = RuntimeConfig(device="cpu", amp="off")


def of_length(config: TrainConfig, n_epochs: int, **optim: Any) -> TrainConfig:
    return replace(config, optim=replace(config.optim, n_epochs=n_epochs, **optim))


def run_of(config: TrainConfig) -> RunFolder:
    return RunFolder(config.runs_dir / config.name)


@pytest.fixture(scope="module")
def short_once(tiny_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Two epochs of one fold, trained, at a schedule that longer trainings begin with."""
    runs = tmp_path_factory.mktemp("short") / "runs"
    config = replace(tiny_config, runs_dir=runs, name="short", fold=("0",))
    config = of_length(config, 2, schedule="step")
    train(config)
    return config


@pytest.fixture
def short(short_once: TrainConfig, tmp_path: Path) -> TrainConfig:
    """A copy of it, free to be broken."""
    shutil.copytree(short_once.runs_dir, tmp_path / "runs")
    return replace(short_once, runs_dir=tmp_path / "runs")


@pytest.mark.slow
def test_a_lengthened_run_is_the_run_that_was_asked_for_at_once(short: TrainConfig) -> None:
    (result,) = train(of_length(short, 4))
    assert (result.epochs, result.finished) == (4, "epochs")
    at_once = of_length(replace(short, name="long"), 4)
    train(at_once)
    first, second = (load_state(run_of(c).fold(0).last) for c in (short, at_once))
    for part in ("net", "optimizer"):
        torch.testing.assert_close(first[part], second[part], rtol=0, atol=0)
    assert first["progress"]["best_score"] == second["progress"]["best_score"]
    first, second = (load_state(run_of(c).fold(0).best) for c in (short, at_once))
    torch.testing.assert_close(dict(first), dict(second), rtol=0, atol=0)
    timeless = ["epoch", "train_loss", "learning_rate", "val_loss", "val_score"]
    tables = [pd.read_csv(run_of(c).fold(0).history)[timeless] for c in (short, at_once)]
    pd.testing.assert_frame_equal(*tables)
    old, new = (run_of(c).read_record()["config"] for c in (short, at_once))
    assert old == new
    before = hash_file(run_of(short).fold(0).last)
    train(of_length(short, 4))
    assert hash_file(run_of(short).fold(0).last) == before


@pytest.mark.slow
def test_folds_that_were_not_named_wait_for_their_epochs(
    short: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    both = replace(short, fold=("all",))
    train(both)
    run = run_of(short)
    oof(OofConfig(run=str(run.path), policy="dataset", runtime=CPU))
    assert build_metadata(run)["status"] == "predicted"
    score_masks(ScoreConfig(pred=str(run.path)))
    assert "out-of-fold masks" not in caplog.text
    train(of_length(short, 4))
    assert build_metadata(run)["status"] == "training"
    caplog.clear()
    score_masks(ScoreConfig(pred=str(run.path)))
    assert "run 'short' were made before it was trained for more epochs" in caplog.text
    assert f"cellflow oof {run.path}" in caplog.text
    with pytest.raises(
        RunError, match=r"fold 1 has stopped after epoch 2 of 4.*finish it with: "
    ) as e:
        check_models(run)
    assert "fold 0" not in str(e.value)
    words = shlex.split(re.findall(r"finish it with: (.*)", str(e.value))[0])
    cli.run_command(words[1], words[2:])
    assert list(check_models(run)) == [0, 1]
    assert build_metadata(run)["status"] == "trained"
    with pytest.raises(RunError, match=r"before it was trained for more epochs.*\n?.*cellflow oof"):
        calibrate(CalibrateConfig(runs=(str(run.path),)))
    oof(OofConfig(run=str(run.path), policy="dataset", runtime=CPU))
    calibrate(CalibrateConfig(runs=(str(run.path),), ensembles_dir=run.path.parent / "ensembles"))


@pytest.mark.slow
def test_a_kill_before_the_record_is_written(
    short: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(short)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_record", fail)
        with pytest.raises(OSError, match="disk full"):
            train(of_length(short, 4))
    assert run.read_record()["config"]["optim"]["n_epochs"] == 2
    assert [item.finished for item in train(short)] == ["epochs"]
    assert json.loads(run.fold(0).summary.read_text())["finished"] == "epochs"
    assert [item.epochs for item in train(of_length(short, 4))] == [4]


@pytest.mark.slow
def test_another_schedule_says_what_starts_from_its_models(copied: TrainConfig) -> None:
    """Cosine: the command of the message runs, for all folds."""
    with pytest.raises(RunError, match=r"n_epochs: 3 -> 5.*schedule cosine") as caught:
        train(of_length(copied, 5))
    words = shlex.split(re.findall(r": (cellflow train .*)", str(caught.value))[0])
    cli.run_command(words[1], words[2:])
    other = RunFolder(copied.runs_dir / "tiny2")
    assert list(check_models(other)) == [0, 1]
    assert other.read_record()["config"]["optim"]["n_epochs"] == 2
    assert run_of(copied).read_record()["config"]["optim"]["n_epochs"] == 3


@pytest.mark.slow
def test_shorter_is_refused_in_words(short: TrainConfig) -> None:
    longer = of_length(short, 3)
    train(longer)
    with pytest.raises(RunError, match=r"n_epochs: 3 -> 2.*not shortened.*3 are trained") as caught:
        train(short)
    words = shlex.split(re.findall(r": (cellflow train .*)", str(caught.value))[0])
    cli.run_command(words[1], words[2:])
    assert RunFolder(short.runs_dir / "short2").fold(1).best.exists()


def test_a_fold_without_its_state_cannot_go_on(short: TrainConfig) -> None:
    run_of(short).fold(0).last.unlink()
    with pytest.raises(RunError, match=r"fold 0 cannot go on.*prune(.|\n)*--pretrained_model"):
        train(of_length(short, 4))
    assert [item.finished for item in train(short)] == ["epochs"]


def test_more_changes_than_the_length(short: TrainConfig) -> None:
    with pytest.raises(RunError, match=r"something else(.|\n)*n_epochs: 2 -> 4(.|\n)*seed: 0 -> 1"):
        train(replace(of_length(short, 4), seed=1))


def test_not_while_a_fold_is_trained(short: TrainConfig) -> None:
    before = run_of(short).read_record()
    with (
        hold_lock(run_of(short).fold(0).lock, "a fold"),
        pytest.raises(CellflowError, match="fold_0 of run 'short' is being worked on"),
    ):
        train(of_length(short, 4))
    assert run_of(short).read_record() == before


@pytest.mark.parametrize("schedule", ["cellpose", "step", "constant", "cosine"])
@pytest.mark.parametrize("warmup", [None, 0.0, 0.1])
@pytest.mark.parametrize("as_long", [False, True])
@pytest.mark.parametrize(
    ("before", "after"), [(30, 60), (5, 12), (100, 200), (200, 300), (90, 120), (400, 500), (7, 7)]
)
def test_same_rates_are_the_rates(
    schedule: str, warmup: float | None, as_long: bool, before: int, after: int
) -> None:
    """Against the learning rate of every step; `as_long`: of a warm-up of as many steps."""
    steps = 3
    for epochs in (1, 5, before // 2, before):
        shares = warmup, (warmup * before / after if warmup and as_long else warmup)
        found = same_rates(epochs, before, after, schedule=schedule, peak=0.2, warmup=shares)
        rates = [
            [
                learning_rate_at(
                    step, schedule=schedule, peak=0.2, n_epochs=length, steps_per_epoch=steps,
                    warmup=share,
                )
                for step in range(epochs * steps)
            ]
            for length, share in zip((before, after), shares, strict=True)
        ]  # fmt: skip
        if found:
            assert rates[0] == rates[1]
        elif schedule in ("cellpose", "step"):
            assert rates[0] != rates[1]
        assert found or schedule != "constant" or (warmup and not as_long)


def test_the_first_epochs_of_cellpose_are_alike() -> None:
    optim = plain_training().optim
    for before, after, alike in ((30, 60, True), (200, 300, False), (60, 200, True)):
        found = same_rates(
            before, before, after, schedule=optim.schedule or "", peak=optim.peak_learning_rate
        )
        assert found is alike
