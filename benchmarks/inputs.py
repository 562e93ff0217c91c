"""Inputs of the benchmarks: made-up fields of any size, and flows of a real network."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellflow.numeric.targets import labels_to_flows

SHARED = Path(__file__).resolve().parents[2] / "shared"


@dataclass(frozen=True, eq=False)
class Field:
    name: str
    flow: NDArray[np.float32]
    cellprob: NDArray[np.float32]
    labels: NDArray[np.int32]  # truth


def generated(shape: tuple[int, int], n_cells: int, seed: int = 0) -> Field:
    """Touching ellipses of about half the image, with a noisy flow such as a network gives."""
    rng = np.random.default_rng(seed)
    height, width = shape
    pitch = np.sqrt(height * width / n_cells)
    rows = round(height / pitch)
    columns = -(-n_cells // rows)
    labels = np.zeros(shape, dtype=np.int32)
    nearest = np.ones(shape)
    for index in rng.permutation(rows * columns)[:n_cells]:
        cy, cx = (np.array(divmod(index, columns)) + rng.uniform(0.3, 0.7, 2)) * (
            height / rows,
            width / columns,
        )
        major, minor = pitch * rng.uniform(0.40, 0.52), pitch * rng.uniform(0.30, 0.40)
        angle = rng.uniform(0, np.pi)
        reach = int(major) + 2
        box = (
            slice(max(0, int(cy) - reach), min(height, int(cy) + reach)),
            slice(max(0, int(cx) - reach), min(width, int(cx) + reach)),
        )
        y, x = np.ogrid[box]
        along = (np.cos(angle) * (y - cy) + np.sin(angle) * (x - cx)) / major
        across = (np.cos(angle) * (x - cx) - np.sin(angle) * (y - cy)) / minor
        distance = along**2 + across**2
        mine = distance < nearest[box]
        nearest[box][mine] = distance[mine]
        labels[box][mine] = index + 1
    _, dense = np.unique(labels, return_inverse=True)
    labels = dense.reshape(shape).astype(np.int32)
    noise = ndimage.gaussian_filter(rng.normal(size=(3, *shape)), (0, 2, 2)) * 5
    flow = ndimage.gaussian_filter(5 * labels_to_flows(labels), (0, 1, 1)) + 0.6 * noise[:2]
    cellprob = 12 * ndimage.gaussian_filter((labels > 0).astype(float), 1) - 6 + noise[2]
    name = f"generated {height} x {width}, {n_cells} cells"
    return Field(name, flow.astype(np.float32), cellprob.astype(np.float32), labels)


def have_real() -> str | None:
    """None, or why the real flows cannot be had."""
    for path in (SHARED / "models" / "usiigaci_unet", SHARED / "data" / "usiigaci"):
        if not path.exists():
            return f"{path.name} is not in ../shared"
    return None


def real(count: int) -> list[Field]:
    """Flows of a trained U-Net on phase-contrast images of 1022 x 1024."""
    from cellpose.io import imread
    from cellpose.models import CellposeModel

    logging.getLogger("cellpose").setLevel(logging.ERROR)
    model = CellposeModel(gpu=False, pretrained_model=str(SHARED / "models" / "usiigaci_unet"))
    fields = []
    for path in sorted((SHARED / "data" / "usiigaci" / "images").glob("*.png"))[:count]:
        _, flows, _ = model.eval(imread(str(path)), channels=[0, 0], compute_masks=False)
        flow = np.ascontiguousarray(flows[1]).astype(np.float32)
        cellprob = np.ascontiguousarray(flows[2]).astype(np.float32)
        labels = imread(str(path.parents[1] / "masks" / path.name)).astype(np.int32)
        fields.append(Field(f"real {path.stem}", flow, cellprob, labels))
    return fields
