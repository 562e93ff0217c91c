"""A run whose out-of-fold predictions were written by hand, for what is made of them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from skimage.io import imsave

import cellflow
from cellflow import FoldsConfig, MaskConfig, ModelConfig, PrepareConfig
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.io.images import write_labels
from cellflow.numeric.labels import compact
from cellflow.numeric.score import competition_score
from cellflow.numeric.targets import labels_to_flows
from cellflow.storage.run_folder import RunFolder

Labels = np.ndarray


def dataset_of(folder: Path, images: Mapping[str, tuple[Any, Labels]], *, k: int = 2) -> Dataset:
    """Images with their label maps, prepared and split."""
    source, data = folder / "source", folder / "data"
    for name, (pixels, labels) in images.items():
        (source / "images").mkdir(parents=True, exist_ok=True)
        imsave(source / "images" / f"{name}.tif", pixels, check_contrast=False)
        write_labels(source / "masks" / f"{name}.tif", labels)
    cellflow.prepare(PrepareConfig(source=source, out=data))
    if len(images) > 1:
        cellflow.make_folds(FoldsConfig(data=data, k=k))
    else:
        (data / "folds.csv").write_text(f"id,fold\n{next(iter(images))},0\n")
    return Dataset.open(data)


def run_of(
    dataset: Dataset, folder: Path, predicted: Mapping[str, Labels], **model: Any
) -> RunFolder:
    """A run with these label maps as its out-of-fold predictions, and flows that fit them."""
    run, folds = RunFolder(folder), dataset.folds()
    (run.oof / "masks").mkdir(parents=True)
    shutil.copyfile(dataset.folds_path, run.folds)
    store, rows = FlowStore(run.flows, mode="w"), []
    for name in dataset.ids:
        labels = compact(predicted[name])[0]
        write_labels(run.oof / "masks" / f"{name}.tif", labels)
        logit = np.where(labels > 0, 4.0, -4.0)
        store.write(name, 5 * labels_to_flows(labels), logit, model_hash="none", diameter=20.0)
        score = competition_score(dataset.instances(name), labels)
        rows.append(
            {
                "id": name,
                "fold": int(folds[name]),
                "cell_type": dataset.images.get("cell_type", pd.Series(dtype=str)).get(name, ""),
                "score": score.mean,
                "n_true": len(dataset.instances(name)),
                "n_predicted": int(labels.max(initial=0)),
                "n_found": int(score.tp[0, 0]),
                "n_missed": int(score.fn[0, 0]),
                "n_false": int(score.fp[0, 0]),
            }
        )
    pd.DataFrame(rows).to_csv(run.scores, index=False)
    run.write_record(
        {
            "data": str(dataset.path.resolve()),
            "data_hash": dataset.hash,
            "folds_hash": dataset.folds_hash(),
            "folds": sorted({int(fold) for fold in folds}),
            "config": {"mask": asdict(MaskConfig()), "model": asdict(ModelConfig(**model))},
        }
    )
    return run


def squares(shape: tuple[int, int], *boxes: tuple[int, int, int, int]) -> Labels:
    """A label map with a cell in each box (top, left, bottom, right)."""
    labels = np.zeros(shape, np.int32)
    for number, (top, left, bottom, right) in enumerate(boxes, 1):
        labels[top:bottom, left:right] = number
    return labels
