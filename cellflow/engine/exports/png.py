"""``png/ID_cp_masks.png``: label maps as Cellpose writes and reads them beside images."""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet
from pathlib import Path

import imagecodecs
import numpy as np

from cellflow.engine.exports.export import ImageExport, PredictedImage, ids_of_files
from cellflow.io.images import write_labels
from cellflow.storage.atomic import atomic_path

__all__ = ["PngMasks"]

_log = logging.getLogger(__name__)

_MOST = 2**16 - 1
_LARGE = "_cp_masks.tif"


class PngMasks(ImageExport):
    """16-bit PNGs; a label map of more than 65,535 cells is a TIFF, as in Cellpose."""

    path = "png"
    content = "label maps as ID_cp_masks.png"
    ending = "_cp_masks.png"

    def done(self, folder: Path, listed: AbstractSet[str]) -> set[str] | None:
        """Ids of the files of either kind."""
        place = folder / self.path
        return ids_of_files(place, self.ending) | ids_of_files(place, _LARGE)

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Write one image."""
        large = folder / self.path / f"{item.id}{_LARGE}"
        small = self.file(folder, item.id)
        if int(item.labels.max(initial=0)) <= _MOST:
            with atomic_path(small) as temporary:
                temporary.write_bytes(imagecodecs.png_encode(item.labels.astype(np.uint16)))
            large.unlink(missing_ok=True)
            return
        _log.warning(
            "%s has %s cells, and a PNG holds numbers up to 65,535: written as %s; --export masks writes "
            "TIFF for all images.",
            *(item.id, f"{int(item.labels.max()):,}", large.name),
        )
        write_labels(large, item.labels, item.pixel_size)
        small.unlink(missing_ok=True)

    def forget(self, folder: Path, image_id: str) -> None:
        """Remove the file of an image, of either kind."""
        super().forget(folder, image_id)
        (folder / self.path / f"{image_id}{_LARGE}").unlink(missing_ok=True)
