"""A folder of label maps: truth or prediction, one file an image."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from cellflow.errors import DataError
from cellflow.io.formats.base import ReadOptions, SourceFormat
from cellflow.io.images import list_images
from cellflow.io.mask_findings import read_label_map
from cellflow.io.places import MASK_FOLDERS, find_folder
from cellflow.io.source import Shape, Source, SourceImage, by_id
from cellflow.numeric.labels import instances_from_labels
from cellflow.types import Instances

__all__ = ["LabelMaps"]

_ENDINGS = ("_cp_masks", "_masks")
"""Endings of label maps that lie beside their images, as Cellpose writes and reads them."""


class LabelMaps(SourceFormat):
    """Label maps of a folder, or of ``masks/`` in it (or another name that `prepare` takes).

    Where names end in ``_cp_masks`` or ``_masks``, only those are label maps and the ending is no part
    of the id; the others are images, or what else Cellpose puts beside them. ``mask_filter`` goes before
    these two endings where a name has it.
    """

    name = "label-maps"
    uses = frozenset({"truth", "prediction"})

    def recognises(self, path: Path, options: ReadOptions) -> bool:
        """Any place: what is not there is reported when it is read."""
        return True

    def read(self, path: Path, options: ReadOptions) -> Source:
        """Find the files."""
        folder = path
        # the labels/ of a dataset are its truth, and no prediction to score against it
        if path.is_dir() and not (path / "dataset.json").is_file():
            folder = find_folder(path, MASK_FOLDERS) or path
        paths = list_images(folder)
        tried = (options.mask_filter, *_ENDINGS) if options.mask_filter else _ENDINGS
        ending = next((e for e in tried if any(file.stem.endswith(e) for file in paths)), "")
        images = by_id(
            SourceImage(
                file.stem.removesuffix(ending),
                file,
                read_cells=partial(_cells, file, predicted=options.use == "prediction"),
            )
            for file in paths
            if file.stem.endswith(ending)
        )
        if not images:
            raise DataError(
                f"{folder}: expected label maps (ID.tif, ID.png, or ending in _masks or _cp_masks), found "
                "no image file. Check the path.",
                path=folder,
            )
        images = dict(sorted(images.items()))
        kind = f"label maps such as {next(iter(images.values())).path.name}"
        return Source(path, self.name, images, kind, ending)


def _cells(file: Path, shape: Shape | None, *, predicted: bool) -> Instances:
    return instances_from_labels(read_label_map(file, predicted=predicted))
