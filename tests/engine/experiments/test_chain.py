from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cellflow.config import ChainConfig, ModelConfig, TrainConfig
from cellflow.engine.experiments.chain import run_chain
from cellflow.errors import CheckpointError, DataError, RunError
from cellflow.storage.run_folder import RunFolder
from cellflow.tracking import read_journal


@pytest.fixture
def chain(tiny_data: Path, tiny_config: TrainConfig, tmp_path: Path) -> ChainConfig:
    """A dataset that is not split yet, and an experiment of seconds on it."""
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    for name in ("folds.csv", "folds.json"):
        (data / name).unlink()
    return ChainConfig(
        images=data / "images",
        k=2,
        policy="dataset",
        predictions_dir=tmp_path / "predictions",
        ensembles_dir=tmp_path / "ensembles",
        train=replace(
            tiny_config,
            data=data,
            runs_dir=tmp_path / "runs",
            name="chained",
            optim=replace(tiny_config.optim, n_epochs=1),
        ),
    )


@pytest.mark.slow
def test_the_whole_chain_and_the_same_again(chain: ChainConfig) -> None:
    first = run_chain(chain)
    assert [item.fold for item in first.folds] == [0, 1]
    assert first.calibration is not None and first.ensemble is not None
    run = RunFolder(chain.train.runs_dir / "chained")
    assert run.cv.exists() and run.thresholds.exists()
    assert set(first.ensemble.cells) == {path.stem for path in chain.images[0].iterdir()}  # type: ignore[union-attr]
    made = run.oof_record.stat().st_mtime_ns
    again = run_chain(chain)
    assert run.oof_record.stat().st_mtime_ns == made  # kept
    assert again.ensemble is not None and again.ensemble.cells == first.ensemble.cells
    # another policy is another pass, and its predictions do not pass for those of the first
    other = replace(chain, policy="image", images=None)
    run_chain(other)
    assert json.loads(run.oof_record.read_text())["policy"] == "image"


@pytest.mark.slow
def test_a_training_that_runs_out_of_time_ends_the_chain(chain: ChainConfig) -> None:
    short = replace(chain, train=replace(chain.train, time_budget="0.001s"))
    result = run_chain(short)
    assert result.calibration is None and result.ensemble is None
    assert not RunFolder(chain.train.runs_dir / "chained").oof.exists()
    assert run_chain(chain).ensemble is not None


@pytest.mark.slow
def test_a_used_name_is_refused_without_a_word_to_its_trackers(chain: ChainConfig) -> None:
    run_chain(replace(chain, images=None))
    run = RunFolder(chain.train.runs_dir / "chained")
    before = run.journal.read_bytes()
    other = replace(chain.train, optim=replace(chain.train.optim, n_epochs=9))
    with pytest.raises(RunError, match="n_epochs"):
        run_chain(replace(chain, train=other))
    assert run.journal.read_bytes() == before


def test_missing_images_are_known_before_the_training(chain: ChainConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tset"):
        run_chain(replace(chain, images=tmp_path / "tset"))
    assert not (chain.train.runs_dir / "chained").exists()


@pytest.mark.slow
def test_a_failure_before_the_training_is_told(chain: ChainConfig, tmp_path: Path) -> None:
    model = ModelConfig(pretrained_model=str(tmp_path / "none.pt"))
    with pytest.raises(CheckpointError):
        run_chain(replace(chain, train=replace(chain.train, model=model)))
    run = RunFolder(chain.train.runs_dir / "chained")
    (event,) = read_journal(run.journal)
    assert event["event"] == "failed"
    assert "none.pt" in json.dumps(event)
    assert run_chain(replace(chain, images=None)).calibration is not None  # the name is free
