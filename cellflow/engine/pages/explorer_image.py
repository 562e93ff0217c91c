"""The files of one image in the explorer: pictures, outlines, and what is wrong with its cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from cellflow.errors import CellflowError, DataError
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.io.images import read_labels
from cellflow.io.shapes import Outline, Ring, outlines_from_labels
from cellflow.numeric._runs import pixels_of_runs
from cellflow.numeric.averaging import average_flows
from cellflow.numeric.cell_errors import cell_errors
from cellflow.numeric.flow_picture import flow_picture
from cellflow.numeric.normalize import select_channels
from cellflow.report.overlays import grey_or_rgb
from cellflow.report.pages.explorer import image_script
from cellflow.report.pages.picture import picture_bytes, shrunk
from cellflow.storage.hashing import hash_file, hash_json
from cellflow.types import Instances

__all__ = ["ExplorerSource", "MadeImage", "picture_name"]

VERSION = 1
"""Of these files: another one makes them all again."""
THUMBNAIL = 112
"""Longer side of a small picture."""
_QUALITIES, _SMALL_QUALITY = (78, 60, 42, 25), 60
"""Of WebP, the first that is small enough."""
_BYTES = {"image": 26e6, "seen": 10e6, "flow": 6e6, "cellprob": 6e6, "disagreement": 6e6}
"""What the pictures of a layer may take of all images together."""
_PIXELS, _SIDES = 3e8, (512, 2048)
"""Pixels that the pictures of all images have together at most, and the limits of a longer side."""
_FIELD_SIDE = 256
"""Flows are shown at half the size of the image; smaller ones than this at theirs."""
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class MadeImage:
    """What the files of an image hold, as the index of the folder keeps it.

    Attributes
    ----------
    size : tuple of int
        Height and width of the image.
    layers : tuple of str
        Pictures that are there.
    counts : dict or None
        Errors of each kind.
    problem : str
        Why there is nothing to show.
    """

    size: tuple[int, int] = (0, 0)
    layers: tuple[str, ...] = ()
    counts: dict[str, int] | None = None
    problem: str = ""

    def files(self, number: int) -> list[str]:
        """Names of the files of the image with this number."""
        if self.problem:
            return []
        pictures = [picture_name(number, layer) for layer in (*self.layers, "thumb")]
        return [f"{number}.js", *pictures]


def picture_name(number: int, layer: str) -> str:
    """Name of the file with a picture of an image."""
    return f"{number}.webp" if layer == "image" else f"{number}_{layer}.webp"


@dataclass(frozen=True)
class ExplorerSource:
    """What there is of the images of a run.

    Attributes
    ----------
    dataset : Dataset or None
        Images and true cells.
    masks : Path or None
        Folder of predicted label maps.
    flows : FlowStore or None
        Flows that these were made from.
    members : sequence of FlowStore
        Flows of the same images from other runs.
    channels : tuple of int
        ``--chan`` and ``--chan2`` of the run.
    count : int
        Images there are: the more, the smaller their files.
    origin : str
        Changes with what made the flows.
    """

    dataset: Dataset | None
    masks: Path | None
    flows: FlowStore | None
    members: Sequence[FlowStore]
    channels: tuple[int, int]
    count: int
    origin: str = ""

    @property
    def side(self) -> int:
        """Longest side of a picture in pixels."""
        return int(min(max((_PIXELS / self.count) ** 0.5, _SIDES[0]), _SIDES[1]))

    def key(self, name: str) -> str:
        """Changes with everything that the files of an image are made of."""
        parts: dict[str, Any] = {"version": VERSION, "count": self.count, "id": name}
        parts["channels"] = list(self.channels)
        parts["flows"] = self.origin if self.flows is not None else None
        if self.dataset is not None:
            parts["truth"] = self.dataset.hash
            parts["pixels"] = str(self.dataset.images["pixel_hash"].get(name, ""))
        try:
            if self.masks is not None:
                parts["masks"] = hash_file(self._mask_path(name))
        except (OSError, CellflowError) as error:
            parts["problem"] = str(error)
        return hash_json(parts)

    def make(self, name: str, number: int, key: str, folder: Path) -> MadeImage:
        """Write the files of an image into a folder; what is damaged is told, and nothing written.

        Raises
        ------
        OSError
            If they cannot be written.
        """
        files: dict[str, bytes] = {}
        try:
            made = self._make(name, number, key, files)
        except (OSError, CellflowError) as error:
            return MadeImage(problem=str(error))
        for file, data in files.items():
            (folder / file).write_bytes(data)
        return made

    def _make(self, name: str, number: int, key: str, files: dict[str, bytes]) -> MadeImage:
        """Put what the files of an image hold into a dictionary, by their names."""
        labels = None if self.masks is None else read_labels(self._mask_path(name))
        truth = None if self.dataset is None else self.dataset.instances(name)
        if truth is not None and labels is not None and truth.shape != labels.shape:
            raise DataError(
                f"{self._mask_path(name)}: expected a label map of {truth.shape[0]} x {truth.shape[1]} as the "
                f"image has it, found {labels.shape[0]} x {labels.shape[1]}."
            )
        errors = None if truth is None or labels is None else cell_errors(truth, labels)
        script = image_script(number, key, _rings_of(truth), _rings_of(labels), errors)
        files[f"{number}.js"] = script.encode()
        layers, size, first = [], None, None
        for layer, pixels, full in self._pictures(name):
            layers.append(layer)
            size, first = size or full, pixels if first is None else first
            files[picture_name(number, layer)] = _within(pixels, _BYTES[layer] / self.count)
        if labels is not None:
            size = labels.shape[0], labels.shape[1]
            first = _silhouette(labels, self.side) if first is None else first
        if size is None or first is None:
            raise DataError("Neither its image nor its prediction is there.")
        small = picture_bytes(shrunk(first, THUMBNAIL), quality=_SMALL_QUALITY)
        files[picture_name(number, "thumb")] = small
        return MadeImage(size, tuple(layers), None if errors is None else errors.counts)

    def _pictures(self, name: str) -> Iterator[tuple[str, Pixels, tuple[int, int]]]:
        """Layers with their pictures, and the size of what they show."""
        if self.dataset is not None:
            image = self.dataset.image(name)
            small, full = _resized(image, self.side), (image.shape[0], image.shape[1])
            yield "image", grey_or_rgb(small), full
            if image.ndim == 3 and image.shape[2] > 1 and self.channels[0]:
                yield "seen", _as_seen(small, self.channels), full
        if self.flows is None:
            return
        flow, cellprob = self.flows.read(name)
        full = cellprob.shape[0], cellprob.shape[1]
        side = min(self.side, max(_FIELD_SIDE, max(full) // 2))
        yield "flow", flow_picture(np.stack([_resized(part, side) for part in flow])), full
        yield "cellprob", _heat(expit(_resized(cellprob, side)), "viridis"), full
        members = [store for store in self.members if name in store]
        if members:
            fields = [(flow, cellprob), *(store.read(name) for store in members)]
            apart = average_flows((np.float32(one), np.float32(two)) for one, two in fields)[2]
            yield "disagreement", _heat(_resized(apart, side), "magma"), full

    def _mask_path(self, name: str) -> Path:
        """The label map of an image; ids of tables that somebody changed lead nowhere else."""
        folder = self.masks or Path()
        path = folder / f"{name}.tif"
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{name!r} is no id of an image of this run.", id=name)
        return path


def _within(pixels: Pixels, most: float) -> bytes:
    """A picture of a size in bytes, or of the lowest quality."""
    packed = b""
    for quality in _QUALITIES:
        packed = picture_bytes(pixels, quality=quality)
        if len(packed) <= most:
            break
    return packed


def _rings_of(cells: Instances | NDArray[np.int32] | None) -> list[list[Ring]]:
    """The rings of every cell, in the order of the cells."""
    if cells is None:
        return []
    if not isinstance(cells, Instances):
        return [_flat(outline) for outline in outlines_from_labels(cells).values()]
    found: dict[int, list[Ring]] = {}
    for sheet in _sheets(cells):
        found |= {number - 1: _flat(part) for number, part in outlines_from_labels(sheet).items()}
    return [found[index] for index in range(len(cells))]


def _flat(outline: Outline) -> list[Ring]:
    return [ring for part in outline for ring in part]


def _sheets(cells: Instances) -> Iterator[NDArray[np.int32]]:
    """Label maps, numbers from 1, that together hold all cells whole: those that overlap lie on different ones."""
    left = list(range(len(cells)))
    while left:
        flat, later = np.zeros(cells.shape[0] * cells.shape[1], np.int32), []
        for index in left:
            pixels = pixels_of_runs(*cells.runs(index))
            if flat[pixels].any():
                later.append(index)
            else:
                flat[pixels] = index + 1
        yield flat.reshape(cells.shape)
        left = later


def _resized(image: Any, side: int) -> NDArray[np.float32]:
    """An image ``(H, W)`` or ``(H, W, C)`` whose longer side has at most `side` pixels, float32."""
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    planes = np.nan_to_num(np.atleast_3d(image).astype(np.float32))
    if scale < 1:
        parts = [
            cv2.resize(planes[..., k], size, interpolation=cv2.INTER_AREA)
            for k in range(planes.shape[2])
        ]
        planes = np.stack(parts, axis=-1)
    return np.asarray(planes[..., 0] if image.ndim == 2 else planes, dtype=np.float32)


def _as_seen(image: NDArray[np.float32], channels: tuple[int, int]) -> Pixels:
    """The channels that the network gets: the first in grey, the second over it in blue."""
    chosen = select_channels(image, *channels)
    grey = grey_or_rgb(chosen[0]).astype(np.float32)
    if channels[1]:
        second = grey_or_rgb(chosen[1]).astype(np.float32)
        grey[..., :2] *= 1 - 0.5 * second[..., :2] / 255
        grey[..., 2] = np.maximum(grey[..., 2], second[..., 2])
    return np.asarray(grey, np.uint8)


def _heat(values: NDArray[Any], name: str) -> Pixels:
    """Values from 0 to 1 in the colours of a map of matplotlib."""
    from matplotlib import colormaps

    table = (255 * colormaps[name](np.arange(256))[:, :3]).round().astype(np.uint8)
    return np.asarray(table[np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)])


def _silhouette(labels: NDArray[np.int32], side: int) -> Pixels:
    """What stands for an image that is not there."""
    return np.asarray(shrunk(np.where(labels > 0, 200, 20).astype(np.uint8), side), np.uint8)
