from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from cellflow import cli, segmentation_metrics
from cellflow.config.metrics import MEANINGS, MetricName
from cellflow.config.scoring import ScoreConfig
from cellflow.engine.validation.score_masks import score_masks
from cellflow.errors import DataError
from cellflow.io.images import write_labels
from cellflow.numeric.bootstrap import bootstrap_mean
from cellflow.numeric.metrics.table import METRICS

SHAPE = (60, 70)


def squares(*corners: tuple[int, int], side: int = 10) -> np.ndarray:
    labels = np.zeros(SHAPE, np.int32)
    for number, (y, x) in enumerate(corners, start=1):
        labels[y : y + side, x : x + side] = number
    return labels


TRUTHS = {
    "a": squares((0, 0), (20, 20), (40, 50)),
    "b": squares((5, 5), (25, 40)),
    "c": squares(),
    "d": squares((30, 30)),
}
FIRST = {
    "a": squares((0, 2), (21, 20), (40, 20)),
    "b": squares((5, 5), (25, 43)),
    "c": squares(),
    "d": squares((30, 31), (3, 60)),
}
SECOND = {name: squares((0, 0)) for name in TRUTHS}


def save(folder: Path, maps: dict[str, np.ndarray]) -> Path:
    for name, labels in maps.items():
        write_labels(folder / f"{name}.tif", labels)
    return folder


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of truth and of two predictions, where commands run."""
    monkeypatch.chdir(tmp_path)
    for name, maps in {"truth": TRUTHS, "first": FIRST, "second": SECOND}.items():
        save(tmp_path / name, maps)
    return tmp_path


def command(text: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(shlex.split(text))
    return int(caught.value.code or 0)


def test_all_metrics_from_folders_to_a_table(places: Path, capsys: pytest.CaptureFixture[str]):
    assert command("score first --truth truth --metrics all --out scores.csv") == 0
    rows = pd.read_csv("scores.csv", dtype={"id": str}).set_index("id")
    expected = segmentation_metrics(list(TRUTHS.values()), list(FIRST.values()))
    for name in METRICS:
        assert rows[name].tolist() == pytest.approx(expected.per_image[name].tolist()), name
    assert rows["score"].tolist() == pytest.approx(rows["competition"].tolist())
    text = capsys.readouterr().out
    table = {line.split()[0]: line for line in text[text.index("METRIC") :].splitlines() if line}
    for name in METRICS:
        interval = bootstrap_mean(expected.per_image[name])
        numbers = (interval.mean, interval.low, interval.high, expected.pooled[name])
        shown = re.findall(
            r"-?\d+\.\d{4}", text.split("METRIC")[1].split(f"\n{name} ")[1].split("\n")[0]
        )
        assert shown == [f"{value:.4f}" for value in numbers], name
        assert MEANINGS[name] in text and name in table
    assert "1 for every cell, so COCO's AP depends on the order of cells" in text
    assert all(len(line) <= 80 for line in text.split("METRIC")[1].splitlines())


def test_two_predictions_are_compared_in_every_metric(places: Path):
    result = score_masks(
        ScoreConfig("first", truth=Path("truth"), versus="second", metrics=("all",))
    )
    expected = [
        segmentation_metrics(list(TRUTHS.values()), list(side.values())) for side in (FIRST, SECOND)
    ]
    rows = result.metrics.set_index("metric")
    assert list(rows.index) == list(METRICS)
    for name, row in rows.iterrows():
        means = [side.mean[name] for side in expected]
        assert [row["mean"], row["mean_versus"]] == pytest.approx(means)
        assert row["difference"] == pytest.approx(means[0] - means[1])
        assert [row["pooled"], row["pooled_versus"]] == [side.pooled[name] for side in expected]
        difference = expected[0].per_image[name] - expected[1].per_image[name]
        assert result.images[f"{name}_difference"].tolist() == pytest.approx(difference.tolist())
    assert rows.loc["count_error", "verdict"] == ""


def test_fewer_errors_are_better(tmp_path: Path):
    """The verdict on an error is turned round: less is better, and of a signed one there is none."""
    names = [f"{number:02}" for number in range(12)]
    truth = save(tmp_path / "truth", {name: squares((5, 5), (25, 40)) for name in names})
    good = save(tmp_path / "good", {name: squares((5, 5), (25, 40)) for name in names})
    bad = save(tmp_path / "bad", {name: squares((5, 5)) for name in names})
    words = ("pq", "count_error", "count_error_absolute", "count_error_relative")
    result = score_masks(ScoreConfig(str(good), truth=truth, versus=str(bad), metrics=words))
    verdicts = dict(zip(result.metrics["metric"], result.metrics["verdict"], strict=True))
    assert verdicts == {
        "pq": "better",
        "count_error": "",
        "count_error_absolute": "better",
        "count_error_relative": "better",
    }


def test_cells_at_the_border_are_left_out(places: Path, capsys: pytest.CaptureFixture[str]):
    assert command("score first --truth truth --metrics f1_50 --border drop --out s.csv") == 0
    rows = pd.read_csv("s.csv").set_index("id")
    kept = segmentation_metrics(
        list(TRUTHS.values()), list(FIRST.values()), border="drop", metrics=["f1_50"]
    )
    assert rows["f1_50"].tolist() == kept.per_image["f1_50"].tolist()
    assert rows["n_true"].tolist() == [2, 2, 0, 1]  # one of a lies at the border
    assert rows["n_predicted"].tolist() == [2, 2, 0, 1]  # and one of d
    assert "outer 2 pixels are left out on both sides" in capsys.readouterr().out


def test_regions_to_ignore(places: Path, capsys: pytest.CaptureFixture[str]):
    """A mask over the false cell of d makes d perfect but for one column; a is as it was."""
    region = np.zeros(SHAPE, np.uint8)
    region[:20, 55:] = 255
    write_labels(places / "ignore" / "d.tif", region)
    assert command("score first --truth truth --ignore ignore --metrics pq --out s.csv") == 0
    rows = pd.read_csv("s.csv").set_index("id")
    assert rows.loc["d", ["n_true", "n_predicted", "n_false"]].tolist() == [1, 1, 0]
    assert rows.loc["d", "pq"] == pytest.approx(90 / 110)
    assert rows.loc["a", "n_predicted"] == 3
    assert re.search(r"ignored +regions of ignore, in 1 of 4 images", capsys.readouterr().out)

    write_labels(places / "other" / "x.tif", region)
    with pytest.raises(DataError, match="expected label maps or masks named by the ids of the tr"):
        score_masks(ScoreConfig("first", truth=Path("truth"), ignore=Path("other")))
    write_labels(places / "small" / "d.tif", region[:30])
    with pytest.raises(DataError, match=r"size of the image d, 60 x 70, found 30 x 70") as caught:
        score_masks(ScoreConfig("first", truth=Path("truth"), ignore=Path("small")))
    assert caught.value.id == "d" and caught.value.path == Path("small/d.tif")


def results_folder(place: Path, confidence: dict[str, Sequence[object]]) -> Path:
    save(place / "masks", FIRST)
    lines = [
        f"{name},{label},{value}"
        for name, values in confidence.items()
        for label, value in reversed(list(enumerate(values, start=1)))
    ]
    (place / "cells.csv").write_text("\n".join(["id,label,confidence", *lines, ""]))
    return place


CONFIDENCE = {"a": [0.2, 0.9, 0.8], "b": [0.5, 0.6], "d": [0.9, 0.3]}


@pytest.mark.parametrize("named", ["results", "results/masks"])
def test_confidence_of_a_results_folder(
    places: Path, named: str, capsys: pytest.CaptureFixture[str]
):
    results_folder(places / "results", CONFIDENCE)
    assert command(f"score {named} --truth truth --metrics coco_ap50 coco_ap --out s.csv") == 0
    assert re.search(r"confidence +results/cells.csv, for COCO's AP", capsys.readouterr().out)
    scores = [CONFIDENCE.get(name, []) for name in TRUTHS]
    expected = segmentation_metrics(list(TRUTHS.values()), list(FIRST.values()), scores=scores)
    rows = pd.read_csv("s.csv")
    assert rows["coco_ap"].tolist() == pytest.approx(expected.per_image["coco_ap"].tolist())
    without = segmentation_metrics(list(TRUTHS.values()), list(FIRST.values()))
    assert rows["coco_ap"].tolist() != pytest.approx(without.per_image["coco_ap"].tolist())


def coco_results(places: Path, *, without: int | None = None) -> None:
    """``truth.json`` and ``found.json``, by pycocotools; one of the results may lack its score."""
    from pycocotools import mask

    images, results = [], []
    for number, (name, labels) in enumerate(FIRST.items(), start=1):
        size = dict(zip(("height", "width"), SHAPE, strict=True))
        images.append({"id": number, "file_name": f"{name}.png", **size})
        for label, score in enumerate(CONFIDENCE.get(name, []), start=1):
            cell = mask.encode(np.asfortranarray(labels == label, np.uint8))
            segmentation = {"size": list(SHAPE), "counts": cell["counts"].decode()}
            entry = {"image_id": number, "category_id": 1, "segmentation": segmentation}
            results.append(entry | {"score": score})
    if without is not None:
        del results[without]["score"]
    listed = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    (places / "listed.json").write_text(json.dumps(listed))
    (places / "found").mkdir()
    (places / "found" / "listed.json").write_text(json.dumps(listed))
    (places / "found" / "results.json").write_text(json.dumps(results))


def test_confidence_of_coco_results(places: Path, capsys: pytest.CaptureFixture[str]):
    coco_results(places)
    text = "score found/results.json --truth truth --metrics coco_ap --border drop --out s.csv"
    assert command(text) == 0
    printed = capsys.readouterr().out
    assert re.search(r"confidence +found/results.json, for COCO's AP", printed)
    scores = [CONFIDENCE.get(name, []) for name in TRUTHS]
    maps = list(TRUTHS.values()), list(FIRST.values())
    expected = segmentation_metrics(*maps, scores=scores, border="drop").per_image["coco_ap"]
    assert pd.read_csv("s.csv")["coco_ap"].tolist() == pytest.approx(expected.tolist())
    without = segmentation_metrics(*maps, border="drop").per_image["coco_ap"]
    assert expected.tolist() != pytest.approx(without.tolist())


def test_coco_results_of_which_one_has_no_score(places: Path, capsys: pytest.CaptureFixture[str]):
    coco_results(places, without=1)
    assert command("score found/results.json --truth truth --metrics coco_ap") == 0
    assert re.search(r"confidence +not known", capsys.readouterr().out)


def test_a_table_of_somebody_else(
    places: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    save(places / "results" / "masks", FIRST)
    (places / "results" / "cells.csv").write_text("Label,Area\n1,100\n")
    assert command("score results/masks --truth truth --metrics coco_ap") == 0
    assert re.search(r"confidence +not known", capsys.readouterr().out)
    assert "results/cells.csv" in caplog.text and "confidence" in caplog.text


def test_confidence_stays_with_its_cell_when_others_are_left_out(places: Path):
    results_folder(places / "results", CONFIDENCE)
    options = {"border": "drop", "metrics": ("coco_ap",)}
    found = score_masks(ScoreConfig("results", truth=Path("truth"), **options))
    scores = [CONFIDENCE.get(name, []) for name in TRUTHS]
    expected = segmentation_metrics(
        list(TRUTHS.values()), list(FIRST.values()), scores=scores, border="drop"
    )
    assert found.images["coco_ap"].tolist() == pytest.approx(expected.per_image["coco_ap"].tolist())


@pytest.mark.parametrize(
    ("confidence", "message"),
    [
        (CONFIDENCE | {"b": [0.5]}, "each of the 2 cells in the mask of b, found 1"),
        (CONFIDENCE | {"b": [0.5, "high"]}, r"line 5: expected numbers .* found '2' and 'high'"),
        (CONFIDENCE | {"b": [0.5, "nan"]}, "each of the 2 cells in the mask of b, found 1"),
    ],
)
def test_confidences_that_do_not_fit(places: Path, confidence, message: str):
    results_folder(places / "results", confidence)
    with pytest.raises(DataError, match=message):
        score_masks(ScoreConfig("results", truth=Path("truth"), metrics=("coco_ap",)))
    score_masks(ScoreConfig("results", truth=Path("truth"), metrics=("pq",)))  # not needed there


def test_max_dets(places: Path, capsys: pytest.CaptureFixture[str]):
    result = score_masks(
        ScoreConfig("first", truth=Path("truth"), metrics=("coco_ap50",), max_dets=1)
    )
    expected = segmentation_metrics(list(TRUTHS.values()), list(FIRST.values()), max_dets=1)
    values = result.images["coco_ap50"].tolist()
    assert values == expected.per_image["coco_ap50"].tolist()
    assert (
        values
        != segmentation_metrics(list(TRUTHS.values()), list(FIRST.values()))
        .per_image["coco_ap50"]
        .tolist()
    )
    assert command("score first --truth truth --metrics pq --max_dets 5") != 0
    assert "--max_dets needs COCO's AP: add --metrics coco_ap" in capsys.readouterr().err


def test_an_unknown_metric_is_refused_with_the_names(
    places: Path, capsys: pytest.CaptureFixture[str]
):
    assert command("score first --truth truth --metrics ap") != 0
    assert "coco_ap50" in capsys.readouterr().err


def test_help_says_what_each_metric_is(capsys: pytest.CaptureFixture[str]):
    assert command("score --help") == 0
    text = capsys.readouterr().out
    described = text[text.index("More metrics, or all") :]
    assert list(get_args(MetricName)) == list(METRICS) == list(MEANINGS)
    for name in METRICS:
        assert re.search(rf"\b{name}\b", described), name


def test_pictures_show_what_was_scored(places: Path):
    from cellflow.io.images import write_planes

    for name in TRUTHS:
        (places / "images").mkdir(exist_ok=True)
        write_planes(places / "images" / f"{name}.tif", np.full(SHAPE, 90, np.uint8))
    command("score first --truth truth --border drop --outlines --images images --outlines_dir o")
    names = sorted(path.name for path in Path("o").glob("*_a.png"))
    scores = score_masks(ScoreConfig("first", truth=Path("truth"), border="drop")).images
    assert len(names) == 1 and f"{scores.loc[0, 'score']:.3f}"[:4] in names[0]
