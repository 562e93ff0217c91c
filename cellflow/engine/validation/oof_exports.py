"""Files for other tools from out-of-fold predictions, in the layout of the result of `cellflow predict`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.engine.exports import EXPORTS
from cellflow.engine.exports.export import PARTS, Origin, PredictedImage
from cellflow.engine.runs.next_command import run_word
from cellflow.engine.runtime.progress_lines import follow
from cellflow.engine.segmentation.result import Prediction
from cellflow.errors import RunError
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.io.formats.dataset_folder import dataset_source
from cellflow.io.images import read_labels, write_labels
from cellflow.io.source import SourceImage
from cellflow.numeric.normalize import select_channels
from cellflow.storage.atomic import atomic_folder
from cellflow.storage.run_folder import RunFolder

__all__ = ["EXPORT_FOLDER", "check_exportable", "need_flows", "write_oof_exports"]

EXPORT_FOLDER = "export"


def need_flows(names: Sequence[str]) -> bool:
    """Whether some of these exports are made of more than label maps."""
    return any(not EXPORTS[name].from_labels for name in names)


def check_exportable(run: RunFolder, names: Sequence[str]) -> None:
    """Refuse exports of what a pass does not have any more, rather than make another pass unasked.

    Raises
    ------
    RunError
        If label maps are gone, or flows where one of the exports is made of them.
    """
    needed = [run.oof / "masks"] + [run.flows] * need_flows(names)
    for folder in needed:
        if not folder.is_dir():
            raise RunError(
                f"{folder} is gone, and --export {' '.join(names)} is made of it. Predict all images again with: "
                f"cellflow oof {run_word(run)}",
                path=folder,
            )


def write_oof_exports(
    run: RunFolder,
    dataset: Dataset,
    scores: pd.DataFrame,
    names: Sequence[str],
    channels: tuple[int, int],
) -> Path:
    """Write exports of a pass that is complete, from its stored flows and label maps.

    Parameters
    ----------
    run : RunFolder
        The run; its folder ``oof/export`` is written, whole or not at all, and an earlier one replaced.
    dataset : Dataset
        Its data.
    scores : DataFrame
        A row per image, as in ``oof/scores.csv``.
    names : sequence of str
        Names of `EXPORTS`.
    channels : tuple of int
        ``--chan`` and ``--chan2`` of the models.

    Returns
    -------
    Path
        The folder.
    """
    flows = (
        FlowStore(run.flows) if need_flows(names) else None
    )  # cellflow prune may have removed them
    images = dataset_source(dataset, truth=False).images
    stored = _StoredPass(run.oof, images, flows, channels)
    exports = [export for name, export in EXPORTS.items() if name in names]
    types = dict(zip(scores["id"], scores["predicted_type"], strict=True))
    target = run.oof / EXPORT_FOLDER
    with atomic_folder(target, replace=True) as folder:
        for name in follow(types, EXPORT_FOLDER, brief=True):
            item = stored.image(name, types[name])
            for export in exports:
                export.write(folder, item)
                if export.keeps_labels:
                    write_labels(folder / export.path / f"{name}.tif", item.labels, item.pixel_size)
        for export in exports:
            export.finish(folder, list(types), stored.labels)
        shutil.rmtree(folder / PARTS, ignore_errors=True)
    return target


@dataclass(frozen=True)
class _StoredPass:
    """What a pass has left of its images."""

    folder: Path
    images: Mapping[str, SourceImage]
    flows: FlowStore | None
    channels: tuple[int, int]

    def labels(self, name: str) -> NDArray[np.int32]:
        """The label map of an image."""
        return read_labels(self.folder / "masks" / f"{name}.tif")

    def image(self, name: str, cell_type: str) -> PredictedImage:
        """An image with its prediction as it was, but for the flows, which have float16."""
        image, labels = self.images[name].pixels(), self.labels(name)
        prediction = None
        if self.flows is not None:
            flow, cellprob = (part.astype(np.float32) for part in self.flows.read(name))
            prediction = Prediction(
                flow,
                cellprob,
                np.zeros_like(cellprob),  # of one member
                labels,
                self.flows.number(name, "diameter"),
                select_channels(image, *self.channels)[0],
                cell_type,
                channels=self.channels,
            )
        origin = Origin.of(self.images[name])
        return PredictedImage(name, image, labels, prediction=prediction, **origin._asdict())
