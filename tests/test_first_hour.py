"""Mistakes of the first hour: what a new user types, and the end of what is said, which is what to type next."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from page_blocks import explained
from skimage.io import imread, imsave

import cellflow
from cellflow import cli
from cellflow.config import FoldsConfig, PrepareConfig, TrainConfig

FIRST = "a-first.png"
"""Image that is spoilt, or that lacks something."""


@pytest.fixture(scope="module")
def once(
    tiny_source: Path, predicted_once: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A desk with images, masks, a dataset with and one without folds, a whole run and half of one."""
    desk = tmp_path_factory.mktemp("first") / "desk"
    shutil.copytree(tiny_source / "images", desk / "photos")
    shutil.copytree(tiny_source, desk / "layout")
    shutil.copyfile(tiny_source / "table.csv", desk / "table.csv")
    for name in ("data", "unsplit"):
        source = PrepareConfig(source=desk / "layout", out=desk / name, table=desk / "table.csv")
        cellflow.prepare(source)
    cellflow.make_folds(FoldsConfig(data=desk / "data", k=2))
    for name in ("done", "half"):
        shutil.copytree(predicted_once.runs_dir / predicted_once.name, desk / "runs" / name)
    shutil.rmtree(desk / "runs" / "half" / "fold_1")
    return desk


@pytest.fixture
def desk(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(once, tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    monkeypatch.setenv("CELLPOSE_LOCAL_MODELS_PATH", str(tmp_path / "models"))
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "no-key"))
    return tmp_path / "desk"


def said(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status of a command line, and its error, which the page on troubleshooting explains."""
    with pytest.raises(SystemExit) as stop:
        cli.main(shlex.split(words))
    lines = capsys.readouterr().err.strip()
    text = lines[lines.find("cellflow: ") :]
    assert explained(text), f"docs/troubleshooting.md has no row for: {text}"
    return int(stop.value.code or 0), text


WORDS = [
    ("segment photos", "did you mean: cellflow predict photos?"),
    ("tarin --fold 0", "did you mean: cellflow train --fold 0?"),
    ("--fold 2 --sgd train", "did you mean: cellflow train --fold 2 --sgd?"),
    ("--dir photos --pretrained_model cyto3", "did you mean: cellflow predict?"),
    ("train --lr 0.1", "did you mean --learning_rate 0.1?"),
    ("train --folds all", "did you mean --fold all?"),
    ("train --epochs 10", "did you mean --n_epochs 10?"),
    ("train --n_epochs ten", "--n_epochs takes a whole number, found 'ten'"),
    ("train --model cyto3", "did you mean --pretrained_model cyto3?"),
    ("train --use_gpu", "did you mean --device cuda?"),
    ("train --resume", "the same command again goes on where it stopped"),
    ("train --do_3D", "cellflow works in two dimensions"),
    ("train --amp fp16", "--amp takes one of auto, bfloat16, float16, off, found 'fp16'"),
    ("train --schedule cosin", "(did you mean cosine?), found 'cosin'"),
    ("train --sgd --adam", "give one of them"),
    ("train --SGD False", "--SGD takes 0, 1 or nothing, found 'False'"),
    ("train --fold 0,1", "--fold takes fold numbers (such as 2, or 0 1), all or none, found 0,1"),
    ("train fold 2", "did you mean --fold 2?"),
    ("train --batch_size 0", "--batch_size must be at least 1, found 0"),
    ("train --device gpu", "--device must be auto, cpu, cuda, cuda:N or mps, found 'gpu'"),
    (
        "train --name a/b",
        "--name may have letters, digits and . _ + -, 200 bytes at most, found 'a/b'",
    ),
    ("train --chan 0 --chan2 2", "--chan2 needs --chan too, 1 or more"),
    ("train --time_budget soon", "such as 8h, 90m, 1h30m or 45s, found soon"),
    ("train --config mine.yaml", "--config mine.yaml: there is no such file. Here there is: data"),
    ("train --config runs/done/config.yaml", "lie beside it: runs/done/train.yaml"),
    ("prepare", "SOURCE must be given: cellflow prepare SOURCE"),
    ("prepare --dir layout", "did you mean: cellflow prepare layout?"),
    ("folds --k 1", "--k must be at least 2, found 1"),
    ("folds --n_folds 5", "did you mean --k 5?"),
    ("folds --holdout 20", "--holdout must lie between 0 and 1, found 20.0"),
    ("oof --run done", "did you mean: cellflow oof done?"),
    ("ensemble done", "--images must be given: cellflow ensemble RUNS --images ..."),
    ("predict", "IMAGES must be given: cellflow predict IMAGES"),
    ("predict photos --diameter big", "pixels, or micrometres such as 12um, found 'big'"),
    ("predict photos --export masks,cells", "blanks between them: --export masks cells"),
    ("predict photos --save_tif", "did you mean --export masks?"),
    (
        "export done",
        "--to must be given: cellflow export RUN --to cellpose|archive|bioimageio|onnx",
    ),
    ("compare done", "B must be given: cellflow compare A B"),
]


@pytest.mark.parametrize(("words", "end"), WORDS)
def test_words(words: str, end: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = said(words, capsys)
    assert status == 2
    command, *_ = shlex.split(words)
    if command in cli.COMMANDS:
        *lines, last = text.splitlines()
        assert last == f"All flags: cellflow {command} --help"
        assert "\n".join(lines).endswith(end) or end in lines[-1]
    else:
        assert end in text
        assert text.endswith("Try: cellflow --help")


PLACES = [
    ("prepare layuot", "Did you mean layout?"),
    ("prepare photos", "cellflow predict photos --model cyto3"),
    ("prepare layout/images", "cellflow prepare layout"),
    ("prepare table.csv", "cellflow prepare ."),
    ("prepare data", "cellflow folds --data data"),
    ("prepare layout --out data", "Add --overwrite to replace it, or choose another --out."),
    ("prepare layout --masks layout/mask --out new", "Did you mean layout/masks?"),
    ("prepare layout --table tabel.csv --out new", "Did you mean table.csv?"),
    ("folds", "Make one with `cellflow prepare SOURCE --out cellflow-data`. There is: data, unsplit."),
    ("folds --data layout", "Type: cellflow prepare layout;"),
    ("folds --data data --k 2 --seed 9", "Add --overwrite to replace it;"),
    ("folds --data unsplit --k 50", "or say --group id if every image stands for itself."),
    ("folds --data unsplit --group wel", "It has: id, file,"),
    ("train --fold 0 --data unsplit", "Make one with: cellflow folds --data unsplit"),
    ("train --fold 7 --data data", "has the folds 0 1. Give one of these, or --fold all."),
    ("train --data data --name done --adam", "--config runs/done/train.yaml"),
    ("train --data data --pretrained_model cyto4", "Did you mean cyto"),
    ("train --data data --pretrained_model cpsam", "such as cyto3 and nuclei"),
    ("train --data data --pretrained_model cyto3 --no_download", "the path of a model file instead"),
    ("train --data data --min_train_masks 500", "Lower --min_train_masks, or annotate more images."),
    ("train --data data --pseudo photos", "Make them with: cellflow pseudo RUN --images FOLDER"),
    ("oof dome", "Did you mean done?"),
    ("oof half", "cellflow train --fold 1 --name half --config runs/half/train.yaml"),
    ("calibrate half", "cellflow train --fold 1 --name half --config runs/half/train.yaml"),
    ("score layout/mask --truth data", "Did you mean layout/masks?"),
    ("score photos --truth layout/masks", "resized without smoothing (nearest)."),
    ("predict foto --model done", "Did you mean photos?"),
    ("predict 'photos/*.jpg' --model done", "In photos there is: "),
    ("predict layout --model done", "Add --recursive to take them all, or name a sub-folder."),
    ("predict photos --model runs/done/fold_0", "runs/done/fold_0/best.pt"),
    ("predict photos --model runs/done/fold_0/last.pt", "['net'], 'model.pt')"),
    ("predict photos --model done --diameter 12um", "Give it with --pixel_size, or the diameter in pixels."),
    ("predict photos --model done --chan 2", "Leave them out: they travel with the model."),
    ("predict photos runs/done", "Models are named with --model (cellflow predict)"),
    ("verify nowhere", "Here there is: data, layout,"),
    ("eda layout", "cellflow eda cellflow-data"),
    ("runs --runs_dir nowhere", "or say where runs are with --runs_dir."),
    ("export half --to cellpose", "cellflow train --fold 1 --name half"),
    ("pseudo done --images foto", "Did you mean photos?"),
    ("publish done", "or put the file kaggle.json into ~/.kaggle."),
]  # fmt: skip


@pytest.mark.parametrize(("words", "end"), PLACES)
def test_places(words: str, end: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = said(words, capsys)
    assert status == 1
    assert end in text


def no_mask(layout: Path) -> None:
    imsave(layout / "images" / FIRST, np.arange(64, dtype=np.uint8).reshape(8, 8))


def no_image(layout: Path) -> None:
    tifffile.imwrite(layout / "masks" / "a-first.tif", np.eye(8, dtype=np.uint8))


def spoilt(
    change: Callable[[np.ndarray], np.ndarray], ending: str = ".tif"
) -> Callable[[Path], None]:
    """The first mask as it comes out of a change."""

    def spoil(layout: Path) -> None:
        first = min((layout / "masks").iterdir())
        labels = change(imread(first))
        first.unlink()
        imsave(first.with_suffix(ending), labels, check_contrast=False)

    return spoil


def stack(layout: Path) -> None:
    first = min((layout / "images").iterdir())
    tifffile.imwrite(first.with_suffix(".tif"), np.zeros((7, *imread(first).shape[:2]), np.uint8))
    first.unlink()


def photos_as_masks(layout: Path) -> None:
    shutil.rmtree(layout / "masks")
    shutil.copytree(layout / "images", layout / "masks")


LAYOUTS: list[tuple[Callable[[Path], None], str]] = [
    (no_mask, "Add it (all zero if the image has no cells) or remove the image."),
    (no_image, "Add the image or remove the mask."),
    (spoilt(lambda labels: labels[:50]), "Export the mask again at the image's size."),
    (spoilt(lambda labels: labels / np.float32(7)), "Export the labels themselves, neither scaled nor smoothed."),
    (spoilt(lambda labels: labels.astype(np.uint8) * 20, ".jpg"), "Export it again as TIFF or PNG."),
    (spoilt(lambda labels: np.dstack([labels, 2 * labels, labels]).astype(np.uint8), ".png"),
     "add --colours; else save the label map itself."),
    (stack, "save it with the axes CYX, as OME-TIFF or in ImageJ."),
    (photos_as_masks, "resized without smoothing (nearest)."),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "end"), LAYOUTS)
def test_layouts(
    spoil: Callable[[Path], None], end: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(desk / "layout")
    status, text = said("prepare layout --out new", capsys)
    assert status == 1
    assert end in text
    assert not (desk / "new").exists()


FILES = [
    ("train.csv", "id;mask\nx;1 2\n", "prepare kaggle", "--annotation_column mask"),
    ("train.csv", "id,annotation\nx,1 2 3\n", "prepare kaggle", "Correct or remove the row."),
    ("train.csv", "id,annotation\ny,1 2\n", "prepare kaggle", "Add the image or remove the row."),
    ("model.pt", "", "predict photos --model kaggle/model.pt", "copy or download it again."),
    ("model.pt", "<html>", "predict photos --model kaggle/model.pt", "copy or download it again."),
    ("q.yaml", "- a\n- b\n", "queue kaggle/q.yaml", "must have lines of NAME: VALUE, found a list"),
    (
        "q.yaml",
        json.dumps({"experiments": [{"lr": 1}]}),
        "queue kaggle/q.yaml",
        "did you mean learning_rate?",
    ),
]


@pytest.mark.parametrize(("name", "content", "words", "end"), FILES)
def test_files(
    name: str, content: str, words: str, end: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / "kaggle" / "train").mkdir(parents=True)
    imsave(desk / "kaggle" / "train" / "x.png", np.arange(64, dtype=np.uint8).reshape(8, 8))
    (desk / "kaggle" / name).write_text(content)
    status, text = said(words, capsys)
    assert status in (1, 2)
    assert end in text
