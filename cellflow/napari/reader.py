"""Runs and predictions as layers: images, masks with their table, and for a run the truth."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.engine.prediction.result_record import RECORD
from cellflow.engine.runs.contents import run_dataset
from cellflow.engine.runs.next_command import run_word
from cellflow.errors import DataError
from cellflow.io.image_source import find_images
from cellflow.io.images import read_labels
from cellflow.io.plates import PlatePlace
from cellflow.io.tables import read_frame
from cellflow.storage.config_file import read_config_file
from cellflow.storage.records import dict_or_empty, read_json
from cellflow.storage.run_folder import RunFolder

__all__ = ["LayerData", "cell_features", "reader_of"]

LayerData = tuple[Any, dict[str, Any], str]
"""What napari makes a layer of: its data, its settings and its kind."""
MOST = 12
"""Images that are opened at once; of more the first."""

_log = logging.getLogger(__name__)


def reader_of(path: str | list[str]) -> Callable[[Any], list[LayerData]] | None:
    """What reads a path, as napari asks; None for what is neither a run nor a prediction.

    Parameters
    ----------
    path : str or list of str
        The folder of a run or of a prediction, or its ``oof.json`` or ``prediction.json``.
    """
    if not isinstance(path, str):
        return None
    folder = Path(path)
    if folder.name == RECORD:
        folder = folder.parent
    if folder.name == "oof.json":
        folder = folder.parent.parent
    if (folder / RECORD).is_file():
        return lambda _: _read_prediction(folder)
    if RunFolder(folder).stands_here():
        return lambda _: _read_run(RunFolder(folder))
    return None


def cell_features(cells: pd.DataFrame) -> pd.DataFrame:
    """A cell table as features of a labels layer: a row per label, with the background in front."""
    table = cells.rename(columns={"label": "index"}).drop(columns="id", errors="ignore")
    background = pd.DataFrame({"index": [0]})
    return pd.concat([background, table], ignore_index=True)


def _read_prediction(folder: Path) -> list[LayerData]:
    """Image and cells of a prediction, with the cell table where it was written."""
    record = read_json(folder / RECORD) or {}
    masks = folder / "masks"
    if not masks.is_dir():
        raise DataError(
            f"{folder}: expected label maps in masks/, found none. Add them: cellflow predict ... --export "
            "masks",
            path=folder,
        )
    ids = [str(name) for name in dict_or_empty(record.get("cells"))]
    images, table = _images(folder, record), _cell_table(folder)
    return _layers(
        ids or sorted(path.stem for path in masks.glob("*.tif")),
        image=lambda name: images[name].pixels() if name in images else None,
        cells=lambda name: read_labels(masks / f"{name}.tif"),
        channels=lambda name: images[name].channel_names(),
        table=table,
        where=folder,
    )


def _read_run(run: RunFolder) -> list[LayerData]:
    """Image, true cells and out-of-fold cells of a run."""
    masks = run.oof / "masks"
    if not masks.is_dir():
        text = f"{run.path}: expected out-of-fold predictions, found none. Make them with: cellflow oof {run_word(run)}"
        raise DataError(text, path=run.path)
    dataset = run_dataset(run, None)
    ids = [name for name in dataset.ids if (masks / f"{name}.tif").is_file()]
    return _layers(
        ids,
        image=dataset.image,
        cells=lambda name: read_labels(masks / f"{name}.tif"),
        channels=dataset.channel_names,
        truth=dataset.labels,
        where=run.path,
    )


def _layers(
    ids: list[str],
    *,
    image: Callable[[str], NDArray[Any] | None],
    cells: Callable[[str], NDArray[np.int32]],
    channels: Callable[[str], tuple[str, ...]],
    where: Path,
    truth: Callable[[str], NDArray[np.int32]] | None = None,
    table: Mapping[str, pd.DataFrame] | None = None,
) -> list[LayerData]:
    """The layers of all images; those of the first are shown."""
    if len(ids) > MOST:
        _log.warning("%s: the first %d of %d images are opened", where, MOST, len(ids))
    found: list[LayerData] = []
    for name in ids[:MOST]:
        shown = {"visible": name == ids[0]}
        pixels = image(name)
        if pixels is None:
            _log.warning("%s: the image %s is not where it was", where, name)
        else:
            told = _image_settings(name, pixels, channels(name))
            found.append((pixels, {**told, **shown}, "image"))
        if truth is not None:
            hidden = {"name": f"{name} truth", "visible": False}
            found.append((truth(name), hidden, "labels"))
        settings: dict[str, Any] = {"name": f"{name} cells", **shown}
        if table is not None and name in table:
            settings["features"] = cell_features(table[name])
        found.append((cells(name), settings, "labels"))
    return found


def _image_settings(name: str, pixels: NDArray[Any], channels: tuple[str, ...]) -> dict[str, Any]:
    """How napari is to show an image: of one channel, of colours, or as a layer for each channel.

    Alpha was dropped as the image was read, so that four are channels; and of colours that are no whole
    numbers napari shows only those from 0 to 1.
    """
    if pixels.ndim == 2:
        return {"name": name, "rgb": False}
    count = pixels.shape[2]
    if count == 3 and pixels.dtype.kind in "ui":
        return {"name": name, "rgb": True}
    told = channels if len(channels) == count else [f"channel {at + 1}" for at in range(count)]
    return {"name": [f"{name} {text}" for text in told], "channel_axis": 2}


def _images(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Images that a prediction was made of, by id; none where they are not there any more."""
    named = dict_or_empty(record.get("identity")).get("images")
    places: Iterable[str] = [named] if isinstance(named, str) else named or []
    settings = folder / "ensemble.yaml"
    files = read_config_file(settings, "ensemble").get("files", {}) if settings.is_file() else {}
    told = {key: files[key] for key in ("recursive", "img_filter") if key in dict_or_empty(files)}
    try:
        return dict(find_images([Path(place) for place in places], **told))
    except DataError as error:
        _log.warning("%s: %s", folder, error)
        return {}


def _cell_table(folder: Path) -> dict[str, pd.DataFrame]:
    """Rows of the cell table by image; none where it was not written."""
    path = folder / "cells.csv"
    if not path.is_file():
        return {}
    table = read_frame(path, ["id", "label"], text=("id", "cell_type", *PlatePlace._fields))
    return {str(name): rows.reset_index(drop=True) for name, rows in table.groupby("id")}
