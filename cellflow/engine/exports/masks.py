"""``masks/ID.tif``: label maps."""

from __future__ import annotations

from cellflow.engine.exports.export import Export
from cellflow.storage.sizes import plural

__all__ = ["Masks"]


class Masks(Export):
    """Label maps that stay when all images are done; the result folder writes them."""

    path = "masks"
    content = "label maps"
    keeps_labels = True

    def summary(self, images: int) -> str:
        """The folder and how many there are."""
        return f"{self.path}/ ({plural(images, 'label map')})"
