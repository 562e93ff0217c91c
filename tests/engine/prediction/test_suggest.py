"""`cellflow suggest`, from a folder of images to the list of those to annotate next."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from blobs import Blobs
from skimage.io import imsave

from cellflow import cli, load_model, suggest
from cellflow.config import FilesConfig, RuntimeConfig, SuggestConfig, TrainConfig
from cellflow.engine.prediction.candidates import _look
from cellflow.errors import DataError, RunError
from cellflow.io.image_source import find_images
from cellflow.io.images import read_image
from cellflow.nn.checkpoint import save_model_file
from cellflow.nn.networks import NETWORKS
from cellflow.numeric.score import competition_score
from cellflow.numeric.suggestion import doubt_of_flows
from cellflow.synthetic import synthetic_dataset

CPU = RuntimeConfig(device="cpu", amp="off")
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, tiny_source: Path) -> Path:
    """Eight new images, of which two are one; one that is annotated, one that is so turned, one broken."""
    folder = tmp_path_factory.mktemp("pool") / "new images"
    folder.mkdir()
    new = [item.image for item in synthetic_dataset(7, shape=(90, 110), seed=11, per_group=1)]
    for place, image in enumerate(new[:-1]):
        imsave(folder / f"{place}.png", image, check_contrast=False)
    imsave(folder / f"{HOSTILE}.png", new[-1], check_contrast=False)
    imsave(folder / "again.png", np.rot90(new[0]), check_contrast=False)
    old = sorted((tiny_source / "images").iterdir())
    shutil.copy(old[0], folder / "old.png")
    imsave(folder / "old turned.png", np.rot90(read_image(old[1])), check_contrast=False)
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def config_of(trained: TrainConfig, pool: Path, out: Path, **changes: object) -> SuggestConfig:
    plain = SuggestConfig(
        run=trained.name, images=(pool,), runs_dir=trained.runs_dir, out=out, n=4, runtime=CPU
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def table_of(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"id": str, "nearest": str}, keep_default_na=False)


def test_a_folder_becomes_a_list(predicted_once: TrainConfig, pool: Path, tmp_path: Path) -> None:
    result = suggest(config_of(predicted_once, pool, tmp_path))
    assert result.folder == tmp_path / "tiny"
    assert len(result.ids) == 4 and result.looked_at == 8
    table, every = table_of(result.table), table_of(result.folder / "candidates.csv")
    assert table["id"].tolist() == result.ids
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert [Path(path) for path in table["path"]] == [pool / f"{name}.png" for name in result.ids]
    assert table["reason"].str.endswith(".").all() and (table["nearest"] != "").all()
    assert table["cells"].between(0, 100).all()
    assert sorted(every["id"]) == sorted(path.stem for path in pool.iterdir())
    assert every.set_index("id")["rank"].replace("", np.nan).dropna().astype(int).to_dict() == {
        name: rank for rank, name in enumerate(result.ids, 1)
    }
    assert set(result.left_out) - {"0", "again"} == {"old", "old turned"}
    assert "annotated already" in result.left_out["old"]
    assert "another form of an annotated image" in result.left_out["old turned"]
    assert len({"0", "again"} & set(result.ids)) <= 1
    assert list(result.failed) == ["broken"] and "broken.png" in result.failed["broken"]
    page = result.page.read_text("utf-8")
    assert HOSTILE not in page and all(f"image-{rank}" in page for rank in range(1, 5))


def test_its_list_is_what_predict_takes(
    predicted_once: TrainConfig, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """From the command line: the next command that is printed runs, and writes a file for each image."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(predicted_once.runs_dir)
    machine = ["--device", "cpu", "--amp", "off"]
    with pytest.raises(SystemExit) as end:
        cli.main(["suggest", "tiny", "--images", str(pool), "--n", "2", *machine])
    assert end.value.code == 1  # an image is broken
    said = capsys.readouterr().out
    command = next(line for line in said.splitlines() if line.startswith("Next: cellflow "))
    with pytest.raises(SystemExit) as end:
        cli.main([*shlex.split(command.removeprefix("Next: cellflow ")), *machine])
    assert not end.value.code
    chosen = table_of(tmp_path / "suggestions" / "tiny" / "suggest.csv")["id"]
    written = tmp_path / "predictions" / "tiny-to-annotate" / "seg"
    assert {path.name for path in written.iterdir()} == {f"{name}_seg.npy" for name in chosen}


def test_the_same_images_give_the_same_list(
    predicted_once: TrainConfig, pool: Path, tmp_path: Path
) -> None:
    """In any order of the files; a longer list begins with the shorter one; more than there are is all."""
    first = suggest(config_of(predicted_once, pool, tmp_path, name="first"))
    files = tuple(sorted(pool.iterdir(), reverse=True))
    second = suggest(config_of(predicted_once, pool, tmp_path, name="second", images=files, n=50))
    assert second.ids[:4] == first.ids
    assert len(second.ids) == 7 and len({"0", "again"} & set(second.ids)) == 1
    assert "There are no more than 7" in second.page.read_text("utf-8")
    with pytest.raises(DataError, match="--overwrite"):
        suggest(config_of(predicted_once, pool, tmp_path, name="first"))
    again = suggest(config_of(predicted_once, pool, tmp_path, name="first", overwrite=True))
    assert again.ids == first.ids and again.table.read_bytes() == first.table.read_bytes()


def test_images_of_the_training_alone(
    predicted_once: TrainConfig, tiny_source: Path, tmp_path: Path
) -> None:
    result = suggest(config_of(predicted_once, tiny_source / "images", tmp_path))
    assert result.ids == [] and result.looked_at == 0 and len(result.left_out) == 6
    assert "Nothing to suggest" in result.page.read_text("utf-8")
    dataset = suggest(config_of(predicted_once, predicted_once.data, tmp_path, name="dataset"))
    assert dataset.ids == [] and len(dataset.left_out) == 6


def test_a_single_model_says_that_it_has_nobody_to_disagree_with(
    predicted_once: TrainConfig, pool: Path, tmp_path: Path
) -> None:
    model = str(predicted_once.runs_dir / "tiny" / "fold_0" / "best.pt")
    result = suggest(config_of(predicted_once, pool, tmp_path, run=model))
    assert result.folder.name == "tiny_fold_0" and f"--model {model}" in result.next
    assert len(result.ids) == 4 and set(result.left_out) >= {"old", "old turned"}
    assert "A single model has no other to disagree with" in result.page.read_text("utf-8")
    network = load_model(model, device="cpu", amp="off")
    row = table_of(result.table).iloc[0]
    seen = network.predict(row["path"])
    assert row["doubt"] == pytest.approx(doubt_of_flows(seen.flow, seen.cellprob), abs=1e-5)
    alone = str(shutil.copy(model, tmp_path / "alone.pt"))
    told = suggest(config_of(predicted_once, pool, tmp_path, run=alone, data=predicted_once.data))
    assert told.ids == result.ids and told.left_out == result.left_out
    without = suggest(config_of(predicted_once, pool, tmp_path, run=alone, name="without"))
    assert "What is annotated already is not known" in without.page.read_text("utf-8")
    assert "old" not in without.left_out


@pytest.fixture
def spots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Path]:
    """Two model files, of which one sees fainter spots than the other, and images of spots."""
    monkeypatch.setitem(NETWORKS, Blobs.kind, Blobs)
    files = []
    for name, least in (("strict", 0.2), ("lenient", 0.1)):
        files.append(str(tmp_path / f"{name}.pt"))
        save_model_file(Path(files[-1]), Blobs(least=least), {"chan": 0, "chan2": 0})
    folder = tmp_path / "spots"
    folder.mkdir()
    y, x = np.mgrid[:90, :100]
    square, diamond = (
        [(20, 20), (20, 70), (60, 30), (65, 80)],
        [(15, 50), (45, 20), (45, 80), (75, 50)],
    )
    for name, faint, places in (("clear", 1.0, square), ("faint", 0.6, diamond)):
        image = np.zeros((90, 100))
        for at, (row, column) in enumerate(places):
            image += (faint if at % 2 else 1) * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 30)
        imsave(folder / f"{name}.png", (200 * image).astype(np.uint8), check_contrast=False)
    return files, folder


def test_doubt_is_how_far_the_masks_of_the_models_are_apart(
    spots: tuple[list[str], Path],
) -> None:
    files, folder = spots
    together = load_model(files, device="cpu", amp="off").segmenter
    doubts = {}
    for name, image in find_images(folder).items():
        look = _look(together, image)
        labels = [
            replace(together, members=[one]).predict(image()).labels for one in together.members
        ]
        assert all(found.max() > 1 for found in labels)
        assert look.doubt == pytest.approx(1 - competition_score(*labels).mean)
        assert look.cells == together.predict(image()).labels.max() == look.outlines.count("M")
        doubts[name] = look.doubt
    assert 0 < doubts["clear"] < doubts["faint"] < 1


def test_a_network_without_styles_chooses_by_doubt(
    spots: tuple[list[str], Path], tmp_path: Path
) -> None:
    files, folder = spots
    result = suggest(
        SuggestConfig(run=files[1], images=(folder,), out=tmp_path / "out", runtime=CPU)
    )
    table = table_of(result.table)
    assert sorted(result.ids) == ["clear", "faint"] and table["doubt"].is_monotonic_decreasing
    page = result.page.read_text("utf-8")
    assert "This network has no styles" in page and "Map of styles" not in page


def test_only_an_earlier_result_is_replaced(
    predicted_once: TrainConfig, pool: Path, tmp_path: Path
) -> None:
    shutil.copytree(pool, tmp_path / "mine")
    config = config_of(predicted_once, pool, tmp_path, name="mine", overwrite=True, n=1)
    with pytest.raises(DataError, match="expected nothing, or an earlier result"):
        suggest(config)
    assert len(list((tmp_path / "mine").iterdir())) == len(list(pool.iterdir()))
    shutil.rmtree(tmp_path / "mine")
    for _ in range(2):
        page = suggest(config).page.read_text("utf-8")
        assert f"--out {tmp_path}" in page and f"--runs_dir {predicted_once.runs_dir}" in page


def test_what_cannot_be(predicted_once: TrainConfig, pool: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no image"):
        suggest(config_of(predicted_once, empty, tmp_path))
    with pytest.raises(RunError, match="data"):
        suggest(config_of(predicted_once, pool, tmp_path, data=tmp_path / "nowhere"))
    nested = tmp_path / "nested"
    shutil.copytree(pool, nested / "plate")
    found = suggest(
        config_of(predicted_once, nested, tmp_path, files=FilesConfig(recursive=True), n=1)
    )
    assert found.ids[0].startswith("plate__")
