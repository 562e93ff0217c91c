"""What `cellflow score` says and draws: what it compares, why names do not match, what was missed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skimage.io import imread

from cellflow import cli
from cellflow.config import ScoreConfig
from cellflow.engine.validation.score_masks import ScoreResult, score_masks
from cellflow.errors import ConfigError, DataError
from cellflow.io.dataset import Dataset
from cellflow.io.images import write_labels
from cellflow.numeric.score import competition_score


@pytest.fixture
def dataset(tiny_data: Path) -> Dataset:
    return Dataset.open(tiny_data)


def saved(folder: Path, dataset: Dataset, ending: str = "") -> Path:
    """Masks of which every second cell is lost; in the last image all cells are right."""
    for name in dataset.ids:
        labels = dataset.labels(name)
        if name != dataset.ids[-1]:
            labels = np.where(labels % 2, labels, 0)
        write_labels(folder / f"{name}{ending}.tif", labels)
    return folder


def score(pred: Path, truth: Path, **options: object) -> ScoreResult:
    return score_masks(ScoreConfig(pred=str(pred), truth=truth, **options))  # type: ignore[arg-type]


def test_counts_of_images_and_rates_of_all_cells(dataset: Dataset, tmp_path: Path) -> None:
    result = score(saved(tmp_path / "pred", dataset), dataset.path)
    images = result.images.set_index("id")
    for name in dataset.ids:
        labels = dataset.labels(name)
        kept = labels if name == dataset.ids[-1] else np.where(labels % 2, labels, 0)
        expected = competition_score(dataset.instances(name), kept)
        found = images.loc[name, ["n_found", "n_missed", "n_false"]].tolist()
        assert found == [expected.tp[0, 0], expected.fn[0, 0], expected.fp[0, 0]]
    tp, fn = int(images["n_found"].sum()), int(images["n_missed"].sum())
    assert images["n_false"].sum() == 0 < fn
    row = result.table.iloc[-1]
    assert row["precision"] == 1.0
    assert row["recall"] == pytest.approx(tp / (tp + fn))
    assert row["f1"] == pytest.approx(2 * tp / (2 * tp + fn))


def test_it_says_what_it_compares_and_what_was_worst(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pred = saved(tmp_path / "pred", dataset, "_cp_masks")
    shutil.copy(pred / f"{dataset.ids[0]}_cp_masks.tif", pred / "another_cp_masks.tif")
    cli.run_command("score", [str(pred), "--truth", str(dataset.path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"prediction  {pred} (label maps such as another_cp_masks.tif), 7 images"
    assert lines[1].split() == ["1", "are", "not", "in", "the", "truth:", "another"]
    assert lines[2] == f"truth       {dataset.path} (dataset), 6 images"
    assert lines[3] == "compared    6 images that match by name"
    assert max(len(line) for line in lines[4:]) <= 80
    start = next(place for place, line in enumerate(lines) if "worst images" in line)
    worst = [line.split() for line in lines[start + 1 :]]
    images = score(pred, dataset.path).images.set_index("id")
    assert len(worst) == 5  # the sixth has nothing wrong
    assert [row[0] for row in worst] == sorted(row[0] for row in worst)
    for row in worst:
        assert int(row[3]) == images.loc[row[5], "n_missed"] > 0


def test_names_that_differ_by_an_ending_are_told_with_the_flag(
    dataset: Dataset, tmp_path: Path
) -> None:
    pred = saved(tmp_path / "pred", dataset, "_v2")
    with pytest.raises(DataError, match="add --mask_filter _v2") as caught:
        score(pred, dataset.path)
    assert dataset.ids[0] in str(caught.value) and f"{dataset.ids[0]}_v2" in str(caught.value)
    found = score(pred, dataset.path, mask_filter="_v2")
    assert len(found.images) == 6
    truth = saved(tmp_path / "truth", dataset, "_old")
    with pytest.raises(DataError, match=r"The names of the truth end in '_old'.*--mask_filter"):
        score(saved(tmp_path / "plain", dataset), truth)
    both = saved(tmp_path / "both", dataset, "_v2_cp_masks")
    with pytest.raises(DataError, match="add --mask_filter _v2_cp_masks"):
        score(both, dataset.path)
    assert len(score(both, dataset.path, mask_filter="_v2_cp_masks").images) == 6


@pytest.mark.parametrize(
    ("pred", "truth"), [("_seg", ""), ("", "_label"), ("_seg_cp_masks", "_gt")]
)
def test_words_for_label_maps_need_no_flag(
    dataset: Dataset, tmp_path: Path, pred: str, truth: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    there = saved(tmp_path / "truth", dataset, truth)
    assert len(score(saved(tmp_path / "pred", dataset, pred), there).images) == 6
    assert "taken are pairs with other words for label maps" in caplog.text


def test_an_ending_that_no_name_has_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--mask_filter _no: no label map has such a name"):
        score(saved(tmp_path / "pred", dataset), dataset.path, mask_filter="_no")


def test_some_names_that_differ_show_both_sides(dataset: Dataset, tmp_path: Path) -> None:
    pred = saved(tmp_path / "pred", dataset)
    (pred / f"{dataset.ids[1]}.tif").rename(pred / "renamed.tif")
    with pytest.raises(DataError, match=rf"no masks for 1 of the 6 .*{dataset.ids[1]}") as caught:
        score(pred, dataset.path)
    assert "masks for 1 others (renamed)" in str(caught.value)
    assert "--subset" in str(caught.value)


def test_swapped_sizes_name_both_files(dataset: Dataset, tmp_path: Path) -> None:
    pred, name = saved(tmp_path / "pred", dataset), dataset.ids[2]
    write_labels(pred / f"{name}.tif", dataset.labels(name).T)
    with pytest.raises(DataError, match=r"112 x 96, the truth is 96 x 112.*are swapped") as caught:
        score(pred, dataset.path)
    for path in (pred / f"{name}.tif", dataset.path / "labels" / f"{name}.tif"):
        assert str(path) in str(caught.value)


def test_pictures_come_worst_first(dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    pred = saved(tmp_path / "pred", dataset)
    result = score(pred, dataset.path, outlines=True, outlines_dir=folder)
    assert result.outlines == folder / "worst.png"
    index = pd.read_csv(folder / "index.csv", dtype={"id": str})
    assert index["score"].is_monotonic_increasing
    assert list(index["rank"]) == [1, 2, 3, 4, 5, 6]
    row = index.iloc[0]
    assert row["file"] == f"001_{row['score']:.2f}_{row['id']}.png"
    assert {path.name for path in folder.iterdir()} == {*index["file"], "worst.png", "index.csv"}
    assert imread(folder / row["file"]).ndim == 3
    again = score(pred, dataset.path, outlines=True, outlines_dir=folder)
    assert again.outlines == result.outlines


def test_pictures_take_images_from_a_folder(dataset: Dataset, tmp_path: Path) -> None:
    pred, truth = saved(tmp_path / "pred", dataset), saved(tmp_path / "truth", dataset, "_masks")
    options = {"outlines": True, "outlines_dir": tmp_path / "pictures"}
    with pytest.raises(ConfigError, match="--images FOLDER"):
        score(pred, truth, **options)
    images = shutil.copytree(dataset.path / "images", tmp_path / "images")
    assert score(pred, truth, images=images, **options).outlines is not None
    gone = next(images.glob(f"{dataset.ids[0]}.*"))
    gone.unlink()
    with pytest.raises(DataError, match=rf"no image for 1 of the 6 .*\({dataset.ids[0]}\)"):
        score(pred, truth, images=images, **options)


def test_pictures_never_replace_something_else(dataset: Dataset, tmp_path: Path) -> None:
    pred = saved(tmp_path / "pred", dataset)
    with pytest.raises(DataError, match="found something else"):
        score(pred, dataset.path, outlines=True, outlines_dir=pred)
    assert len(list(pred.iterdir())) == 6


def test_flags_that_need_pictures(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--images needs --outlines"):
        score(saved(tmp_path / "pred", dataset), dataset.path, images=tmp_path)


def test_colours_where_nothing_is_a_picture_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    table = pd.read_csv(dataset.path / "instances.csv").rename(columns={"annotation": "predicted"})
    table.to_csv(tmp_path / "found.csv", index=False)
    assert score(tmp_path / "found.csv", dataset.path, subset=True)
    with pytest.raises(
        ConfigError, match=r"--colours: expected a folder of label maps, found none in"
    ):
        score(tmp_path / "found.csv", dataset.path, colours=True)


def test_raw_images_are_no_prediction(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=r"expected a label map.*found a picture"):
        score(dataset.path / "images", dataset.path)


def test_one_cell_everywhere_is_a_bad_prediction_and_no_wrong_file(
    dataset: Dataset, tmp_path: Path
) -> None:
    pred = saved(tmp_path / "pred", dataset)
    first = dataset.ids[0]
    write_labels(pred / f"{first}.tif", np.ones(dataset.labels(first).shape, np.int32))
    found = score(pred, dataset.path).images.set_index("id")["score"]
    assert found[first] == 0 and (found.drop(first) > 0.4).all()


def test_masks_are_found_under_the_names_that_prepare_takes(
    dataset: Dataset, tmp_path: Path
) -> None:
    saved(tmp_path / "theirs" / "Labels", dataset)
    pred = saved(tmp_path / "pred", dataset)
    assert len(score(pred, tmp_path / "theirs").images) == len(dataset)
