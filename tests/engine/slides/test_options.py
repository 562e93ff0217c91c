"""Every option of `predict` and `ensemble` by blocks gives the cells of the image held whole, from files to files."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import tifffile
from slide_files import labels_of

from cellflow.cli import main
from cellflow.config import MaskConfig
from cellflow.engine.runs.thresholds import Thresholds, write_thresholds
from cellflow.engine.segmentation import mask_step
from cellflow.io.images import read_image
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.numeric.dynamics import flows_to_labels
from cellflow.storage.hashing import hash_file

LOOSE = "--cellprob_threshold -1 --flow_threshold 2 --min_size 5"
ROUNDED = ("cellprob", "disagreement", "confidence")
"""Columns of logits and flows, which slides keep as float16."""


class Case(NamedTuple):
    """A command: the image, its models, the other options."""

    image: str
    models: str
    options: str = LOOSE
    command: str = "predict"


CASES = {
    "flips": Case("rgb", "model", f"--tta {LOOSE}"),
    "tiles and scales": Case("grey", "model", f"--augment --scales 0.9 1.1 {LOOSE}"),
    "members": Case("float", "model other", "--average direction --flow_threshold 0 --min_size -1", "ensemble"),
    "members of types": Case("grey", "run other@spindle", LOOSE, "ensemble"),
    "diameters of types": Case("grey", "typed", ""),
    "a type that was given": Case("grey", "archive.zip", "--cell_type round"),
    "diameters of images": Case("dark", "estimated", "--score_per_pixel 0.1"),
    "channels by name": Case(
        "four", "plain", f"--chan DAPI --chan2 GFP --diameter 9um --pixel_size 0.5 {LOOSE}"
    ),
    "masks, channels by number": Case(
        "four", "plain", "--chan 3 --chan2 1 --cellprob_threshold -0.5 --flow_threshold 0.9 --min_size 40 --niter 60 "
        "--max_size_fraction 0.004 --fill_holes False",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def images(mosaic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 290 x 300 pixels of the mosaic in many types; its cells lie over the borders of blocks of 256."""
    folder = tmp_path_factory.mktemp("images")
    grey = read_image(mosaic)[:290, :300]
    fine = grey.astype(np.uint16) * 50 + 300
    sure = grey / 255
    sure[:, 256:] *= 1e-35  # far below the rest, where blocks see nothing else
    write = partial(tifffile.imwrite, tile=(128, 128))
    write(folder / "grey.tif", grey)
    write(folder / "rgb.tif", np.stack([fine, fine // 2, fine], axis=-1), photometric="rgb")
    write(folder / "float.tif", (grey / 255).astype(np.float32))
    write(folder / "dark.tif", sure)
    write(
        folder / "four.ome.tif", np.stack([fine[::-1], fine // 2, fine, fine // 3]), photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": ["GFP", "Cy5", "DAPI", "TRITC"]}},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def models_by_name(
    models: tuple[str, str], slide_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of model files, runs with thresholds of their own for each cell type, and an archive of one."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copy(models[0], folder / "model")
    shutil.copy(models[1], folder / "other")
    save_model_file(folder / "plain", load_model_file(Path(models[0])).net, {})
    mask = MaskConfig(cellprob_threshold=-1.0, flow_threshold=2.0, min_size=5)
    per_type = {
        name: MaskConfig(cellprob_threshold=-1.0, flow_threshold=2.0, min_size=size)
        for name, size in (("round", 20), ("spindle", 30), ("spread", 40))
    }
    for name, policy in (("run", "dataset"), ("typed", "type"), ("estimated", "image")):
        shutil.copytree(slide_run, folder / name)
        known = Thresholds(
            mask, per_type, "by hand", (hash_file(Path(models[0])),), policy,
        )  # fmt: skip
        write_thresholds(folder / name / "thresholds.json", known)
    run(
        "export",
        str(folder / "typed"),
        "--to",
        "archive",
        "--out",
        str(folder / "archive.zip"),
        "--unfinished",
    )
    return folder


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_blocks_give_what_the_whole_image_gives(
    name, images, models_by_name, tmp_path, monkeypatch
):
    case = CASES[name]
    (path,) = images.glob(f"{case.image}.*")
    models = [str(models_by_name / model) for model in case.models.split()]
    named = (
        [str(path), "--model", *models]
        if case.command == "predict"
        else [*models, "--images", str(path)]
    )
    shared = [
        case.command,
        *named,
        *case.options.split(),
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
    ]
    shared += ["--amp", "off", "--unfinished"]
    monkeypatch.setattr(mask_step, "flows_to_labels", partial(flows_to_labels, method="trace"))
    run(*shared, "--name", "whole", "--export", "masks", "cells", "geojson")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    run(*shared, "--name", "blocks", "--block", "256")

    (folder,) = (tmp_path / "blocks" / "slides").iterdir()
    labels = labels_of(folder)
    np.testing.assert_array_equal(labels, read_image(tmp_path / f"whole/masks/{folder.name}.tif"))
    across = [set(labels[255]) & set(labels[256]), set(labels[:, 255]) & set(labels[:, 256])]
    assert any(cells - {0} for cells in across) or LOOSE not in case.options
    assert labels.max() > 15
    whole, blocks = (
        pd.read_csv(path / "cells.csv", keep_default_na=False)
        for path in (tmp_path / "whole", folder)
    )
    exact = [column for column in whole if column not in ROUNDED]
    pd.testing.assert_frame_equal(whole[exact], blocks[exact], check_exact=True)
    pd.testing.assert_frame_equal(whole, blocks, rtol=2e-3, atol=1e-3)
    outlines = [
        [feature["geometry"] for feature in json.loads(file.read_text())["features"]]
        for file in (tmp_path / f"whole/geojson/{folder.name}.geojson", folder / "cells.geojson")
    ]
    assert outlines[0] == outlines[1]
    record = json.loads((folder / "slide.json").read_text())
    if case.models in ("typed", "estimated"):
        assert record["plan"]["recognition"]["diameter"] > 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--block 256 --export masks outlines", "--export outlines"),
        ("--empty 0.1 --export submission", "--export submission"),
        ("--roi 0,0,9,9 --dry_run --export seg", "--export seg"),
        ("--roi nothing.geojson", "there is no such file"),
    ],
)
def test_what_slides_have_not_is_refused_at_once(
    options, told, images, models_by_name, tmp_path, capsys
):
    command = [
        "predict",
        str(images),
        "--model",
        str(models_by_name / "model"),
        "--out",
        str(tmp_path),
    ]
    with pytest.raises(SystemExit) as end:
        main([*command, *options.split()])
    assert end.value.code
    error = capsys.readouterr().err
    assert told in error
    assert ("without --export" in error) == ("--export" in options)
    assert list(tmp_path.iterdir()) == []
