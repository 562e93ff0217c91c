"""Labels for images without annotation, from files to a further run that was trained on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from blobs import seeing_run
from skimage.io import imread, imsave
from training_runs import differences

import cellflow
from cellflow import cli
from cellflow.config import PseudoConfig, RuntimeConfig, TrainConfig
from cellflow.engine.training.crops import fold_samples, make_sampler
from cellflow.errors import DataError, LeakError, RunError
from cellflow.io.dataset import Dataset
from cellflow.io.image_source import find_images
from cellflow.io.images import read_labels
from cellflow.io.target_folder import TargetFolder, TargetWriter
from cellflow.nn.checkpoint import load_model_file, load_state
from cellflow.nn.ranks import ALONE
from cellflow.storage.atomic import atomic_folder
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder
from cellflow.synthetic import synthetic_dataset

CPU = RuntimeConfig(device="cpu", amp="off")


@pytest.fixture(scope="module")
def seeing(trained: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainConfig]:
    """The trained run with networks that see bright spots in the place of those of three epochs, which see nothing."""
    with seeing_run(trained, tmp_path_factory.mktemp("seeing")) as config:
        yield config


@pytest.fixture(scope="module")
def unlabelled(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images without annotation, and two that are of the dataset: a copy, and one that is turned."""
    folder = tmp_path_factory.mktemp("unlabelled")
    for item in synthetic_dataset(3, shape=(96, 112), seed=77, per_group=1):
        imsave(folder / f"new_{item.id}.png", item.image, check_contrast=False)
    known = sorted((tiny_data / "images").iterdir())
    shutil.copy(known[0], folder / f"copy{known[0].suffix}")
    turned = np.ascontiguousarray(np.rot90(imread(known[1])))
    imsave(folder / "turned.png", turned, check_contrast=False)
    return folder


@pytest.fixture(scope="module")
def labelled(
    seeing: TrainConfig, unlabelled: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The round that the command writes."""
    out = tmp_path_factory.mktemp("rounds")
    words = ["pseudo", str(seeing.runs_dir / seeing.name), "--images", str(unlabelled)]
    words += ["--out", str(out), "--min_confidence", "0.5", "--device", "cpu", "--amp", "off"]
    with pytest.raises(SystemExit, match="0"):
        cli.main(words)
    return out / "round1"


def test_a_round_can_be_looked_at_and_says_who_made_it(
    labelled: Path, seeing: TrainConfig, unlabelled: Path
) -> None:
    run, record = (
        RunFolder(seeing.runs_dir / seeing.name),
        json.loads((labelled / "targets.json").read_text()),
    )
    assert record["format"] == "cellflow-targets"
    assert record["runs"] == ["tiny"]
    for fold in (0, 1):
        (teacher,) = record["parts"][f"fold_{fold}"]["teachers"]
        assert teacher["fold"] == fold
        assert teacher["hash"] == hash_file(run.fold(fold).best)
        assert teacher["samples_hash"] == load_model_file(run.fold(fold).best).facts["samples_hash"]
        images = pd.read_csv(labelled / f"fold_{fold}" / "images.csv")
        cells = pd.read_csv(labelled / f"fold_{fold}" / "cells.csv")
        assert images["cells"].sum() > 0
        assert len(cells) == images["found"].sum()
        for row in images.itertuples():
            labels = read_labels(labelled / f"fold_{fold}" / "labels" / f"{row.id}.tif")
            ignored = read_labels(labelled / f"fold_{fold}" / "ignored" / f"{row.id}.tif")
            own = cells[cells["id"] == row.id]
            kept = own[own["label"] > 0]
            assert (kept["confidence"] >= 0.5).all()
            assert (kept["agreement"] >= 0.7).all()
            assert (
                list(kept["label"]) == list(range(1, row.cells + 1)) == list(np.unique(labels)[1:])
            )
            assert list(kept["area"]) == list(np.bincount(labels.ravel())[1:])
            assert set(np.unique(ignored)) <= {0, 255}
            assert (ignored > 0).mean() == pytest.approx(row.ignored, abs=1e-4)
    left = pd.read_csv(labelled / "left_out.csv").set_index("id")["reason"]
    assert sorted(left.index) == ["copy", "turned"]
    assert "annotated" in left["copy"]
    for path in sorted(unlabelled.glob("new_*")):
        assert (labelled / "images" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_folds_learn_from_their_own_round_and_say_so(
    labelled: Path, trained: TrainConfig, tmp_path: Path
) -> None:
    config = replace(trained, name="second", runs_dir=tmp_path, pseudo=labelled, pseudo_weight=1.0)
    dataset = Dataset.open(trained.data)
    samples = fold_samples(config, 0, dataset, dataset.folds())
    table = TargetFolder.open(labelled).table("fold_0")
    assert list(samples.extra.ids) == list(table.index[table["cells"] >= 1])
    for place, name in enumerate(samples.extra.ids):
        labels, ignored = TargetFolder.open(labelled).labels("fold_0", name)
        sample = samples.extra(place)
        np.testing.assert_array_equal(sample.target[0], labels)
        np.testing.assert_array_equal(sample.ignored, ignored)
        np.testing.assert_array_equal(sample.target[1:], cellflow.labels_to_flows(labels))
    # each annotated image is drawn as often as before, and the others together as often as all of them
    sampler = make_sampler(config, 0, dataset, samples, ALONE)
    assert sampler.per_epoch == 2 * len(samples.training)
    share = np.asarray(sampler.weights) / np.sum(sampler.weights)
    assert share[: len(samples.training)].sum() == pytest.approx(0.5)

    # what goes on gives what an undisturbed training gives
    config = replace(config, eval_every=3, fold=("0",))
    whole = replace(config, runs_dir=tmp_path / "whole")
    cellflow.train(whole)
    for seconds in ("0.001s", None):
        cellflow.train(replace(config, time_budget=seconds))
    states = [
        load_state(RunFolder(item.runs_dir / "second").fold(0).last) for item in (config, whole)
    ]
    assert differences(*(state["net"] for state in states)) == []
    run = RunFolder(tmp_path / "second")
    assert run.read_record()["config"]["pseudo"].startswith("round1 (")
    facts = load_model_file(run.fold(0).best).facts
    assert facts["targets"]["hash"] == TargetFolder.open(labelled).hash("fold_0")
    again = cellflow.pseudo(
        PseudoConfig(
            runs=("second",), runs_dir=tmp_path, images=(labelled / "images",),
            out=tmp_path / "rounds", name="two", runtime=CPU,
        )
    )  # fmt: skip
    record = json.loads((again.folder / "targets.json").read_text())
    assert record["parts"]["fold_0"]["teachers"][0]["targets"]["name"] == "round1"
    assert again.images == 3
    # other labels are another run
    with pytest.raises(RunError, match="pseudo: round1"):
        cellflow.train(replace(config, pseudo=again.folder))


def changed(labelled: Path, folder: Path, change: object) -> Path:
    """A copy of the round whose record says something else."""
    shutil.copytree(labelled, folder)
    record = json.loads((folder / "targets.json").read_text())
    change(record)  # type: ignore[operator]
    (folder / "targets.json").write_text(json.dumps(record))
    return folder


def test_a_teacher_that_saw_the_validation_images_is_refused_before_anything_is_trained(
    labelled: Path, trained: TrainConfig, tmp_path: Path
) -> None:
    def swap(record: dict[str, dict[str, dict[str, object]]]) -> None:
        parts = record["parts"]
        parts["fold_0"]["teachers"], parts["fold_1"]["teachers"] = (
            parts["fold_1"]["teachers"], parts["fold_0"]["teachers"],
        )  # fmt: skip

    def split(record: dict[str, dict[str, dict[str, list[dict[str, object]]]]]) -> None:
        record["parts"]["fold_1"]["teachers"][0]["folds_hash"] = "0" * 32

    def lose(record: dict[str, dict[str, object]]) -> None:
        del record["parts"]["fold_1"]

    config = replace(trained, name="leaky", runs_dir=tmp_path / "runs")
    for number, (change, error, text) in enumerate(
        [
            (swap, LeakError, "fold is 1 in place of 0"),
            (split, LeakError, "fold 1 .*hash of the split is 0{32}"),
            (lose, DataError, "expected targets for fold 1, found those of fold_0"),
        ]
    ):
        folder = changed(labelled, tmp_path / f"round{number}", change)
        with pytest.raises(error, match=text):
            cellflow.train(replace(config, pseudo=folder))
    # labels that somebody has exchanged, and an image of the dataset
    folder = changed(labelled, tmp_path / "other", lambda record: None)
    shutil.rmtree(folder / "fold_0")
    shutil.copytree(folder / "fold_1", folder / "fold_0")
    with pytest.raises(DataError, match="not those that the record tells of"):
        cellflow.train(replace(config, pseudo=folder))
    # targets of an image that a fold validates on, whoever made them
    source = next(iter(find_images([trained.data]).values()))
    with atomic_folder(tmp_path / "own") as folder:
        writer = TargetWriter(folder, "labels")
        marks, nothing = writer.add_image(source, source.pixels()), np.zeros((96, 112), np.int32)
        facts = {"cells": 0, "diameter": 20.0}
        writer.add_labels(
            "fold_0", source.id, nothing, nothing > 0, pixel_hash=marks, facts=facts,
            cells=pd.DataFrame(),
        )  # fmt: skip
        record = json.loads((labelled / "targets.json").read_text())
        writer.finish({}, {"fold_0": {"teachers": record["parts"]["fold_0"]["teachers"]}}, {})
    with pytest.raises(LeakError, match=f"the image {source.id!r} is {source.id!r} of"):
        cellflow.train(replace(config, pseudo=tmp_path / "own", fold=("0",)))
    assert not (tmp_path / "runs").exists()


def test_runs_of_other_splits_and_rounds_that_are_there_are_refused(
    labelled: Path, copied: TrainConfig, unlabelled: Path, tmp_path: Path
) -> None:
    config = PseudoConfig(
        runs=("tiny",),
        runs_dir=copied.runs_dir,
        images=(unlabelled,),
        out=labelled.parent,
        runtime=CPU,
    )
    with pytest.raises(DataError, match="exists already"):
        cellflow.pseudo(replace(config, name="round1"))
    with pytest.raises(DataError, match="expected nothing, or an earlier result"):
        cellflow.pseudo(
            replace(config, out=unlabelled.parent, name=unlabelled.name, overwrite=True)
        )
    assert len(list(unlabelled.iterdir())) == 5
    other = copied.runs_dir / "other"
    shutil.copytree(copied.runs_dir / "tiny", other)
    run = RunFolder(other)
    run.write_record(run.read_record() | {"folds_hash": "0" * 32})
    with pytest.raises(RunError, match="not of one dataset and split"):
        cellflow.pseudo(replace(config, runs=("tiny", "other"), name="mixed"))
    # a model file of another fold in the place of this one's
    shutil.copy(
        copied.runs_dir / "tiny" / "fold_1" / "best.pt",
        copied.runs_dir / "tiny" / "fold_0" / "best.pt",
    )
    with pytest.raises(RunError, match="expected fold 0, found 1"):
        cellflow.pseudo(replace(config, name="swapped"))
    assert sorted(path.name for path in labelled.parent.iterdir()) == ["round1"]
