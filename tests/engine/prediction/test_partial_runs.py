"""Runs of which not all folds are trained: predicted with what is there, and told what is not."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from skimage.io import imsave

import cellflow
from cellflow import cli
from cellflow.config import (
    CalibrateConfig,
    NotebookConfig,
    OofConfig,
    OutputConfig,
    PredictConfig,
    RuntimeConfig,
    TrainConfig,
)
from cellflow.engine.prediction.ensemble import predict
from cellflow.engine.publishing.notebook import write_notebook
from cellflow.engine.training.train import train
from cellflow.engine.validation.calibrate import calibrate
from cellflow.engine.validation.oof import oof
from cellflow.errors import RunError
from cellflow.io.dataset import Dataset
from cellflow.storage.run_folder import RunFolder

CPU = RuntimeConfig(device="cpu", amp="off")


@pytest.fixture
def one_fold(copied: TrainConfig) -> RunFolder:
    """A run of which fold 1 was never trained."""
    run = RunFolder(copied.runs_dir / "tiny")
    shutil.rmtree(run.fold(1).path)
    return run


@pytest.fixture
def image(copied: TrainConfig, tmp_path: Path) -> Path:
    dataset = Dataset.open(copied.data)
    imsave(tmp_path / "one.png", dataset.image(dataset.ids[0]), check_contrast=False)
    return tmp_path / "one.png"


def config_of(run: RunFolder, image: Path, **more) -> PredictConfig:
    return PredictConfig(
        images=image,
        model=str(run.path),
        ensembles_dir=image.parent / "ensembles",
        output=OutputConfig(out=image.parent / "predictions", name="here"),
        runtime=CPU,
        **more,
    )


def stop(run: RunFolder, fold: int) -> None:
    """Make a fold look as if its training had stopped before its end."""
    path = run.fold(fold).summary
    path.write_text(json.dumps(json.loads(path.read_text()) | {"finished": ""}))


def advice(text: str) -> list[str]:
    """The training command that a message gives, as words."""
    (command,) = re.findall(r"with: (cellflow train .*)", text)
    return shlex.split(command)[1:]


def test_the_folds_that_are_there_predict(
    one_fold: RunFolder, image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = predict(config_of(one_fold, image))
    assert result.members == 1
    assert "with fold 0 of 2; fold 1 has no model" in caplog.text
    (record,) = [
        json.loads(path.read_text())
        for path in result.folder.glob("*.json")
        if '"partial"' in path.read_text()
    ]
    assert "fold 0 of 2" in json.dumps(record)
    model = cellflow.load_model(one_fold.path, device="cpu", amp="off")
    assert len(model.opened.members) == 1


@pytest.mark.slow
def test_the_advice_trains_the_missing_fold(
    one_fold: RunFolder,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As typed, from another folder, for a run that was moved and renamed."""
    moved = RunFolder(tmp_path / "other place" / "moved")
    moved.path.parent.mkdir()
    one_fold.path.rename(moved.path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="fold 1 has no model") as caught:
        oof(OofConfig(run=str(moved.path), policy="dataset", runtime=CPU))
    words = advice(str(caught.value))
    assert words[words.index("--fold") + 1] == "1"
    predict(config_of(moved, image))
    assert advice(caplog.text) == words
    cli.run_command(words[0], words[1:])
    assert len(cellflow.load_model(moved.path, device="cpu", amp="off").opened.members) == 2


def test_unfinished_folds_join_when_they_are_wanted(
    copied: TrainConfig, image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder(copied.runs_dir / "tiny")
    stop(run, 1)
    assert predict(config_of(run, image)).members == 1
    assert "fold 1 has stopped after epoch 3 of 3; add --unfinished" in caplog.text
    assert "--unfinished" in caplog.text
    both = replace(config_of(run, image), output=OutputConfig(out=run.path / "two"))
    assert predict(replace(both, unfinished=True)).members == 2
    assert len(cellflow.load_model(run.path, unfinished=True, amp="off").opened.members) == 2
    stop(run, 0)
    with pytest.raises(RunError, match=r"fold 0 has stopped(.|\n)*fold 1 has stopped(.|\n)*unfin"):
        predict(config_of(run, image))


def test_out_of_fold_passes_want_all_folds(one_fold: RunFolder) -> None:
    for unfinished in (False, True):
        with pytest.raises(RunError, match=r"fold 1 has no model; train it with: cellflow train"):
            oof(
                OofConfig(
                    run=str(one_fold.path), policy="dataset", runtime=CPU, unfinished=unfinished
                )
            )
    with pytest.raises(RunError, match="fold 1 has no model"):
        calibrate(CalibrateConfig(runs=(str(one_fold.path),)))


def test_a_notebook_of_a_run_that_is_not_complete(one_fold: RunFolder, tmp_path: Path) -> None:
    config = NotebookConfig(run=str(one_fold.path), out=tmp_path / "one.ipynb")
    with pytest.raises(RunError, match="fold 1 has no model"):
        write_notebook(config)
    text = write_notebook(replace(config, unfinished=True)).read_text()
    assert "fold_0/best.pt" in text
    assert "fold_1" not in text


@pytest.mark.slow
def test_calibrated_thresholds_and_styles_of_a_run_that_lost_a_fold(
    copied: TrainConfig, image: Path
) -> None:
    run = RunFolder(copied.runs_dir / "tiny")
    oof(OofConfig(run=str(run.path), policy="dataset", runtime=CPU))
    calibrate(CalibrateConfig(runs=(str(run.path),), ensembles_dir=image.parent / "ensembles"))
    run.fold(1).best.unlink()
    assert predict(config_of(run, image)).members == 1
    model = cellflow.load_model(run.path, device="cpu", amp="off")
    assert "out-of-fold flows" in model.opened.thresholds.source


@pytest.mark.slow
def test_each_fold_starts_from_its_own_model_of_a_run(copied: TrainConfig) -> None:
    """The model of another fold has seen the images that validate."""
    start = str(copied.runs_dir / "tiny")
    config = replace(
        copied, name="second", model=replace(copied.model, pretrained_model=start, diam_mean=None)
    )
    assert [item.finished for item in train(config)] == ["epochs", "epochs"]
    assert [item.finished for item in train(config)] == ["epochs", "epochs"]
    (RunFolder(copied.runs_dir / "tiny").fold(1).best).unlink()
    with pytest.raises(cellflow.CellflowError, match="no model of fold 1 to start fold 1 from"):
        train(replace(config, name="third"))
