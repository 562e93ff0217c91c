from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage.io import imsave

from cellflow import cli
from cellflow.config import MaskOverrides, OofConfig, RuntimeConfig, ScoreConfig, TrainConfig
from cellflow.engine.validation.oof import oof
from cellflow.engine.validation.score_masks import ScoreResult, score_masks
from cellflow.errors import ConfigError, DataError, RunError
from cellflow.io.dataset import Dataset
from cellflow.io.formats.submission import write_submission
from cellflow.io.images import read_labels, write_labels
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.numeric.bootstrap import bootstrap_mean
from cellflow.numeric.rle import rles_from_labels
from cellflow.numeric.score import competition_score
from cellflow.storage.run_folder import RunFolder


@pytest.fixture
def dataset(tiny_data: Path) -> Dataset:
    return Dataset.open(tiny_data)


@pytest.fixture
def good(dataset: Dataset, tmp_path: Path) -> Path:
    """The true labels."""
    return saved(tmp_path / "good", {name: dataset.labels(name) for name in dataset.ids})


@pytest.fixture
def poor(dataset: Dataset, tmp_path: Path) -> Path:
    """Every second cell is lost, and the others are moved by a pixel."""
    return saved(tmp_path / "poor", {name: spoilt(dataset.labels(name)) for name in dataset.ids})


def spoilt(labels: np.ndarray) -> np.ndarray:
    """Also a label map as other programs write them: with numbers left out."""
    return np.roll(np.where(labels % 2, labels, 0), 1, axis=0)


def saved(folder: Path, maps: dict[str, np.ndarray], ending: str = ".tif") -> Path:
    for name, labels in maps.items():
        write_labels(folder / f"{name}{ending}", labels)
    return folder


def submission(path: Path, folder: Path) -> Path:
    files = sorted(folder.glob("*.tif"))
    write_submission(path, ((file.stem, rles_from_labels(read_labels(file))) for file in files))
    return path


def score(pred: Path | str, truth: Path | None, **options: object) -> ScoreResult:
    return score_masks(ScoreConfig(pred=str(pred), truth=truth, **options))  # type: ignore[arg-type]


def overall(result: ScoreResult) -> pd.Series:
    row = result.table.iloc[-1]
    assert (row["scope"], row["name"]) == ("overall", "all")
    return row


def test_the_truth_against_itself(good: Path, dataset: Dataset) -> None:
    result = score(good, dataset.path)
    assert list(result.images["id"]) == dataset.ids
    assert (result.images[["score", "ap50", "ap75"]] == 1.0).all(axis=None)
    assert (result.images["n_true"] == result.images["n_predicted"]).all()
    assert overall(result)[["score", "low", "high"]].tolist() == [1.0, 1.0, 1.0]
    assert result.conclusion == ""


def test_scores_groups_and_means(poor: Path, dataset: Dataset, tmp_path: Path) -> None:
    result = score(poor, dataset.path, out=tmp_path / "new" / "scores.csv")
    images = result.images.set_index("id")
    for name in dataset.ids:
        labels = spoilt(dataset.labels(name))
        expected = competition_score(dataset.instances(name), labels).mean
        assert images.loc[name, "score"] == expected
        assert images.loc[name, "n_predicted"] == len(np.unique(labels)) - 1
    assert images["group"].to_dict() == dataset.images["group"].to_dict()
    assert images["cell_type"].to_dict() == dataset.images["cell_type"].to_dict()
    table = result.table
    assert list(table["scope"]) == ["cell_type"] * 3 + ["overall"]
    assert list(table["images"]) == list(table["groups"]) == [2, 2, 2, 6]
    interval = bootstrap_mean(images["score"], images["group"])
    assert tuple(overall(result)[["score", "low", "high"]]) == interval
    assert interval.low < images["score"].mean() < interval.high
    for row in table.iloc[:3].itertuples():
        part = images[images["cell_type"] == row.name]
        assert row.score == pytest.approx(part["score"].mean())
        assert row.ap50 == pytest.approx(part["ap50"].mean())
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new" / "scores.csv"), result.images)


def same(first: ScoreResult, second: ScoreResult) -> None:
    pd.testing.assert_frame_equal(first.images, second.images)
    pd.testing.assert_frame_equal(first.table, second.table)


def test_every_form_of_masks_scores_the_same(poor: Path, dataset: Dataset, tmp_path: Path) -> None:
    expected = score(poor, dataset.path)
    same(score(submission(tmp_path / "s.csv", poor), dataset.path), expected)
    rows = pd.read_csv(tmp_path / "s.csv")
    rows.assign(id=rows["id"] + ".png").to_csv(tmp_path / "named.csv", index=False)
    same(score(tmp_path / "named.csv", dataset.path), expected)
    shutil.copytree(poor, tmp_path / "results" / "masks")
    same(score(tmp_path / "results", dataset.path), expected)
    maps = {name: spoilt(dataset.labels(name)) for name in dataset.ids}
    same(score(saved(tmp_path / "endings", maps, "_masks.tif"), dataset.path), expected)
    for name, labels in maps.items():  # as Cellpose leaves a folder
        tifffile.imwrite(tmp_path / f"{name}.tif", dataset.image(name))
        picture = (tmp_path / f"{name}_cp_masks.png", tmp_path / f"{name}_masks.png")
        imsave(picture[0], labels.astype(np.uint16), check_contrast=False)
        imsave(picture[1], np.zeros_like(labels, np.uint8), check_contrast=False)
    same(score(tmp_path, dataset.path), expected)


def kaggle_table(path: Path, dataset: Dataset) -> pd.DataFrame:
    cells = pd.read_csv(dataset.path / "instances.csv", dtype={"id": str})
    facts = dataset.images[["width", "height", "cell_type", "group"]]
    table = cells.join(facts, on="id").rename(columns={"group": "sample_id"})
    table.to_csv(path, index=False)
    return table


def test_every_form_of_truth_scores_the_same(
    poor: Path, good: Path, dataset: Dataset, tmp_path: Path
) -> None:
    expected = score(poor, dataset.path)
    kaggle_table(tmp_path / "train.csv", dataset)
    same(score(poor, tmp_path / "train.csv"), expected)
    same(score(poor, tmp_path), expected)
    # Label maps know neither types nor groups: every image stands for itself.
    plain = score(poor, good)
    pd.testing.assert_series_equal(plain.images["score"], expected.images["score"])
    assert (plain.images["group"] == plain.images["id"]).all()
    assert len(plain.table) == 1


def test_truth_may_overlap(tmp_path: Path) -> None:
    """Two cells of which one lies half in the other: no label map can hold them."""
    rows = [("a", "1 6", 10, 1), ("a", "4 6", 10, 1), ("empty", "", 10, 1)]
    columns = ["id", "annotation", "width", "height"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "truth.csv", index=False)
    maps = {"a": np.array([[1] * 6 + [2] * 3 + [0]]), "empty": np.zeros((1, 10), int)}
    result = score(saved(tmp_path / "maps", maps), tmp_path / "truth.csv")
    images = result.images.set_index("id")
    # The first cell is met exactly, the second with an IoU of just one half, which is no hit.
    assert images.loc["a", ["score", "ap50"]].tolist() == pytest.approx([1 / 3, 1 / 3])
    assert images.loc["empty", ["score", "n_true", "n_predicted"]].tolist() == [1, 0, 0]


def test_where_no_name_matches_both_are_shown(poor: Path, dataset: Dataset) -> None:
    for path in sorted(poor.glob("*.tif")):
        path.rename(path.with_name(f"other{path.name}"))
    with pytest.raises(DataError, match="in common; the truth has") as caught:
        score(poor, dataset.path)
    assert f"other{dataset.ids[0]}" in str(caught.value) and "--subset" not in str(caught.value)


def test_missing_images_are_refused(poor: Path, dataset: Dataset, tmp_path: Path) -> None:
    gone = dataset.ids[:2]
    for name in gone:
        (poor / f"{name}.tif").unlink()
    table = submission(tmp_path / "s.csv", poor)
    for pred in (poor, table):
        with pytest.raises(DataError, match=rf"no masks for 2 of the 6 .*\({gone[0]}, {gone[1]}\)"):
            score(pred, dataset.path)
        found = score(pred, dataset.path, subset=True)
        assert list(found.images["id"]) == dataset.ids[2:]


def test_only_the_first_missing_images_are_named(tmp_path: Path) -> None:
    maps = {f"i{number:02d}": np.eye(4, dtype=int) for number in range(15)}
    truth = saved(tmp_path / "truth", maps)
    pred = saved(tmp_path / "pred", {"i00": maps["i00"]})
    with pytest.raises(DataError, match=r"14 of the 15 .*i04, i05 and 9 more\)"):
        score(pred, truth)


def test_images_beyond_the_truth_are_left_out(poor: Path, dataset: Dataset) -> None:
    expected = score(poor, dataset.path)
    saved(poor, {"unknown": np.eye(5, dtype=int)})
    found = score(poor, dataset.path)
    same(found, expected)
    assert "1 are not in the truth: unknown" in found.compared[1]


def test_no_image_in_common(dataset: Dataset, tmp_path: Path) -> None:
    pred = saved(tmp_path / "pred", {"x": np.eye(5, dtype=int)})
    with pytest.raises(DataError, match="must be the ids of the truth"):
        score(pred, dataset.path, subset=True)


def test_versus(good: Path, poor: Path, dataset: Dataset) -> None:
    result = score(good, dataset.path, versus=str(poor))
    alone = score(poor, dataset.path)
    images = result.images
    for key in ("score", "ap50", "ap75", "n_predicted"):
        pd.testing.assert_series_equal(
            images[f"{key}_versus"], alone.images[key], check_names=False
        )
    np.testing.assert_array_equal(images["difference"], images["score"] - images["score_versus"])
    row = overall(result)
    assert row["score_versus"] == pytest.approx(overall(alone)["score"])
    assert 0 < row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert row["verdict"] == "better"
    assert f"{good} is better than {poor}: difference +0." in result.conclusion
    other = overall(score(poor, dataset.path, versus=str(good)))
    assert other["verdict"] == "worse"
    assert other["difference_high"] == pytest.approx(-row["difference_low"])
    # Two images a type are no ground for a verdict, whatever their interval.
    types = result.table.iloc[:-1]
    assert (types["difference_low"] > 0).all()
    assert set(types["verdict"]) == {"undecided"}


def test_versus_the_same_and_of_few_groups(good: Path, poor: Path, dataset: Dataset) -> None:
    equal = score(poor, dataset.path, versus=str(poor))
    assert overall(equal)[["difference", "difference_low", "difference_high"]].tolist() == [0, 0, 0]
    assert overall(equal)["verdict"] == "undecided"
    few = score(good, dataset.path, versus=str(poor), group="cell_type")
    assert overall(few)["groups"] == 3
    assert overall(few)["verdict"] == "undecided"
    assert few.conclusion.startswith("Undecided between")
    assert "3 groups (a verdict needs 6)" in few.conclusion


def test_versus_compares_what_both_have(good: Path, poor: Path, dataset: Dataset) -> None:
    (poor / f"{dataset.ids[0]}.tif").unlink()
    (good / f"{dataset.ids[1]}.tif").unlink()
    with pytest.raises(DataError, match="no masks for 1 of"):
        score(good, dataset.path, versus=str(poor))
    found = score(good, dataset.path, versus=str(poor), subset=True)
    assert list(found.images["id"]) == dataset.ids[2:]


def test_groups(poor: Path, dataset: Dataset, tmp_path: Path) -> None:
    by_type = score(poor, dataset.path, group="cell_type")
    assert (by_type.images["group"] == by_type.images["cell_type"]).all()
    assert math.isnan(by_type.table["low"].iloc[0])  # one group says nothing
    single = score(poor, dataset.path, group="id")
    assert (single.images["group"] == single.images["id"]).all()
    with pytest.raises(ConfigError, match=r"--group well: .*no such column .*cell_type"):
        score(poor, dataset.path, group="well")
    copy = tmp_path / "data"
    shutil.copytree(dataset.path, copy)
    facts = json.loads((copy / "folds.json").read_text())
    (copy / "folds.json").write_text(json.dumps(facts | {"group": "cell_type"}))
    same(score(poor, copy), by_type)
    (copy / "folds.json").write_text(json.dumps(facts | {"group": None}))
    same(score(poor, copy), single)


def test_a_column_must_have_one_value_per_image(
    poor: Path, dataset: Dataset, tmp_path: Path
) -> None:
    table = kaggle_table(tmp_path / "truth.csv", dataset)
    table["sample_id"] = [str(number) for number in range(len(table))]
    table.to_csv(tmp_path / "truth.csv", index=False)
    with pytest.raises(ConfigError, match="--group sample_id"):
        score(poor, tmp_path / "truth.csv", group="sample_id")
    found = score(poor, tmp_path / "truth.csv").images
    assert (found["group"] == found["id"]).all()


def test_an_image_without_a_group_stands_for_itself(
    poor: Path, dataset: Dataset, tmp_path: Path
) -> None:
    table = kaggle_table(tmp_path / "truth.csv", dataset)
    table.loc[table["id"] == dataset.ids[0], "sample_id"] = ""
    table.to_csv(tmp_path / "truth.csv", index=False)
    groups = score(poor, tmp_path / "truth.csv").images.set_index("id")["group"]
    expected = dataset.images["group"].to_dict() | {dataset.ids[0]: dataset.ids[0]}
    assert groups.to_dict() == expected


def test_crumbled_cells_of_a_bad_model_are_scored(
    good: Path, dataset: Dataset, tmp_path: Path
) -> None:
    """As a network predicts them after a few steps: three labels, side by side in specks; no truth is like that."""
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 4, dataset.labels(dataset.ids[0]).shape).astype(np.int32)
    labels[:, ::3] = 0
    bad = saved(tmp_path / "bad", {name: dataset.labels(name) for name in dataset.ids})
    write_labels(bad / f"{dataset.ids[0]}.tif", labels)
    result = score_masks(ScoreConfig(pred=str(bad), truth=dataset.path))
    assert result.images.set_index("id").at[dataset.ids[0], "score"] == 0
    with pytest.raises(DataError, match="found a picture"):
        score_masks(ScoreConfig(pred=str(good), truth=bad))


def test_sizes_that_do_not_fit(poor: Path, dataset: Dataset, tmp_path: Path) -> None:
    name = dataset.ids[3]
    saved(poor, {name: np.eye(50, dtype=int)})
    expected = rf"masks of image {name} are 50 x 50, the truth is 96 x 112"
    with pytest.raises(DataError, match=expected):
        score(poor, dataset.path)
    end = 96 * 112
    rows = [(other, [f"{end} 2"] if other == name else []) for other in dataset.ids]
    write_submission(tmp_path / "s.csv", rows)
    with pytest.raises(DataError, match=rf"s\.csv: image {name}, of size 96 x 112.*past the end"):
        score(tmp_path / "s.csv", dataset.path)


def test_predicted_cells_must_not_overlap(dataset: Dataset, tmp_path: Path) -> None:
    rows = [(name, ["1 6", "6 2"] if name == dataset.ids[1] else []) for name in dataset.ids]
    write_submission(tmp_path / "s.csv", rows)
    with pytest.raises(DataError, match=f"cells of image {dataset.ids[1]} overlap"):
        score(tmp_path / "s.csv", dataset.path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "1 2", 5, 4), ("a", "3 2", 5, 5)], r"line 3: height 5, but line 2 is 4 x 5"),
        ([("a", "1 2", 5, 0)], r"line 2 \(image a\): .*found 0 x 5"),
        ([("a", "1 2", "five", 4)], r"found 4 x five"),
        ([("a", "20 2", 5, 4)], r"line 2 \(image a\): .*past the end"),
        ([], "expected a row per cell, found none"),
    ],
)  # fmt: skip
def test_tables_of_truth_that_are_wrong(
    rows: list[tuple[object, ...]], message: str, tmp_path: Path
) -> None:
    columns = ["id", "annotation", "width", "height"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "truth.csv", index=False)
    pred = saved(tmp_path / "pred", {"a": np.zeros((4, 5), int)})
    with pytest.raises(DataError, match=message):
        score(pred, tmp_path / "truth.csv")


def test_masks_that_cannot_be_found(good: Path, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nope: there is no such folder or CSV.*none\."):
        score("nope", dataset.path, runs_dir=tmp_path)
    with pytest.raises(DataError, match=r"expected label maps .*found no image"):
        score(dataset.path, dataset.path)
    with pytest.raises(DataError, match="found a single image"):
        score(good / f"{dataset.ids[0]}.tif", dataset.path)
    with pytest.raises(DataError, match=f"found a single image. Name its folder: {good}"):
        score(good, good / f"{dataset.ids[0]}.tif")
    for sides in ((tmp_path / "a_seg.npy", dataset.path), (good, tmp_path / "a_seg.npy")):
        sides[sides[0] == good].write_bytes(b"")
        with pytest.raises(DataError, match=f"found a single file of .* its folder: {tmp_path}"):
            score(*sides)
    with pytest.raises(ConfigError, match="is no run, so its truth is not known"):
        score(good, None)
    shutil.copy(good / f"{dataset.ids[0]}.tif", good / f"{dataset.ids[0]}.png")
    with pytest.raises(DataError, match=r"\.png and .*\.tif have the same id"):
        score(good, dataset.path)


def test_what_is_read_is_not_overwritten(good: Path, dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="--out would overwrite PRED"):
        score(good, dataset.path, out=good)


@pytest.fixture(scope="module")
def predicted(trained: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained run with its out-of-fold masks."""
    runs = tmp_path_factory.mktemp("score") / "runs"
    shutil.copytree(trained.runs_dir, runs)
    loose = MaskOverrides(cellprob_threshold=-2.0, flow_threshold=0.0)
    cpu = RuntimeConfig(device="cpu", amp="off")
    oof(OofConfig(run="tiny", runs_dir=runs, mask=loose, policy="dataset", runtime=cpu))
    return runs / "tiny"


@pytest.fixture
def run(predicted: Path, tmp_path: Path) -> RunFolder:
    """A copy of it, free to be broken."""
    return RunFolder(shutil.copytree(predicted, tmp_path / "runs" / "tiny"))


def test_a_run_is_scored_on_its_data(run: RunFolder, tiny_data: Path, good: Path) -> None:
    expected = pd.read_csv(run.oof / "scores.csv").set_index("id").sort_index()
    by_name = score("tiny", None, runs_dir=run.path.parent)
    found = by_name.images.set_index("id")
    for key in ("score", "ap50", "ap75", "n_true", "n_predicted"):
        np.testing.assert_allclose(found[key], expected[key], atol=1e-12)
    same(score(run.path, None), by_name)
    same(score(run.oof / "masks", tiny_data), by_name)
    assert overall(score(good, None, versus=str(run.path)))["verdict"] == "better"
    # The run's own folds say what its groups are, whatever the dataset says by now.
    facts = json.loads(run.folds.with_suffix(".json").read_text())
    run.folds.with_suffix(".json").write_text(json.dumps(facts | {"group": "cell_type"}))
    assert overall(score(run.path, None))["groups"] == 3


def test_masks_older_than_the_models_are_said(
    run: RunFolder, tiny_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer model of fold 1; scoring needs no record where the truth is given."""
    before = score(run.path, None)
    assert "older than" not in caplog.text
    net, facts = load_model_file(run.fold(1).best)
    net.set_diam_labels(99.0)
    save_model_file(run.fold(1).best, net, facts)
    run.record_path.write_text("damaged")
    same(score(run.path, tiny_data), before)
    assert "run 'tiny' are older than its models of fold 1, so" in caplog.text
    assert f"Make them again: cellflow oof {run.path}" in caplog.text


def test_a_damaged_record_does_not_matter_where_the_truth_is_given(
    run: RunFolder, tiny_data: Path
) -> None:
    before = score(run.path, None)
    run.record_path.write_text("damaged")
    same(score(run.path, tiny_data), before)


def test_a_run_without_masks(run: RunFolder) -> None:
    shutil.rmtree(run.oof)
    with pytest.raises(RunError, match=r"no out-of-fold masks .*cellflow oof \S*tiny"):
        score("tiny", None, runs_dir=run.path.parent)


def test_a_run_may_lack_images_reserved_from_its_folds(
    run: RunFolder, dataset: Dataset, good: Path
) -> None:
    name = dataset.ids[0]
    (run.oof / "masks" / f"{name}.tif").unlink()
    for pred, versus in ((run.path, None), (run.path, good), (good, run.path)):
        found = score(pred, None, versus=versus and str(versus))
        assert len(found.images) == 5
        assert name not in set(found.images["id"])


def test_runs_of_different_data_need_a_truth(run: RunFolder, tiny_data: Path) -> None:
    other = RunFolder(run.path.with_name("other"))
    shutil.copytree(run.path, other.path)
    other.write_record(run.read_record() | {"data_hash": "another"})
    with pytest.raises(RunError, match="tiny and other were trained on different data"):
        score(run.path, None, versus=str(other.path))
    equal = score(run.path, tiny_data, versus=str(other.path))
    assert overall(equal)["verdict"] == "undecided"


def test_command(
    good: Path, poor: Path, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.csv"
    words = [str(good), "--truth", str(dataset.path), "--versus", str(poor), "--out", str(out)]
    cli.run_command("score", words)
    shown = capsys.readouterr().out
    assert " 1.0000 " in shown
    assert f"{good} is better than {poor}: difference +" in shown
    assert f"Written: {out}" in shown
    assert len(pd.read_csv(out)) == len(dataset)
    cli.run_command("score", [str(good), "--data", str(dataset.path)])
    assert "better" not in capsys.readouterr().out


def test_truth_elsewhere_takes_the_place_of_a_runs_data(run: RunFolder, tiny_data: Path) -> None:
    run.write_record(run.read_record() | {"data": str(run.path / "gone")})
    with pytest.raises(RunError, match="Say where it is with --data"):
        score(run.path, None)
    for truth in (tiny_data, tiny_data / "labels"):
        assert len(score(run.path, truth).images) == 6
