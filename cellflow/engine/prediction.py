"""What is predicted for an image, and the mask step that live and stored flows share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.config import MaskConfig
from cellflow.engine.cells import measure_cells
from cellflow.numeric.dynamics import flows_to_labels
from cellflow.types import one_line

__all__ = ["UNKNOWN", "Prediction", "Recognition", "make_labels", "niter_of"]

NITER_AT_30_PIXELS = 200
"""Steps that pixels follow the flow per 30 pixels of diameter, as in ``CellposeModel.eval``."""


class Recognition(NamedTuple):
    """What the members' style vectors say of an image.

    `probabilities` maps cell types to their mean probability over the members; `cell_type` is the most
    probable one, empty where that is unsure; `diameter` is the geometric mean of the members' estimates
    in pixels, 0 where there is none.
    """

    cell_type: str
    probabilities: dict[str, float]
    diameter: float


UNKNOWN = Recognition("", {}, 0.0)


@one_line
@dataclass(frozen=True, eq=False)
class Prediction:
    """What was predicted for one image, at its native size.

    Attributes
    ----------
    flow : (2, H, W) float32 ndarray
        Mean flow of the members, dY then dX, 5 times the unit flow.
    cellprob : (H, W) float32 ndarray
        Mean logit.
    disagreement : (H, W) float32 ndarray
        How far the members are apart at each pixel; 0 for a single member.
    labels : (H, W) int32 ndarray
        Label map, 0 background.
    diameter : float
        Diameter in pixels that was used, the mean over members.
    intensity : (H, W) float32 ndarray
        The segmented channel in the image's own units.
    cell_type : str
        Cell type whose settings were used; empty where it is unknown or unsure.
    recognition : Recognition
        What the style vectors say.
    pixel_area : float
        Square micrometres of a pixel, nan where they are unknown.
    """

    flow: NDArray[np.float32]
    cellprob: NDArray[np.float32]
    disagreement: NDArray[np.float32]
    labels: NDArray[np.int32]
    diameter: float
    intensity: NDArray[np.float32]
    cell_type: str = ""
    recognition: Recognition = UNKNOWN
    pixel_area: float = math.nan

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per cell: area, place, shape, intensity, confidence; see `measure_cells`."""
        return measure_cells(
            self.labels,
            intensity=self.intensity,
            cellprob=self.cellprob,
            disagreement=self.disagreement,
            cell_type=self.cell_type,
            diameter=self.diameter,
            pixel_area=self.pixel_area,
        )


def make_labels(
    flow: NDArray[Any], cellprob: NDArray[Any], diameter: float, mask: MaskConfig
) -> NDArray[np.int32]:
    """The mask step with a config's thresholds, for live or stored flows.

    Parameters
    ----------
    flow : (2, H, W) ndarray
        5 times the unit flow.
    cellprob : (H, W) ndarray
        Logit.
    diameter : float
        Diameter in pixels; sets the number of steps unless the config does.
    mask : MaskConfig
        Thresholds.
    """
    return flows_to_labels(
        flow,
        cellprob,
        cellprob_threshold=mask.cellprob_threshold,
        flow_threshold=mask.flow_threshold,
        min_size=mask.min_size,
        max_size_fraction=mask.max_size_fraction,
        score_per_pixel=mask.score_per_pixel,
        fill_holes=mask.fill_holes,
        niter=niter_of(mask, diameter),
        check_scale=False,  # a network at the start of its training puts out short flows
    )


def niter_of(mask: MaskConfig, diameter: float) -> int:
    """Steps that pixels follow the flow: the config's, else as many as the diameter asks for."""
    return mask.niter or max(1, int(NITER_AT_30_PIXELS * diameter / 30))
