"""OME-Zarr images with their label maps, in the ``labels/`` of each, read and written.

The specification is https://ngff.openmicroscopy.org/0.5.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io._dataset_facts import is_dataset
from cellflow.io._ngff import VERSION, image_attributes, ome_attributes
from cellflow.io._ome_zarr import images_in, label_map, label_names
from cellflow.io._zarr_metadata import is_zarr
from cellflow.io.formats.base import ReadOptions, SourceFormat
from cellflow.io.formats.image_files import folder_of, image_id
from cellflow.io.images import image_shape, list_images
from cellflow.io.mask_findings import read_label_map
from cellflow.io.pixel_size import PixelSize
from cellflow.io.places import MASK_FOLDERS, find_folder
from cellflow.io.source import FileImage, Shape, Source, SourceImage, by_id
from cellflow.numeric.labels import instances_from_labels
from cellflow.storage.atomic import atomic_folder
from cellflow.storage.sizes import few_text
from cellflow.types import Instances

__all__ = ["CELLS", "OmeZarr", "write_ome_zarr"]

CELLS = "cells"
"""Name of the label map that we write."""
_SMALL_LEVEL, _CHUNK = 512, 1024
"""Sides at which there is no smaller level, and of a chunk; in pixels, at most."""
_COLOURS = ("FF0000", "00FF00", "0000FF", "FF00FF", "00FFFF", "FFFF00", "FFFFFF")
_RGB = ("red", "green", "blue")
_CONTRAST = (1.0, 99.8)
"""Percentiles of the values between which viewers show a channel at first."""
_GOLDEN = 0.618034
"""Part of the circle of hues between the colours of a label and the next: neighbours differ."""


class OmeZarr(SourceFormat):
    """A zarr, or a folder of them, of which each image holds its label map in ``labels/NAME``.

    Where an image has several, ``--masks NAME`` says which; without it the one that `cellflow predict`
    writes is taken for a prediction, and none for truth. An image without any has no truth, which is told.
    """

    name = "ome-zarr"
    uses = frozenset({"prepare", "truth", "prediction"})
    heeds = frozenset({"masks"})

    def recognises(self, path: Path, options: ReadOptions) -> bool:
        """Whether there is a zarr with images, or a folder of those where one has a label map."""
        if options.masks is not None and options.masks.is_dir():
            # a folder of label maps, unless a label map of the zarr has just this name
            found = images_in(path) if is_zarr(path) else list_images(path) if path.is_dir() else []
            return any(_has_labels(image, str(options.masks)) for image in found if image.is_dir())
        if is_zarr(path):
            return bool(images_in(path))
        if not path.is_dir() or is_dataset(path):
            return False
        zarrs = [image for image in list_images(path) if image.is_dir()]
        if not zarrs or find_folder(path, MASK_FOLDERS):
            return False
        return any(map(_has_labels, zarrs))

    def read(self, path: Path, options: ReadOptions) -> Source:
        """Find the images and their label maps; images without one are problems of `prepare`."""
        found = images_in(path) if is_zarr(path) else list_images(path)
        images = list[SourceImage]()
        for image in found:
            name = image_id(image, folder_of(image))
            try:
                labels = _choose(image, options)
            except DataError as error:
                if options.use != "prepare":
                    raise
                options.problems.add(error, name)
                continue
            cells = partial(_cells, labels, predicted=options.use == "prediction")
            images.append(FileImage(name, image, read_cells=cells))
        by_name = dict(sorted(by_id(images, options.problems).items()))
        return Source(path, self.name, by_name, "OME-Zarr images with labels")


def _has_labels(image: Path, name: str = "") -> bool:
    """Whether there is a label map, of this name; one that is damaged may have had one, of no name."""
    try:
        names = label_names(image)
    except DataError:
        return not name
    return name in names if name else bool(names)


def _choose(image: Path, options: ReadOptions) -> Path:
    """The label map of an image."""
    names = label_names(image) if image.is_dir() else []
    wanted = None if options.masks is None else str(options.masks)
    if wanted is None and len(names) > 1 and options.use == "prediction" and CELLS in names:
        wanted = CELLS
    if wanted in names or (wanted is None and len(names) == 1):
        return label_map(image, wanted or names[0])
    missing = "Add it (all zero if the image has no cells) or remove the image."
    advice = "Say which with --masks NAME." if names else missing
    text = (
        f"{image}: expected a label map in its labels/, found {few_text(names) or 'none'}. {advice}"
    )
    raise DataError(text, path=image, expected=wanted, found=names)


def _cells(path: Path, shape: Shape | None, *, predicted: bool) -> Instances:
    height, width = image_shape(path)[:2]
    if shape is not None and (height, width) != shape:
        text = (
            f"{path}: the label map is {height} x {width} (height x width), its image is "
            f"{shape[0]} x {shape[1]}. Both must have the same finest level."
        )
        raise DataError(text, path=path, expected=shape, found=(height, width))
    return instances_from_labels(read_label_map(path, predicted=predicted))


def write_ome_zarr(
    path: Path,
    image: NDArray[Any],
    labels: NDArray[Any],
    *,
    channel_names: Sequence[str] = (),
    pixel_size: PixelSize | None = None,
    properties: Sequence[Mapping[str, float]] = (),
) -> None:
    """Write an image and the label map of its cells as OME-Zarr 0.5, atomically; an old one is replaced.

    Parameters
    ----------
    path : Path
        Folder; its name should end in .zarr.
    image : (H, W) or (H, W, C) ndarray
        Kept as it is in the finest level. Each further level has half the height and width, rounded up, and
        means of 2 x 2 pixels, until no side is longer than 512.
    labels : (H, W) integer ndarray
        0 background. Stored as ``labels/cells`` in the smallest unsigned type that holds its numbers, with as
        many levels as the image; those take every second pixel.
    channel_names : sequence of str
        Names of all channels; without them red, green, blue or numbers.
    pixel_size : PixelSize, optional
        Micrometres per pixel; without it the scale is 1 and has no unit.
    properties : sequence of mapping
        Of each label that is there, by ``label``, what else is known of it.
    """
    import zarr

    planes = image if image.ndim == 2 else np.moveaxis(image, -1, 0)
    planes = planes.astype(planes.dtype.newbyteorder("="), copy=False)
    small = labels.astype(np.min_scalar_type(int(labels.max(initial=0))))
    images = list(_means(planes))
    maps = [small[:: 2**number, :: 2**number] for number in range(len(images))]
    with (
        atomic_folder(path, replace=True) as folder,
        zarr.config.set({"json_indent": None}),  # there is a line for each of the cells
    ):
        omero = _omero(path.stem, images, channel_names)
        _write(folder, images, pixel_size, {"name": path.stem, "type": "local mean"}, omero=omero)
        zarr.create_group(folder / "labels", attributes=ome_attributes(labels=[CELLS]))
        name, facts = {"name": CELLS, "type": "nearest"}, {"image-label": _image_label(properties)}
        _write(folder / "labels" / CELLS, maps, pixel_size, name, **facts)


def _write(
    group: Path,
    levels: Sequence[NDArray[Any]],
    pixel_size: PixelSize | None,
    name: Mapping[str, str],
    **facts: Any,
) -> None:
    """Write the levels of an image or a label map into a group of their own."""
    import zarr
    from zarr.codecs import BloscCodec

    axes = "cyx"[-levels[0].ndim :]
    attributes = image_attributes(name, axes, len(levels), pixel_size, **facts)
    root = zarr.create_group(group, attributes=attributes)
    for number, level in enumerate(levels):
        chunks = [1] * (level.ndim - 2) + [min(_CHUNK, side) for side in level.shape[-2:]]
        root.create_array(
            str(number),
            data=np.ascontiguousarray(level),
            chunks=tuple(chunks),
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
            dimension_names=list(axes),
            config={"write_empty_chunks": True},  # so that what is missing was lost
        )


def _means(planes: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Planes ``(..., H, W)``, and smaller ones of means of 2 x 2 pixels; the last row and column count twice."""
    yield planes
    while max(planes.shape[-2:]) > _SMALL_LEVEL:
        odd = [(0, 0)] * (planes.ndim - 2) + [(0, side % 2) for side in planes.shape[-2:]]
        even = np.pad(planes, odd, mode="edge")
        height, width = even.shape[-2:]
        blocks = even.reshape(*even.shape[:-2], height // 2, 2, width // 2, 2)
        means = blocks.mean(axis=(-3, -1), dtype=np.float64)
        planes = (means if planes.dtype.kind == "f" else np.rint(means)).astype(planes.dtype)
        yield planes


def _omero(name: str, levels: Sequence[NDArray[Any]], names: Sequence[str]) -> dict[str, Any]:
    """How viewers call and show the channels."""
    planes, coarse = (level.reshape(-1, *level.shape[-2:]) for level in (levels[0], levels[-1]))
    count = len(planes)
    colour = count == len(_RGB) and planes.dtype == np.uint8
    own = _RGB if colour else tuple(f"channel {number}" for number in range(1, count + 1))
    channels = [
        {
            "label": (names[i] if len(names) == count else "") or own[i],
            "color": _COLOURS[-1] if count == 1 else _COLOURS[i % len(_COLOURS)],
            "active": True,
            "window": _window(planes[i], coarse[i]),
        }
        for i in range(count)
    ]
    model = "greyscale" if count == 1 else "color"
    return {"name": name, "channels": channels, "rdefs": {"model": model}}


def _window(plane: NDArray[Any], coarse: NDArray[Any]) -> dict[str, float]:
    """Range of the values of a channel, and the part of it that is shown, which is never empty."""
    low, high = float(plane.min()), float(plane.max())
    start, end = (float(value) for value in np.percentile(coarse, _CONTRAST))
    if not start < end:
        start, end = low, high if low < high else low + 1
    return {"min": low, "max": max(high, end), "start": start, "end": end}


def _image_label(properties: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Colours and properties of the labels, and where their image is."""
    rows = [{"label-value": int(row["label"]), **row} for row in properties]
    for row in rows:
        del row["label"]
    facts: dict[str, Any] = {"version": VERSION, "source": {"image": "../../"}}
    if rows:  # neither list may be empty
        facts["colors"] = [
            {"label-value": row["label-value"], "rgba": _colour(int(row["label-value"]))}
            for row in rows
        ]
        facts["properties"] = rows
    return facts


def _colour(number: int) -> list[int]:
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.75, 1.0)
    return [round(255 * red), round(255 * green), round(255 * blue), 255]
