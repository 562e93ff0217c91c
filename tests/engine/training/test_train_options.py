"""What the options of a training do."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from narrow import train_narrow
from skimage.io import imread

from cellflow.config import ModelConfig, OofConfig, TrainConfig
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.training import cluster_folds
from cellflow.engine.training import parallel_folds as side_by_side
from cellflow.engine.training.parallel_folds import devices_for, train_side_by_side
from cellflow.engine.training.train import train
from cellflow.engine.training.training_plan import plan_training
from cellflow.engine.validation.oof import oof
from cellflow.errors import CellflowError, CheckpointError, ConfigError, DataError, RunError
from cellflow.nn.checkpoint import load_model_file, load_state
from cellflow.nn.step import Stepper, StepResult
from cellflow.report.text.training import training_text
from cellflow.storage import locks
from cellflow.storage.run_folder import FoldFolder, RunFolder
from cellflow.tracking import read_journal


def fold_files(config: TrainConfig, fold: int = 0) -> FoldFolder:
    return RunFolder(config.runs_dir / config.name).fold(fold)


def summary_of(config: TrainConfig) -> dict[str, object]:
    found: dict[str, object] = json.loads(fold_files(config).summary.read_text())
    return found


@pytest.fixture
def config(tiny_config: TrainConfig, tmp_path: Path) -> TrainConfig:
    """One fold, in a folder of its own."""
    return replace(tiny_config, runs_dir=tmp_path / "runs", fold=("0",))


def oof_config(config: TrainConfig) -> OofConfig:
    return OofConfig(
        run=config.name, runs_dir=config.runs_dir, policy="dataset", runtime=config.runtime
    )


def fail_from(monkeypatch: pytest.MonkeyPatch, first: int, last: int) -> list[float]:
    """Make the steps from the first to the last call come out as not finite; returns the rates asked for."""
    rates: list[float] = []
    step = Stepper.step

    def failing(self: Stepper, batch: object, rate: float, **more: float) -> StepResult:
        rates.append(rate)
        result = step(self, batch, rate, **more)  # type: ignore[arg-type]
        failed = first <= len(rates) <= last
        return result._replace(loss=math.nan, taken=False) if failed else result

    monkeypatch.setattr(Stepper, "step", failing)
    return rates


@pytest.mark.slow
def test_a_few_steps_that_are_not_finite_are_skipped_and_counted(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_from(monkeypatch, 2, 3)
    assert train(config)[0].finished == "epochs"
    history = pd.read_csv(fold_files(config).history)
    assert list(history["skipped_steps"]) == [1, 1, 0]
    assert history["train_loss"].notna().all()
    assert summary_of(config)["skipped_steps"] == 2
    assert summary_of(config)["events"] == []


@pytest.mark.slow
def test_many_steps_in_a_row_go_back_once_at_a_lower_rate(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    optim = replace(config.optim, schedule="constant", learning_rate=0.001, n_epochs=8)
    config = replace(config, optim=optim)
    rates = fail_from(monkeypatch, 6, 10)  # two steps an epoch: after the evaluation of epoch 2
    assert train(config)[0].finished == "epochs"
    assert rates[:10] == pytest.approx([0.001] * 10)
    assert rates[10:] == pytest.approx([0.0002] * 12)
    history = pd.read_csv(fold_files(config).history)
    assert list(history["epoch"]) == list(range(1, 9))
    assert history["skipped_steps"].eq(0).all()
    assert "went back to epoch 2" in caplog.text
    assert "went back to epoch 2" in str(summary_of(config)["events"])


def test_going_back_does_not_help_twice(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, optim=replace(config.optim, n_epochs=20))
    rates = fail_from(monkeypatch, 1, 1000)
    with pytest.raises(
        CellflowError, match=r"after the learning rate had been lowered.*--clip_grad"
    ):
        train(config)
    assert len(rates) == 10
    with pytest.raises(CellflowError, match="after the learning rate had been lowered"):
        train(config)


def test_a_learning_rate_that_is_far_too_high(config: TrainConfig) -> None:
    optim = replace(
        config.optim, optimizer="sgd", learning_rate=1e30, schedule="constant", n_epochs=20
    )
    with pytest.raises(CellflowError, match=r"lowered once.*--learning_rate"):
        train(replace(config, optim=optim))


@pytest.mark.slow
def test_the_average_is_evaluated_beside_the_weights(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, fold=("all",), optim=replace(config.optim, ema=0.9))
    train(config)
    evaluations = pd.read_csv(fold_files(config).evaluations)
    assert set(evaluations["weights"]) == {"net", "ema"}
    history = pd.read_csv(fold_files(config).history)
    means = evaluations.groupby(["epoch", "weights"])["score"].mean()
    assert history["val_score_ema"].iloc[-1] == pytest.approx(means[3, "ema"])
    assert history["val_score"].iloc[-1] == pytest.approx(means[3, "net"])
    facts = load_model_file(fold_files(config).best).facts
    assert facts["score"] == pytest.approx(means.max())
    assert means[facts["epoch"], facts["weights"]] == pytest.approx(means.max())
    state = load_state(fold_files(config).last)
    best = load_model_file(fold_files(config).best).net.state_dict()
    if facts["weights"] == "ema" and facts["epoch"] == 3:
        averaged = state["average"]
        assert all(torch.equal(best[name], averaged[f"module.{name}"]) for name in best)
    cv = oof(oof_config(config)).cv
    overall = cv[cv["scope"] == "overall"].iloc[0]
    assert overall["best_epoch"] > 0 or means.max() == 0


def test_the_start_model_is_epoch_0(trained: TrainConfig, tmp_path: Path) -> None:
    """A learning rate that ruins the model does not take its place."""
    start = fold_files(trained).best
    config = replace(
        trained,
        runs_dir=tmp_path / "runs",
        name="fine",
        fold=("0",),
        model=ModelConfig(pretrained_model=str(start)),
        optim=replace(trained.optim, learning_rate=10.0, schedule="constant", n_epochs=2),
    )
    result = train(config)[0]
    history = pd.read_csv(fold_files(config).history)
    assert list(history["epoch"]) == [0, 1, 2]
    assert math.isnan(history["train_loss"][0])
    assert history["val_score"][0] == pytest.approx(load_model_file(start).facts["score"])
    said = "beat the model that it started from" in training_text([result])
    assert said == (result.best_epoch == 0)
    if result.best_epoch == 0:
        key = "output.2.weight"
        ours, theirs = (load_model_file(f).net for f in (fold_files(config).best, start))
        assert torch.equal(ours.state_dict()[key], theirs.state_dict()[key])


@pytest.mark.slow
def test_patience(config: TrainConfig) -> None:
    """With a learning rate of nothing no evaluation is better than the first."""
    optim = replace(config.optim, n_epochs=50, patience=2, learning_rate=1e-12)
    result = train(replace(config, eval_every=1, optim=optim))[0]
    assert result.finished == "patience"
    assert result.epochs < 50
    assert result.epochs - result.best_epoch == 2
    again = train(replace(config, eval_every=1, optim=optim))[0]
    assert again == result


@pytest.mark.slow
def test_patience_ends_a_fold_for_good(config: TrainConfig) -> None:
    optim = replace(config.optim, n_epochs=50, patience=1, learning_rate=1e-12)
    config = replace(config, fold=("all",), eval_every=1, optim=optim)
    train(config)
    assert oof(oof_config(config))


@pytest.mark.slow
def test_time_budget_ends_with_an_evaluation_and_goes_on(
    config: TrainConfig, trained: TrainConfig
) -> None:
    """However often time runs out, the weights come out as if it had not."""
    config = replace(config, time_budget="0.001s")
    result = train(config)[0]
    assert not result.finished
    assert result.epochs == 0.5
    evaluations = pd.read_csv(fold_files(config).evaluations)
    assert set(evaluations["epoch"]) == {0.5}
    assert load_model_file(fold_files(config).best).facts["epoch"] == 0.5
    with pytest.raises(RunError, match=r"has stopped after epoch 0\.5 of 3"):
        oof(oof_config(config))
    epochs = [train(config)[0].epochs for _ in range(2)]
    assert epochs == [1, 1.5]
    assert train(replace(config, time_budget=None))[0].finished == "epochs"
    ours, theirs = (load_state(fold_files(item).last) for item in (config, trained))
    assert all(torch.equal(value, theirs["net"][name]) for name, value in ours["net"].items())
    history = pd.read_csv(fold_files(config).history)
    assert list(history["epoch"]) == [0.5, 1, 1.5, 2, 3]
    whole = history[history["epoch"] % 1 == 0]["train_loss"].to_numpy()
    np.testing.assert_array_equal(whole, pd.read_csv(fold_files(trained).history)["train_loss"])


def test_time_budget_is_shared_by_the_folds(config: TrainConfig) -> None:
    results = train(replace(config, fold=("all",), time_budget="0.001s"))
    assert [result.epochs for result in results] == [0.5, 0.5]


def test_balance(config: TrainConfig, tmp_path: Path) -> None:
    """Every type is drawn equally often; without types that is refused."""
    sampling = replace(config.sampling, balance=True, nimg_per_epoch=4)
    assert train(replace(config, sampling=sampling))[0].finished
    data = tmp_path / "data"
    shutil.copytree(config.data, data)
    images = pd.read_csv(data / "images.csv").drop(columns="cell_type")
    images.to_csv(data / "images.csv", index=False)
    with pytest.raises(DataError, match="--balance needs cell types"):
        train(replace(config, data=data, name="other", sampling=sampling))


@pytest.mark.slow
def test_freeze_encoder(trained: TrainConfig, tmp_path: Path) -> None:
    start = fold_files(trained).best
    model = ModelConfig(pretrained_model=str(start), freeze_encoder=True)
    config = replace(trained, runs_dir=tmp_path, name="frozen", fold=("0",), model=model)
    train(config)
    old, new = load_model_file(start).net, load_state(fold_files(config).last)["net"]
    changed = {
        name.split(".")[0]
        for name, value in old.state_dict().items()
        if not torch.equal(value, new[name])
    }
    assert "upsample" in changed
    assert "downsample" not in changed
    with pytest.raises(ConfigError, match="--freeze_encoder needs --pretrained_model"):
        train(replace(config, model=ModelConfig(freeze_encoder=True)))


@pytest.mark.parametrize(
    ("group", "changes", "message"),
    [
        ("optim", {"warmup": 0.1, "schedule": "cellpose"}, "--warmup has no effect"),
        ("optim", {"momentum": 0.8, "optimizer": "adamw"}, "--momentum has no effect on adamw"),
        ("optim", {"ema": 1.0}, "--ema must be at least 0 and below 1"),
        ("optim", {"patience": -1}, "--patience must not be negative"),
        ("sampling", {"intensity": -1.0}, "--intensity must not be negative"),
    ],
)
def test_settings_that_make_no_sense(
    config: TrainConfig, group: str, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(replace(config, **{group: replace(getattr(config, group), **changes)}))


@pytest.mark.slow
def test_recipes_change_the_training(trained: TrainConfig, config: TrainConfig) -> None:
    """Each named option leads to other weights; none fails."""
    plain = load_state(fold_files(trained).last)["net"]["output.2.weight"]
    for number, change in enumerate(
        ({"rescale": "dataset"}, {"intensity": 1.0}, {"targets": "recompute"})
    ):
        own = replace(config, name=f"recipe{number}", sampling=replace(config.sampling, **change))
        train(own)
        assert not torch.equal(load_state(fold_files(own).last)["net"]["output.2.weight"], plain)


def test_a_plan_counts_all_evaluations(trained: TrainConfig, tmp_path: Path) -> None:
    """That of the start model, and those of averaged weights beside the weights."""
    start = str(fold_files(trained).best)
    config = replace(trained, name="plan", runs_dir=tmp_path, fold=("0",))
    plain = plan_training(config)
    model = replace(config.model, diam_mean=None, pretrained_model=start)
    more = replace(config, model=model, optim=replace(config.optim, ema=0.9))
    plan = plan_training(more)
    assert (plain.evaluations, plan.evaluations) == (2, 3)


@pytest.mark.usefixtures("full_width")
def test_dry_run(config: TrainConfig) -> None:
    plan = plan_training(replace(config, dry_run=True))
    assert plan.folds == (0,)
    assert plan.training + plan.validation == 6
    assert (plan.steps_per_epoch, plan.epochs, plan.evaluations) == (2, 3, 2)
    assert plan.step_seconds > plan.crop_seconds > 0
    assert plan.fold_seconds > 6 * plan.step_seconds
    assert plan.memory_bytes > 100e6
    assert plan.state_bytes > 50e6
    assert imread(plan.picture).ndim == 3
    assert not (config.runs_dir / config.name).exists()
    with pytest.raises(ConfigError, match="plan_training"):
        train(replace(config, dry_run=True))


@pytest.mark.slow
def test_folds_side_by_side_equal_one_after_the_other(
    trained: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A process a fold, on two devices of this machine; their messages come out here."""
    config = replace(trained, runs_dir=tmp_path, fold=("all",))
    results = train_side_by_side(config, [0, 1], ["cpu", "cpu"], train_narrow)
    assert [result.fold for result in results] == [0, 1]
    for fold in (0, 1):
        ours, theirs = (load_state(fold_files(item, fold).last) for item in (config, trained))
        assert all(torch.equal(value, theirs["net"][name]) for name, value in ours["net"].items())
        assert f"fold {fold} is complete" in fold_files(config, fold).log.read_text()


@pytest.mark.slow
def test_a_fold_that_fails_does_not_stop_the_others(trained: TrainConfig, tmp_path: Path) -> None:
    config = replace(trained, runs_dir=tmp_path, fold=("all",))
    fold_files(config, 0).path.mkdir(parents=True)
    fold_files(config, 0).last.write_text("no state")
    with pytest.raises(CellflowError, match=r"fold 0: .*last\.pt"):
        train_side_by_side(config, [0, 1], ["cpu"], train_narrow)
    assert fold_files(config, 1).summary.exists()


def test_devices(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(torch.device("cuda"), None, 0)
    monkeypatch.setattr(side_by_side.torch.cuda, "device_count", lambda: 4)
    runtime = replace(config.runtime, device="auto")
    assert devices_for([0, 1, 2], runtime, machine) == ["cuda:0", "cuda:1", "cuda:2"]
    assert len(devices_for([0], runtime, machine)) == 1
    assert len(devices_for([0, 1], replace(runtime, device="cuda:1"), machine)) == 1
    assert devices_for([0, 1], runtime, Machine(torch.device("cpu"), None, 0)) == ["cpu"]


def test_leftovers_of_a_kill_are_removed(copied: TrainConfig) -> None:
    leftover = fold_files(copied).path / f".{locks._host()}2c3d.tmp.pt"
    leftover.write_bytes(b"half a state")
    train(replace(copied, fold=("0",)))
    assert not leftover.exists()


def test_an_epoch_that_a_kill_kept_from_the_journal_comes_with_the_next_start(
    copied: TrainConfig,
) -> None:
    """The state is saved before trackers are told, which may take long."""
    run = RunFolder(copied.runs_dir / copied.name)
    lines = run.journal.read_text().splitlines(keepends=True)
    *_, last = (place for place, line in enumerate(lines) if '"event": "epoch"' in line)
    epoch = json.loads(lines[last])
    run.journal.write_text("".join(lines[:last]))
    train(copied)
    known = [event for event in read_journal(run.journal) if event["event"] == "epoch"]
    assert [event | {"time": ""} for event in known if event["row"] == epoch["row"]] == [
        epoch | {"time": ""}
    ]
    assert len(known) == 2 * (copied.optim.n_epochs)


def test_a_folder_called_none_is_no_model_for_workers(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(config.model.pretrained_model).mkdir()
    assert cluster_folds._for_workers(config, math.inf).model == config.model


def test_advice_quotes_a_path_with_blanks(copied: TrainConfig) -> None:
    folder = copied.runs_dir.rename(copied.runs_dir.with_name("my runs"))
    config = replace(copied, runs_dir=folder, fold=("0",))
    fold_files(config).last.write_bytes(b"damaged")
    with pytest.raises(CheckpointError) as caught:
        train(config)
    assert f"--pretrained_model '{fold_files(config).best}', and" in str(caught.value)


def test_history_table_and_log_agree(trained: TrainConfig) -> None:
    history = pd.read_csv(fold_files(trained).history)
    log = fold_files(trained).log.read_text()
    for row in history.itertuples():
        assert f"epoch {row.epoch}/3  loss {row.train_loss:.4f}  lr {row.learning_rate:.2g}" in log
        if not math.isnan(row.val_score):
            assert f"score {row.val_score:.4f}" in log


@pytest.mark.slow
def test_evaluations_at_diameters_per_image_are_what_prediction_gives(config: TrainConfig) -> None:
    """One evaluation, at the end, so the best model is the last one: its scores are the OOF scores."""
    wanted = replace(config, eval_diameter="image", eval_every=99, fold=("all",))
    train(wanted)
    found = oof(
        OofConfig(run=wanted.name, runs_dir=wanted.runs_dir, policy="image", runtime=wanted.runtime)
    )
    pd.testing.assert_series_equal(
        found.scores["score"], found.scores["last_epoch_score"], check_names=False
    )
    run = RunFolder(wanted.runs_dir / wanted.name)
    assert run.read_record()["config"]["eval_diameter"] == "image"
    with pytest.raises(RunError, match="eval_diameter"):
        train(replace(wanted, eval_diameter="dataset"))
