"""One network that learns what several say, from runs to a run like any other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from blobs import Blobs, seeing_run
from scipy.special import expit
from skimage.io import imsave

import cellflow
from cellflow import average_flows, cli
from cellflow.config import (
    DistilConfig,
    MaskConfig,
    OofConfig,
    PredictConfig,
    PseudoConfig,
    RuntimeConfig,
    TrainConfig,
    VerifyConfig,
)
from cellflow.engine.prediction.candidates import Screened
from cellflow.engine.prediction.pseudo import pseudo
from cellflow.engine.prediction.soft_targets import _teach_others
from cellflow.engine.runs.contents import vouching_run
from cellflow.engine.runtime.machine import choose_machine
from cellflow.engine.segmentation.member import Member, load_member
from cellflow.engine.segmentation.segmenter import FLIPS, Segmenter
from cellflow.engine.training.crops import fold_samples
from cellflow.errors import CheckpointError, LeakError, RunError
from cellflow.io.dataset import Dataset
from cellflow.io.image_source import find_images
from cellflow.io.target_folder import TargetFolder, TargetWriter
from cellflow.nn.checkpoint import load_model_file
from cellflow.nn.loss import segmentation_loss
from cellflow.nn.runners import TorchRunner
from cellflow.numeric.dynamics import FLOW_SCALE
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder
from cellflow.synthetic import synthetic_dataset

CPU = RuntimeConfig(device="cpu", amp="off")


@pytest.fixture(scope="module")
def seeing(trained: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainConfig]:
    """Two runs of one split, `tiny` and `more`, whose networks see bright spots."""
    folder = tmp_path_factory.mktemp("seeing")
    with seeing_run(trained, folder, (0.3, 0.35)):
        (folder / "tiny").rename(folder / "more")
        with seeing_run(trained, folder) as config:
            yield config


@pytest.mark.slow
def test_each_fold_has_a_student_of_its_own_models_alone(
    seeing: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (item,) = synthetic_dataset(1, shape=(96, 112), seed=78)
    (tmp_path / "new").mkdir()
    imsave(tmp_path / "new" / "one.png", item.image, check_contrast=False)
    runs = [str(seeing.runs_dir / name) for name in ("tiny", "more")]
    words = [
        "distil",
        *runs,
        "--images",
        "new",
        "--n_epochs",
        "2",
        "--device",
        "cpu",
        "--amp",
        "off",
    ]
    with pytest.raises(SystemExit, match="0"):
        cli.main(words)

    targets, dataset = (
        TargetFolder.open(tmp_path / "distilled" / "student"),
        Dataset.open(seeing.data),
    )
    folds, teachers = dataset.folds(), [RunFolder(Path(run)) for run in runs]
    for fold in (0, 1):
        part = f"fold_{fold}"
        assert {teacher.fold for teacher in targets.teachers(part)} == {fold}
        assert [teacher.run for teacher in targets.teachers(part)] == [
            "tiny",
            "tiny",
        ]  # as their files have it
        own = targets.table(part, annotated=True).index
        assert set(own) == set(folds.index[folds != fold])
        assert list(targets.table(part).index) == ["one"]
    # the target is the mean of both models of the fold at all flips, not labels made of it
    name, machine = str(targets.table("fold_0", annotated=True).index[0]), choose_machine(CPU)
    views = []
    for run in teachers:
        member = load_member(run.fold(0).best, run.name, machine)
        views += Segmenter([member], MaskConfig(), flips=FLIPS).member_flows(dataset.image(name))[0]
    flow, cellprob, _ = average_flows(views)
    stored = targets.flows("fold_0", name, annotated=True)
    np.testing.assert_allclose(stored, np.concatenate([flow, cellprob[None]]), rtol=2e-3, atol=2e-3)

    student = RunFolder(tmp_path / "runs" / "student")
    config = replace(seeing, pseudo=targets.path)
    samples = fold_samples(config, 0, dataset, folds)
    sample = samples.training(samples.training.ids.index(name))
    assert sample.is_soft
    np.testing.assert_allclose(sample.target[0], expit(stored[2].astype(np.float32)), rtol=1e-5)
    np.testing.assert_array_equal(sample.target[1:], stored[:2].astype(np.float32) / FLOW_SCALE)
    assert list(samples.extra.ids) == ["one"]
    assert samples.extra(0).is_soft
    assert not samples.validation(0).is_soft  # scores are of annotations
    # whoever puts out what the teachers do has no gradient left
    output = torch.from_numpy(stored.astype(np.float32))[None].requires_grad_()
    soft = torch.from_numpy(sample.target)[None]
    segmentation_loss(output, soft[:, 1:], soft[:, 0]).total.backward()
    assert output.grad is not None
    assert output.grad.abs().max() < 1e-6

    # it goes on from the first run's model of the same fold, more gently
    made = student.read_record()
    assert made["starts"] == {str(fold): hash_file(teachers[0].fold(fold).best) for fold in (0, 1)}
    assert made["config"]["optim"]["learning_rate"] == pytest.approx(0.001)
    assert pd.read_csv(student.fold(0).evaluations)["epoch"][0] == 0

    # a run like any other
    assert load_model_file(student.fold(1).best).facts["targets"]["part"] == "fold_1"
    scores = cellflow.oof(OofConfig("student", policy="dataset", runtime=CPU)).scores
    assert list(scores.groupby("fold").size()) == [3, 3]
    assert (
        cellflow.predict(
            PredictConfig(images=(tmp_path / "new",), model="student", runtime=CPU)
        ).members
        == 2
    )
    assert not cellflow.verify(VerifyConfig(Path("runs/student"))).problems
    with pytest.raises(SystemExit, match="0"):
        cli.main(words)  # goes on; here nothing is left to do
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        cli.main([*words, "--final"])
    said = capsys.readouterr().out
    assert "the folds of run student vouch for it" in said
    assert "best score" not in said
    record = student.read_record()
    own = record["config"]["pseudo"]
    for other in ("round1 (0123)", "student (0123)", own.replace("by tiny more", "by tiny third")):
        assert other != own
        record["config"]["pseudo"] = other  # taught by something else
        student.write_record(record)
        assert vouching_run(RunFolder(Path("runs/student-final"))) is None


def test_a_debug_run_does_not_teach(trained: TrainConfig, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(trained.runs_dir / "tiny", tmp_path / "runs" / "tiny"))
    record = run.read_record()
    record["config"]["debug"] = True
    run.write_record(record)
    config = DistilConfig(runs=("tiny",), runs_dir=tmp_path / "runs", out=tmp_path / "out")
    with pytest.raises(RunError, match="is a debug run"):
        cellflow.distil(config)
    assert not (tmp_path / "out").exists()


def test_an_image_that_one_teacher_refuses_is_in_no_part(tmp_path: Path) -> None:
    (item,) = synthetic_dataset(1, shape=(64, 64), seed=78)
    imsave(tmp_path / "one.png", item.image, check_contrast=False)
    images, broken = find_images(tmp_path / "one.png"), Blobs()
    torch.nn.init.constant_(broken.layer.weight, torch.nan)
    segmenters = {
        f"fold_{fold}": Segmenter([Member("net", TorchRunner(net), 0, 0, 12.0, 12.0)], MaskConfig())
        for fold, net in enumerate((Blobs(), broken))
    }
    found = Screened(ids=["one"])
    (tmp_path / "targets").mkdir()
    writer = TargetWriter(tmp_path / "targets", "flows")
    _teach_others(images, found, segmenters, writer)
    writer.finish({}, {part: {} for part in segmenters}, found.failed)
    targets = TargetFolder.open(tmp_path / "targets")
    assert list(found.failed) == ["one"]
    assert [len(targets.table(part)) for part in segmenters] == [0, 0]


@pytest.mark.slow
def test_a_final_student_learns_from_all_and_has_no_honest_score(
    seeing: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = DistilConfig(
        runs=(str(seeing.runs_dir / "tiny"),), final=True, n_epochs=2, runs_dir=tmp_path / "runs",
        out=tmp_path / "distilled", runtime=CPU,
    )  # fmt: skip
    result = cellflow.distil(config)
    assert result.run.name == result.targets.name == "student-final"
    (teacher_0, teacher_1) = TargetFolder.open(result.targets).teachers("all")
    assert (teacher_0.fold, teacher_1.fold) == (0, 1)
    record = result.run.read_record()
    assert record["folds"] == [0]
    assert record["config"]["model"]["pretrained_model"] == f"best.pt ({teacher_0.hash})"
    assert result.folds[0].best_epoch == 2  # the last, whatever it scores on what it has seen
    roles = pd.read_csv(result.run.fold(0).samples)["role"]
    assert list(roles) == ["train"] * 6
    with pytest.raises(cellflow.CellflowError, match="pretrained_model"):
        cellflow.distil(replace(config, pretrained_model="none"))
    new = cellflow.distil(replace(config, pretrained_model="none", name="new"))
    assert new.run.read_record()["config"]["model"]["pretrained_model"] == "none"
    part = shutil.copytree(seeing.runs_dir / "tiny", tmp_path / "part")
    (part / "fold_0" / "best.pt").unlink()
    rest = cellflow.distil(replace(config, runs=(str(part),), name="rest"))
    start = rest.run.read_record()["config"]["model"]["pretrained_model"]
    assert start == f"best.pt ({teacher_1.hash})"
    with pytest.raises(CheckpointError, match="cyt3"):
        cellflow.distil(replace(config, pretrained_model="cyt3", name="slip"))
    assert not (tmp_path / "distilled" / "slip-final").exists()
    images = tuple(sorted((seeing.data / "images").iterdir())[:1])
    predicted = cellflow.predict(
        PredictConfig(images=images, model=str(result.run.path), runtime=CPU)
    )
    assert predicted.members == 1
    assert not cellflow.verify(VerifyConfig(result.run.path)).problems
    with pytest.raises(LeakError, match="no prediction of these images is out of fold"):
        cellflow.oof(OofConfig(str(result.run.path), runtime=CPU))
    with pytest.raises(LeakError, match="has seen all images"):
        pseudo(PseudoConfig(runs=(str(result.run.path),), images=images, out=tmp_path, runtime=CPU))
    with pytest.raises(cellflow.CellflowError, match="--fold none"):
        cellflow.train(
            replace(seeing, name="two", runs_dir=tmp_path / "runs", pseudo=result.targets)
        )
