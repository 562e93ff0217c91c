"""Pictures of images with the outlines of a prediction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.numeric._runs import pixels_of_runs
from cellflow.numeric.labels import outlines
from cellflow.storage.atomic import atomic_path
from cellflow.types import Instances

__all__ = ["cell_masks", "color_bytes", "draw_outlines", "grey_or_rgb", "write_outlines"]

TRUE_COLOR, PREDICTED_COLOR = (0.0, 0.9, 0.35), (1.0, 0.25, 0.75)


def write_outlines(path: Path, image: NDArray[Any], labels: NDArray[Any]) -> None:
    """Write an RGB PNG of the image's own size with the outlines of a label map on it, atomically.

    Parameters
    ----------
    path : Path
        File to write, ends in .png.
    image : (H, W) or (H, W, C) ndarray
        Any real dtype. Three channels are shown as red, green and blue, each scaled by its own
        percentiles 0.5 and 99.5; the mean of any other number of channels is shown in grey.
    labels : (H, W) integer ndarray
        0 background. Lines are one pixel wide, inside the cells, in the pink of predictions, which is
        seen on dark and on bright pixels.

    Raises
    ------
    DataError
        If the label map is not of the image's size.
    """
    try:
        picture = draw_outlines(image, labels)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    with atomic_path(path) as temporary:
        temporary.write_bytes(imagecodecs.png_encode(picture))


def draw_outlines(image: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.uint8]:
    """The picture that `write_outlines` writes, ``(H, W, 3)``."""
    if image.ndim not in (2, 3) or image.shape[:2] != labels.shape:
        raise DataError(
            "Expected an image (H, W) or (H, W, C) and its label map (H, W), found the shapes "
            f"{image.shape} and {labels.shape}."
        )
    picture = grey_or_rgb(image)
    picture[outlines(labels)] = color_bytes(PREDICTED_COLOR)
    return picture


def grey_or_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """An image as it is shown, ``(H, W, 3)``: see `write_outlines`."""
    coloured = image.ndim == 3 and image.shape[2] == 3
    planes = [image[..., channel] for channel in range(3)] if coloured else [image]
    shades = [np.rint(255 * _grey(plane)).astype(np.uint8) for plane in planes]
    return np.stack(shades if coloured else shades * 3, axis=-1)


def cell_masks(
    cells: Instances,
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.bool_]]]:
    """Box and mask of every cell."""
    for starts, lengths in cells:
        y, x = np.divmod(pixels_of_runs(starts, lengths), cells.shape[1])
        box = slice(int(y.min()), int(y.max()) + 1), slice(int(x.min()), int(x.max()) + 1)
        mask = np.zeros([part.stop - part.start for part in box], dtype=np.bool_)
        mask[y - box[0].start, x - box[1].start] = True
        yield box, mask


def color_bytes(color: tuple[float, float, float]) -> NDArray[np.uint8]:
    """A colour as it is written into pixels, ``(3,)``."""
    return np.asarray(np.rint(255 * np.array(color)), dtype=np.uint8)


def _grey(image: NDArray[Any]) -> NDArray[np.float64]:
    plane = image.astype(np.float64)
    if plane.ndim == 3:
        plane = plane.mean(axis=2)
    low, high = np.percentile(plane, (0.5, 99.5))
    return np.asarray(np.clip((plane - low) / max(high - low, 1e-9), 0, 1), dtype=np.float64)
