from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cellflow import segmentation_metrics
from cellflow.config import CalibrateConfig, GridConfig, RuntimeConfig, TrainConfig
from cellflow.config.catalog import CompareConfig
from cellflow.engine.runs.contents import run_dataset
from cellflow.engine.validation.calibrate import calibrate
from cellflow.engine.validation.compare_runs import Comparison, compare_runs
from cellflow.errors import ConfigError, RunError
from cellflow.io.images import read_labels, write_labels
from cellflow.numeric.bootstrap import MIN_GROUPS, bootstrap_mean
from cellflow.report.text.comparison import comparison_text
from cellflow.storage.run_folder import RunFolder

CPU = RuntimeConfig(device="cpu", amp="off")
GRID = GridConfig(n_thresholds=2, flow_thresholds=(0.4,), min_sizes=(15, 30), extras=False)
ALL = ("overall", "all", "training")
Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def calibrated(predicted_once: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run with out-of-fold scores and thresholds."""
    run = tmp_path_factory.mktemp("compared") / "a"
    states = shutil.ignore_patterns("last.pt")
    shutil.copytree(predicted_once.runs_dir / predicted_once.name, run, ignore=states)
    config = CalibrateConfig(
        runs=(str(run),), ensembles_dir=run.parent / "ensembles", grid=GRID, runtime=CPU
    )
    calibrate(config)
    return run


@pytest.fixture
def pair(calibrated: Path, tmp_path: Path) -> tuple[RunFolder, RunFolder]:
    """Two runs a and b of one data and split, alike but for a seed."""
    light = shutil.ignore_patterns("*.pt", "flows.zarr", "masks")
    runs = []
    for name in "ab":
        run = RunFolder(Path(shutil.copytree(calibrated, tmp_path / "runs" / name, ignore=light)))
        for fold in (0, 1):
            run.fold(fold).best.touch()
        runs.append(run)
    changed(runs[1], lambda record: record["config"].update(seed=1))
    return runs[0], runs[1]


def changed(run: RunFolder, change: Callable[[dict[str, Any]], Any]) -> None:
    record = run.read_record()
    change(record)
    run.write_record(record)


def rewritten(path: Path, change: Change) -> None:
    change(pd.read_csv(path, dtype={"id": str})).to_csv(path, index=False)


def scores_of(run: RunFolder) -> pd.DataFrame:
    return pd.read_csv(run.scores, dtype={"id": str})


def compared(pair: tuple[RunFolder, RunFolder], **options: Any) -> Comparison:
    return compare_runs(CompareConfig("a", "b", runs_dir=pair[0].path.parent, **options))


def row(comparison: Comparison, scope: str, name: str, thresholds: str) -> pd.Series:
    table = comparison.table
    found = table[
        (table["scope"] == scope) & (table["name"] == name) & (table["thresholds"] == thresholds)
    ]
    assert len(found) == 1
    return found.iloc[0]


def test_runs_that_score_alike(pair: tuple[RunFolder, RunFolder]) -> None:
    result = compared(pair)
    assert result.config == ("seed: 0 -> 1",) and result.notes == ()
    assert (result.a, result.b) == ("a", "b")
    assert len(result.images) == 6
    assert (result.images["difference"] == 0).all()
    assert set(result.table["verdict"]) == {"undecided"}
    assert set(result.table["thresholds"]) == {"training", "cross-fitted"}
    assert row(result, *ALL)[["difference", "low", "high"]].tolist() == [0, 0, 0]


def test_differences_are_taken_per_image(pair: tuple[RunFolder, RunFolder]) -> None:
    gains = np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.6])
    rewritten(pair[0].scores, lambda table: table.assign(score=np.linspace(0.0, 0.3, 6)))
    rewritten(pair[1].scores, lambda table: table.assign(score=np.linspace(0.0, 0.3, 6) + gains))
    scores = scores_of(pair[0])
    rewritten(pair[1].scores, lambda table: table.iloc[::-1])  # the order plays no part
    result = compared(pair)
    found = row(result, *ALL)
    interval = bootstrap_mean(gains, scores["group"].to_numpy(str))
    assert found[["difference", "low", "high"]].tolist() == pytest.approx(tuple(interval))
    assert found["score_a"] == pytest.approx(0.15)
    assert found["score_b"] == pytest.approx(0.15 + gains.mean())
    assert (found["images"], found["groups"]) == (6, scores["group"].nunique())
    assert found["groups"] >= MIN_GROUPS and found["verdict"] == "B better"
    assert result.conclusions[0].startswith("At the training's thresholds: b is better than a:")
    for fold, part in scores.groupby("fold"):
        expected = gains[part.index].mean()
        assert row(result, "fold", str(fold), "training")["difference"] == pytest.approx(expected)
    for name, part in scores.groupby("cell_type"):
        expected = gains[part.index].mean()
        found = row(result, "cell_type", str(name), "training")
        assert found["difference"] == pytest.approx(expected)
        assert found["verdict"] == "undecided"  # too few groups
    swapped = compare_runs(CompareConfig("b", "a", runs_dir=pair[0].path.parent))
    assert row(swapped, *ALL)["verdict"] == "A better"
    assert row(swapped, *ALL)["difference"] == pytest.approx(-gains.mean())


def test_cross_fitted_scores_of_their_own(pair: tuple[RunFolder, RunFolder]) -> None:
    table = pair[1].calibration / "scores.csv"
    rewritten(table, lambda scores: scores.assign(cross_fitted=scores["cross_fitted"] + 0.25))
    result = compared(pair)
    assert row(result, "overall", "all", "cross-fitted")["difference"] == pytest.approx(0.25)
    assert row(result, *ALL)["difference"] == 0
    assert len(result.conclusions) == 2 and "cross-fitted" in result.conclusions[1]
    assert (result.images["cross_fitted_difference"].round(6) == 0.25).all()
    rewritten(table, lambda scores: scores.assign(cross_fitted=[*scores["cross_fitted"][:5], None]))
    assert row(compared(pair), "overall", "all", "cross-fitted")["images"] == 5


def test_one_that_is_not_calibrated(pair: tuple[RunFolder, RunFolder]) -> None:
    pair[1].thresholds.unlink()  # what lies in calibration/ is then of older flows
    result = compared(pair)
    assert set(result.table["thresholds"]) == {"training"}
    assert result.notes == (f"b: not calibrated; cellflow calibrate {pair[1].path}",)


def test_other_data_are_not_paired(pair: tuple[RunFolder, RunFolder]) -> None:
    changed(pair[1], lambda record: record.update(data_hash="0" * 32, data="/other"))
    result = compared(pair)
    assert result.images.empty
    assert "different data" in result.notes[0] and "/other" in result.notes[0]
    assert set(result.table["scope"]) == {"overall"}
    found = row(result, *ALL)
    assert found["score_a"] == pytest.approx(scores_of(pair[0])["score"].mean())
    assert np.isnan(found["difference"]) and result.conclusions == ()
    text = comparison_text(result)
    assert "different data" in text and "difference " not in text.split("mind:")[1].split("\n\n")[1]


def test_another_split_is_paired_but_not_by_fold(pair: tuple[RunFolder, RunFolder]) -> None:
    changed(pair[1], lambda record: record.update(folds_hash="0" * 32))
    result = compared(pair)
    assert "different splits" in result.notes[0]
    assert "fold" not in set(result.table["scope"]) and "fold" not in result.images
    assert row(result, *ALL)["images"] == 6


def test_images_that_one_run_lacks(pair: tuple[RunFolder, RunFolder]) -> None:
    rewritten(pair[1].scores, lambda table: table.iloc[1:])
    result = compared(pair)
    assert row(result, *ALL)["images"] == 5
    assert "1 images only a has are left out" in result.notes


def test_other_groups_are_said(pair: tuple[RunFolder, RunFolder]) -> None:
    rewritten(pair[1].scores, lambda table: table.assign(group="one"))
    assert any("grouped in two ways" in note for note in compared(pair).notes)


def test_what_a_run_lacks_is_said(pair: tuple[RunFolder, RunFolder]) -> None:
    shutil.rmtree(pair[1].oof)
    pair[1].fold(1).summary.unlink()
    changed(pair[1], lambda record: record["config"].update(debug=True))
    result = compared(pair)
    assert result.images.empty and list(result.table["score_b"].dropna()) == []
    assert result.config == ("debug: False -> True", "seed: 0 -> 1")
    notes = "\n".join(result.notes)
    assert "b: not trained to its end (fold 1)" in notes
    assert f"b: no out-of-fold scores; make them with: cellflow oof {pair[1].path}" in notes
    assert "b: a debug run" in notes
    shutil.rmtree(pair[0].oof)
    assert compared(pair).table.empty
    assert "seed: 0 -> 1" in comparison_text(compared(pair))


def test_scores_of_other_models_are_said(pair: tuple[RunFolder, RunFolder]) -> None:
    rewritten(pair[1].scores, lambda table: table.assign(epoch=99))
    assert any("other models" in note for note in compared(pair).notes)


def test_raw_scores_are_at_the_thresholds_of_the_training(
    pair: tuple[RunFolder, RunFolder],
) -> None:
    made = pair[1].oof_record.read_text().replace('"min_size": 15', '"min_size": 99')
    pair[1].oof_record.write_text(made)  # the pass had been made with others
    rewritten(pair[1].scores, lambda table: table.assign(score=0.9))
    result = compared(pair)
    assert row(result, *ALL)["difference"] == pytest.approx(0, abs=1e-6)
    assert result.config == ("oof.mask.min_size: 15 -> 99", "seed: 0 -> 1")
    pair[1].thresholds.unlink()
    result = compared(pair)
    assert row(result, *ALL)["score_b"] == 0.9
    assert "b: its scores are at other thresholds than those of the training" in result.notes


def test_diameters_and_versions_are_settings_too(pair: tuple[RunFolder, RunFolder]) -> None:
    made = pair[1].oof_record.read_text()
    pair[1].oof_record.write_text(made.replace('"policy": "dataset"', '"policy": "image"'))
    changed(pair[1], lambda record: record["versions"].update(torch="9"))
    found = compared(pair).config
    assert "oof.policy: dataset -> image" in found
    assert found[-1].startswith("versions.torch: ") and found[-1].endswith(" -> 9")


def test_text_and_table_of_images(pair: tuple[RunFolder, RunFolder], tmp_path: Path) -> None:
    result = compared(pair, out=tmp_path / "out" / "images.csv")
    written = pd.read_csv(tmp_path / "out" / "images.csv", dtype={"id": str})
    assert list(written["id"]) == list(result.images["id"])
    assert written["score_b"].tolist() == pytest.approx(result.images["score_b"].tolist())
    text = comparison_text(result)
    for part in ("A  a", "B  b", "  seed: 0 -> 1", "overall", "Undecided between b and a"):
        assert part in text


def test_what_cannot_be_compared(pair: tuple[RunFolder, RunFolder]) -> None:
    folder = pair[0].path.parent
    with pytest.raises(ConfigError, match="compared with itself"):
        compare_runs(CompareConfig("a", "a", runs_dir=folder))
    with pytest.raises(ConfigError, match="compared with itself"):
        compare_runs(CompareConfig("a", str(pair[0].path), runs_dir=folder))
    with pytest.raises(RunError, match=r"No run .c.: expected .* a, b"):
        compare_runs(CompareConfig("a", "c", runs_dir=folder))
    pair[1].scores.write_text("id\nx\n")
    with pytest.raises(RunError, match=r"Make it again with: cellflow oof \S*/b"):
        compared(pair)


@pytest.mark.parametrize("file", ["oof/scores.csv", "calibration/scores.csv"])
def test_an_image_with_two_scores(pair: tuple[RunFolder, RunFolder], file: str) -> None:
    rewritten(pair[1].path / file, lambda rows: pd.concat([rows, rows.iloc[:1]]))
    name = scores_of(pair[0])["id"].iloc[0]
    with pytest.raises(
        RunError, match=rf"{file}: expected one row for each image, found two of '{name}'"
    ):
        compared(pair)


def test_runs_of_one_name_are_told_apart(pair: tuple[RunFolder, RunFolder], tmp_path: Path) -> None:
    other = shutil.copytree(pair[1].path, tmp_path / "other" / "a")
    result = compare_runs(CompareConfig("a", str(other), runs_dir=pair[0].path.parent))
    assert result.a != result.b and str(other) in (result.a, result.b)


def test_more_metrics_of_two_runs(calibrated: Path, tmp_path: Path) -> None:
    """The out-of-fold masks of both are scored; b finds nothing in two images that a is right about."""
    light = shutil.ignore_patterns("*.pt", "flows.zarr")
    for name in "ab":
        shutil.copytree(calibrated, tmp_path / "runs" / name, ignore=light)
    run = RunFolder(tmp_path / "runs" / "a")
    dataset = run_dataset(run, None)
    for name in dataset.ids[:2]:
        write_labels(run.oof / "masks" / f"{name}.tif", dataset.labels(name))
    config = CompareConfig("a", "b", runs_dir=tmp_path / "runs", metrics=("pq", "dice"))
    result = compare_runs(replace(config, out=tmp_path / "images.csv"))
    rows = result.metrics.set_index("metric")[result.metrics["scope"].to_numpy() == "overall"]
    expected = [
        [
            segmentation_metrics(dataset.instances(name), read_labels(place / f"{name}.tif")).mean
            for name in result.images["id"]
        ]
        for place in (tmp_path / "runs" / side / "oof" / "masks" for side in "ba")
    ]
    for metric in ("pq", "dice"):
        b, a = (np.mean([row[metric] for row in side]) for side in expected)
        assert a > b
        assert rows.loc[metric, ["mean", "mean_versus", "difference"]].tolist() == pytest.approx(
            [b, a, b - a]
        )
    table = pd.read_csv(tmp_path / "images.csv")
    assert table["pq_difference"].mean() == pytest.approx(rows.loc["pq", "difference"])
    text = comparison_text(result)
    assert "more metrics of the out-of-fold masks: B, versus A" in text
    assert "panoptic quality" in text and compare_runs(replace(config, metrics=())).metrics.empty
