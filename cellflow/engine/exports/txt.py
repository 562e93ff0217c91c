"""``txt/ID_cp_outlines.txt``: outlines as text, as Cellpose writes them."""

from __future__ import annotations

from pathlib import Path

from cellflow.engine.exports.export import ImageExport, PredictedImage
from cellflow.io.formats.text_outlines import TEXT_ENDING, write_text_outlines

__all__ = ["Txt"]


class Txt(ImageExport):
    """A line per cell; holes and further parts are lost."""

    path = "txt"
    content = "outlines as text"
    ending = TEXT_ENDING

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Write the outlines of one image."""
        write_text_outlines(self.file(folder, item.id), item.labels)
