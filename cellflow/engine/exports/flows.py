"""``flows/ID.npz``: the network's output, in the form that joins an ensemble later."""

from __future__ import annotations

from pathlib import Path

from cellflow.engine.exports.export import ImageExport, PredictedImage
from cellflow.io.foreign_flows import write_foreign_flows

__all__ = ["FlowFiles"]


class FlowFiles(ImageExport):
    """Mean flow and logit of every image, which ``cellflow ensemble --flows`` takes."""

    path = "flows"
    content = "flows for --flows"
    ending = ".npz"
    from_labels = False

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Write one image."""
        assert item.prediction is not None
        write_foreign_flows(
            self.file(folder, item.id), item.prediction.flow, item.prediction.cellprob
        )
