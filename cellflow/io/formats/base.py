"""What a format is: it recognises a place, and gives the images in it."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from cellflow.io.problems import Problems
from cellflow.io.source import Source

__all__ = ["HOW", "SILENT", "ReadOptions", "SourceFormat", "Use"]

SILENT = logging.Logger("silent", logging.CRITICAL)
"""Says nothing."""
HOW = (
    "annotated_only", "annotation_column", "category", "colours", "images", "img_filter", "mask_filter", "masks",
    "rle_order",
)  # fmt: skip
"""Options that some formats have a use for, and others have not."""
Use = Literal["prepare", "truth", "prediction", "images"]
"""What a source is read for: pixels and cells, true cells, predicted cells, or pixels to predict."""


@dataclass(frozen=True)
class ReadOptions:
    """What a source is read for, and what was said of it.

    Attributes
    ----------
    use : {"prepare", "truth", "prediction", "images"}
        A format is asked only for uses that it has.
    masks, images, mask_filter, img_filter, id_column, annotation_column, cell_type_column, rle_order
        As in `PrepareConfig`. An empty `mask_filter` is none.
    truth : Path, optional
        What a prediction is scored against: results of COCO name their images by its numbers.
    annotated_only : bool
        Whether images without a label map are left out; else each is a problem.
    category : tuple of str
        Names of the categories whose cells are taken, where a file has several; all without it.
    colours : bool
        Whether each colour of a picture is a cell, where label maps are expected.
    recursive : bool
        Whether images in sub-folders count.
    log : Logger
        Hears of images that were passed over.
    problems : Problems
        Takes what is wrong with single images; whoever reads raises them.
    """

    use: Use
    masks: Path | None = None
    images: Path | None = None
    truth: Path | None = None
    mask_filter: str = ""
    img_filter: str = ""
    id_column: str = "id"
    annotation_column: str = "annotation"
    cell_type_column: str = "cell_type"
    rle_order: Literal["auto", "C", "F"] = "auto"
    annotated_only: bool = False
    category: tuple[str, ...] = ()
    colours: bool = False
    recursive: bool = False
    log: logging.Logger = SILENT
    problems: Problems = field(default_factory=Problems)


class SourceFormat(ABC):
    """One way in which images, cells or both lie on disk."""

    name: ClassVar[str]
    """Kept in ``dataset.json`` as where a dataset came from."""
    uses: ClassVar[frozenset[Use]]
    """What can be read from it."""
    heeds: ClassVar[frozenset[str]] = frozenset()
    """Options of `HOW` that say something of it, where it is prepared; others are refused."""

    @abstractmethod
    def recognises(self, path: Path, options: ReadOptions) -> bool:
        """Whether a place, which may not exist or be a pattern, is one of this format."""

    def lies_in(self, folder: Path, options: ReadOptions) -> list[Path]:
        """Files of this format in a folder, whoever reads it; none where nothing tells them from those of others."""
        return []

    @abstractmethod
    def read(self, path: Path, options: ReadOptions) -> Source:
        """The images of a place that was recognised, sorted by id; what is wrong is a `DataError`."""
