"""``ome-zarr/ID.zarr``: the image with its label map, as OME-Zarr 0.5."""

from __future__ import annotations

import math
import shutil
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from cellflow.engine.exports.export import ImageExport, PredictedImage
from cellflow.io.formats.ome_zarr import write_ome_zarr

__all__ = ["OmeZarr"]


class OmeZarr(ImageExport):
    """Images with ``labels/cells``. Each is a folder, which is there once it is whole."""

    path = "ome-zarr"
    content = "images with labels"
    ending = ".zarr"

    def done(self, folder: Path, listed: AbstractSet[str]) -> set[str] | None:
        """Ids of the folders that are there; hidden ones are unfinished."""
        place = folder / self.path
        if not place.is_dir():
            return set()
        return {
            item.name.removesuffix(self.ending)
            for item in place.iterdir()
            if item.suffix == self.ending and item.name[0] != "." and (item / "zarr.json").is_file()
        }

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Write one image with its labels, their sizes and places."""
        write_ome_zarr(
            self.file(folder, item.id), item.image, item.labels, channel_names=item.channel_names,
            pixel_size=item.pixel_size, properties=_properties(item),
        )  # fmt: skip

    def forget(self, folder: Path, image_id: str) -> None:
        """Remove the folder of an image."""
        if self.file(folder, image_id).is_dir():
            shutil.rmtree(self.file(folder, image_id))


def _properties(item: PredictedImage) -> list[dict[str, Any]]:
    """Size in pixels, and in square micrometres where they are known, and place of every cell."""
    from skimage.measure import regionprops_table

    table = regionprops_table(item.labels, properties=("label", "area", "centroid"))
    pixel = math.nan if item.pixel_size is None else item.pixel_size.area
    rows = zip(*(column.tolist() for column in table.values()), strict=True)
    return [
        {
            "label": label,
            "area": int(area),
            **({} if math.isnan(pixel) else {"area_um2": area * pixel}),
            "centroid_y": y,
            "centroid_x": x,
        }
        for label, area, y, x in rows
    ]
