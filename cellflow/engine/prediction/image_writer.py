"""What a result folder gets of one image; written by whoever has predicted it, here or on a worker."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellflow.engine.exports import EXPORTS
from cellflow.engine.exports.export import PARTS, UNKNOWN, Origin, PredictedImage, ids_of_files
from cellflow.io.images import read_labels, write_labels

if TYPE_CHECKING:
    from cellflow.engine.segmentation.result import Prediction

__all__ = ["ImageWriter"]


class ImageWriter:
    """Writes images into a result, each atomically and its label map last; knows which are done."""

    def __init__(self, path: Path, exports: AbstractSet[str]) -> None:
        self.path, self.names = path, frozenset(exports)
        self.exports = [export for name, export in EXPORTS.items() if name in exports]
        self.parts = path / PARTS
        kept = [path / export.path for export in self.exports if export.keeps_labels]
        self.maps = kept[0] if kept else self.parts

    @property
    def keeps_maps(self) -> bool:
        """Whether label maps stay when all is done."""
        return self.maps != self.parts

    def done(self, listed: AbstractSet[str] = frozenset()) -> set[str]:
        """Ids of the images of which everything is there; `listed` are those in finished tables."""
        done = ids_of_files(self.maps, ".tif")
        if not self.keeps_maps:  # where label maps do not stay, the tables remember
            done |= listed
        for export in self.exports:
            has = export.done(self.path, listed)
            done &= done if has is None else has
        return done

    def write(
        self, image_id: str, prediction: Prediction, image: NDArray[Any], origin: Origin = UNKNOWN
    ) -> int:
        """Write all that belongs to one image, its label map last; how many cells it has."""
        item = PredictedImage(
            image_id, image, prediction.labels, prediction=prediction, **origin._asdict()
        )
        for export in self.exports:
            export.write(self.path, item)
        return self.write_labels(item)

    def write_labels(self, item: PredictedImage) -> int:
        """Write a label map, after which its image is done; its cells."""
        write_labels(self.maps / f"{item.id}.tif", item.labels, item.pixel_size)
        return cells_in(item.labels)

    def label_map(self, image_id: str) -> NDArray[np.int32] | None:
        """The label map of an image, from where it is to lie or where an earlier command has left it."""
        for folder in (self.maps, self.parts):
            if (folder / f"{image_id}.tif").is_file():
                return read_labels(folder / f"{image_id}.tif")
        return None


def cells_in(labels: NDArray[np.int32]) -> int:
    """How many cells a label map has."""
    return int(np.count_nonzero(np.bincount(labels.ravel())[1:]))
