"""Pictures of images with outlines: true and predicted ones side by side, or those of a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.numeric.labels import outlines
from cellflow.storage.atomic import atomic_path

__all__ = ["Panel", "draw_outlines", "write_outlines", "write_overlays"]

TRUE_COLOR, PREDICTED_COLOR = (0.0, 0.9, 0.35), (1.0, 0.25, 0.75)


class Panel(NamedTuple):
    """One image of a picture, with true and predicted label maps ``(H, W)``."""

    title: str
    image: NDArray[Any]
    truth: NDArray[np.int32]
    predicted: NDArray[np.int32]


def write_overlays(path: Path, panels: list[Panel]) -> None:
    """Write a PNG with each image in the upper row and its outlines in the lower row.

    Parameters
    ----------
    path : Path
        File to write.
    panels : list of Panel
        At least one.
    """
    figure = Figure(figsize=(4 * len(panels), 8.6), layout="constrained")
    axes = figure.subplots(2, len(panels), squeeze=False)
    for column, panel in enumerate(panels):
        grey = _grey(panel.image)
        axes[0, column].imshow(grey, cmap="gray", vmin=0, vmax=1)
        axes[0, column].set_title(panel.title)
        axes[1, column].imshow(_overlay(grey, panel.truth, panel.predicted))
    for axis in axes.flat:
        axis.set_axis_off()
    names = (("truth", TRUE_COLOR), ("predicted", PREDICTED_COLOR), ("both", (1.0, 1.0, 1.0)))
    handles = [Line2D([], [], color=color, label=name, linewidth=3) for name, color in names]
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=True)
    legend.get_frame().set_facecolor("0.75")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


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
    coloured = image.ndim == 3 and image.shape[2] == 3
    planes = [image[..., channel] for channel in range(3)] if coloured else [image]
    shades = [np.rint(255 * _grey(plane)).astype(np.uint8) for plane in planes]
    picture: NDArray[np.uint8] = np.stack(shades if coloured else shades * 3, axis=-1)
    picture[outlines(labels)] = np.rint(255 * np.array(PREDICTED_COLOR)).astype(np.uint8)
    return picture


def _overlay(
    grey: NDArray[np.float64], truth: NDArray[np.int32], predicted: NDArray[np.int32]
) -> NDArray[np.float64]:
    picture = np.repeat(grey[..., np.newaxis] * 0.8, 3, axis=2)
    true, found = outlines(truth), outlines(predicted)
    picture[true] = TRUE_COLOR
    picture[found] = PREDICTED_COLOR
    picture[true & found] = 1.0
    return picture


def _grey(image: NDArray[Any]) -> NDArray[np.float64]:
    plane = image.astype(np.float64)
    if plane.ndim == 3:
        plane = plane.mean(axis=2)
    low, high = np.percentile(plane, (0.5, 99.5))
    return np.asarray(np.clip((plane - low) / max(high - low, 1e-9), 0, 1), dtype=np.float64)
