"""What chooses models and thresholds may be another metric than the competition score."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from cellflow import RunsConfig, cli, list_runs, segmentation_metrics
from cellflow.config import GridConfig, MaskConfig
from cellflow.config.metrics import SELECT_NAMES, SelectMetric
from cellflow.engine.runs.state import run_state
from cellflow.engine.segmentation.mask_step import make_labels
from cellflow.engine.training.progress import Progress
from cellflow.engine.validation.selection_bias import selection_bias
from cellflow.engine.validation.threshold_scores import CalibrationImages
from cellflow.engine.validation.threshold_search import ThresholdSearch
from cellflow.io.images import read_image, read_labels, write_labels, write_planes
from cellflow.numeric.dynamics import FLOW_SCALE
from cellflow.numeric.labels import instances_from_labels
from cellflow.numeric.metrics.selection import SELECT_METRICS
from cellflow.numeric.score import competition_score
from cellflow.numeric.targets import labels_to_flows
from cellflow.storage.run_folder import RunFolder
from cellflow.synthetic import synthetic_dataset

TRAIN = (
    "train --data data --name exp --select_metric pq --eval_every 1 --n_epochs 2 --sgd --learning_rate 0.02 "
    "--schedule constant --batch_size 2 --bsize 64 --min_train_masks 1 --device cpu --amp off"
)
CALIBRATE = (
    "calibrate exp --n_thresholds 3 --threshold_step 1 --start_threshold -1 --flow_thresholds 0.4 0.8 "
    "--min_sizes 15 60 --no-extras --device cpu --amp off"
)


def command(words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(words.split())
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def chosen(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run exp: a real model trained a little more on real cells, chosen by PQ."""
    folder = tmp_path_factory.mktemp("select")
    (folder / "source" / "images").mkdir(parents=True)
    source = shared / "data" / "usiigaci"
    for name in ("set07", "set08", "set14", "set15"):
        place = np.s_[500:660, 500:660]
        image = read_image(source / "images" / f"{name}.png")[place]
        write_planes(folder / "source" / "images" / f"{name}.tif", image)
        labels = read_labels(source / "masks" / f"{name}.png")[place]
        write_labels(folder / "source" / "masks" / f"{name}.tif", labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        model = shared / "models" / "usiigaci_unet"
        for words in (
            "prepare source --out data",
            "folds --data data --k 2",
            f"{TRAIN} --pretrained_model {model}",
            "oof exp --policy dataset --device cpu --amp off",
        ):
            assert command(words) == 0
    return folder


@pytest.fixture
def run(chosen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    shutil.copytree(chosen, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return RunFolder(Path("runs/exp"))


@pytest.mark.slow
def test_the_best_model_is_that_of_the_highest_mean(run: RunFolder) -> None:
    for fold in (0, 1):
        rows = pd.read_csv(run.fold(fold).evaluations)
        means = rows.groupby("epoch")[["score", "pq"]].mean()
        history = pd.read_csv(run.fold(fold).history).set_index("epoch")
        summary = json.loads(run.fold(fold).summary.read_text())
        assert means["pq"].max() > 0 and means["pq"].nunique() > 1
        assert summary["select_metric"] == "pq" and summary["best_epoch"] == means["pq"].idxmax()
        assert summary["best_value"] == pytest.approx(means["pq"].max())
        assert summary["best_score"] == pytest.approx(means.loc[summary["best_epoch"], "score"])
        # the tables keep the competition score
        assert history["val_score"].tolist() == pytest.approx(means["score"].tolist())
        assert history["val_pq"].tolist() == pytest.approx(means["pq"].tolist())
        assert history["best_score"].iloc[-1] == summary["best_score"]


@pytest.mark.slow
def test_the_metric_is_part_of_what_a_run_is(
    run: RunFolder, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.read_record()["config"]["select_metric"] == "pq"
    again = TRAIN.replace("--select_metric pq ", "")
    assert command(f"{again} --pretrained_model {shared / 'models' / 'usiigaci_unet'}") != 0
    assert "select_metric: pq -> competition" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_from_before_the_choice_goes_on(
    run: RunFolder, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run.read_record()
    del record["config"]["select_metric"]
    run.write_record(record)
    model = shared / "models" / "usiigaci_unet"
    assert command(f"{TRAIN} --pretrained_model {model}") != 0
    assert "select_metric: competition -> pq" in capsys.readouterr().err
    assert command(f"{TRAIN.replace('--select_metric pq ', '')} --pretrained_model {model}") == 0
    plain = Progress(3, best_score=0.4, best_epoch=2).to_dict()
    del plain["best_value"]
    progress = Progress.from_dict(plain)
    assert not progress.consider(0.3, 3, "net") and progress.consider(0.5, 4, "net")


def test_the_state_of_an_unfinished_fold_is_that_of_the_chosen_epoch(run: RunFolder) -> None:
    files = run.fold(0)
    summary = json.loads(files.summary.read_text())
    files.summary.write_text(json.dumps(summary | {"finished": ""}))
    table = pd.read_csv(files.history)
    table["val_score"] = [0.9, 0.1, 0.1]  # the best epoch by score is not the one by PQ
    table["val_pq"], table["best_score"] = [0.1, 0.6, 0.3], [0.9, 0.1, 0.1]
    table.to_csv(files.history, index=False)
    (state,) = [fold for fold in run_state(run).folds if fold.fold == 0]
    assert (state.score, state.epoch) == (0.1, table["epoch"][1])


def test_the_optimism_is_that_of_choosing_by_the_metric(run: RunFolder) -> None:
    scores = pd.read_csv(run.scores, dtype={"id": str}).set_index("id")
    groups = scores["group"].astype(str).to_dict()
    for fold in (0, 1):
        table = pd.read_csv(run.fold(fold).evaluations, dtype={"id": str})
        expected = selection_bias(table, groups, chosen_by="pq")
        assert scores.loc[expected.index, "selection_bias"].tolist() == expected.tolist()


def test_choosing_by_another_metric_flatters_the_score_less() -> None:
    """Each image has an epoch of its own where its score is 1; PQ is the same in all, so nothing is chosen."""
    rows = [
        {
            "id": f"i{image}",
            "epoch": epoch,
            "weights": "net",
            "score": float(image == epoch),
            "pq": 0.5,
        }
        for image in range(4)
        for epoch in range(4)
    ]
    groups = {f"i{image}": f"g{image}" for image in range(4)}
    table = pd.DataFrame(rows)
    assert selection_bias(table, groups).mean() > 0.2
    assert (selection_bias(table, groups, chosen_by="pq") == 0).all()


def test_thresholds_for_one_metric_and_models_by_another(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    cv = pd.read_csv(run.cv, keep_default_na=False)
    assert set(cv["selected_by"]) == {"pq"} and set(cv["fitted_for"]) == {""}
    assert command(f"{CALIBRATE} --select_metric f1_50") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "models chosen by PQ, thresholds fitted for F1 at IoU 0.5: two metrics" in text
    assert ", fitted for F1 at IoU 0.5:" in text
    facts = json.loads(run.thresholds.read_text())
    assert (facts["metric"], facts["selected_by"]) == ("f1_50", "pq")
    assert facts["settings"]["select_metric"] == "f1_50"
    cv = pd.read_csv(run.cv)
    assert set(cv["selected_by"]) == {"pq"} and set(cv["fitted_for"]) == {"f1_50"}
    table = pd.read_csv(run.calibration / "scores.csv", dtype={"id": str})
    # the competition score stays the score; the metric is beside it
    oof = pd.read_csv(run.scores, dtype={"id": str})
    assert table["score"].tolist() == pytest.approx(oof["score"].tolist(), abs=1e-6)
    dataset = sorted(Path("source/masks").iterdir())
    truths = [read_labels(path) for path in dataset]
    found = [read_labels(run.oof / "masks" / path.name) for path in dataset]
    f1 = segmentation_metrics(truths, found, metrics=["f1_50"]).per_image["f1_50"]
    assert table.sort_values("id")["f1_50_training"].tolist() == pytest.approx(
        f1.tolist(), abs=1e-6
    )
    assert facts["scores"]["all types"]["training_thresholds"] == pytest.approx(f1.mean(), abs=1e-6)
    assert facts["scores"]["all types"]["cross_fitted"] == pytest.approx(
        table["f1_50_cross_fitted"].mean()
    )


def test_verify_agrees_whatever_chose(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own computation of scores, biases and means is of the competition score, as the tables are."""
    assert command("verify exp") == 0
    assert "cellflow calibrate exp --select_metric pq" in capsys.readouterr().out
    assert command(f"{CALIBRATE} --select_metric ap50") == 0
    assert command("verify exp") == 0, capsys.readouterr()
    assert set(pd.read_csv(run.cv)["fitted_for"]) == {"ap50"}


def test_lists_of_runs_have_the_score_whatever_chose(run: RunFolder) -> None:
    (raw,) = list_runs(RunsConfig()).to_dict("records")
    assert raw["cv_raw"] == pytest.approx(pd.read_csv(run.scores)["score"].mean())
    command(f"{CALIBRATE} --select_metric f1_75")
    (row,) = list_runs(RunsConfig()).to_dict("records")
    fitted = pd.read_csv(run.calibration / "scores.csv")["cross_fitted"].mean()
    assert row["cv_post"] == pytest.approx(fitted)


def test_one_metric_for_both_is_no_mix(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(f"{CALIBRATE} --select_metric pq") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "models chosen by PQ, thresholds fitted for PQ; the scores above are comp" in text


@pytest.fixture(scope="module")
def images() -> CalibrationImages:
    """Six images whose logits are too high: cells merge."""
    items = list(synthetic_dataset(6, shape=(72, 80), seed=11, per_group=1))
    flows = {}
    for place, item in enumerate(items):
        rng = np.random.default_rng(place)
        noise = rng.normal(0, 0.7, (3, *item.labels.shape))
        flow = FLOW_SCALE * labels_to_flows(item.labels) + noise[:2]
        cellprob = np.where(item.labels > 0, 2.0, -2.0) + noise[2] + 1.5
        flows[item.id] = flow.astype(np.float32), cellprob.astype(np.float32), 17.0
    truth = {item.id: instances_from_labels(item.labels) for item in items}
    ids = tuple(item.id for item in items)
    folds = tuple(place % 3 for place in range(6))
    return CalibrationImages(
        ids, ("",) * 6, folds, ids, ("",) * 6, truth.__getitem__, flows.__getitem__
    )


GRID = GridConfig(
    start_threshold=-2.0, threshold_step=2.0, n_thresholds=3, flow_thresholds=(0.4, 0.0),
    min_sizes=(15, 60), extras=False,
)  # fmt: skip


@pytest.mark.parametrize("metric", SELECT_METRICS)
def test_scores_of_a_grid_are_those_of_single_calls(images: CalibrationImages, metric: str) -> None:
    search = ThresholdSearch(images, GRID, MaskConfig(), metric=metric)
    cellprobs, flows, sizes = search.scores.axes
    masks = [MaskConfig(cellprobs[c], flows[f], int(sizes[m])) for c, f, m in np.ndindex(3, 2, 2)]
    masks.append(MaskConfig(0.3, 0.4, 20, score_per_pixel=0.8))  # off the grid
    for mask in masks:
        truth = images.truth(images.ids[2])
        labels = make_labels(*images.flows(images.ids[2]), mask)
        score = competition_score(truth, labels)
        value = {"ap50": score.precision[0, 0], "ap75": score.precision[0, 5]}.get(metric)
        if value is None:
            value = segmentation_metrics(truth, labels, metrics=[metric]).mean[metric]
        assert search.scores.at([2], mask)[0] == pytest.approx(value, abs=1e-6)
        assert search.scores.competition_at([2], mask)[0] == pytest.approx(score.mean, abs=1e-6)


def test_every_metric_that_selects_has_a_name() -> None:
    assert get_args(SelectMetric) == SELECT_METRICS == tuple(SELECT_NAMES)


def test_the_optimum_is_that_of_the_metric(images: CalibrationImages) -> None:
    """With no smoothing and all images in it, the fit takes the best of the grid by the metric it is for."""
    search = ThresholdSearch(images, GRID, MaskConfig(), smoothing=0.0, metric="pq")
    surface = search.scores.surface(images.every)
    assert search._place(images.every) == np.unravel_index(surface.argmax(), surface.shape)
    values, fitted = search.cross_fit()
    competition = search.competition_of(fitted)
    for row, (name, fold) in enumerate(zip(images.ids, images.folds, strict=True)):
        labels = make_labels(*images.flows(name), fitted[fold].shared)
        truth = images.truth(name)
        assert values[row] == pytest.approx(
            segmentation_metrics(truth, labels, metrics=["pq"]).mean["pq"], abs=1e-6
        )
        assert competition[row] == pytest.approx(competition_score(truth, labels).mean, abs=1e-6)
    alone = replace(search, metric="competition")
    assert alone.cross_fit()[0].tolist() == alone.competition_of(alone.cross_fit()[1]).tolist()
