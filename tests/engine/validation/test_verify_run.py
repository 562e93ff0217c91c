"""`cellflow verify RUN`: a sound run has no problem, and whoever tampers with one is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

import cellflow
from cellflow import cli
from cellflow.config import CalibrateConfig, GridConfig, MaskConfig, TrainConfig, VerifyConfig
from cellflow.engine.runs.sample_list import TRAINS
from cellflow.engine.runs.state import TEXT_COLUMNS
from cellflow.engine.segmentation.mask_step import make_labels
from cellflow.engine.segmentation.scoring import score_row
from cellflow.engine.validation import verify_run
from cellflow.engine.validation.oof_tables import OofImage, predictions_table
from cellflow.engine.validation.run_files import RunFiles
from cellflow.engine.validation.verify import verify
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.io.fold_table import fold_table_hash, read_fold_table
from cellflow.io.images import read_image, read_labels, write_labels
from cellflow.io.tables import read_frame
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.numeric.rle import rles_from_labels
from cellflow.numeric.targets import labels_to_flows
from cellflow.storage.atomic import write_csv
from cellflow.storage.run_folder import RunFolder

TEXT = (*TEXT_COLUMNS, "predicted", "role")

GRID = GridConfig(
    start_threshold=-2.0, threshold_step=2.0, n_thresholds=3, flow_thresholds=(0.4, 0.0),
    min_sizes=(15, 60), extras=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def calibrated(predicted_once: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of two folds from training to thresholds."""
    runs = tmp_path_factory.mktemp("calibrated") / "runs"
    shutil.copytree(predicted_once.runs_dir, runs)
    see_something(RunFolder(runs / "tiny"), Dataset.open(predicted_once.data))
    cellflow.calibrate(CalibrateConfig(runs=("tiny",), runs_dir=runs, grid=GRID))
    return RunFolder(runs / "tiny")


def see_something(run: RunFolder, dataset: Dataset) -> None:
    """Give the pass flows with cells in them, noise around the truth; a network of a few steps finds none."""
    scores, rng = read_frame(run.scores, text=TEXT), np.random.default_rng(0)
    facts = {name: FlowStore(run.flows).facts(name) for name in scores["id"]}
    store, done = FlowStore(run.flows, mode="w"), []
    for row in scores.to_dict("records"):
        name, labels = row["id"], dataset.labels(row["id"])
        noise = rng.normal(0, 1, (3, 12, 14)).repeat(8, axis=1).repeat(8, axis=2)
        flow = 5 * labels_to_flows(labels) + 0.7 * noise[:2]
        store.write(name, flow, np.where(labels > 0, 4.0, -4.0) + 2 * noise[2], **facts[name])
        found = make_labels(*store.read(name), facts[name]["diameter"], MaskConfig())
        write_labels(run.oof / "masks" / f"{name}.tif", found)
        done.append(
            OofImage(name, rles_from_labels(found), row | score_row(dataset.instances(name), found))
        )
    write_csv(run.oof / "predictions.csv", predictions_table(done))
    write_csv(run.scores, pd.DataFrame([item.scores for item in done]))
    assert len({item.scores["score"] for item in done}) == len(done)
    assert min(len(item.rles) for item in done) > 2


@pytest.fixture
def run(calibrated: RunFolder, tmp_path: Path) -> RunFolder:
    """The same, free to be broken."""
    shutil.copytree(calibrated.path, tmp_path / "runs" / "tiny")
    return RunFolder(tmp_path / "runs" / "tiny")


def found(run: RunFolder, **settings: object) -> list[tuple[str, str]]:
    """Kinds and names of what is wrong."""
    result = verify(VerifyConfig(run.path, **settings))
    return [(item.kind, item.id) for item in result.findings if item.wrong]


def change(path: Path, edit: Callable[[pd.DataFrame], pd.DataFrame | None]) -> None:
    """Rewrite a table with something else in it."""
    table = read_frame(path, text=TEXT)
    changed = edit(table)
    write_csv(path, table if changed is None else changed)


def swap(table: pd.DataFrame, column: str, one: int = 0, other: int = -1) -> None:
    place = table.columns.get_loc(column)
    table.iloc[[one, other], place] = table.iloc[[other, one], place].to_numpy()


def test_a_sound_run_has_no_problem(calibrated: RunFolder, capsys: pytest.CaptureFixture[str]):
    before = {path: path.read_bytes() for path in calibrated.path.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", "tiny", "--runs_dir", str(calibrated.path.parent)])
    text = capsys.readouterr().out
    assert end.value.code == 0, text
    assert "No problems" in text
    assert "6 out of fold, each with the model, masks and scores of its flows" in text
    assert "fold 0 trained on 3, validated on 3; fold 1 trained on 3, validated on 3" in text
    assert "6 scores with thresholds of the other folds" in text
    after = {path: path.read_bytes() for path in calibrated.path.rglob("*") if path.is_file()}
    assert after == before


def test_a_run_half_way_has_notes_only(run: RunFolder):
    run.thresholds.unlink()
    shutil.rmtree(run.calibration)
    shutil.rmtree(run.oof)
    shutil.rmtree(run.fold(1).path)
    result = verify(VerifyConfig(run.path))
    assert result.problems == 0
    assert {item.id for item in result.findings} == {"fold_1/best.pt", "oof"}


@pytest.mark.parametrize("published", [False, True], ids=["pruned", "published"])
def test_without_flows_the_rest_is_checked(run: RunFolder, published: bool):
    """`cellflow prune --flows` removes them; a published run has no masks either."""
    shutil.rmtree(run.flows)
    gone = {"oof/flows.zarr"}
    if published:
        shutil.rmtree(run.oof / "masks")
        gone.add("oof/masks")
    result = verify(VerifyConfig(run.path))
    assert result.problems == 0, result.findings
    assert {item.id for item in result.findings} == gone
    assert "there are no flows" in result.facts["rows"]
    assert "the cross-fitted scores are not checked" in result.facts["thresholds"]
    name = read_frame(run.scores, text=TEXT)["id"].iloc[0]
    change(run.scores, lambda rows: rows.assign(n_predicted=rows["n_predicted"] + 1))
    assert ("other result", name) in found(run)
    change(run.scores, lambda rows: rows.assign(fold=1 - rows["fold"]))
    assert ("not out of fold", name) in found(run)
    if not published:
        change(run.oof / "predictions.csv", lambda rows: swap(rows, "predicted"))
        reasons = [item.reason for item in verify(VerifyConfig(run.path)).findings]
        assert "its rows in predictions.csv are not what its masks give" in reasons


def test_two_swapped_rows_of_the_predictions_are_named(run: RunFolder):
    table = read_frame(run.oof / "predictions.csv", text=TEXT)
    one, other = table["id"].iloc[0], table["id"].iloc[-1]
    assert one != other
    change(run.oof / "predictions.csv", lambda rows: swap(rows, "predicted"))
    assert found(run) == [("other result", one), ("other result", other)]


def test_two_swapped_scores_are_named(run: RunFolder):
    scores = read_frame(run.scores, text=TEXT)
    change(run.scores, lambda rows: swap(rows, "score"))
    assert found(run) == [("other result", scores["id"].iloc[at]) for at in (0, -1)]


def test_a_swapped_fold_in_the_scores_is_named(run: RunFolder):
    scores = read_frame(run.scores, text=TEXT)
    change(run.scores, lambda rows: swap(rows, "fold"))
    assert found(run)[:2] == [
        ("not out of fold", name) for name in sorted((scores["id"].iloc[0], scores["id"].iloc[-1]))
    ]


def test_a_row_of_another_folds_model_is_named(run: RunFolder, trained: TrainConfig):
    """Flows, masks, rows and scores of one image, made by the model that was trained on it."""
    other = cellflow.load_model(run.fold(1).best, device="cpu")
    name = read_frame(run.scores, text=TEXT).query("fold == 0")["id"].iloc[0]
    dataset = trained.data
    image = read_image(next((dataset / "images").glob(f"{name}.*")))
    prediction = other.predict(image)
    root = zarr.open_group(run.flows, mode="a")
    stacked = np.concatenate([prediction.flow, prediction.cellprob[np.newaxis]])
    root[name][:] = stacked.astype(np.float16)
    facts = dict(root[next(n for n in root if root[n].attrs["fold"] == 1)].attrs)
    root[name].attrs.update({"model_hash": facts["model_hash"], "diameter": prediction.diameter})
    write_labels(run.oof / "masks" / f"{name}.tif", prediction.labels)
    assert ("not out of fold", name) in found(run)
    assert any("which saw it" in item.reason for item in verify(VerifyConfig(run.path)).findings)


def test_flows_whose_maker_is_forged_are_not_those_of_the_masks(run: RunFolder):
    """The array of another image under the facts of this one."""
    root = zarr.open_group(run.flows, mode="a")
    one, other = sorted(root)[:2]
    root[one][:] = root[other][:]
    assert ("other result", one) in found(run)


@pytest.mark.parametrize("kind", ["folds", "both"])
def test_an_edited_split_is_named_with_its_images(run: RunFolder, kind: str):
    table = read_frame(run.folds, text=TEXT)
    one, other = (table.query(f"fold == {fold}")["id"].iloc[0] for fold in (0, 1))

    def edit(rows: pd.DataFrame) -> None:
        rows.loc[rows["id"] == one, "fold"] = 1
        rows.loc[rows["id"] == other, "fold"] = 0

    change(run.folds, edit)
    if kind == "both":  # the record follows
        record = run.read_record()
        now = fold_table_hash(read_fold_table(run.folds))
        run.write_record(record | {"folds_hash": now})
    kinds = found(run)
    expected = (
        ("other split", "folds.csv") if kind == "folds" else ("other model", "fold_0/best.pt")
    )
    assert expected in kinds
    assert ("seen in training", one) in kinds
    assert ("seen in training", other) in kinds
    assert ("not out of fold", one) in kinds
    if kind == "folds":
        (text,) = [i.reason for i in verify(VerifyConfig(run.path)).findings if i.id == "folds.csv"]
        assert f"{one} is in fold 1, but fold 0 was validated on it" in text


def test_a_replaced_model_is_named(run: RunFolder):
    shutil.copyfile(run.fold(1).best, run.fold(0).best)
    kinds = found(run)
    assert (
        kinds.count(("other model", "fold_0/best.pt")) == 2
    )  # of another fold; not that of the flows
    assert ("other thresholds", "thresholds.json") in kinds


def test_a_model_of_the_same_fold_with_other_weights_is_named(run: RunFolder):
    net, facts = load_model_file(run.fold(0).best)
    next(net.parameters()).data += 1e-3
    save_model_file(run.fold(0).best, net, facts)
    assert ("other model", "fold_0/best.pt") in found(run)


def test_a_model_trained_on_its_own_fold_is_named(run: RunFolder):
    name = read_frame(run.folds, text=TEXT).query("fold == 0")["id"].iloc[0]
    change(
        run.fold(0).samples,
        lambda rows: rows.assign(role=rows["role"].where(rows["id"] != name, "train")),
    )
    kinds = found(run)
    assert ("seen in training", name) in kinds
    assert (
        "other model",
        "fold_0/samples.csv",
    ) in kinds  # the model bears the hash of the true list


def test_evaluations_of_other_images_are_named(run: RunFolder):
    shutil.copyfile(run.fold(1).evaluations, run.fold(0).evaluations)
    assert found(run) == [("other split", "fold_0/evaluations.csv")] * 2


def test_an_evaluation_that_lacks_an_image_is_named(run: RunFolder):
    change(run.fold(0).evaluations, lambda rows: rows.iloc[1:])
    assert found(run) == [("other split", "fold_0/evaluations.csv")]


def test_thresholds_fitted_on_their_own_fold_are_named(run: RunFolder):
    facts = json.loads(run.thresholds.read_text())
    facts["folds"]["0"], facts["folds"]["1"] = facts["folds"]["1"], facts["folds"]["0"]
    run.thresholds.write_text(json.dumps(facts))
    assert ("other thresholds", "thresholds.json") in found(run)


def test_other_cross_fitted_thresholds_are_named(run: RunFolder):
    facts = json.loads(run.thresholds.read_text())
    for mask in [facts["folds"]["0"]["shared"], *facts["folds"]["0"]["per_type"].values()]:
        mask["min_size"] = 10**6  # no cell is left
    run.thresholds.write_text(json.dumps(facts))
    scores = read_frame(run.calibration / "scores.csv", text=TEXT).query("fold == 0")
    assert found(run) == [("other thresholds", name) for name in scores["id"]]


def test_a_changed_mean_is_named(run: RunFolder):
    change(run.cv, lambda rows: rows.assign(best_epoch=rows["best_epoch"] + 0.01))
    assert set(found(run)) == {("other result", "cv.csv")}


def test_a_mean_that_is_there_twice_is_named(run: RunFolder):
    change(run.cv, lambda rows: pd.concat([rows, rows.iloc[-1:]]))
    assert found(run) == [("other result", "cv.csv")]


def test_a_mask_that_was_painted_over_is_named(run: RunFolder):
    path = sorted((run.oof / "masks").iterdir())[2]
    labels = read_labels(path)
    labels[:5, :5] = labels.max() + 1
    write_labels(path, labels)
    assert found(run) == [("other result", path.stem)]


def test_a_row_that_is_gone_and_one_that_is_twice_are_named(run: RunFolder):
    change(run.scores, lambda rows: pd.concat([rows.iloc[1:], rows.iloc[-1:]]))
    kinds = found(run)
    assert ("not out of fold", "oof/scores.csv") in kinds
    assert ("not out of fold", read_frame(run.scores, text=TEXT)["id"].iloc[-1]) in kinds


def test_other_data_are_named_and_missing_ones_are_noted(
    run: RunFolder, trained: TrainConfig, tmp_path: Path
):
    other = tmp_path / "data"
    shutil.copytree(trained.data, other)
    table = pd.read_csv(other / "instances.csv")
    table.iloc[1:].to_csv(other / "instances.csv", index=False)
    assert found(run, data=other) == [("other data", str(other))]
    result = verify(VerifyConfig(run.path, data=tmp_path / "nowhere"))
    assert result.problems == 0
    assert [(item.kind, item.id) for item in result.findings] == [("not there", "data")]


def test_a_split_group_is_named(run: RunFolder, trained: TrainConfig, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(trained.data, data)
    change_text = pd.read_csv(data / "images.csv", dtype=str)
    change_text.assign(group="one").to_csv(data / "images.csv", index=False)
    assert [kind for kind, _ in found(run, data=data)] == ["over several folds"]


@pytest.mark.parametrize(
    "name", ["oof/oof.json", "oof/scores.csv", "oof/predictions.csv", "thresholds.json", "cv.csv",
             "fold_0/best.pt", "fold_0/evaluations.csv", "fold_0/samples.csv", "calibration/scores.csv"],
)  # fmt: skip
def test_a_damaged_file_is_named_and_the_rest_is_checked(run: RunFolder, name: str):
    path = run.path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    result = verify(VerifyConfig(run.path))
    wrong = [item for item in result.findings if item.wrong]
    assert wrong
    assert any(path.name in f"{item.id} {item.reason}" or item.kind == "damaged" for item in wrong)
    assert "split" in result.facts


def test_a_run_of_an_earlier_cellflow_lacks_the_lists_only(run: RunFolder):
    for fold in (0, 1):
        files = run.fold(fold)
        files.samples.unlink()
    result = verify(VerifyConfig(run.path))
    assert result.problems == 0
    assert [item.id for item in result.findings] == ["fold_0/samples.csv", "fold_1/samples.csv"]


def test_the_list_of_a_training_is_that_of_its_split(trained: TrainConfig):
    run = RunFolder(trained.runs_dir / trained.name)
    folds = read_frame(run.folds, text=TEXT).set_index("id")["fold"]
    for fold in (0, 1):
        roles = read_frame(run.fold(fold).samples, text=TEXT).set_index("id")["role"]
        assert (roles == "validate").equals(folds == fold)
        assert set(roles) == {"train", "validate"}


def test_what_a_final_network_must_not_have_seen(tmp_path: Path):
    files = RunFiles(
        RunFolder(tmp_path), {}, pd.Series({"a": 0, "b": -1}), facts={0: {"final": True}}
    )
    write_csv(
        files.run.fold(0).samples, pd.DataFrame({"id": ["a", "b", "gone"], "role": [TRAINS] * 3})
    )
    assert verify_run._check_samples(files, 0) == ["a", "b", "gone"]
    reasons = [(item.id, item.reason) for item in files.findings]
    assert reasons == [("b", "it is reserved, and fold 0 was trained on it")]


def test_an_unknown_place_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", "nothing", "--runs_dir", str(tmp_path)])
    assert end.value.code == 1
    assert (
        "expected a folder of annotated images, a dataset folder, or a run"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("out", ["cv.csv", "fold_0/all.csv", "images.csv"])
def test_the_table_never_goes_into_what_is_read(
    run: RunFolder, trained: TrainConfig, out: str, capsys: pytest.CaptureFixture[str]
):
    """Of a run by its name too, and its data set."""
    path = (trained.data if out == "images.csv" else run.path) / out
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", "tiny", "--runs_dir", str(run.path.parent), "--out", str(path)])
    assert end.value.code == 2
    assert "lies in what is read" in capsys.readouterr().err
    assert before == (path.read_bytes() if path.exists() else None)
