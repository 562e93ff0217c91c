"""From flows to labels with the settings of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.config import MaskConfig
from cellflow.numeric.dynamics import flows_to_labels

__all__ = ["make_labels", "niter_of"]


NITER_AT_30_PIXELS = 200
"""Steps that pixels follow the flow per 30 pixels of diameter, as in ``CellposeModel.eval``."""


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
    options: dict[str, Any] = {**vars(mask), "niter": niter_of(mask, diameter)}
    # a network at the start of its training puts out short flows
    return flows_to_labels(flow, cellprob, **options, check_scale=False)


def niter_of(mask: MaskConfig, diameter: float) -> int:
    """Steps that pixels follow the flow: the config's, else as many as the diameter asks for."""
    return mask.niter or max(1, int(NITER_AT_30_PIXELS * diameter / 30))
