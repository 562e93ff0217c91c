"""The crops of a training step with their targets as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cellflow.numeric.labels import outlines
from cellflow.report._figure import DPI, GREY, SKY, YELLOW, save_figure
from cellflow.types import shorten

__all__ = ["MAX_CROPS", "plot_batch"]

MAX_CROPS = 16
COLUMNS = 8
PANEL_INCHES = 224 / DPI  # a crop of the usual size pixel by pixel
TITLE_INCHES, KEY_INCHES, GAP_INCHES, MARGIN_INCHES = 0.5, 1.05, 0.06, 0.15
NAME_INCHES, NAME_LETTERS = 0.34, 30
MIN_WIDTH_INCHES = 8.6
PITCH_INCHES = PANEL_INCHES + GAP_INCHES
BAND_INCHES = NAME_INCHES + 2 * PANEL_INCHES + GAP_INCHES + 2.5 * GAP_INCHES

Floats = NDArray[np.float32]


def plot_batch(
    path: Path,
    images: Floats,
    unit_flows: Floats,
    foregrounds: Floats,
    *,
    title: str,
    names: Sequence[tuple[str, str]],
) -> None:
    """Write a PNG with what the network sees and what it is to learn.

    Each crop is shown with the outline of its foreground; beneath it is its flow, the hue for the
    direction and the brightness for the length.

    Parameters
    ----------
    path : Path
        File to write, atomically.
    images : (N, 2, S, S) float32 ndarray
        Normalised crops, 1 to 16; the second channel is laid over in blue unless it is 0 throughout.
    unit_flows : (N, 2, S, S) float32 ndarray
        Target flows, dY then dX, of length 1 inside cells.
    foregrounds : (N, S, S) float32 ndarray
        1 inside cells, 0 outside.
    title : str
        Title of the picture.
    names : sequence of (str, str)
        For every crop the id of its image, and a line about it.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or there are no crops or more than 16.
    """
    _check(images, unit_flows, foregrounds, len(names))
    columns = min(COLUMNS, len(images))
    bands = -(-len(images) // columns)
    width = max(MIN_WIDTH_INCHES, columns * PITCH_INCHES - GAP_INCHES + 2 * MARGIN_INCHES)
    height = TITLE_INCHES + bands * BAND_INCHES + KEY_INCHES
    figure = Figure(figsize=(width, height))
    figure.suptitle(
        title, fontsize=13, fontweight="bold", parse_math=False, y=1 - 0.12 / height, va="top"
    )
    with_second = bool(np.any(images[:, 1]))
    for index in range(len(images)):
        band, column = divmod(index, columns)
        left = (width - columns * PITCH_INCHES + GAP_INCHES) / 2 + column * PITCH_INCHES
        bottom = height - TITLE_INCHES - NAME_INCHES - band * BAND_INCHES - PANEL_INCHES
        side = PANEL_INCHES / width, PANEL_INCHES / height
        upper = figure.add_axes((left / width, bottom / height, *side))
        lower = figure.add_axes((left / width, (bottom - PITCH_INCHES) / height, *side))
        _show(upper, _picture(images[index], foregrounds[index]))
        text = "\n".join(shorten(part, NAME_LETTERS) for part in names[index])
        upper.set_title(text, fontsize=8, pad=3, parse_math=False)
        _show(lower, flow_colors(unit_flows[index]))
    _add_key(figure, width, height, with_second)
    save_figure(path, figure)


def flow_colors(unit_flow: Floats) -> NDArray[np.float64]:
    """Colour of each flow vector.

    Parameters
    ----------
    unit_flow : (2, H, W) float32 ndarray
        dY then dX.

    Returns
    -------
    (H, W, 3) float64 ndarray
        RGB from 0 to 1: red to the right, then with the clock through the colours; black where the
        length is 0, full colour where it is 1 or more.
    """
    d_y, d_x = np.nan_to_num(unit_flow.astype(np.float64))
    hue = np.mod(np.arctan2(d_y, d_x) / (2 * np.pi), 1.0)
    length = np.clip(np.hypot(d_y, d_x), 0, 1)
    return np.asarray(hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.85), length], axis=-1)))


def _picture(image: Floats, foreground: Floats) -> NDArray[np.float64]:
    grey = np.clip(np.nan_to_num(image[0].astype(np.float64)), 0, 1)
    picture = np.repeat(grey[..., np.newaxis], 3, axis=2)
    second = np.clip(np.nan_to_num(image[1].astype(np.float64)), 0, 1)[..., np.newaxis]
    picture = picture * (1 - 0.7 * second) + 0.7 * second * np.array(to_rgb(SKY))
    picture[outlines(foreground > 0.5)] = to_rgb(YELLOW)
    return np.asarray(picture, dtype=np.float64)


def _show(axes: Axes, picture: NDArray[np.float64]) -> None:
    axes.imshow(picture, vmin=0, vmax=1, interpolation="antialiased")
    axes.set_axis_off()


def _add_key(figure: Figure, width: float, height: float, with_second: bool) -> None:
    """Colour wheel and caption below the crops."""
    side = KEY_INCHES - 0.45
    left = (MARGIN_INCHES + 0.45) / width
    wheel = figure.add_axes((left, 0.22 / height, side / width, side / height))
    wheel.imshow(_wheel(), interpolation="antialiased")
    wheel.set_axis_off()
    for x, y, name in ((0.5, 1.13, "up"), (0.5, -0.13, "down"), (1.06, 0.5, "right")):
        across = "left" if name == "right" else "center"
        wheel.text(x, y, name, transform=wheel.transAxes, fontsize=7.5, ha=across, va="center")
    wheel.text(-0.06, 0.5, "left", transform=wheel.transAxes, fontsize=7.5, ha="right", va="center")
    second = "second channel in blue, " if with_second else ""
    caption = (
        f"Upper: the crop (black 0, white 1, as normalised), {second}outline of the foreground in yellow.\n"
        "Lower: the target flow. The hue is its direction, the brightness its length from 0 to 1."
    )
    text_left = (MARGIN_INCHES + 0.45 + side + 0.55) / width
    middle = (0.22 + side / 2) / height
    figure.text(text_left, middle, caption, fontsize=9, va="center", color=GREY)


def _wheel(size: int = 128) -> NDArray[np.float64]:
    """A disc in which each point has the colour of the vector from the centre to it, on white."""
    y, x = (np.mgrid[:size, :size] + 0.5) * 2 / size - 1
    disc = flow_colors(np.stack([y, x]).astype(np.float32))
    disc[np.hypot(y, x) > 1] = 1.0
    return disc


def _check(images: Floats, unit_flows: Floats, foregrounds: Floats, names: int) -> None:
    n, size = len(images), images.shape[2:]
    wanted = ((n, 2, *size), (n, 2, *size), (n, *size))
    found = (images.shape, unit_flows.shape, foregrounds.shape)
    if found != wanted or not 1 <= n <= MAX_CROPS:
        raise ValueError(
            f"expected images (N, 2, S, S), unit flows (N, 2, S, S) and foregrounds (N, S, S) with "
            f"N from 1 to {MAX_CROPS}, found {', '.join(map(str, found))}"
        )
    if names != n:
        raise ValueError(f"expected a name for each of {n} crops, found {names}")
