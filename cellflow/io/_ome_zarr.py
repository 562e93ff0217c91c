"""OME-Zarr images (0.1 to 0.5, zarr 2 and 3): which are in a folder, what they say, their levels."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io import _image_header as header
from cellflow.io._zarr_chunks import check_chunks, chunks_there, refuse_hardly_any
from cellflow.io._zarr_metadata import ArrayFacts, array_facts, attributes, inside, is_zarr
from cellflow.io.pixel_limit import refuse_large
from cellflow.storage.hashing import hash_json

_log = logging.getLogger(__name__)

LABELS = "labels"
"""Group of label maps in that of their image."""
_SERIES = "bioformats2raw.layout"
"""Attribute of a group of several images, whose names are 0, 1, 2 ..."""
_IMPLIED_AXES = "tczyx"
"""Of versions before axes had names."""
_MANY, _SPARSE = 2_000, 4
"""Of more chunks than these, and so many times those that are there, no more than these are looked for."""
_MUCH_LARGER = 4
"""Chunks are unpacked whole; one that is so many times the image, and larger than `header.SMALL`, is refused."""


class Level(NamedTuple):
    """A level of an image, of which nothing but the metadata has been read."""

    group: Path
    array: Path
    facts: ArrayFacts
    order: list[int]
    """Axes in the order Y, X and, if there are any, channels."""
    multiscale: dict[str, Any]
    number: int = 0
    """0 is the finest."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(H, W)`` or ``(H, W, C)``."""
        return tuple(self.facts.shape[axis] for axis in self.order)

    @property
    def levels(self) -> int:
        """How many the image has, as it says."""
        return len(self.multiscale["datasets"])

    @property
    def scale(self) -> tuple[float, float] | None:
        """Size of a pixel along Y and X in whatever unit; None where the image does not say it."""
        scales = [
            [float(value) for value in item["scale"]]
            for holder in (self.multiscale["datasets"][self.number], self.multiscale)
            for item in holder.get("coordinateTransformations") or ()
            if item.get("type") == "scale" and "scale" in item
        ]
        if not scales:
            return None
        height, width = (math.prod(scale[axis] for scale in scales) for axis in self.order[:2])
        return height, width


def images_in(path: Path) -> list[Path]:
    """Images of a zarr: itself, the fields of a plate, or the series that bioformats2raw wrote; none for another."""
    with _told_of(path):
        found = attributes(path)
        if "multiscales" in found:
            return [path]
        if isinstance(found.get("plate"), dict):
            fields = _fields(path, found["plate"])
            return [image for _, images in fields for image in images if is_zarr(image)]
        if _SERIES in found:
            series = _series(path)
            return [path] if len(series) == 1 else series
    return []


def read_pixels(path: Path, most: int | None = None) -> NDArray[Any]:
    """Pixels ``(H, W)`` or ``(H, W, C)``; whatever zarr raises on a damaged one comes through.

    One of more than `most` pixels, height times width, is refused before anything is unpacked. A piece
    that is not there has the fill value, as zarr has it; where none is there, that is said.
    """
    image = open_level(path)
    facts = image.facts
    refuse_large((image.shape[0], image.shape[1]), most)
    header.refuse_swollen(header.Claim(facts.bytes, 0), 0, "zarr")
    if facts.chunk_bytes > max(header.SMALL, _MUCH_LARGER * facts.bytes):
        raise ValueError(f"its chunks claim {facts.chunk_bytes / 2**20:,.0f} MiB each")
    there = check_chunks(image.array, image.group, facts)
    if image.group.parent.name != LABELS:  # cells may be few
        refuse_hardly_any(facts, there)
        if not there:
            _log.warning(
                "%s: none of its chunks is there, so every pixel has the fill value. Unless it is meant to be "
                "empty, copy it again.",
                path,
            )
    array = open_array(image)
    if math.prod(facts.counts) > max(_MANY, _SPARSE * there):
        array = _only_chunks_there(image, array)
    return read_part(image, [slice(None)] * len(image.order), array)


def _only_chunks_there(image: Level, array: Any) -> NDArray[Any]:
    """An array of which most chunks are not there: zarr looks for each of them, however many a damaged shape claims."""
    whole = np.full(array.shape, array.fill_value or 0, array.dtype)
    for chunk in chunks_there(image.array, image.facts):
        sides = zip(chunk, image.facts.chunks, strict=True)
        place = tuple(slice(at * side, (at + 1) * side) for at, side in sides)
        whole[place] = array[place]
    return whole


def read_part(image: Level, part: Sequence[slice], array: Any = None) -> NDArray[Any]:
    """A part of a level: slices along Y, X and, if there are any, channels; `array` is the level, opened by zarr."""
    array = open_array(image) if array is None else array
    place: list[Any] = [0] * len(image.facts.shape)
    for axis, piece in zip(image.order, part, strict=True):
        place[axis] = piece
    pixels = np.asarray(array[tuple(place)])
    kept = sorted(image.order)  # what is left of the axes
    pixels = np.transpose(pixels, [kept.index(axis) for axis in image.order])
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def open_array(image: Level) -> Any:
    """A level as an array of zarr."""
    import zarr

    array = zarr.open_array(str(image.array), mode="r")
    if array.shape != image.facts.shape:
        raise ValueError(f"expected the shape {image.facts.shape}, found {array.shape}")
    return array


def read_shape(path: Path) -> tuple[int, ...]:
    """Shape of what `read_pixels` gives, from the metadata alone."""
    return open_level(path).shape


def read_scale(path: Path) -> list[tuple[float, str]] | None:
    """Size of a pixel along Y and X, each with its unit, as the image has them; None where it has none."""
    image = open_level(path)
    axes = image.multiscale.get("axes") or []
    scale = image.scale
    if scale is None or not all(isinstance(axis, dict) for axis in axes):
        return None
    units = [str(axes[axis].get("unit", "")) for axis in image.order[:2]]
    return list(zip(scale, units, strict=True))


def channel_names(path: Path) -> tuple[str, ...]:
    """Names of the channels, as viewers show them; empty where there are none."""
    with suppress(DataError, *NONSENSE):
        group = _only(path)
        channels = attributes(group)["omero"]["channels"]
        return tuple(str(channel.get("label") or "") for channel in channels)
    return ()


def label_names(path: Path) -> list[str]:
    """Names of the label maps that lie in an image."""
    with _told_of(path):
        group = _only(path)
        if not (group / LABELS).is_dir():
            return []
        names = attributes(inside(group, LABELS)).get("labels", [])
        return [name for name in names if is_zarr(inside(group / LABELS, name))]


def label_map(path: Path, name: str) -> Path:
    """The label map of an image by its name."""
    return _only(path) / LABELS / name


def fingerprint(path: Path) -> str:
    """What tells whether an image has changed: names, sizes and times of all its files."""
    facts = []
    for place, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            file = Path(place, name)
            fact = file.stat(follow_symlinks=False)
            facts.append(f"{file.relative_to(path)} {fact.st_size} {fact.st_mtime_ns}")
    return hash_json(facts)


NONSENSE = (ValueError, KeyError, TypeError, AttributeError, IndexError, OSError)
"""What metadata raises that is not as it should be."""


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Turn what nonsense in metadata raises into an error that names the image."""
    try:
        yield
    except DataError as error:
        if error.path is not None:
            raise
        raise DataError(f"{path}: {error}", **(error.facts | {"path": path})) from error
    except NONSENSE as error:
        text = f"{path}: not a whole OME-Zarr ({error or type(error).__name__}). Copy or export it again."
        raise DataError(text, path=path) from error


def _fields(plate: Path, facts: dict[str, Any]) -> Iterator[tuple[Path, list[Path]]]:
    """All wells of a plate, in its order, and the images that each names."""
    for well in facts["wells"]:
        place = inside(plate, well["path"])
        named = attributes(place).get("well", {}).get("images", [])
        yield place, [inside(place, field["path"]) for field in named]


def missing_in_plate(plate: Path) -> list[str]:
    """Wells and fields that a plate names and that are not there."""
    found = []
    with _told_of(plate):
        for place, images in _fields(plate, attributes(plate)["plate"]):
            lost = [path for path in images or [place] if not is_zarr(path)]
            found += [str(path.relative_to(plate)) for path in lost]
    return found


def is_plate(path: Path) -> bool:
    """Whether a zarr is a plate with wells."""
    return is_zarr(path) and isinstance(attributes(path).get("plate"), dict)


def _series(path: Path) -> list[Path]:
    """Images that bioformats2raw wrote into one group."""
    listed = attributes(path / "OME").get("series") if is_zarr(path / "OME") else None
    names: Sequence[Any] = listed or sorted(
        (item.name for item in path.iterdir() if item.name.isdecimal()), key=int
    )
    return [image for name in names if "multiscales" in attributes(image := inside(path, name))]


def _only(path: Path) -> Path:
    """The group of the one image of a zarr."""
    found = attributes(path)
    if "multiscales" not in found and _SERIES in found and len(series := _series(path)) == 1:
        return series[0]
    return path


def open_level(path: Path, number: int = 0) -> Level:
    """A level of an image, by its metadata; 0 is the finest.

    What is no image, has several, or no single plane is a DataError; any of `NONSENSE` comes where the metadata makes
    no sense, or there is no such level.
    """
    group = _only(path)
    multiscales = attributes(group).get("multiscales")
    if not multiscales:
        several = images_in(path)
        found = f"{len(several)} images, such as {several[0]}" if several else "none"
        text = f"{path}: expected an OME-Zarr image (multiscales), found {found}."
        raise DataError(text, path=path, found=len(several))
    array = inside(group, multiscales[0]["datasets"][number]["path"])
    facts = array_facts(array)
    order = _order(multiscales[0].get("axes"), facts.shape)
    return Level(group, array, facts, order, multiscales[0], number)


def _order(axes: Any, shape: tuple[int, ...]) -> list[int]:
    """The axes Y, X and, if there are several channels, theirs; all others must have length 1."""
    listed = list(axes or _IMPLIED_AXES[-len(shape) :])
    facts = [item if isinstance(item, dict) else {"name": item} for item in listed]
    names = [str(fact.get("name")).lower() for fact in facts]
    if len(names) != len(shape):
        raise ValueError(f"{len(names)} axes for the shape {shape}")
    kinds = [fact.get("type") for fact in facts]
    space = [i for i, name in enumerate(names) if kinds[i] == "space" or name in ("z", "y", "x")]
    channels = [i for i, name in enumerate(names) if kinds[i] == "channel" or name == "c"]
    plane = space[-2:]
    if [names[axis] for axis in plane] == ["x", "y"]:  # the standard has them the other way round
        plane.reverse()
    order = plane + [axis for axis in channels if shape[axis] > 1]
    others = [i for i in range(len(shape)) if i not in order and shape[i] > 1]
    if len(space) < 2 or len(order) > 3 or others:
        raise DataError(
            f"expected one 2D image, found a stack of shape {shape} (axes {''.join(names)}). Save one plane "
            "per image.",
            found=shape,
        )
    return order
