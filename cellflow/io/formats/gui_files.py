"""Files of Cellpose's GUI beside images: taken where there is no label map, compared where there is one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cellflow.errors import DataError
from cellflow.io.formats.label_maps import read_map, same_cells
from cellflow.io.formats.seg_npy import SEG_ENDING, seg_files
from cellflow.io.images import list_images
from cellflow.io.source import SourceImage
from cellflow.storage.sizes import few_text, plural

__all__ = ["GuiFiles"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GuiFiles:
    """``NAME_seg.npy`` by the ids of the images that they belong to, and those that belong to none."""

    files: dict[str, Path]
    alone: list[SourceImage]

    @classmethod
    def find(cls, places: tuple[Path, ...], images: Mapping[str, Path]) -> GuiFiles:
        """Look in some folders; the name before ``_seg`` is that of the image, or its id."""
        ids = {
            **{path.stem: name for name, path in images.items()},
            **{name: name for name in images},
        }
        stems = {path.stem for place in dict.fromkeys(places) for path in list_images(place)}
        files: dict[str, Path] = {}
        alone = []
        for path in (file for place in dict.fromkeys(places) for file in seg_files(place)):
            name = path.stem[: -len(SEG_ENDING)]
            if name in ids:
                files.setdefault(ids[name], path)
            elif name not in stems:
                alone.append(SourceImage(name, path))
        return cls(files, alone)

    def without(self, known: Mapping[str, Path]) -> list[SourceImage]:
        """Those of images that have no label map, which is said, and those of no image."""
        taken = {name: path for name, path in self.files.items() if name not in known}
        if taken:
            _log.info(
                "The cells of %s are those of Cellpose's GUI (%s).",
                *(plural(len(taken), "image"), few_text(path.name for path in taken.values())),
            )
        return [*(SourceImage(name, path) for name, path in taken.items()), *self.alone]

    def compare(self, known: Mapping[str, Path], *, colours: bool) -> None:
        """Say of images that have both which is taken, and which of them differ."""
        both = {name: path for name, path in known.items() if name in self.files}
        if not both:
            return
        differ = [name for name, path in both.items() if self._differs(name, path, colours=colours)]
        first = next(iter(differ or both))
        _log.log(
            logging.WARNING if differ else logging.INFO,
            "%s a label map and a file of Cellpose's GUI, such as %s and %s: the label maps are taken%s. "
            "--mask_filter %s takes the others.",
            *("1 image has" if len(both) == 1 else f"{len(both)} images have",),
            *(both[first].name, self.files[first].name),
            f"; the cells of {len(differ)} differ ({few_text(differ)})" if differ else "",
            SEG_ENDING,
        )

    def _differs(self, name: str, path: Path, *, colours: bool) -> bool:
        """Whether both can be read, and hold other cells; what is wrong with a label map is told later."""
        with suppress(DataError):
            return not same_cells(read_map(path, colours=colours), read_map(self.files[name]))
        return False
