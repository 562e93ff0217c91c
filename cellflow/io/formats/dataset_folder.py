"""A dataset of `cellflow prepare` as images to predict, as truth, or to be prepared again with other cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cellflow.io._dataset_facts import is_dataset
from cellflow.io.dataset import Dataset
from cellflow.io.fold_table import read_fold_facts
from cellflow.io.formats.base import ReadOptions, SourceFormat
from cellflow.io.large import LargeImage
from cellflow.io.pixel_size import PixelSize, read_pixel_size
from cellflow.io.source import FileImage, Shape, Source, SourceImage
from cellflow.types import Instances

__all__ = ["DatasetFolder", "DatasetImage", "dataset_source"]


@dataclass(frozen=True, eq=False, kw_only=True)
class DatasetImage(FileImage):
    """An image of a dataset, which knows more of it than its file."""

    dataset: Dataset

    def pixels(self) -> NDArray[Any]:
        """The image, checked against what the dataset says of it."""
        return self.dataset.image(self.id)

    def open_large(self, level: int = 0) -> LargeImage:
        """Open the file, checked against what the dataset says of it."""
        return self.dataset.open_large(self.id, level=level, pixel_size=self.pixel_size())

    def instances(self, shape: Shape | None = None) -> Instances:
        """The cells as they were prepared."""
        return self.dataset.instances(self.id)

    def stored_size(self) -> PixelSize | None:
        """Micrometres per pixel as the dataset, else the file has them."""
        return self.dataset.pixel_size(self.id) or read_pixel_size(self.path)

    def channels(self) -> int | None:
        """As images.csv has it."""
        return int(self.columns["channels"])

    def channel_names(self) -> tuple[str, ...]:
        """As images.csv has them."""
        return self.dataset.channel_names(self.id)

    @property
    def cells_path(self) -> Path:
        """Its label map."""
        return self.dataset.path / "labels" / f"{self.id}.tif"

    @property
    def fingerprint(self) -> str:
        """Its pixels' hash."""
        return self.columns["pixel_hash"]


class DatasetFolder(SourceFormat):
    """A folder with ``dataset.json``."""

    name = "dataset"
    uses = frozenset({"prepare", "truth", "images"})

    def recognises(self, path: Path, options: ReadOptions) -> bool:
        """Whether ``dataset.json`` is there."""
        return is_dataset(path)

    def read(self, path: Path, options: ReadOptions) -> Source:
        """Open it."""
        return dataset_source(Dataset.open(path), truth=options.use == "truth")


def dataset_source(dataset: Dataset, *, truth: bool) -> Source:
    """The images of a dataset that is open; as truth with what is known of its folds."""
    table = dataset.images.astype(str)
    images: dict[str, SourceImage] = {}
    for name, row in zip(dataset.ids, table.to_numpy(str), strict=True):
        columns = dict(zip(map(str, table), map(str, row), strict=True))
        file = dataset.path / "images" / columns["file"]
        images[name] = DatasetImage(name, file, columns, dataset=dataset)
    facts = read_fold_facts(dataset.folds_path) if truth else {}
    return Source(dataset.path, DatasetFolder.name, images, "dataset", fold_facts=facts)
