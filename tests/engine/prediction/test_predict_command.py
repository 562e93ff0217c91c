"""`cellflow predict` as people type it: several kinds of images at once, and what is said of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage.io import imsave

from cellflow.cli import main
from cellflow.io.images import read_image, read_labels


@pytest.fixture
def plate(shared: Path, tmp_path: Path) -> Path:
    """Sizes, colours, 16 bit, a damaged one, outputs of Cellpose and a sub-folder."""
    image = read_image(shared / "data" / "kaggle_layout" / "test" / "set37_0.png")[:200, :240]
    folder = tmp_path / "plate"
    (folder / "deeper").mkdir(parents=True)
    imsave(folder / "grey.png", image, check_contrast=False)
    imsave(folder / "colour.png", np.stack([image] * 3, -1)[:180], check_contrast=False)
    tifffile.imwrite(folder / "deep.tif", image.astype(np.uint16) * 200)
    (folder / "cut.png").write_bytes((folder / "grey.png").read_bytes()[:500])
    imsave(folder / "grey_cp_masks.png", np.zeros((9, 9), np.uint8), check_contrast=False)
    imsave(folder / "deeper" / "grey.png", image[::-1], check_contrast=False)
    return folder


def cellflow(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cellflow", *map(str, words), "--device", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """The same in this process, which has imported everything already."""

    def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        with pytest.raises(SystemExit) as end:
            main([*map(str, words), "--device", "cpu"])
        said = capsys.readouterr()
        return subprocess.CompletedProcess(words, int(end.value.code or 0), said.out, said.err)

    return run


@pytest.mark.slow
def test_a_folder_of_everything(plate: Path, shared: Path) -> None:
    model = ["--model", shared / "models" / "usiigaci_unet", "--name", "a"]
    done = cellflow("predict", plate, *model, "--chan", 0, cwd=plate.parent)
    assert done.returncode == 1
    assert "1 file that Cellpose" in done.stderr and "grey_cp_masks.png" in done.stderr
    assert "1 image (deeper)" in done.stderr and "--recursive" in done.stderr
    assert "1 of 4 images could not be predicted" in done.stderr
    assert "cut.png: damaged" in done.stderr
    assert ": 4 of 4 images" in done.stderr  # a line where there is no terminal
    result = plate.parent / "predictions" / "a"
    assert "Written: predictions/a: masks/ (3 label maps), cells.csv" in done.stdout
    assert "Open: napari --layer-type labels predictions/a/masks/" in done.stdout
    assert sorted(path.stem for path in (result / "masks").iterdir()) == ["colour", "deep", "grey"]
    (plate / "cut.png").unlink()

    again = cellflow(
        "predict",
        plate,
        *model,
        "--chan",
        0,
        "--recursive",
        "--export",
        "masks",
        "cells",
        "submission",
        "outlines",
        cwd=plate.parent,
    )
    assert again.returncode == 0, again.stderr
    assert len(list((result / "outlines").iterdir())) == 4
    assert "Open: predictions/a/outlines/" in again.stdout
    upside = read_labels(result / "masks" / "deeper__grey.tif")[::-1]
    assert upside.shape == read_labels(result / "masks" / "grey.tif").shape
    assert set(pd.read_csv(result / "cells.csv")["id"]) == {
        "colour",
        "deep",
        "grey",
        "deeper__grey",
    }


def test_several_paths_and_patterns(typed: Typed, plate: Path, shared: Path) -> None:
    words = ["--images", plate / "deep.tif", plate / "gr*.png", "--name", "b"]
    model = shared / "models" / "usiigaci_unet"
    done = typed("ensemble", model, *words, "--pixel_size", "0.5", cwd=plate.parent)
    assert done.returncode == 0, done.stderr
    cells = pd.read_csv(plate.parent / "predictions" / "b" / "cells.csv")
    assert set(cells["id"]) == {"deep", "grey"}
    np.testing.assert_allclose(cells["area_um2"], cells["area"] / 4)
    wrong = typed("ensemble", "--images", plate / "deep.tif", model.parent / "r", cwd=plate.parent)
    assert wrong.returncode == 1
    assert "no such file or folder" in wrong.stderr and "before --images" in wrong.stderr
    nothing = typed("predict", cwd=plate.parent)
    assert nothing.returncode == 2
    assert "IMAGES must be given" in nothing.stderr


def test_other_files_do_not_push_images_out_of_the_tables(
    typed: Typed, plate: Path, shared: Path
) -> None:
    """As a shell makes it of ``plate/A*.tif`` and then ``plate/B*.tif``."""
    model = ["--model", shared / "models" / "usiigaci_unet", "--chan", 0]
    files = [plate / "grey.png", plate / "deep.tif", plate / "colour.png"]
    assert typed("predict", *files[:2], *model, cwd=plate.parent).returncode == 0
    table = plate.parent / "predictions" / "usiigaci_unet" / "submission.csv"
    before = table.read_bytes()
    done = typed("predict", *files[1:], *model, cwd=plate.parent)
    assert done.returncode == 1 and "prediction of other images (grey)" in done.stderr
    assert table.read_bytes() == before
    assert typed("predict", *files, *model, cwd=plate.parent).returncode == 0
    assert set(pd.read_csv(table)["id"]) == {"grey", "deep", "colour"}


def test_other_channels_are_another_prediction(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a model file, whose channels are given; records of earlier versions have none, which is grey."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[:16, :, 0], image[16:, :, 1] = 90, 200
    imsave(tmp_path / "a.png", image, check_contrast=False)

    def predict(*more: object) -> int:
        words = [tmp_path / "a.png", "--model", shared / "models" / "usiigaci_unet", "--name", "q"]
        with pytest.raises(SystemExit) as end:
            main(list(map(str, ["predict", *words, "--out", tmp_path, "--device", "cpu", *more])))
        return int(end.value.code or 0)

    assert predict("--chan", 1) == 0
    assert predict("--chan", 2) == 1
    said = capsys.readouterr().err
    assert "made with something else" in said
    assert "--chan 1 --chan2 0" in said
    assert predict("--overwrite") == 0
    record = tmp_path / "q" / "prediction.json"
    values = json.loads(record.read_text())
    for member in values["identity"]["members"]:
        del member["chan"], member["chan2"]
    record.write_text(json.dumps(values))
    assert predict() == 0
