"""``seg/ID_seg.npy``: cells and flows for the GUI of Cellpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cellflow.engine.exports.export import ImageExport, PredictedImage
from cellflow.engine.segmentation.result import Prediction
from cellflow.io.formats.seg_npy import write_seg_npy
from cellflow.numeric.flow_picture import flow_picture
from cellflow.numeric.normalize import normalize_percentile

__all__ = ["GuiFiles"]


class GuiFiles(ImageExport):
    """Files that Cellpose's GUI opens, to correct cells or to move the thresholds."""

    path = "seg"
    content = "files for Cellpose's GUI"
    ending = "_seg.npy"
    from_labels = False  # the flows are of the network's output

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Write one image."""
        made = item.predicted
        write_seg_npy(
            self.file(folder, item.id), item.labels, image=item.path, flows=_flows(made),
            diameter=made.diameter, channels=made.channels,
        )  # fmt: skip


def _flows(prediction: Prediction) -> list[Any]:
    """Flows in the form of ``cellpose.io.masks_flows_to_seg``, the last for the GUI of Cellpose 3.

    Cellpose 4's GUI makes masks anew from the third and the fourth, which that of Cellpose 3 does not look at.
    """
    logit = prediction.cellprob
    grey = (255 * np.clip(normalize_percentile(logit[np.newaxis])[0], 0, 1)).astype(np.uint8)
    picture = flow_picture(prediction.flow)
    fields = np.concatenate([prediction.flow, logit[np.newaxis]]).astype(np.float32)
    return [*(part[np.newaxis] for part in (picture, grey, fields[:2], fields[2])), fields]
