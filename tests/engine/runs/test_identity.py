"""What is looked at before a run is continued, without anything being written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cellflow.config import ModelConfig, QueueConfig, TrainConfig
from cellflow.engine.experiments.queue import run_queue
from cellflow.engine.training.train import train
from cellflow.errors import ConfigError, RunError
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder


@pytest.fixture(scope="module")
def short_once(tiny_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """One epoch of one fold, trained, at a schedule that longer trainings begin with."""
    optim = replace(tiny_config.optim, n_epochs=1, schedule="step")
    runs = tmp_path_factory.mktemp("short") / "runs"
    config = replace(
        tiny_config, runs_dir=runs, name="short", fold=("0",), eval_every=1, optim=optim
    )
    train(config)
    return config


@pytest.fixture
def short(short_once: TrainConfig, tmp_path: Path) -> TrainConfig:
    """A copy of it, free to be broken."""
    shutil.copytree(short_once.runs_dir, tmp_path / "runs")
    return replace(short_once, runs_dir=tmp_path / "runs")


def contents(run: RunFolder) -> dict[Path, str]:
    return {path: hash_file(path) for path in sorted(run.path.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_queue_that_starts_nothing_lengthens_no_run(
    short: TrainConfig, tmp_path: Path, dry_run: bool
) -> None:
    """The other experiment cannot run, so none is started."""
    run = RunFolder(short.runs_dir / short.name)
    before = contents(run)
    path = tmp_path / "season.yaml"
    path.write_text(
        f"""
defaults: {{data: {short.data}, runs_dir: {short.runs_dir}, device: cpu, amp: "off", min_train_masks: 1,
  bsize: 64, batch_size: 2, optimizer: adamw, schedule: step, eval_every: 1, diam_mean: 17}}
experiments:
  - {{name: short, n_epochs: 2}}
  - {{name: lost, data: {tmp_path / "nowhere"}}}
"""
    )
    with pytest.raises(ConfigError) as caught:
        run_queue(QueueConfig(file=path, queues_dir=tmp_path / "queues", dry_run=dry_run))
    assert "lost: " in str(caught.value) and "short: " not in str(caught.value)
    assert contents(run) == before


@pytest.mark.slow
def test_a_start_run_may_get_models_of_more_folds(short: TrainConfig) -> None:
    """A fold goes on from what it began with; folds that have not begun take what is there then."""
    first = RunFolder(short.runs_dir / short.name)
    model = ModelConfig(pretrained_model=str(first.path))
    second = replace(short, name="second", model=model)
    train(second)
    run = RunFolder(second.runs_dir / second.name)
    assert run.read_record()["config"]["model"]["pretrained_model"] == "run short"
    train(replace(short, fold=("1",)))
    train(second)
    assert run.read_record()["starts"] == {
        str(fold): hash_file(first.fold(fold).best) for fold in (0, 1)
    }
    shutil.copy(first.fold(0).best, first.fold(1).best)  # not begun from it yet
    train(second)
    shutil.copy(run.fold(0).best, first.fold(0).best)
    with pytest.raises(RunError, match="not the model any more that fold 0 of this run began from"):
        train(second)
