"""What an export is: it knows which images it has, writes one image, and finishes its tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.engine.segmentation.result import Prediction
from cellflow.io.pixel_size import PixelSize
from cellflow.io.plates import PlatePlace
from cellflow.io.source import SourceImage
from cellflow.io.tables import read_rows

__all__ = [
    "PARTS",
    "UNKNOWN",
    "Export",
    "ImageExport",
    "Origin",
    "PredictedImage",
    "TableExport",
    "ids_of_files",
    "rows_by_id",
]

PARTS = ".parts"
"""Folder for what serves only to go on; it is gone once all images are done."""
Labels = NDArray[np.int32]


class Origin(NamedTuple):
    """What the source of an image says of it, besides its pixels, as far as that is known."""

    pixel_size: PixelSize | None = None
    channel_names: tuple[str, ...] = ()
    path: Path | None = None
    """Its file."""

    @classmethod
    def of(cls, reader: Callable[[], Any]) -> Origin:
        """That of an image which is read from a source; nothing is known of others."""
        if not isinstance(reader, SourceImage):
            return UNKNOWN
        return cls(reader.pixel_size(), reader.channel_names(), reader.path.resolve())


UNKNOWN = Origin()


@dataclass(frozen=True, eq=False)
class PredictedImage:
    """What an export may write of one image: the native image, ``(H, W)`` or ``(H, W, C)``, and what is known of it."""

    id: str
    """Names the image in files and tables."""
    image: NDArray[Any]
    labels: Labels
    pixel_size: PixelSize | None = None
    prediction: Prediction | None = None
    """All that was predicted; None where the label map of an earlier command is all there is."""
    channel_names: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def predicted(self) -> Prediction:
        """All that was predicted, for exports that are not made from label maps."""
        assert self.prediction is not None
        return self.prediction

    def cell_table(self) -> pd.DataFrame:
        """The measured cells, with areas in square micrometres where the size of a pixel is known."""
        area = math.nan if self.pixel_size is None else self.pixel_size.area
        return replace(self.predicted, pixel_area=area).cells


class Export:
    """Something that a prediction writes; a subclass overrides what it needs.

    Folders that the methods are given are those of a result. Methods may be called again for what is there
    already.

    Attributes
    ----------
    path : str
        File or folder in the result that holds it.
    beside : tuple of str
        Further files in the result.
    content : str
        What that holds, for people.
    from_labels : bool
        Whether an image and its label map are enough to write it, so that it can be added to a finished
        result without predicting again. `PredictedImage.prediction` may be None then.
    keeps_labels : bool
        Whether `path` is the folder of label maps that stay. The result folder writes these itself, last of
        all, because they say which images are done.
    """

    path: ClassVar[str]
    beside: ClassVar[tuple[str, ...]] = ()
    content: ClassVar[str]
    from_labels: ClassVar[bool] = True
    keeps_labels: ClassVar[bool] = False

    def done(self, folder: Path, listed: AbstractSet[str]) -> set[str] | None:
        """Ids of the images that it has; None if it needs nothing but label maps. `listed` are in finished tables."""
        return None

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Write one image, atomically."""

    def finish(
        self, folder: Path, ids: Sequence[str], labels: Callable[[str], Labels | None]
    ) -> None:
        """Write tables of just these images, in this order; `labels` gives a label map while it is there."""

    def is_finished(self, folder: Path) -> bool:
        """Whether what `finish` writes is there."""
        return True

    def placed(self, places: Mapping[str, PlatePlace]) -> Export:
        """The export for images of which some lie in plates, by id: one that tells it, where it can."""
        return self

    def forget(self, folder: Path, image_id: str) -> None:
        """Remove the files of an image that has changed."""

    def known_labels(
        self, folder: Path, ids: AbstractSet[str]
    ) -> Mapping[str, Callable[[tuple[int, int]], Labels]]:
        """Label maps that can be had from what it wrote, by id; each is asked for with the image's size."""
        return {}

    def summary(self, images: int) -> str:
        """What it wrote, in a few words."""
        return f"{self.path} ({self.content})"


class ImageExport(Export):
    """An export of one file an image, named ``path/ID`` and an ending."""

    ending: ClassVar[str]

    def file(self, folder: Path, image_id: str) -> Path:
        """The file of an image."""
        return folder / self.path / f"{image_id}{self.ending}"

    def done(self, folder: Path, listed: AbstractSet[str]) -> set[str] | None:
        """Ids of the files that are there."""
        return ids_of_files(folder / self.path, self.ending)

    def forget(self, folder: Path, image_id: str) -> None:
        """Remove the file of an image."""
        self.file(folder, image_id).unlink(missing_ok=True)

    def summary(self, images: int) -> str:
        """The folder and what lies in it."""
        return f"{self.path}/ ({self.content})"


class TableExport(ImageExport):
    """An export of all images in one; ``.parts/ID`` and an ending holds what it has of an image until it is written."""

    # intensities, confidences and scores are of the image and the network's output
    from_labels = False

    def file(self, folder: Path, image_id: str) -> Path:
        """The part of an image."""
        return folder / PARTS / f"{image_id}{self.ending}"

    def done(self, folder: Path, listed: AbstractSet[str]) -> set[str] | None:
        """Images with a part, and those in the table."""
        return ids_of_files(folder / PARTS, self.ending) | listed

    def summary(self, images: int) -> str:
        """The file and what it holds."""
        return Export.summary(self, images)


def ids_of_files(folder: Path, ending: str) -> set[str]:
    """Names without ending of the files in a folder; none if there is no folder."""
    if not folder.is_dir():
        return set()
    names = (item.name for item in folder.iterdir())
    return {name.removesuffix(ending) for name in names if name.endswith(ending)}


def rows_by_id(
    path: Path, ids: AbstractSet[str], *, without: Sequence[str] = ()
) -> dict[str, list[list[str]]]:
    """Rows of some images in a table of ours, by their id, `without` some columns; none if there is no table."""
    found: dict[str, list[list[str]]] = {}
    if ids and path.is_file():
        for row in read_rows(path, ("id",), exact=True)[1]:
            if row.values["id"] in ids:
                values = [text for name, text in row.values.items() if name not in without]
                found.setdefault(row.values["id"], []).append(values)
    return found
