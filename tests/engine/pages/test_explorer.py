"""What the explorer of a run shows, and the files beside the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import pytest
from faults import failing, hidden
from planted_run import dataset_of, run_of, squares

from cellflow.engine.pages.explorer import explorer_facts, fellow_runs, run_explorer
from cellflow.engine.runs.contents import run_dataset
from cellflow.errors import DataError
from cellflow.io.images import read_labels, write_labels
from cellflow.io.shapes import instances_from_outlines
from cellflow.numeric.cell_errors import ERRORS
from cellflow.storage.run_folder import RunFolder


def of(config: Any, name: str = "tiny") -> RunFolder:
    return RunFolder(config.runs_dir / name)


def script(run: RunFolder, number: int) -> dict[str, Any]:
    """What N.js hands to the page."""
    text = (run.report_files / f"{number}.js").read_text("utf-8")
    assert text.startswith("cellflowExplorer(")
    return json.loads(text.strip().removeprefix("cellflowExplorer(").removesuffix(");"))


def picture(run: RunFolder, name: str) -> np.ndarray:
    return imagecodecs.webp_decode((run.report_files / name).read_bytes())


def corners(text: str) -> np.ndarray:
    """A ring from its letters, as the page reads it."""
    start, letters = text.split(":", 1)
    points = [np.array(start.split(","), int)]
    for place, letter in enumerate(letters):
        step = ord(letter) - 79
        points.append(points[-1] + ((0, step) if place % 2 else (step, 0)))
    return np.array(points, float)


def cells(rings: list[list[str]], shape: tuple[int, int]) -> list[set[int]]:
    """The pixels of every cell."""
    instances = instances_from_outlines([[[corners(r) for r in cell]] for cell in rings], shape)
    return [{p for s, n in zip(*runs, strict=True) for p in range(s, s + n)} for runs in instances]


def test_a_real_run_and_its_scores(predicted):
    """Errors add up to the counts of the tables, and outlines come back to the pixel."""
    run = of(predicted)
    dataset, scores = run_dataset(run, None), pd.read_csv(run.scores)
    facts = explorer_facts(run, dataset)
    assert [item.id for item in facts.images] == scores["id"].tolist()
    assert facts.notes == []
    assert "flow_threshold 0.4 and cellprob_threshold 0" in facts.masks
    for item, row in zip(facts.images, scores.to_dict("records"), strict=True):
        found = script(run, item.number)
        assert found["key"] == item.key
        assert item.layers == ("image", "flow", "cellprob")
        assert found["truthHit"].count(0) == row["n_missed"] == item.scores["n_missed"]
        assert found["predictedHit"].count(0) == row["n_false"]
        assert found["truthHit"].count(1) == row["n_found"]
        assert len(found["truth"]) == row["n_true"]
        kinds = [error[0] for error in found["errors"]]
        assert item.counts == {kind: kinds.count(kind) for kind in ERRORS}
        assert item.size == (96, 112)
        assert picture(run, f"{item.number}.webp").shape == (96, 112, 3)
        labels = read_labels(run.oof / "masks" / f"{item.id}.tif")
        pixels = [set(np.flatnonzero(labels.ravel() == n)) for n in range(1, labels.max() + 1)]
        assert cells(found["predicted"], item.size) == pixels
        true = dataset.labels(item.id)
        pixels = [set(np.flatnonzero(true.ravel() == n)) for n in range(1, true.max() + 1)]
        assert cells(found["truth"], item.size) == pixels
    assert facts.totals == {k: sum(i.counts[k] for i in facts.images) for k in ERRORS}
    assert facts.totals["missed"] > 0


def stamps(run: RunFolder) -> dict[str, tuple[int, int]]:
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in run.report_files.iterdir()
    }


def test_what_did_not_change_is_not_made_again(predicted):
    run = of(predicted)
    dataset = run_dataset(run, None)
    first = explorer_facts(run, dataset)
    before = stamps(run)
    assert explorer_facts(run, dataset) == first
    assert stamps(run) == before

    changed = first.images[2]
    path = run.oof / "masks" / f"{changed.id}.tif"
    write_labels(path, squares((96, 112), (2, 2, 20, 20)))
    second = explorer_facts(run, dataset)
    after = stamps(run)
    assert second.images[2].key != changed.key
    assert len(script(run, 3)["predicted"]) == 1
    assert {name for name in after if after[name] != before[name]} == {
        "index.json", "3.js", "3.webp", "3_flow.webp", "3_cellprob.webp", "3_thumb.webp",
    }  # fmt: skip

    (run.report_files / "4.webp").unlink()  # somebody tidied up
    explorer_facts(run, dataset)
    assert (run.report_files / "4.webp").is_file()

    scores = pd.read_csv(run.scores)
    scores.iloc[:4].to_csv(run.scores, index=False)
    explorer_facts(run, dataset)
    numbers = {path.name[0] for path in run.report_files.glob("[0-9]*")}
    assert numbers == {"1", "2", "3", "4"}


def test_a_damaged_index_is_made_anew_and_a_foreign_folder_stays(predicted):
    run = of(predicted)
    dataset = run_dataset(run, None)
    first = explorer_facts(run, dataset)
    damaged = ('{"images": [{"key": 1}]}', '{"images": 5}', '{"images": [7]}', "{}")
    damaged += tuple(
        f'{{"images": [{{"key": "k", "number": {number}, "made": {{"size": {size}}}}}]}}'
        for number, size in (('"x"', "[1, 2]"), ("1e999", "[1, 2]"), ("1", "[1]"))
    )
    for damage in damaged:
        (run.report_files / "index.json").write_text(damage)
        assert explorer_facts(run, dataset) == first
    shutil.rmtree(run.report_files)
    run.report_files.mkdir()
    (run.report_files / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="found something else") as caught:
        explorer_facts(run, dataset)
    assert caught.value.path == run.report_files
    assert [path.name for path in run.report_files.iterdir()] == ["thesis.txt"]


def test_flows_that_were_pruned_and_data_that_are_gone(predicted):
    run = of(predicted)
    shutil.rmtree(run.flows)
    facts = explorer_facts(run, run_dataset(run, None))
    assert {item.layers for item in facts.images} == {("image",)}
    assert "flows.zarr is not here" in facts.notes[0][1]

    facts = explorer_facts(run, None)
    assert {item.layers for item in facts.images} == {()}
    assert not facts.has_truth
    assert facts.totals is None
    assert "--data" in facts.notes[0][1]
    assert script(run, 1)["truth"] == []
    assert all(item.thumbnail for item in facts.images)

    shutil.rmtree(run.oof / "masks")
    facts = explorer_facts(run, run_dataset(run, None))
    assert not facts.has_prediction
    assert {item.layers for item in facts.images} == {("image",)}
    assert script(run, 1)["errors"] is None


def test_a_damaged_mask_spoils_one_image_only(predicted):
    run = of(predicted)
    names = pd.read_csv(run.scores)["id"].tolist()
    (run.oof / "masks" / f"{names[1]}.tif").write_bytes(b"no TIFF")
    (run.oof / "masks" / f"{names[2]}.tif").unlink()
    write_labels(run.oof / "masks" / f"{names[3]}.tif", np.ones((5, 6), np.int32))
    facts = explorer_facts(run, run_dataset(run, None))
    problems = [item.problem for item in facts.images]
    assert [bool(text) for text in problems] == [False, True, True, True, False, False]
    assert f"{names[1]}.tif" in problems[1]
    assert "expected a label map of 96 x 112" in problems[3]
    assert facts.notes == [("warning", "3 of 6 images cannot be shown; each says why.")]
    assert not list(run.report_files.glob("2*"))


def test_a_full_disk_is_no_damage_of_an_image(predicted):
    """It was told on the page alone, and the next page took it over."""
    run = of(predicted)
    shutil.rmtree(run.report_files)
    with failing(None, files=True) as steps:
        run_explorer(run)
    shutil.rmtree(run.report_files)
    at = steps.names.index("write") + 1
    with failing(at, files=True), pytest.raises(OSError, match="No space left"):
        run_explorer(run)
    assert [item.problem for item in run_explorer(run).images] == [""] * 6


def test_what_a_kill_left_goes_though_no_image_has_changed(small):
    """A kill while the old files were removed, after the new had taken their place."""
    run_explorer(small)
    left = small.path / f".{small.report_files.name}.98785d40.old"
    left.mkdir()
    (left / "1_flow.webp").touch()
    left.with_suffix(".lock").touch()
    run_explorer(small)
    assert hidden(small.path) == []


def test_ids_of_a_changed_table_lead_nowhere(predicted):
    run = of(predicted)
    write_labels(run.oof / "secret.tif", np.ones((96, 112), np.int32))
    scores = pd.read_csv(run.scores)
    scores.loc[0, "id"] = "../secret"
    scores.to_csv(run.scores, index=False)
    facts = explorer_facts(run, None)
    assert "is no id of an image" in facts.images[0].problem


def test_a_run_without_predictions_says_what_makes_them(copied):
    facts = explorer_facts(of(copied), None)
    assert facts.images == ()
    assert "cellflow oof" in facts.notes[0][1]
    assert not of(copied).report_files.exists()


@pytest.mark.slow
def test_disagreement_needs_another_run_of_the_same_split(two_runs):
    run, other = of(two_runs), of(two_runs, "second")
    dataset = run_dataset(run, None)
    facts = explorer_facts(run, dataset)
    assert facts.members == ["tiny", "second"]
    assert {item.layers for item in facts.images} == {("image", "flow", "cellprob", "disagreement")}
    shown = picture(run, "1_disagreement.webp")
    assert shown.std() > 3

    other.write_record(other.read_record() | {"folds_hash": "of another split"})
    assert fellow_runs(run) == []
    facts = explorer_facts(run, dataset)
    assert facts.members == ()
    assert not list(run.report_files.glob("*_disagreement.webp"))


ODD = "it's & 5% #1+2"


def odd_images() -> dict[str, tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    ring = squares((60, 80), (5, 5, 40, 40), (45, 50, 58, 75))
    ring[15:30, 15:30] = 0
    nothing = np.zeros((60, 80), np.int32)
    return {
        ODD: (rng.integers(0, 60000, (60, 80), np.uint16), ring),
        "färbung µ 細胞": (rng.integers(0, 255, (60, 80, 3), np.uint8), nothing),
        "n" * 200: (rng.random((60, 80, 2)).astype(np.float32), ring[::-1].copy()),
        "großes": (
            rng.integers(0, 255, (100, 3000), np.uint8),
            squares((100, 3000), (10, 10, 60, 70), (70, 2950, 100, 3000)),
        ),
    }


@pytest.fixture
def odd(tmp_path: Path) -> tuple[Any, RunFolder]:
    images = odd_images()
    dataset = dataset_of(tmp_path, images)
    predicted = {name: dataset.labels(name) for name in dataset.ids}
    return dataset, run_of(dataset, tmp_path / "runs" / "odd", predicted, chan=2, chan2=1)


def test_images_of_all_kinds(odd):
    dataset, run = odd
    facts = explorer_facts(run, dataset)
    items = {item.id: item for item in facts.images}
    assert set(items) == set(odd_images())
    assert {item.problem for item in facts.images} == {""}
    assert all(path.name[0] in "1234i" for path in run.report_files.iterdir())
    assert items[ODD].layers == ("image", "flow", "cellprob")
    assert items["n" * 200].layers == ("image", "seen", "flow", "cellprob")
    hole = script(run, items[ODD].number)
    assert [len(rings) for rings in hole["truth"]] == [2, 1]
    assert len(cells(hole["truth"], (60, 80))[0]) == 35 * 35 - 15 * 15
    assert items["färbung µ 細胞"].counts == dict.fromkeys(ERRORS, 0)
    large = items["großes"]
    assert large.size == (100, 3000)
    assert picture(run, f"{large.number}.webp").shape == (68, 2048, 3)
    assert picture(run, f"{large.number}_flow.webp").shape == (50, 1500, 3)
    # coordinates stay those of the image
    assert len(cells(script(run, large.number)["truth"], large.size)[0]) == 50 * 60


def test_truth_that_overlaps(tmp_path):
    """As runs in a table, which label maps cannot hold: every true cell keeps its whole outline."""
    from skimage.io import imsave

    from cellflow import FoldsConfig, PrepareConfig, make_folds, prepare
    from cellflow.io.dataset import Dataset
    from cellflow.numeric.rle import rles_from_labels

    one, two = squares((30, 40), (2, 2, 20, 20)), squares((30, 40), (10, 10, 28, 36))
    rows = []
    for name in ("a", "b"):
        pixels = np.random.default_rng(len(rows)).integers(0, 255, (30, 40), np.uint8)
        (tmp_path / "source/train").mkdir(parents=True, exist_ok=True)
        imsave(tmp_path / "source/train" / f"{name}.png", pixels, check_contrast=False)
        for labels in (one, two):
            rle = rles_from_labels(labels)[0]
            rows.append(
                {"id": name, "annotation": rle, "width": 40, "height": 30, "cell_type": "x"}
            )
    pd.DataFrame(rows).to_csv(tmp_path / "source/train.csv", index=False)
    prepare(PrepareConfig(source=tmp_path / "source", out=tmp_path / "data"))
    make_folds(FoldsConfig(data=tmp_path / "data", k=2))
    dataset = Dataset.open(tmp_path / "data")
    run = run_of(dataset, tmp_path / "runs" / "lapping", {"a": one, "b": one})
    explorer_facts(run, dataset)
    found = script(run, 1)
    sizes = sorted(len(pixels) for pixels in cells(found["truth"], (30, 40)))
    assert sizes == sorted([one.sum(), two.sum()])
    assert sorted(found["truthKinds"]) == ["correct", "missed"]


def test_one_image_of_two_pixels(tmp_path):
    dot, nothing = np.array([[1, 0]]), np.array([[0, 0]])
    images = {
        "dot": (np.array([[7, 9]], np.uint8), dot),
        "two": (np.array([[3, 9]], np.uint8), dot),
    }
    dataset = dataset_of(tmp_path, images)
    run = run_of(dataset, tmp_path / "runs" / "dot", {"dot": nothing, "two": nothing})
    pd.read_csv(run.scores).iloc[:1].to_csv(run.scores, index=False)
    facts = explorer_facts(run, dataset)
    assert [item.counts["missed"] for item in facts.images] == [1]
    assert picture(run, "1.webp").shape == (1, 2, 3)


@pytest.fixture
def small(tmp_path: Path) -> RunFolder:
    labels = squares((20, 30), (2, 2, 12, 12))
    rng = np.random.default_rng(0)
    images = {name: (rng.integers(0, 255, (20, 30), np.uint8), labels) for name in "ab"}
    dataset = dataset_of(tmp_path, images)
    return run_of(dataset, tmp_path / "runs" / "small", dict.fromkeys("ab", labels))


def test_the_files_lie_beside_a_page_elsewhere(small, tmp_path):
    facts = run_explorer(small, folder=tmp_path / "pages" / "my 1st %-files")
    assert facts.folder == "my%201st%20%25-files"
    assert (tmp_path / "pages" / "my 1st %-files" / "2.webp").is_file()
    assert not small.report_files.exists()


def test_what_is_wrong_stands_in_the_notes(small, tmp_path):
    assert run_explorer(small).notes == []
    (tmp_path / "data").rename(tmp_path / "moved")
    facts = run_explorer(small)
    assert [kind for kind, _ in facts.notes] == ["warning"]
    assert str(tmp_path / "data") in facts.notes[0][1]
    assert facts.images[0].layers == ("flow", "cellprob")
    assert run_explorer(small, data=tmp_path / "moved").notes == []
    small.scores.write_text("id,fold\na,0\n")
    facts = run_explorer(small)
    assert facts.images == ()
    assert "cannot be shown" in facts.notes[0][1]


def test_new_flows_are_drawn_anew(small):
    """Their folder says what made them; masks that stay the same do not hide it."""
    explorer_facts(small, None)
    first = script(small, 1)["key"]
    small.oof_record.write_text('{"made": "by other models"}')
    explorer_facts(small, None)
    assert script(small, 1)["key"] != first


def test_many_images_stay_small():
    """Pictures get smaller files, the more of them there are."""
    from cellflow.engine.pages import explorer_image as made

    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    assert len(made._within(noise, 1e9)) > len(made._within(noise, 20_000)) > 0
    sides = [made.ExplorerSource(None, None, None, (), (0, 0), n).side for n in (1, 100, 600, 9999)]
    assert sides == [2048, 1732, 707, 512]
