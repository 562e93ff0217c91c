"""The whole chain, from files to files, on images that come with little or odd facts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage.io import imsave

from cellflow.config import (
    ChainConfig,
    FoldsConfig,
    ModelConfig,
    OptimConfig,
    OutputConfig,
    PredictConfig,
    PrepareConfig,
    RuntimeConfig,
    SamplingConfig,
    ScoreConfig,
    TrainConfig,
)
from cellflow.config.catalog import CompareConfig, RunsConfig
from cellflow.engine.data.make_folds import make_folds
from cellflow.engine.data.prepare import prepare
from cellflow.engine.experiments.chain import run_chain
from cellflow.engine.prediction.ensemble import predict
from cellflow.engine.runs.catalog import list_runs
from cellflow.engine.runs.contents import TEXT_COLUMNS
from cellflow.engine.runs.metadata import build_metadata
from cellflow.engine.validation.compare_runs import compare_runs
from cellflow.engine.validation.score_masks import score_masks
from cellflow.errors import FoldError
from cellflow.io.dataset import Dataset
from cellflow.io.fold_table import read_fold_table
from cellflow.io.formats.submission import read_submission
from cellflow.io.images import write_labels
from cellflow.io.tables import read_frame, read_rows
from cellflow.report.text.comparison import comparison_text
from cellflow.report.text.runs import runs_text
from cellflow.storage.run_folder import RunFolder
from cellflow.synthetic import synthetic_dataset

pytestmark = pytest.mark.slow

CPU = RuntimeConfig(device="cpu", amp="off")


def own_images(folder: Path, names: list[str], *, odd: bool = False) -> Path:
    """Images and masks in two folders; of odd ones one has no cell, and one a cell of a single pixel."""
    (folder / "images").mkdir(parents=True)
    items = synthetic_dataset(len(names), shape=(64, 64), seed=3, per_group=1)
    for name, item in zip(names, items, strict=True):
        imsave(folder / "images" / f"{name}.png", item.image, check_contrast=False)
        labels = np.zeros_like(item.labels) if odd and name in names[-2:] else item.labels
        labels[0, 0] |= odd and name == names[-1]
        write_labels(folder / "masks" / f"{name}.tif", labels)
    return folder


def own_chain(folder: Path, source: Path, table: Path | None = None) -> ChainConfig:
    """A prepared dataset and an experiment of seconds on it."""
    prepare(PrepareConfig(source=source, out=folder / "data", table=table))
    train = TrainConfig(
        data=folder / "data",
        runs_dir=folder / "runs",
        eval_every=1,
        model=ModelConfig(diam_mean=17.0),
        optim=OptimConfig(optimizer="adamw", schedule="cosine", n_epochs=1, batch_size=2),
        sampling=SamplingConfig(bsize=64, min_train_masks=0),
        runtime=CPU,
    )
    return ChainConfig(
        images=source / "images",
        k=2,
        predictions_dir=folder / "predictions",
        ensembles_dir=folder / "ensembles",
        train=train,
    )


def ids_of(path: Path) -> set[str]:
    return {row.values["id"] for row in read_rows(path, ("id",), exact=True)[1]}


def check_chain(config: ChainConfig) -> RunFolder:
    """Run everything; all tables name the images as they are, and all numbers are there."""
    result = run_chain(config)
    run = RunFolder(config.train.runs_dir / config.train.name)
    dataset = Dataset.open(config.train.data)
    ids = set(dataset.ids)
    assert result.calibration is not None and result.ensemble is not None
    assert set(result.ensemble.cells) == ids
    for path in (run.folds, run.scores, run.calibration / "scores.csv"):
        assert ids_of(path) == ids
    assert set().union(*(ids_of(run.fold(k).evaluations) for k in (0, 1))) == ids
    scores = read_frame(run.scores, text=TEXT_COLUMNS).set_index("id")
    if "cell_type" in dataset.images:
        assert scores["cell_type"].to_dict() == dataset.images["cell_type"].to_dict()
    else:
        assert set(scores["cell_type"]) == {""}
    overall = result.calibration.cv[0].set_index("scope").loc["overall"]
    assert 0 <= overall["cross_fitted"] <= 1
    metadata = build_metadata(run, ensembles_dir=config.ensembles_dir)
    assert metadata["status"] == "calibrated"
    assert metadata["cv"]["post"] == pytest.approx(overall["cross_fitted"])
    assert "calibrated" in runs_text(list_runs(RunsConfig(runs_dir=config.train.runs_dir)))
    scored = score_masks(ScoreConfig(pred=str(run.path), runs_dir=config.train.runs_dir))
    assert scored.images.set_index("id")["score"].to_dict() == pytest.approx(
        scores["score"].to_dict()
    )
    return run


def check_predictions(config: ChainConfig, run: RunFolder) -> None:
    """Predict, and score files against files."""
    ids = set(Dataset.open(config.train.data).ids)
    assert config.images is not None
    predicted = predict(
        PredictConfig(
            images=config.images,
            model=str(run.path),
            ensembles_dir=config.ensembles_dir,
            output=OutputConfig(out=config.predictions_dir, name="again"),
            runtime=CPU,
        )
    )
    assert set(read_submission(predicted.folder / "submission.csv")) == ids
    for pred in (predicted.folder / "masks", predicted.folder / "submission.csv"):
        scored = score_masks(ScoreConfig(pred=str(pred), truth=config.train.data))
        assert set(scored.images["id"]) == ids


def test_images_without_any_table(tmp_path: Path) -> None:
    source = own_images(tmp_path / "source", [f"im{k}" for k in range(6)], odd=True)
    config = own_chain(tmp_path, source)
    run = check_chain(config)
    other = replace(config.train, name="other", seed=1)
    check_chain(replace(config, train=other))
    check_predictions(config, run)
    compared = compare_runs(CompareConfig("exp", "other", runs_dir=config.train.runs_dir))
    assert len(compared.images) == 6
    assert "cross-fitted" in comparison_text(compared)


@pytest.mark.parametrize(
    "types",
    [
        ["", "", "", "", "", ""],
        ["a", "", "a", "", "a", ""],  # one type, and none
        ["NA", "true", "NA", "total", "", "a/b $_$ {"],  # types of those names
    ],
)
def test_blank_and_odd_types(tmp_path: Path, types: list[str]) -> None:
    names = ["NA", "NaN", "null", "007", "1e5", "zarr.json"]
    source = own_images(tmp_path / "source", names)
    lines = [
        f'"{name}";{kind};g {k}' for k, (name, kind) in enumerate(zip(names, types, strict=True))
    ]
    (tmp_path / "t.csv").write_text("\n".join(["id;cell_type;group", *lines]))
    config = own_chain(tmp_path, source, tmp_path / "t.csv")
    check_predictions(config, check_chain(config))


def test_four_images_and_one_group_a_fold(tmp_path: Path) -> None:
    source = own_images(tmp_path / "source", ["a", "b", "c", "d"])
    (tmp_path / "t.csv").write_text("id,group\na,nan\nb,nan\nc,NA\nd,NA\n")
    config = own_chain(tmp_path, source, tmp_path / "t.csv")
    run = check_chain(config)
    folds = read_fold_table(run.folds)
    assert folds["a"] == folds["b"] != folds["c"] == folds["d"]


def test_a_single_group_cannot_be_split(tmp_path: Path) -> None:
    source = own_images(tmp_path / "source", ["a", "b", "c", "d"])
    (tmp_path / "t.csv").write_text("id,group\n" + "".join(f"{name},NA\n" for name in "abcd"))
    config = own_chain(tmp_path, source, tmp_path / "t.csv")
    expected = (
        r"found 1 \(4 images, groups from the column group, which is 'NA' for all.*--group id"
    )
    with pytest.raises(FoldError, match=expected):
        run_chain(config)
    assert not config.train.runs_dir.exists()
    assert len(make_folds(FoldsConfig(data=config.train.data, k=2, group="id"))) == 4
