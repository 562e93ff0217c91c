"""Flags that say how a source is read: each is heeded, or refused with the format that has no use for it."""

from __future__ import annotations

import json
import logging
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from zarr_files import write_image

from cellflow import cli
from cellflow.config import PrepareConfig, VerifyConfig
from cellflow.engine.data.prepare import prepare
from cellflow.engine.validation.verify import verify
from cellflow.errors import ConfigError
from cellflow.io.dataset import Dataset
from cellflow.io.formats import FORMATS

LABELS = np.pad(np.ones((12, 12), np.uint8), 10)


def picture(path: Path, pixels: np.ndarray = LABELS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def zarrs(folder: Path) -> Path:
    write_image(folder / "a.zarr", LABELS[None], version="0.4", labels={"cells": LABELS})
    return folder


def cell_files(folder: Path) -> Path:
    picture(folder / "a" / "images" / "a.png")
    picture(folder / "a" / "masks" / "1.png")
    return folder


def dataset(folder: Path) -> Path:
    picture(folder / "images" / "a.png")
    picture(folder / "masks" / "a.png")
    return prepare(PrepareConfig(folder, out=folder / "data")).path


def coco(folder: Path) -> Path:
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "cell"}],
    }
    for number, name in enumerate(("a_img.png", "b_other.png", "c_img.png"), 1):
        picture(folder / "images" / name, LABELS * number)
        content["images"].append({"id": number, "file_name": name, "height": 32, "width": 32})
        corners = [10, 10, 22, 10, 22, 22, 10, 22]
        content["annotations"].append(
            {"id": number, "image_id": number, "category_id": 1, "segmentation": [corners]}
        )
    (folder / "cells.json").write_text(json.dumps(content))
    return folder / "cells.json"


FOLDER = Path("elsewhere")


@pytest.mark.parametrize(
    ("make", "layout", "flags"),
    [
        (
            zarrs,
            "ome-zarr",
            {"images": FOLDER, "img_filter": "_x", "rle_order": "C", "colours": True},
        ),
        (cell_files, "cell-files", {"images": FOLDER, "img_filter": "_img"}),
        (dataset, "dataset", {"masks": FOLDER}),
        (coco, "coco", {"masks": FOLDER}),
        (coco, "coco", {"mask_filter": "_cells", "annotation_column": "runs"}),
    ],
)
def test_flags_without_a_use_are_refused(
    make: Callable[[Path], Path], layout: str, flags: dict[str, Any], tmp_path: Path
) -> None:
    source = make(tmp_path / "s")
    names = ", ".join(f"--{name}" for name in sorted(flags))
    told = re.escape(f"{source} is read as {layout}, which has no use for {names}. Leave ")
    with pytest.raises(ConfigError, match=told):
        prepare(PrepareConfig(source, out=tmp_path / "out", fix=("keep",), **flags))
    with pytest.raises(ConfigError, match=told):
        verify(VerifyConfig(source, **flags))
    assert not (tmp_path / "out").exists()
    prepare(PrepareConfig(source, out=tmp_path / "out", fix=("keep",)))


def test_options_are_those_of_prepare() -> None:
    usual = vars(PrepareConfig(Path()))
    assert {name for form in FORMATS for name in form.heeds} <= usual.keys()


def test_the_next_command_takes_an_ending_with_a_hyphen(tmp_path: Path) -> None:
    picture(tmp_path / "s" / "a.png")
    picture(tmp_path / "s" / "a-mask.png")
    command = verify(VerifyConfig(tmp_path / "s", mask_filter="-mask")).next
    with pytest.raises(SystemExit) as end:
        cli.main([*shlex.split(command)[1:], "--out", str(tmp_path / "out")])
    assert not end.value.code


def test_coco_takes_the_images_with_the_ending(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = coco(tmp_path / "s")
    with caplog.at_level(logging.WARNING):
        found: Dataset = prepare(PrepareConfig(source, out=tmp_path / "out", img_filter="_img"))
    assert found.ids == ["a", "c"]
    assert "1 image whose name is not NAME_img: left out (b_other.png)." in caplog.text
    assert "not listed" not in caplog.text
