"""Segment an image as napari holds it: the widget without its window."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.engine.segmentation.loaded_model import Model, load_model
from cellflow.engine.segmentation.result import Prediction
from cellflow.errors import DataError
from cellflow.napari.reader import LayerData, cell_features

__all__ = ["segment"]

_LEAST_WIDTH = 8
"""Pixels; narrower planes of a stack are rather the channels of an image."""


def segment(
    image: NDArray[Any],
    *,
    model: str = "",
    runs_dir: str = "runs",
    nuclei: NDArray[Any] | None = None,
    rgb: bool = False,
    name: str = "image",
    diameter: float = 0.0,
    thresholds: Mapping[str, float | None] | None = None,
    flows: bool = False,
    placed: Mapping[str, Any] | None = None,
) -> list[LayerData]:
    """Segment the data of an image layer.

    Parameters
    ----------
    image : (..., H, W) or (..., H, W, 3 or 4) ndarray
        Every plane is segmented by itself; a number is one cell in all of them. Alpha is left out.
    model : str
        Run by name or folder, archive, model file or a model of Cellpose's; empty for the newest run.
    runs_dir : str
        Folder that holds all runs.
    nuclei : (..., H, W) ndarray, optional
        Nuclear channel, for models with one.
    rgb : bool
        Whether the last axis of the image holds colours.
    name : str
        Name of the image.
    diameter : float
        Cell diameter in pixels; 0 leaves it to the model.
    thresholds : mapping of str to float
        Those of `Model.predict` that go before the model's own; None leaves one to the model.
    flows : bool
        Also a layer of the cell probability, as a logit.
    placed : mapping
        Where the image lies: `scale` and `translate` of its layer, which the result takes over.

    Returns
    -------
    list of LayerData
        A labels layer with the cell table as its features, and what else was asked for.

    Raises
    ------
    DataError, RunError, CheckpointError
        If the image does not fit the model, or there is no such model.
    """
    loaded = load_model(model or None, runs_dir=runs_dir)
    depth = 3 if rgb else 2
    if image.ndim < depth:
        raise DataError(f"{name}: expected an image with rows and columns, found {image.shape}.")
    if rgb:
        image = image[..., :3]  # without alpha, as images are read
    elif image.ndim > depth and image.shape[-1] < _LEAST_WIDTH:
        raise DataError(
            f"{name}: expected rows and columns as the last axes, found {image.shape}: these look like channels "
            "in the last axis. Choose the layer of one channel: right-click the layer, then split it (Split Stack).",
            found=image.shape,
        )
    planes = image.reshape(-1, *image.shape[-depth:])
    shape = image.shape[: image.ndim - depth + 2]
    second = repeat(None) if nuclei is None else _planes_like(nuclei, shape)
    given: Any = {key: value for key, value in (thresholds or {}).items() if value is not None}
    results = [
        loaded.predict(_with_nuclei(plane, other, loaded), diameter=diameter or None, **given)
        for plane, other in zip(planes, second, strict=False)
    ]
    labels, cells = _numbered(results)
    where = dict(placed or {})
    facts = {"model": loaded.opened.name, "diameter": [item.diameter for item in results]}
    settings = {"name": f"{name} cells", "features": cell_features(cells), "metadata": facts}
    found: list[LayerData] = [(labels.reshape(shape), {**settings, **where}, "labels")]
    if flows:
        logits = np.stack([item.cellprob for item in results]).reshape(shape)
        extra = {"name": f"{name} cellprob", "visible": False, "colormap": "magma"}
        found.insert(0, (logits, {**extra, **where}, "image"))
    return found


def _planes_like(nuclei: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if nuclei.shape != shape:
        text = f"nuclei: expected a layer of the image's size, {shape}, found {nuclei.shape}."
        raise DataError(text, expected=shape, found=nuclei.shape)
    return nuclei.reshape(-1, *shape[-2:])


def _with_nuclei(plane: NDArray[Any], nuclei: NDArray[Any] | None, model: Model) -> NDArray[Any]:
    """The channels of a plane in the places where the model looks for them."""
    if nuclei is None:
        return plane
    member = model.opened.members[0]
    if not (member.chan and member.chan2):
        raise DataError(
            f"This model was trained with --chan {member.chan} --chan2 {member.chan2}, which has no nuclear "
            "channel: choose no nuclei."
        )
    if plane.ndim > 2:
        raise DataError("nuclei: a colour image has its own channels; choose no nuclei.")
    channels = np.zeros((*plane.shape, max(member.chan, member.chan2)), np.float32)
    channels[..., member.chan - 1] = plane
    channels[..., member.chan2 - 1] = nuclei
    return channels


def _numbered(results: list[Prediction]) -> tuple[NDArray[np.int32], pd.DataFrame]:
    """Label maps and cell tables of planes, with numbers that go on from one to the next."""
    maps, tables, last = [], [], 0
    for place, item in enumerate(results):
        maps.append(np.where(item.labels > 0, item.labels + last, 0).astype(np.int32))
        table = item.cells.assign(label=item.cells["label"] + last)
        tables.append(table if len(results) == 1 else table.assign(plane=place))
        last += int(item.labels.max(initial=0))
    return np.stack(maps), pd.concat(tables, ignore_index=True)
