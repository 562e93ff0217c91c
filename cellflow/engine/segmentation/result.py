"""What is predicted for an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.engine.segmentation.cell_table import measure_cells
from cellflow.engine.segmentation.recognition import UNKNOWN, Recognition
from cellflow.types import one_line

__all__ = ["Prediction"]


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
    channels : tuple of int
        What was looked at, as ``--chan`` and ``--chan2``.

    Examples
    --------
    `Model.predict` makes them; here one by hand.

    >>> import numpy as np
    >>> from cellflow import Prediction
    >>> labels = np.array([[1, 1, 0], [1, 1, 2]])
    >>> none = np.zeros((2, 3), dtype=np.float32)
    >>> prediction = Prediction(np.stack([none, none]), none, none, labels, 2.0, none)
    >>> prediction.cells["area"].tolist()
    [4, 1]
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
    channels: tuple[int, int] = (0, 0)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per cell: area, place, shape, intensity, confidence; see `measure_cells`."""
        return measure_cells(
            self.labels, intensity=self.intensity, cellprob=self.cellprob,
            disagreement=self.disagreement, cell_type=self.cell_type, diameter=self.diameter,
            pixel_area=self.pixel_area,
        )  # fmt: skip
