"""Training targets: the unit flow of a label map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric import _diffusion
from cellflow.numeric._jit import run_blocks
from cellflow.numeric._measure import AREA, BOX, measure
from cellflow.numeric.labels import compact

__all__ = ["labels_to_flows"]


def labels_to_flows(labels: Any) -> NDArray[np.float32]:
    """Unit flow towards the centre of every cell.

    Heat enters at the pixel of the cell nearest to its mean position, spreads over the cell's own
    pixels by a 3 x 3 mean for twice the sum of the sides of its box, and the flow is the direction in
    which the heat rises: the method of ``cellpose.dynamics.masks_to_flows_cpu``, in float32. Heat
    never crosses into another cell.

    Parameters
    ----------
    labels : (H, W) integer ndarray
        0 background. Gaps in the numbering do not matter.

    Returns
    -------
    unit_flow : (2, H, W) float32 ndarray
        dY and dX, of length 1 inside cells and 0 outside. It is 0 where the heat does not rise in any
        direction: in a cell of one pixel, at the centre of a symmetric cell, and in those parts of a
        label that are not connected to the part with its centre.

    Raises
    ------
    DataError
        If `labels` is not a label map.

    Examples
    --------
    >>> import numpy as np
    >>> from cellflow import labels_to_flows
    >>> labels = np.zeros((5, 5), dtype=np.int32)
    >>> labels[1:4, 1:4] = 1
    >>> labels_to_flows(labels)[0].round(2)  # dY: down above the centre, up below it
    array([[ 0.  ,  0.  ,  0.  ,  0.  ,  0.  ],
           [ 0.  ,  0.71,  1.  ,  0.71,  0.  ],
           [ 0.  ,  0.  ,  0.  ,  0.  ,  0.  ],
           [ 0.  , -0.71, -1.  , -0.71,  0.  ],
           [ 0.  ,  0.  ,  0.  ,  0.  ,  0.  ]], dtype=float32)
    """
    dense, n_labels = compact(labels)
    unit_flow = np.zeros((2, *dense.shape), dtype=np.float32)
    if not n_labels:
        return unit_flow
    stats = measure(dense, n_labels)
    cells = np.arange(1, n_labels + 1, dtype=np.int32)
    boxes = np.ascontiguousarray(stats[1:, BOX])
    assert (stats[1:, AREA] > 0).all()
    run_blocks(
        lambda _, a, b: _diffusion.flow_cells(dense, cells, boxes, a, b, unit_flow),
        len(cells),
        cells_per_block(len(cells)),
    )
    return unit_flow


def cells_per_block(n_cells: int) -> int:
    """Few enough blocks that starting one costs nothing, enough that threads end together."""
    return max(1, min(32, n_cells // 16))
