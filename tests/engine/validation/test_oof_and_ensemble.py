from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from oracle import Oracle
from skimage.io import imsave

from cellflow.config import (
    EnsembleConfig,
    InferenceConfig,
    MaskConfig,
    MaskOverrides,
    OofConfig,
    OutputConfig,
    RuntimeConfig,
    TrainConfig,
)
from cellflow.engine.prediction.ensemble import ensemble
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.runtime.pipeline import THREAD_NAME
from cellflow.engine.segmentation.mask_step import make_labels
from cellflow.engine.segmentation.member import load_member
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.engine.training.train import train
from cellflow.engine.validation.oof import oof
from cellflow.errors import DataError, RunError
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.io.formats import ReadOptions, read_source
from cellflow.io.formats.submission import read_submission
from cellflow.io.images import read_image, read_labels, write_labels
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.numeric.averaging import average_flows
from cellflow.numeric.labels import labels_from_instances
from cellflow.numeric.rle import instances_from_rles
from cellflow.numeric.score import competition_score
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder

cellpose_models = Oracle("models")

CPU = RuntimeConfig(device="cpu", amp="off")
# Three epochs teach little; low thresholds make sure that there are masks to look at.
LOOSE = MaskConfig(cellprob_threshold=-2.0, flow_threshold=0.0)
LOOSER = MaskOverrides(cellprob_threshold=-2.0, flow_threshold=0.0)


def oof_config(config: TrainConfig) -> OofConfig:
    return OofConfig(
        run="tiny", runs_dir=config.runs_dir, policy="dataset", mask=LOOSER, runtime=CPU
    )


def test_oof(copied: TrainConfig) -> None:
    result = oof(oof_config(copied))
    run, dataset = result.run, Dataset.open(copied.data)
    folds = pd.read_csv(run.folds).set_index("id")["fold"]
    assert set(result.scores["id"]) == set(dataset.ids)
    store = FlowStore(run.oof / "flows.zarr")
    assert list(store) == dataset.ids
    predictions = pd.read_csv(run.oof / "predictions.csv").groupby("id")["predicted"].apply(list)
    for name in dataset.ids:
        # The model that made an image's flows is that of the fold that held the image back.
        facts = store.facts(name)
        assert facts["fold"] == folds[name]
        assert facts["model_hash"] == hash_file(run.fold(folds[name]).best)
        flow, cellprob = store.read(name)
        assert flow.dtype == np.float16
        labels = read_labels(run.oof / "masks" / f"{name}.tif")
        np.testing.assert_array_equal(labels, make_labels(flow, cellprob, facts["diameter"], LOOSE))
        rows = instances_from_rles(predictions.get(name, []), labels.shape)
        np.testing.assert_array_equal(labels_from_instances(rows), labels)
        score = competition_score(dataset.instances(name), labels).mean
        assert result.scores.set_index("id").loc[name, "score"] == pytest.approx(score)


def test_cv_is_a_mean_over_images_with_last_epoch_beside(copied: TrainConfig) -> None:
    result = oof(replace(oof_config(copied), mask=MaskOverrides()))
    cv = pd.read_csv(result.run.cv)
    assert list(cv["scope"]) == ["fold"] * 2 + ["cell_type"] * 3 + ["overall"]
    overall = cv.iloc[-1]
    assert overall["images"] == 6
    assert overall["best_epoch"] == pytest.approx(result.scores["score"].mean())
    # With the thresholds of the training, an OOF score is the score of the best evaluation.
    for fold in (0, 1):
        facts = load_model_file(result.run.fold(fold).best).facts
        assert cv.iloc[fold]["best_epoch"] == pytest.approx(facts["score"])
        evaluations = pd.read_csv(result.run.fold(fold).evaluations)
        last = evaluations[evaluations["epoch"] == 3]["score"].mean()
        assert cv.iloc[fold]["last_epoch"] == pytest.approx(last)


def test_tables_are_in_the_order_of_folds_and_images(copied: TrainConfig) -> None:
    result = oof(oof_config(copied))
    folds = pd.read_csv(result.run.folds).set_index("id")["fold"]
    expected = [name for fold in (0, 1) for name in folds.index if folds[name] == fold]
    assert list(pd.read_csv(result.run.oof / "scores.csv")["id"]) == expected
    found = list(pd.read_csv(result.run.oof / "predictions.csv")["id"].unique())
    assert found == [name for name in expected if name in found]


def last_epochs(config: TrainConfig) -> pd.Series[float]:
    result = oof(replace(oof_config(config), mask=MaskOverrides()))
    return result.scores.set_index("id")["last_epoch_score"]


def with_average(path: Path, score: float) -> pd.DataFrame:
    """Evaluations of the weights, and of their moving average with one score for all images."""
    plain = pd.read_csv(path).assign(weights="net")
    return pd.concat([plain.assign(score=1.0), plain.assign(weights="ema", score=score)])


def test_the_last_epoch_is_that_of_the_moving_average(copied: TrainConfig) -> None:
    """Where there is one, though the weights themselves score better."""
    run = RunFolder(copied.runs_dir / "tiny")
    for fold, score in enumerate((0.25, 0.5)):
        path = run.fold(fold).evaluations
        with_average(path, score).to_csv(path, index=False)
    folds = pd.read_csv(run.folds).set_index("id")["fold"]
    found = last_epochs(copied)
    assert {name: found[name] for name in folds.index} == {
        name: (0.25, 0.5)[fold] for name, fold in folds.items()
    }


def test_a_moving_average_of_some_folds_only(copied: TrainConfig) -> None:
    path = RunFolder(copied.runs_dir / "tiny").fold(0).evaluations
    with_average(path, 0.25).to_csv(path, index=False)
    with pytest.raises(RunError, match=r"fold_1.evaluations\.csv: expected .* weights 'ema'"):
        last_epochs(copied)


def test_epochs_that_a_time_budget_cut_short(
    copied: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cellflow")
    run = RunFolder(copied.runs_dir / "tiny")
    for fold in (0, 1):
        files = run.fold(fold)
        table = pd.read_csv(files.evaluations)
        cut = table[table["epoch"] == 3].assign(epoch=3.25, score=0.125)
        pd.concat([table, cut]).to_csv(files.evaluations, index=False)
    net, facts = load_model_file(run.fold(1).best)
    save_model_file(run.fold(1).best, net, facts | {"epoch": 3.25})
    assert (last_epochs(copied) == 0.125).all()
    assert "with the model of epoch 3.25" in caplog.text
    scores = pd.read_csv(run.oof / "scores.csv").set_index("fold")["epoch"]
    assert set(scores[1]) == {3.25}


def test_oof_refuses_a_missing_fold(copied: TrainConfig) -> None:
    run = RunFolder(copied.runs_dir / "tiny")
    run.fold(1).best.unlink()
    with pytest.raises(
        RunError, match=r"fold 1 has no model; train it with: cellflow train --fold 1 --name tiny"
    ):
        oof(oof_config(copied))
    assert not run.oof.exists()


def test_oof_refuses_a_model_of_another_fold(copied: TrainConfig) -> None:
    run = RunFolder(copied.runs_dir / "tiny")
    run.fold(1).best.write_bytes(run.fold(0).best.read_bytes())
    with pytest.raises(RunError, match=r"fold_1.best\.pt: expected fold 1, found 0"):
        oof(oof_config(copied))


def test_oof_refuses_a_changed_split(copied: TrainConfig) -> None:
    run = RunFolder(copied.runs_dir / "tiny")
    folds = pd.read_csv(run.folds)
    folds["fold"] = 1 - folds["fold"]
    folds.to_csv(run.folds, index=False)
    with pytest.raises(RunError, match="was changed after the run was started"):
        oof(oof_config(copied))


def test_oof_refuses_other_data(copied: TrainConfig, tmp_path: Path) -> None:
    from cellflow.config import PrepareConfig
    from cellflow.engine.data.prepare import prepare

    source = tmp_path / "other"
    (source / "images").mkdir(parents=True)
    (source / "masks").mkdir()
    imsave(source / "images" / "a.png", np.zeros((40, 40), np.uint8), check_contrast=False)
    imsave(source / "masks" / "a.png", np.eye(40, dtype=np.uint8), check_contrast=False)
    prepare(PrepareConfig(source=source, out=tmp_path / "data"))
    with pytest.raises(RunError, match="is not the data that run 'tiny' was trained on"):
        oof(replace(oof_config(copied), data=tmp_path / "data"))


def test_unknown_run_lists_those_there_are(copied: TrainConfig) -> None:
    with pytest.raises(RunError, match=r"No run 'nope'.*: tiny\."):
        oof(replace(oof_config(copied), run="nope"))
    assert oof(replace(oof_config(copied), run=None)).run.name == "tiny"


def ensemble_config(config: TrainConfig, tmp_path: Path, images: Path) -> EnsembleConfig:
    return EnsembleConfig(
        images=images,
        runs=("tiny",),
        runs_dir=config.runs_dir,
        ensembles_dir=tmp_path / "ensembles",
        output=OutputConfig(out=tmp_path / "predictions"),
        mask=LOOSER,
        runtime=CPU,
    )


@pytest.fixture
def images(trained: TrainConfig, tmp_path: Path) -> Path:
    """Two images to predict, one of them without any cell."""
    folder = tmp_path / "images"
    folder.mkdir()
    dataset = Dataset.open(trained.data)
    imsave(folder / "cells.png", dataset.image(dataset.ids[0]), check_contrast=False)
    imsave(folder / "empty.png", np.full((50, 60), 7, np.uint8), check_contrast=False)
    return folder


def test_ensemble(trained: TrainConfig, tmp_path: Path, images: Path) -> None:
    result = ensemble(ensemble_config(trained, tmp_path, images))
    assert result.members == 2
    shapes = {"cells": (96, 112), "empty": (50, 60)}
    predicted = read_source(result.submission, ReadOptions("prediction")).images
    for name, image in predicted.items():
        image.labels(shapes[name])  # refuses cells that overlap or leave the image
    rows = read_submission(result.submission)
    assert set(rows) == set(shapes)
    for name, shape in shapes.items():
        labels = read_labels(result.masks / f"{name}.tif")
        assert labels.shape == shape
        assert len([rle for rle in rows[name] if rle]) == labels.max() == result.cells[name]
    record = json.loads((result.folder / "prediction.json").read_text())["identity"]
    hashes = [hash_file(RunFolder(trained.runs_dir / "tiny").fold(fold).best) for fold in (0, 1)]
    assert [member["hash"] for member in record["members"]] == hashes
    assert "not calibrated" in record["thresholds"]["source"]
    assert record["thresholds"]["shared"]["cellprob_threshold"] == -2.0
    table = pd.read_csv(result.table)
    assert len(table) == sum(result.cells.values())


def test_ensemble_is_one_mask_step_on_the_mean_of_the_members(
    trained: TrainConfig, tmp_path: Path, images: Path
) -> None:
    result = ensemble(ensemble_config(trained, tmp_path, images))
    run, cpu = RunFolder(trained.runs_dir / "tiny"), Machine(torch.device("cpu"))
    image = read_image(images / "cells.png")
    members = [load_member(run.fold(fold).best, str(fold), cpu) for fold in (0, 1)]
    single = [Segmenter([member], LOOSE).predict(image) for member in members]
    flow, cellprob, _ = average_flows((item.flow, item.cellprob) for item in single)
    diameter = float(np.mean([member.diam_labels for member in members]))
    expected = make_labels(flow, cellprob, diameter, LOOSE)
    np.testing.assert_array_equal(read_labels(result.masks / "cells.tif"), expected)


def test_the_same_ensemble_again_and_another_in_its_place(
    trained: TrainConfig, tmp_path: Path, images: Path
) -> None:
    config = ensemble_config(trained, tmp_path, images)
    first = ensemble(config)
    before = {path: path.stat().st_mtime_ns for path in first.masks.iterdir()}
    assert ensemble(config).cells == first.cells  # goes on: nothing is left to do
    assert {path: path.stat().st_mtime_ns for path in first.masks.iterdir()} == before
    other = replace(config, mask=MaskOverrides(cellprob_threshold=1.0, flow_threshold=0.0))
    with pytest.raises(DataError, match=r"cellprob_threshold: -2\.0 -> 1\.0(.|\n)*--overwrite"):
        ensemble(other)
    again = replace(other, output=replace(other.output, overwrite=True))
    assert ensemble(again).cells["cells"] <= first.cells["cells"]


def test_a_truncated_image_does_not_stop_the_others(
    trained: TrainConfig, tmp_path: Path, images: Path
) -> None:
    (images / "cut.png").write_bytes((images / "cells.png").read_bytes()[:200])
    result = ensemble(ensemble_config(trained, tmp_path, images))
    assert set(result.cells) == {"cells", "empty"}
    assert list(result.failed) == ["cut"]
    assert "cut.png" in result.failed["cut"]
    assert set(read_submission(result.submission)) == {"cells", "empty"}


def test_the_result_does_not_depend_on_batches(
    trained: TrainConfig, tmp_path: Path, images: Path
) -> None:
    config = ensemble_config(trained, tmp_path, images)
    one = replace(
        config,
        inference=InferenceConfig(batch_size=1),
        output=replace(config.output, name="one"),
        runtime=replace(CPU, threads=1),
    )
    first, second = ensemble(config), ensemble(one)
    for name in first.cells:
        np.testing.assert_array_equal(
            read_labels(first.masks / f"{name}.tif"), read_labels(second.masks / f"{name}.tif")
        )
    assert first.submission.read_bytes() == second.submission.read_bytes()


def test_oof_that_fails_midway_keeps_what_was_there(
    copied: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cellflow.engine.validation import oof_pass as module

    run = oof(oof_config(copied)).run
    before = hash_file(run.oof / "scores.csv")
    files = {path.name for path in run.path.iterdir()}
    done = []

    def fail(path: Path, labels: Any) -> None:
        done.append(path)
        if len(done) == 2:
            raise OSError("disk full")
        write_labels(path, labels)

    monkeypatch.setattr(module, "write_labels", fail)
    with pytest.raises(OSError, match="disk full"):
        oof(oof_config(copied))
    assert not [t.name for t in threading.enumerate() if t.name.startswith(THREAD_NAME)]
    assert {path.name for path in run.path.iterdir()} == files
    assert hash_file(run.oof / "scores.csv") == before


def test_ensemble_bad_sources(trained: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        ensemble(ensemble_config(trained, tmp_path, tmp_path / "nowhere"))
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="no images in this folder"):
        ensemble(ensemble_config(trained, tmp_path, tmp_path / "void"))


@pytest.mark.slow
def test_members_of_two_runs(two_runs: TrainConfig, tmp_path: Path, images: Path) -> None:
    config = replace(ensemble_config(two_runs, tmp_path, images), runs=("tiny", "second"))
    result = ensemble(config)
    assert result.members == 4
    assert result.submission.parent.name == "tiny+second"


@pytest.mark.slow
def test_flows_equal_cellpose(shared: Path) -> None:
    """Our path to flows is that of CellposeModel.eval."""
    path = shared / "models" / "usiigaci_unet"
    image = read_image(shared / "data" / "kaggle_layout" / "test" / "set37_0.png")[:300, :411]
    theirs = cellpose_models.CellposeModel(gpu=False, pretrained_model=str(path), mkldnn=False)
    _, (_, flow, cellprob), style = theirs.eval(image, channels=[0, 0], compute_masks=False)
    member = load_member(path, "usiigaci", Machine(torch.device("cpu")))
    ours = Segmenter([member], MaskConfig()).predict(image)
    np.testing.assert_allclose(ours.flow, flow, atol=1e-5)
    np.testing.assert_allclose(ours.cellprob, cellprob, atol=1e-5)
    assert style.shape == (256,)


@pytest.mark.slow
@pytest.mark.usefixtures("full_width")
def test_cellpose_takes_our_best_model(tiny_config: TrainConfig, tmp_path: Path) -> None:
    short = replace(tiny_config.optim, n_epochs=1)
    train(replace(tiny_config, runs_dir=tmp_path, fold=("0",), eval_every=1, optim=short))
    path = RunFolder(tmp_path / "tiny").fold(0).best
    dataset = Dataset.open(tiny_config.data)
    image = dataset.image(dataset.ids[0])
    theirs = cellpose_models.CellposeModel(gpu=False, pretrained_model=str(path), mkldnn=False)
    _, (_, flow, cellprob), _ = theirs.eval(image, channels=[0, 0], compute_masks=False)
    ours = Segmenter(
        [load_member(path, "best", Machine(torch.device("cpu")))], MaskConfig()
    ).predict(image)
    # Equal up to rounding: a network that has hardly been trained puts out large numbers.
    np.testing.assert_allclose(ours.flow, flow, atol=1e-5 * np.abs(flow).max())
    np.testing.assert_allclose(ours.cellprob, cellprob, atol=1e-5 * np.abs(cellprob).max())


@pytest.mark.slow
def test_thresholds_travel_with_the_run(copied: TrainConfig, tmp_path: Path, images: Path) -> None:
    """Without flags, OOF and ensemble use what the run was trained with."""
    mask = replace(copied.mask, cellprob_threshold=-2.0, flow_threshold=0.0)
    train(replace(copied, name="tuned", mask=mask, optim=replace(copied.optim, n_epochs=1)))
    result = oof(replace(oof_config(copied), run="tuned", mask=MaskOverrides()))
    made_by = json.loads((result.run.oof / "oof.json").read_text())
    assert made_by["mask"]["cellprob_threshold"] == -2.0
    assert result.scores["last_epoch_score"].notna().all()
    other = oof(
        replace(oof_config(copied), run="tuned", mask=MaskOverrides(cellprob_threshold=1.0))
    )
    # Scores at the last epoch were made with the run's thresholds: not comparable, so left empty.
    assert other.scores["last_epoch_score"].isna().all()
    config = replace(ensemble_config(copied, tmp_path, images), runs=("tiny", "tuned"))
    with pytest.raises(RunError, match="different thresholds"):
        ensemble(replace(config, mask=MaskOverrides()))
    assert ensemble(config).members == 4


def test_unfinished_folds_are_refused_unless_wanted(copied: TrainConfig) -> None:
    run = RunFolder(copied.runs_dir / "tiny")
    history = pd.read_csv(run.fold(1).history)
    history[:2].to_csv(run.fold(1).history, index=False)
    summary = json.loads(run.fold(1).summary.read_text(encoding="utf-8"))
    run.fold(1).summary.write_text(json.dumps(summary | {"finished": ""}), encoding="utf-8")
    with pytest.raises(RunError, match=r"fold 1 has stopped after epoch 2 of 3.*--unfinished"):
        oof(oof_config(copied))
    assert len(oof(replace(oof_config(copied), unfinished=True)).scores) == 6


@pytest.mark.parametrize("text", ["data_hash: x", "[", "", "config: text"])
def test_a_damaged_record(copied: TrainConfig, text: str) -> None:
    run = RunFolder(copied.runs_dir / "tiny")
    run.record_path.write_text(text)
    with pytest.raises(RunError, match=r"config\.yaml (is not the record|cannot be read)"):
        oof(oof_config(copied))
    run.record_path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunError, match=r"config\.yaml (is not the record|cannot be read)"):
        oof(oof_config(copied))


def test_a_damaged_table_is_found_before_anything_is_predicted(copied: TrainConfig) -> None:
    run = RunFolder(copied.runs_dir / "tiny")
    run.fold(0).evaluations.write_text("")
    with pytest.raises(
        RunError, match=r"evaluations\.csv line 1: expected the columns .*no header"
    ):
        oof(replace(oof_config(copied), mask=MaskOverrides()))
    assert not run.oof.exists()


def test_one_run_twice(trained: TrainConfig, tmp_path: Path, images: Path) -> None:
    config = replace(ensemble_config(trained, tmp_path, images), runs=("tiny", "tiny"))
    with pytest.raises(RunError, match="member twice"):
        ensemble(config)


def test_a_run_by_its_folder(
    trained: TrainConfig, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.runs_dir / "tiny")
    result = ensemble(replace(ensemble_config(trained, tmp_path, images), runs=(".",)))
    assert result.masks.parent == tmp_path / "predictions" / "tiny"


def test_predicting_the_training_images_is_said(
    trained: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ensemble(ensemble_config(trained, tmp_path, trained.data))
    assert "cellflow oof" in caplog.text
