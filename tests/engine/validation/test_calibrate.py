from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cellflow
from cellflow.config import (
    CalibrateConfig,
    EnsembleConfig,
    FoldsConfig,
    GridConfig,
    MaskConfig,
    OofConfig,
    OutputConfig,
    RuntimeConfig,
    TrainConfig,
)
from cellflow.engine.data.make_folds import make_folds
from cellflow.engine.prediction.ensemble import ensemble
from cellflow.engine.runs.thresholds import read_thresholds
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.segmentation.mask_step import make_labels
from cellflow.engine.segmentation.open_models import open_models
from cellflow.engine.training.train import train
from cellflow.engine.validation.calibrate import calibrate
from cellflow.engine.validation.oof import oof
from cellflow.engine.validation.oof_flows import OofRun, check_same_data
from cellflow.engine.validation.threshold_scores import CalibrationImages
from cellflow.engine.validation.threshold_search import ThresholdSearch
from cellflow.errors import DataError, RunError
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.nn.precision import choose_device
from cellflow.numeric.averaging import average_flows
from cellflow.numeric.dynamics import FLOW_SCALE
from cellflow.numeric.labels import instances_from_labels
from cellflow.numeric.score import competition_score
from cellflow.numeric.targets import labels_to_flows
from cellflow.storage import atomic
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder
from cellflow.synthetic import synthetic_dataset

CPU = RuntimeConfig(device="cpu", amp="off")
GRID = GridConfig(
    start_threshold=-2.0,
    threshold_step=2.0,
    n_thresholds=3,
    flow_thresholds=(0.4, 0.0),
    min_sizes=(15, 60),
    extras=False,
)


def noisy(item, seed, shift):
    """Flows of the true labels with noise; the logit is too high or too low by `shift`."""
    rng = np.random.default_rng(seed)
    flow = FLOW_SCALE * labels_to_flows(item.labels) + rng.normal(0, 0.7, (2, *item.labels.shape))
    smooth = np.where(item.labels > 0, 2.0, -2.0) + rng.normal(0, 1.0, item.labels.shape)
    return flow.astype(np.float32), (smooth + shift).astype(np.float32)


@pytest.fixture(scope="module")
def images() -> CalibrationImages:
    """Twelve images in three folds; those of type "b" have logits that are 2 too high."""
    items = list(synthetic_dataset(12, shape=(72, 80), seed=11, per_group=1))
    types = tuple("ab"[place % 2] for place in range(12))
    flows = {
        item.id: (*noisy(item, place, 2.0 * (types[place] == "b")), 17.0)
        for place, item in enumerate(items)
    }
    truth = {item.id: instances_from_labels(item.labels) for item in items}
    folds = tuple(place // 2 % 3 for place in range(12))
    ids = tuple(item.id for item in items)
    return CalibrationImages(ids, types, folds, ids, types, truth.__getitem__, flows.__getitem__)


def test_scores_are_those_of_single_calls(images: CalibrationImages) -> None:
    search = ThresholdSearch(images, GRID, MaskConfig())
    cellprobs, flows, sizes = search.scores.axes
    assert (cellprobs, flows, sizes) == ((-2.0, 0.0, 2.0), (0.4, 0.0), (15, 60))
    for row in (0, 5):
        flow, cellprob, diameter = images.flows(images.ids[row])
        for c, f, m in np.ndindex(3, 2, 2):
            mask = MaskConfig(cellprobs[c], flows[f], int(sizes[m]))
            labels = make_labels(flow, cellprob, diameter, mask)
            expected = competition_score(images.truth(images.ids[row]), labels).mean
            assert search.scores.on_grid[row, c, f, m] == pytest.approx(expected, abs=1e-6)
            assert search.scores.at([row], mask)[0] == pytest.approx(expected, abs=1e-6)
    off_grid = MaskConfig(0.3, 0.4, 20, score_per_pixel=0.8)
    flow, cellprob, diameter = images.flows(images.ids[3])
    labels = make_labels(flow, cellprob, diameter, off_grid)
    expected = competition_score(images.truth(images.ids[3]), labels).mean
    assert search.scores.at([3], off_grid)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    "base", [MaskConfig(score_per_pixel=0.9), MaskConfig(fill_holes=False, max_size_fraction=0.05)]
)
def test_the_grid_keeps_the_other_settings_of_the_training(
    images: CalibrationImages, base: MaskConfig
) -> None:
    search = ThresholdSearch(images, GRID, base)
    for row in (0, 7):
        flow, cellprob, diameter = images.flows(images.ids[row])
        labels = make_labels(flow, cellprob, diameter, base)
        expected = competition_score(images.truth(images.ids[row]), labels).mean
        assert search.scores.at([row], base)[0] == pytest.approx(expected, abs=1e-6)
    assert search.fit().shared.fill_holes == base.fill_holes


def test_one_fold_is_cut_by_groups_and_one_group_is_not_cross_fitted(
    images: CalibrationImages,
) -> None:
    held = replace(images, folds=(0,) * 12, groups=tuple("uvw"[place % 3] for place in range(12)))
    scores, fitted = ThresholdSearch(held, GRID, MaskConfig()).cross_fit()
    assert len(fitted) == 3 and np.isfinite(scores).all()
    same = replace(held, groups=("u",) * 12)
    scores, fitted = ThresholdSearch(same, GRID, MaskConfig()).cross_fit()
    assert fitted == {} and np.isnan(scores).all()


def test_types_get_what_they_need(images: CalibrationImages) -> None:
    fitted = ThresholdSearch(images, GRID, MaskConfig(), shrinkage=0.1, smoothing=0).fit()
    assert set(fitted.per_type) == {"a", "b"}
    assert fitted.per_type["b"].cellprob_threshold > fitted.per_type["a"].cellprob_threshold


def shifted(images: CalibrationImages, shifts: Sequence[float]) -> CalibrationImages:
    """The same images with other logits: too high by a shift of each."""
    items = synthetic_dataset(12, shape=(72, 80), seed=11, per_group=1)
    flows = {
        item.id: (*noisy(item, place, shift), 17.0)
        for place, (item, shift) in enumerate(zip(items, shifts, strict=True))
    }
    return replace(images, flows=flows.__getitem__)


def test_few_images_follow_the_shared_optimum(images: CalibrationImages) -> None:
    high = shifted(images, [2.0] * 12)
    fitted = ThresholdSearch(high, GRID, MaskConfig(), shrinkage=1e9, smoothing=0).fit()
    assert fitted.shared.cellprob_threshold == 2.0
    assert fitted.per_type["a"] == fitted.per_type["b"] == fitted.shared


def test_what_does_not_hold_on_other_folds_is_not_taken(images: CalibrationImages) -> None:
    """Every fold wants another threshold: the best for all is no better than chance on the next."""
    search = ThresholdSearch(
        shifted(images, [(3.0, -3.0, 4.0)[fold] for fold in images.folds]),
        GRID, MaskConfig(), shrinkage=0.1, smoothing=0,
    )  # fmt: skip
    means = search.scores.on_grid.mean(axis=0)
    best = search.scores.axes[0][int(means.max(axis=(1, 2)).argmax())]
    assert best != MaskConfig().cellprob_threshold  # in sample something else looks better
    fitted = search.fit()
    assert fitted.shared == MaskConfig()
    assert set(fitted.per_type.values()) == {MaskConfig()}


def test_cross_fitting_never_sees_the_fold_it_scores(images: CalibrationImages) -> None:
    """Against a search that is given the other folds alone, and again with the held-back fold spoilt."""
    search = ThresholdSearch(images, GRID, MaskConfig(), smoothing=0)
    scores, fitted = search.cross_fit()
    folds = np.array(images.folds)
    for fold in (0, 1, 2):
        rows = np.flatnonzero(folds != fold)
        others = replace(
            images,
            ids=tuple(images.ids[row] for row in rows),
            types=tuple(images.types[row] for row in rows),
            folds=tuple(images.folds[row] for row in rows),
            groups=tuple(images.groups[row] for row in rows),
            found_types=tuple(images.found_types[row] for row in rows),
        )
        alone = ThresholdSearch(others, GRID, MaskConfig(), smoothing=0).fit()
        assert (alone.shared, dict(alone.per_type)) == (
            fitted[fold].shared,
            dict(fitted[fold].per_type),
        )
        for row in np.flatnonzero(folds == fold):
            mask = alone.of(images.found_types[row])
            assert scores[row] == search.scores.at([row], mask)[0]


def test_extras_are_taken_where_they_gain(images: CalibrationImages) -> None:
    """Truth with holes: masks that are left hollow score better."""
    hollow = {}
    for name in images.ids:
        flow, cellprob, _ = images.flows(name)
        hollow[name] = instances_from_labels(
            make_labels(flow, cellprob, 17.0, MaskConfig(0.0, 0.0, 15, fill_holes=False))
        )
    other = replace(images, truth=hollow.__getitem__)
    grid = replace(GRID, extras=True)
    fitted = ThresholdSearch(other, grid, MaskConfig(0.0, 0.0), shrinkage=0.1, smoothing=0).fit()
    assert not fitted.shared.fill_holes
    without = ThresholdSearch(images, GRID, MaskConfig(), smoothing=0).fit()
    assert without.shared.fill_holes


def short(config: TrainConfig) -> TrainConfig:
    """The same for one epoch."""
    return replace(config, optim=replace(config.optim, n_epochs=1))


def oof_of(config: TrainConfig, name: str = "tiny") -> RunFolder:
    return oof(OofConfig(run=name, runs_dir=config.runs_dir, policy="dataset", runtime=CPU)).run


def run_of(config: TrainConfig, name: str = "tiny") -> RunFolder:
    return RunFolder(config.runs_dir / name)


def calibration(config: TrainConfig, tmp_path: Path, *runs: str) -> CalibrateConfig:
    return CalibrateConfig(
        runs=runs or ("tiny",),
        runs_dir=config.runs_dir,
        ensembles_dir=tmp_path / "ensembles",
        grid=GRID,
        runtime=CPU,
    )


def test_calibrate_a_run(predicted: TrainConfig, tmp_path: Path) -> None:
    run = run_of(predicted)
    result = calibrate(calibration(predicted, tmp_path))
    assert result.ensemble is None
    (cv,) = result.cv
    pd.testing.assert_frame_equal(pd.read_csv(run.cv), cv, check_dtype=False)
    scores = pd.read_csv(run.calibration / "scores.csv")
    overall = cv.iloc[-1]
    assert overall["cross_fitted"] == pytest.approx(scores["cross_fitted"].mean())
    assert overall["expected"] == pytest.approx(overall["cross_fitted"] - overall["selection_bias"])
    assert overall["low"] <= overall["expected"] <= overall["high"]
    thresholds = read_thresholds(run.thresholds)
    assert set(thresholds.members) == {hash_file(run.fold(fold).best) for fold in (0, 1)}
    assert set(thresholds.facts["curves"]) == {"all types", *thresholds.per_type}
    assert set(thresholds.facts["decisions"]) == set(thresholds.facts["errors"])
    decision = thresholds.facts["decisions"]["all types"]  # no cell was found: nothing gains
    assert decision["why"] == "The optimum of the grid is the training's thresholds themselves."
    assert (run.calibration / "all types.png").stat().st_size > 10_000
    # the same again gives the same to the byte
    before = run.thresholds.read_bytes()
    calibrate(calibration(predicted, tmp_path))
    assert run.thresholds.read_bytes() == before


@pytest.mark.slow
def test_calibrated_thresholds_are_used_unasked(two_runs: TrainConfig, tmp_path: Path) -> None:
    run = run_of(two_runs)
    machine = Machine(choose_device("cpu"))
    places = {"runs_dir": two_runs.runs_dir, "ensembles_dir": tmp_path / "ensembles"}
    assert "not calibrated" in open_models(["tiny"], machine, **places).thresholds.source
    calibrate(calibration(two_runs, tmp_path))
    opened = open_models(["tiny"], machine, **places)
    assert opened.thresholds.shared == read_thresholds(run.thresholds).shared
    assert "not calibrated for the ensemble" in opened.thresholds.source
    single = open_models([str(run.fold(1).best)], machine, **places)
    assert "not calibrated" not in single.thresholds.source
    assert open_models(["tiny"], machine, calibrated=False, **places).thresholds.per_type == {}
    # other models than those that were calibrated
    run.fold(0).best.write_bytes(RunFolder(two_runs.runs_dir / "second").fold(0).best.read_bytes())
    with pytest.raises(RunError):
        open_models(["tiny"], machine, **places)


@pytest.mark.slow
def test_an_ensemble_of_two_seeds_is_fitted_on_its_mean_flows(
    two_runs: TrainConfig, tmp_path: Path
) -> None:
    runs = [run_of(two_runs, name) for name in ("tiny", "second")]
    result = calibrate(calibration(two_runs, tmp_path, "tiny", "second"))
    assert result.ensemble is not None and result.record is not None
    assert result.record.parent.name == "second+tiny"
    # the score at the training's thresholds is that of the mean flows
    dataset = Dataset.open(two_runs.data)
    stores = [FlowStore(run.flows) for run in runs]
    scores = []
    for name in dataset.ids:
        flow, cellprob, _ = average_flows(store.read(name) for store in stores)
        diameter = float(np.mean([store.facts(name)["diameter"] for store in stores]))
        labels = make_labels(flow, cellprob, diameter, two_runs.mask)
        scores.append(competition_score(dataset.instances(name), labels).mean)
    facts = result.ensemble.facts
    if facts["average"] == "plain":
        found = facts["scores"]["all types"]["training_thresholds"]
        assert found == pytest.approx(np.mean(scores), abs=1e-6)
    check_against_single(facts, [pd.read_csv(run.calibration / "scores.csv") for run in runs])
    opened = open_models(
        ["tiny", "second"],
        Machine(choose_device("cpu")),
        runs_dir=two_runs.runs_dir,
        ensembles_dir=tmp_path / "ensembles",
    )
    assert opened.thresholds.source.startswith("mean out-of-fold flows of tiny and second")
    assert len(opened.members) == 4
    places = {"runs_dir": two_runs.runs_dir, "ensembles_dir": tmp_path / "ensembles"}
    machine = Machine(choose_device("cpu"))
    turned = open_models(["second", "tiny"], machine, **places)
    assert turned.thresholds.source == opened.thresholds.source
    typed = open_models(["tiny", "second@round"], machine, **places)
    assert "not calibrated" in typed.thresholds.source
    with pytest.raises(RunError, match=r"is to join for images of type 'nope'"):
        open_models(["tiny", "second@nope"], machine, **places)


def check_against_single(facts: Mapping[str, Any], tables: Sequence[pd.DataFrame]) -> None:
    """Single models are those of all runs, each at its own cross-fitted thresholds."""
    found = facts["against_single"]
    assert found["single"] == pytest.approx(np.mean([table["cross_fitted"] for table in tables]))
    assert found["ensemble"] == pytest.approx(facts["scores"]["all types"]["cross_fitted"])
    assert found["low"] <= found["difference"] <= found["high"]
    assert found["difference"] == pytest.approx(found["ensemble"] - found["single"])


@pytest.mark.slow
def test_reserved_images_calibrate_the_ensemble(
    tiny_data: Path, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    make_folds(FoldsConfig(data=data, k=2, calibration=0.3, overwrite=True))
    config = short(replace(tiny_config, runs_dir=tmp_path, data=data, name="reserving"))
    train(config)
    oof_of(config, "reserving")
    result = calibrate(calibration(config, tmp_path, "reserving"))
    assert result.ensemble is not None
    assert "reserved images, all 2 members" in result.ensemble.source
    assert result.ensemble.facts["scores"]["all types"]["images"] == 3
    single = result.ensemble.facts["against_single"]
    assert 0 <= single["single"] <= 1
    assert single["ensemble"] == pytest.approx(
        result.ensemble.facts["scores"]["all types"]["cross_fitted"]
    )
    images = ensemble(
        EnsembleConfig(
            images=data,
            runs=("reserving",),
            runs_dir=config.runs_dir,
            ensembles_dir=tmp_path / "ensembles",
            output=OutputConfig(out=tmp_path / "predictions"),
            runtime=CPU,
        )
    )
    record = json.loads((images.folder / "prediction.json").read_text())["identity"]
    assert record["thresholds"]["source"] == result.ensemble.source


@pytest.mark.slow
def test_runs_of_other_splits_are_not_mixed(
    predicted: TrainConfig, tiny_data: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    make_folds(FoldsConfig(data=data, k=2, seed=3, overwrite=True))
    train(short(replace(predicted, data=data, name="second")))
    oof_of(predicted, "second")
    with pytest.raises(RunError, match="do not belong together: expected one folds_hash"):
        calibrate(calibration(predicted, tmp_path, "tiny", "second"))


@pytest.mark.slow
def test_a_holdout_split(tiny_data: Path, tiny_config: TrainConfig, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    make_folds(FoldsConfig(data=data, split="holdout", holdout=0.5, overwrite=True))
    config = short(replace(tiny_config, runs_dir=tmp_path, data=data, name="held"))
    train(config)
    run = oof_of(config, "held")
    (cv,) = calibrate(calibration(config, tmp_path, "held")).cv
    assert cv.iloc[-1]["images"] == len(pd.read_csv(run.scores))
    assert np.isfinite(cv.iloc[-1]["cross_fitted"])


def test_cell_types_that_are_numbers(predicted: TrainConfig, tmp_path: Path) -> None:
    run = run_of(predicted)
    table = pd.read_csv(run.scores, dtype=str)
    table["cell_type"] = [f"0{place % 2}" for place in range(len(table))]
    table["predicted_type"] = ["", *table["cell_type"][1:]]
    table.to_csv(run.scores, index=False)
    (thresholds,) = calibrate(calibration(predicted, tmp_path)).thresholds
    assert set(thresholds.per_type) == {"00", "01"}


def test_damaged_flows(predicted: TrainConfig, tmp_path: Path) -> None:
    run = run_of(predicted)
    name = Dataset.open(predicted.data).ids[0]
    (run.flows / name / "zarr.json").write_text("{")
    with pytest.raises(DataError, match=r"flows\.zarr is damaged(.|\n)*cellflow oof"):
        calibrate(calibration(predicted, tmp_path))


@pytest.mark.slow
def test_runs_with_other_diameters_are_not_mixed(two_runs: TrainConfig, tmp_path: Path) -> None:
    oof(OofConfig(run="second", runs_dir=two_runs.runs_dir, policy="image", runtime=CPU))
    with pytest.raises(RunError, match="different diameters: dataset and image"):
        calibrate(calibration(two_runs, tmp_path, "tiny", "second"))


def test_what_makes_the_diameters_of_two_runs_one(two_runs: TrainConfig, tmp_path: Path) -> None:
    config = calibration(two_runs, tmp_path)
    tiny, second = (OofRun.open(run_of(two_runs, name), config) for name in ("tiny", "second"))
    given = replace(tiny, diameter=20.0)
    with pytest.raises(RunError, match=r"20.0 and dataset.* cellflow oof \S+second --diameter 20$"):
        check_same_data([given, second])
    with pytest.raises(
        RunError, match=r"dataset and 20.0.* cellflow oof \S+tiny --policy dataset$"
    ):
        check_same_data([second, given])


@pytest.mark.slow
def test_a_given_diameter_travels_with_the_thresholds(copied: TrainConfig, tmp_path: Path) -> None:
    oof(OofConfig(run="tiny", runs_dir=copied.runs_dir, diameter=20.0, runtime=CPU))
    calibrate(calibration(copied, tmp_path))
    model = cellflow.load_model("tiny", runs_dir=copied.runs_dir, device="cpu", amp="off")
    image = Dataset.open(copied.data).image(Dataset.open(copied.data).ids[0])
    assert model.predict(image).diameter == 20.0
    assert model.predict(image, diameter=25.0).diameter == 25.0


def test_without_out_of_fold_flows(copied: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cellflow oof \S*/tiny"):
        calibrate(calibration(copied, tmp_path))


@pytest.mark.slow
def test_flows_of_other_models(two_runs: TrainConfig, tmp_path: Path) -> None:
    run, other = run_of(two_runs), run_of(two_runs, "second")
    shutil.rmtree(run.flows)
    shutil.copytree(other.flows, run.flows)
    with pytest.raises(RunError, match="were not made by its model of fold"):
        calibrate(calibration(two_runs, tmp_path))


def test_out_of_fold_passes_compare_policies(copied: TrainConfig) -> None:
    result = oof(OofConfig(run="tiny", runs_dir=copied.runs_dir, runtime=CPU))
    record = json.loads(result.run.oof_record.read_text())
    assert set(record["policies"]) == {"dataset", "type", "image"}
    assert record["policies"][record["policy"]] == pytest.approx(result.scores["score"].mean())
    assert not list(result.run.oof.glob("policy_*"))
    confusion = pd.read_csv(result.run.oof / "cell_types.csv").set_index("true")
    assert int(confusion.to_numpy().sum()) == 6
    assert result.run.fold(0).styles.exists()
    choice = record["diameters"]
    assert (choice["policy"], choice["scores"]) == (record["policy"], record["policies"])
    assert [item["policy"] for item in choice["comparisons"]] == ["image", "type"]
    # style models are kept for the same model
    before = result.run.fold(0).styles.stat().st_mtime_ns
    oof(OofConfig(run="tiny", runs_dir=copied.runs_dir, policy="dataset", runtime=CPU))
    assert result.run.fold(0).styles.stat().st_mtime_ns == before


def test_thresholds_of_an_old_pass_do_not_outlive_it(
    predicted: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the command as soon as the new pass is in place."""
    run, swap = run_of(predicted), atomic._swap_in
    run.thresholds.write_text("{}")

    def swap_and_end(parts: Any, path: Path) -> None:
        swap(parts, path)
        if path == run.oof:
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "_swap_in", swap_and_end)
    with pytest.raises(KeyboardInterrupt):
        oof(OofConfig(run="tiny", runs_dir=predicted.runs_dir, diameter=20.0, runtime=CPU))
    assert json.loads(run.oof_record.read_text())["diameter"] == 20.0
    assert not run.thresholds.exists()


def test_one_diameter_for_all(copied: TrainConfig) -> None:
    result = oof(OofConfig(run="tiny", runs_dir=copied.runs_dir, diameter=20.0, runtime=CPU))
    assert set(result.scores["diameter"]) == {20.0}
    assert result.scores["last_epoch_score"].isna().all()


def test_a_type_of_one_fold_has_no_thresholds_of_its_own(images: CalibrationImages) -> None:
    """Without its fold nothing of it is left to fit on, so its own optimum was never tested."""
    types = tuple("b" if fold == 0 else "a" for fold in images.folds)
    shifts = [2.0 if kind == "b" else 0.0 for kind in types]
    alone = replace(shifted(images, shifts), types=types, found_types=types)
    search = ThresholdSearch(alone, GRID, MaskConfig(), shrinkage=0.1, smoothing=0)
    rows = np.array(types) == "b"
    best = search.scores.axes[0][
        int(search.scores.on_grid[rows].mean(axis=0).max(axis=(1, 2)).argmax())
    ]
    assert best == 2.0  # what it would have taken
    fitted = search.fit()
    assert fitted.per_type["b"] == fitted.shared


def search_of(found: CalibrationImages) -> ThresholdSearch:
    return ThresholdSearch(found, GRID, MaskConfig(), shrinkage=0.1, smoothing=0)


def test_a_choice_that_gains_is_taken(images: CalibrationImages) -> None:
    search = search_of(shifted(images, [2.0] * 12))
    fitted, decisions = search.fit(), search.decisions()
    assert set(decisions) == {"", "a", "b"}
    shared = decisions[""]
    assert shared.taken and fitted.shared == shared.optimum != MaskConfig()
    assert shared.gain > shared.error > 0
    assert f"gains {shared.gain:+.4f} over the training's thresholds" in shared.why
    assert "is taken" in shared.why


def test_a_choice_that_does_not_hold_says_its_error(images: CalibrationImages) -> None:
    search = search_of(shifted(images, [(3.0, -3.0, 4.0)[fold] for fold in images.folds]))
    decision = search.decisions()[""]
    assert not decision.taken and decision.gain <= decision.error
    assert (
        f"standard error of {decision.error:.4f}, so the training's thresholds stay" in decision.why
    )
    errors, curves = search.scores.errors(MaskConfig()), search.scores.curves(MaskConfig())
    for name, pairs in curves.items():
        assert len(errors[name]) == len(pairs)
        place = [value for value, _ in pairs].index(getattr(MaskConfig(), name))
        assert errors[name][place] == 0.0
    # by hand: images are groups of their own
    gains = search.scores.on_grid[:, 0, 0, 0] - search.scores.on_grid[:, 1, 0, 0]
    expected = np.sqrt(np.sum((gains - gains.mean()) ** 2)) / len(gains)
    assert errors["cellprob_threshold"][0] == pytest.approx(expected, abs=1e-5)


def test_few_groups_cannot_tell(images: CalibrationImages) -> None:
    few = replace(shifted(images, [2.0] * 12), groups=tuple("uvwxy"[row % 5] for row in range(12)))
    search = search_of(few)
    decision = search.decisions()[""]
    assert not decision.taken and "5 groups cannot tell" in decision.why
    assert set(search.scores.errors(MaskConfig())["min_size"]) == {None}
    alone = search_of(replace(few, groups=("u",) * 12, folds=(0,) * 12)).decisions()[""]
    assert not alone.taken and "no images it was not fitted on" in alone.why
