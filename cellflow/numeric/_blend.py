"""The kernel that blends overlapping tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric._jit import kernel

__all__ = ["blend"]


@kernel
def blend(
    outputs: NDArray[np.float32],
    origins: NDArray[np.int64],
    weight: NDArray[np.float64],
    mean: NDArray[np.float32],
    total: NDArray[np.float64],
) -> None:
    """Weighted mean of tiles into `mean`, which is 0 at first, as `total`, their weights.

    Sums are float32 and their terms float64, tile by tile, as NumPy and so Cellpose add them.
    """
    n_tiles, n_channels, height, width = outputs.shape
    for tile in range(n_tiles):
        top, left = origins[tile, 0], origins[tile, 1]
        for y in range(height):
            for x in range(width):
                total[top + y, left + x] += weight[y, x]
        for channel in range(n_channels):
            for y in range(height):
                for x in range(width):
                    term = np.float64(outputs[tile, channel, y, x]) * weight[y, x]
                    before = np.float64(mean[channel, top + y, left + x])
                    mean[channel, top + y, left + x] = np.float32(before + term)
    for channel in range(n_channels):
        for y in range(total.shape[0]):
            for x in range(total.shape[1]):
                quotient = np.float64(mean[channel, y, x]) / total[y, x]
                mean[channel, y, x] = np.float32(quotient)
