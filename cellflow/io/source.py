"""A source image, whatever lies on disk, and a source: all images of a place by their ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from unicodedata import normalize

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.errors import CellflowError, DataError
from cellflow.io import _ome_zarr
from cellflow.io.channel_names import read_channel_names
from cellflow.io.image_folders import SLIDE_SUFFIXES
from cellflow.io.images import copy_image, image_shape, read_image, write_planes
from cellflow.io.large import ArrayImage, LargeImage, open_large_image
from cellflow.io.pixel_size import PixelSize, read_pixel_size
from cellflow.io.problems import Problems
from cellflow.numeric.labels import labels_from_instances
from cellflow.types import Instances

__all__ = ["FileImage", "Source", "SourceImage", "by_id", "check_ids"]

Shape = tuple[int, int]
_OF_WINDOWS = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)),
}
"""Names that Windows gives to devices, whatever the ending."""


@dataclass(frozen=True, eq=False)
class SourceImage:
    """One image of a source: its cells, its pixels, or both.

    A format that keeps its images in another way than as files gives a subclass with `pixels`,
    `instances` or both of its own.

    Attributes
    ----------
    id : str
        Name that tells it from all others of the source.
    path : Path
        File that holds it, for messages.
    columns : mapping of str to str
        What else is known of the image.
    read_cells : callable, optional
        From the ``(H, W)`` that the image should have (None where nobody knows) to its cells; raises
        `DataError` where they do not fit.
    given_size : float, optional
        Micrometres per pixel that were given for it, whatever its file says.
    scores : sequence of float, optional
        How sure a prediction is of each of its cells, in their order.
    """

    id: str
    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    read_cells: Callable[[Shape | None], Instances] | None = None
    given_size: float | None = None
    scores: Sequence[float] | None = None

    def pixels(self) -> NDArray[Any]:
        """The image, ``(H, W)`` or ``(H, W, C)``; what is wrong is a `DataError`."""
        raise DataError(f"{self.path}: the pixels of {self.id!r} are not known.", id=self.id)

    def open_large(self, level: int = 0) -> LargeImage:
        """The image, to be read box by box and closed; here its pixels in memory, which are one level."""
        pixels, size, names = self.pixels(), self.pixel_size(), self.channel_names()
        return ArrayImage(self.path, pixels, level=level, pixel_size=size, channel_names=names)

    def __call__(self) -> NDArray[Any]:
        """The pixels: an image is its own reader."""
        return self.pixels()

    @property
    def has_pixels(self) -> bool:
        """Whether there is an image, and not its cells alone."""
        return type(self).pixels is not SourceImage.pixels

    @property
    def cells_path(self) -> Path:
        """File that holds its cells, for messages."""
        return self.path

    def instances(self, shape: Shape | None = None) -> Instances:
        """The cells, which may overlap; `shape` is what the image is known to have."""
        if self.read_cells is None:
            raise DataError(f"{self.path}: the cells of {self.id!r} are not known.", id=self.id)
        return self.read_cells(shape)

    def labels(self, shape: Shape) -> NDArray[np.int32]:
        """The cells as a prediction for an image of this shape: ``(H, W)`` int32, 1..n without gaps.

        Raises
        ------
        DataError
            If the cells are those of another size, or overlap.
        """
        cells = self.instances(shape)
        if cells.shape != shape:
            remedy = "Export the masks at the size of the image."
            if cells.shape == shape[::-1]:
                remedy = "Height and width are swapped: transpose the masks."
            text = (
                f"{self.path}: the masks of image {self.id} are {cells.shape[0]} x {cells.shape[1]}, the "
                f"truth is {shape[0]} x {shape[1]} (height x width). {remedy}"
            )
            raise DataError(text, path=self.path, id=self.id, expected=shape, found=cells.shape)
        labels = labels_from_instances(cells)
        if np.count_nonzero(labels) < cells.areas.sum():
            text = (
                f"{self.path}: cells of image {self.id} overlap; every pixel may belong to one predicted "
                "cell only, as the competition asks. Give disputed pixels to one of the cells."
            )
            raise DataError(text, path=self.path, id=self.id)
        return labels

    def stored_size(self) -> PixelSize | None:
        """Micrometres per pixel as its file has them."""
        return None

    def pixel_size(self) -> PixelSize | None:
        """Micrometres per pixel: those that were given, else those of the file."""
        if self.given_size is not None:
            return PixelSize(self.given_size, self.given_size)
        return self.stored_size()

    def channels(self) -> int | None:
        """How many channels it has; None where that is not known without reading it all."""
        return None

    def channel_names(self) -> tuple[str, ...]:
        """Names of all its channels, in their order; empty where they are not known."""
        return ()

    @property
    def fingerprint(self) -> str:
        """What tells whether it is still the same, by default size and time of its file."""
        fact = self.path.stat()
        return f"{fact.st_size} {fact.st_mtime_ns}"

    def save_pixels(self, folder: Path, pixels: NDArray[Any]) -> str:
        """Write the image, of which `pixels` were read, into a folder without loss; its file's name."""
        name = f"{self.id}.tif"
        write_planes(folder / name, pixels, self.channel_names(), self.pixel_size())
        return name


@dataclass(frozen=True, eq=False)
class FileImage(SourceImage):
    """An image that is one file, or the folder of an OME-Zarr image."""

    def pixels(self) -> NDArray[Any]:
        """Read the file."""
        return read_image(self.path)

    def open_large(self, level: int = 0) -> LargeImage:
        """Open the file; of most kinds no more than the boxes that are read is in memory."""
        return open_large_image(self.path, level=level, pixel_size=self.pixel_size())

    def stored_size(self) -> PixelSize | None:
        """Micrometres per pixel as the file has them."""
        if self.path.suffix.lower() in SLIDE_SUFFIXES:
            with suppress(CellflowError), open_large_image(self.path) as slide:
                return slide.pixel_size()
        return read_pixel_size(self.path)

    def channels(self) -> int | None:
        """As the header has it; what is wrong with the file shows when it is read."""
        try:
            shape = image_shape(self.path)
        except DataError:
            return None
        return shape[2] if len(shape) == 3 else 1

    def channel_names(self) -> tuple[str, ...]:
        """As the file has them, where they are as many as its channels."""
        names = read_channel_names(self.path)
        return names if names and len(names) == self.channels() else ()

    @property
    def fingerprint(self) -> str:
        """Size and time of its file, or of all files of a folder."""
        return _ome_zarr.fingerprint(self.path) if self.path.is_dir() else super().fingerprint

    def save_pixels(self, folder: Path, pixels: NDArray[Any]) -> str:
        """Copy the file byte for byte; an image that is a folder becomes a TIFF."""
        if self.path.is_dir():
            return super().save_pixels(folder, pixels)
        name = self.id + self.path.suffix.lower()
        copy_image(self.path, pixels, folder / name)
        return name


@dataclass(frozen=True, eq=False)
class Source:
    """All images of a place.

    Attributes
    ----------
    path : Path
        The place.
    layout : str
        Name of the format.
    images : dict of str to SourceImage
        By id.
    kind : str
        What it is, for people.
    ending : str
        The filter of the names of its files, ``_masks`` or ``mask_*``; empty where they are the ids.
    fold_facts : dict
        How the folds of the images were made; empty where there are none.
    needs_images : bool
        Whether the cells are known only together with the size of their image.
    """

    path: Path
    layout: str
    images: dict[str, SourceImage]
    kind: str = ""
    ending: str = ""
    fold_facts: Mapping[str, Any] = field(default_factory=dict)
    needs_images: bool = False

    @cached_property
    def table(self) -> pd.DataFrame:
        """What is known of the images, as text: a row each, by id."""
        rows = [dict(image.columns) for image in self.images.values()]
        return pd.DataFrame(rows, index=pd.Index(self.images, name="id", dtype=str)).fillna("")


S = TypeVar("S", bound=SourceImage)


def by_id(images: Iterable[S], problems: Problems | None = None) -> dict[str, S]:
    """Images by their ids; two of one id are a `DataError`, or one of the `problems`."""
    found: dict[str, S] = {}
    for image in images:
        first = found.setdefault(image.id, image)
        if first is not image:
            error = _same_id(first, image)
            if problems is None:
                raise error
            problems.add(error, image.id)
    return found


def _same_id(first: SourceImage, second: SourceImage) -> DataError:
    if first.path == second.path:  # of a table or a list, or one that was named twice
        text = (
            f"{first.path}: two images have the same id {first.id!r}. Ids are names without ending: rename or remove "
            "one, or name the image once."
        )
        return DataError(text, id=first.id, path=second.path)
    beside = first.path.parent == second.path.parent
    one, other = (first.path.name, second.path.name) if beside else (first.path, second.path)
    where = f"{first.path.parent}: " if beside else ""
    more = ", or name the folder above both with --recursive, which puts the names of sub-folders in front"
    text = (
        f"{where}{one} and {other} have the same id {first.id!r}. Ids are names without ending; rename or "
        f"remove one{'' if beside else more}."
    )
    return DataError(text, id=first.id, path=second.path)


def check_ids(images: Iterable[SourceImage], problems: Problems) -> None:
    """Check that ids can be the names of files, on any computer."""
    seen: dict[str, str] = {}
    for image in images:
        wrong = _wrong_name(image.id)
        if wrong:
            problems.add(f"{image.path}: {wrong}. Rename the image.", image.id)
        other = seen.setdefault(normalize("NFC", image.id).casefold(), image.id)
        if other != image.id:
            same = other.casefold() == image.id.casefold()
            how = "in capitals only" if same else "only in the way accents are written"
            problems.add(
                f"{image.path}: the ids {other!r} and {image.id!r} differ {how}. "
                "Rename one: they would be one file on some computers.",
                image.id,
            )


def _wrong_name(image_id: str) -> str | None:
    """What is wrong with an id as a file name; None if it is fine."""
    if not image_id or image_id != image_id.strip():
        return f"the id {image_id!r} is empty or has blanks around it"
    if any(letter in '/\\:*?"<>|' or not letter.isprintable() for letter in image_id):
        return (
            f"the id {image_id!r} cannot be a file name: it holds one of "
            '/ \\ : * ? " < > | or a control character'
        )
    if image_id[0] == "." or len(image_id.encode()) > 200:
        return f"the id {image_id!r} cannot be a file name: it starts with a dot or is too long"
    if image_id.partition(".")[0].casefold() in _OF_WINDOWS:
        return f"the id {image_id!r} cannot be a file name on Windows"
    return None
