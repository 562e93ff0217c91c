"""Truth and prediction over an image: what was found, what was missed, what is false."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from cellflow.errors import DataError
from cellflow.numeric.matching import as_instances
from cellflow.numeric.score import competition_score, hit_cells
from cellflow.report._figure import DPI, save_figure
from cellflow.report.overlays import (
    PREDICTED_COLOR,
    TRUE_COLOR,
    cell_masks,
    color_bytes,
    grey_or_rgb,
)
from cellflow.types import Instances, shorten

__all__ = ["Comparison", "comparison_picture", "write_comparison", "write_overview"]

MAX_SHOWN = 8
"""Images of an overview."""
SIDE = 800
"""Smaller images are enlarged until their longer side has so many pixels."""
LINE = 2
"""Width of lines in pixels; that of cells which are missed or false is one more."""
FILL = 0.3
"""Part of the colour in a cell that is missed or false."""
CAPTION, LEGEND, MARGIN = 62, 44, 8
"""Heights in pixels of the text above and below a picture, and the space around it."""
COLUMNS, PANEL_INCHES, PANEL_SIDE = 4, 3.6, 260

Bools = NDArray[np.bool_]
Colors = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Comparison:
    """One image with its true and its predicted cells.

    Attributes
    ----------
    name : str
        Id of the image.
    image : (H, W) or (H, W, C) ndarray
        Any real dtype. Three channels are shown in colour, the mean of any other number in grey.
    truth, predicted : Instances or (H, W) integer ndarray
        Cells, which may overlap as `Instances`.

    Raises
    ------
    DataError
        If they are not all of one size.
    """

    name: str
    image: NDArray[Any]
    truth: Instances | NDArray[Any]
    predicted: Instances | NDArray[Any]

    def __post_init__(self) -> None:
        sizes = [self.image.shape[:2], self.truth.shape, self.predicted.shape]
        if len(set(sizes)) > 1:
            found = ", ".join(" x ".join(map(str, size)) for size in sizes)
            raise DataError(
                f"image {self.name}: expected image, truth and prediction of one size (height x width), "
                f"found {found}"
            )

    @cached_property
    def hits(self) -> tuple[Bools, Bools]:
        """Which true and which predicted cells hit any of the other side at IoU 0.5."""
        return hit_cells(self.truth, self.predicted)

    @cached_property
    def score(self) -> float:
        """Competition score."""
        return competition_score(self.truth, self.predicted).mean

    @property
    def counts(self) -> str:
        """What was found and what not, in words."""
        found, right = (int(np.count_nonzero(hit)) for hit in self.hits)
        true, predicted = (len(hit) for hit in self.hits)
        cells = "1 true cell" if true == 1 else f"{true} true cells"
        return f"{cells}: {found} found, {true - found} missed; {predicted - right} false"


def write_comparison(path: Path, item: Comparison) -> None:
    """Write a PNG of an image with its true and predicted cells, a caption and a legend.

    Every pixel of the image is shown as one, or as a square of several where the image is small. Lines
    lie inside their cells. A missed cell (no prediction with an IoU above 0.5) and a false one are
    lightly filled and have thicker lines.

    Parameters
    ----------
    path : Path
        File to write, atomically.
    item : Comparison
        What is drawn.
    """
    picture = _draw(item, _scale(item, SIDE), LINE)
    height, width = picture.shape[:2]
    across = max(SIDE, width) + 2 * MARGIN
    figure = Figure(figsize=(across / DPI, (height + CAPTION + LEGEND) / DPI), dpi=DPI)
    figure.figimage(picture, (across - width) // 2, LEGEND)
    tall = height + CAPTION + LEGEND
    place: dict[str, Any] = {"va": "top", "ha": "center", "parse_math": False}
    figure.text(0.5, 1 - 8 / tall, shorten(item.name, 90), weight="bold", size=11, **place)
    text = f"score {item.score:.2f}    {item.counts} (at IoU 0.5)"
    figure.text(0.5, 1 - 34 / tall, text, size=10, **place)
    _add_legend(figure)
    save_figure(path, figure)


def write_overview(path: Path, items: Sequence[Comparison], *, title: str = "") -> None:
    """Write a PNG with up to 8 images: each as it is, and beneath it with its cells.

    Parameters
    ----------
    path : Path
        File to write, atomically.
    items : sequence of Comparison
        What is drawn, at least one; those after the eighth are left out.
    title : str
        Title of the picture.
    """
    shown = items[:MAX_SHOWN]
    columns = min(COLUMNS, len(shown))
    bands = -(-len(shown) // columns)
    size = (max(PANEL_INCHES * columns, 7.2), (2 * PANEL_INCHES + 0.6) * bands + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=12, fontweight="bold", parse_math=False)
    panels = figure.subplots(2 * bands, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for index, item in enumerate(shown):
        band, column = divmod(index, columns)
        # lines that are seen in a panel, whatever it enlarges or reduces the image by
        scale = _scale(item, PANEL_SIDE)
        width = max(1, scale * max(item.image.shape[:2]) // PANEL_SIDE)
        upper, lower = panels[2 * band, column], panels[2 * band + 1, column]
        upper.imshow(grey_or_rgb(item.image), interpolation="antialiased")
        upper.set_title(
            f"{shorten(item.name, 34)}\nscore {item.score:.2f}", fontsize=9, parse_math=False
        )
        lower.imshow(_draw(item, scale, width), interpolation="antialiased")
        lower.set_title(item.counts, fontsize=8)
    _add_legend(figure)
    save_figure(path, figure)


def comparison_picture(item: Comparison, side: int) -> Colors:
    """The image with its true and its predicted cells, ``(H, W, 3)``, as `write_comparison` draws them.

    Lines are as wide as they must be to have `LINE` pixels where the picture is reduced to `side`.

    Parameters
    ----------
    item : Comparison
        One image.
    side : int
        Smaller images are enlarged, by a whole number, until their longer side has so many pixels.
    """
    scale = _scale(item, side)
    longer = scale * max(item.image.shape[:2])
    return _draw(item, scale, max(1, round(LINE * longer / side)))


def _scale(item: Comparison, side: int) -> int:
    """By what an image is enlarged so that its longer side has at least so many pixels."""
    return -(-side // max(item.image.shape[:2]))


def _draw(item: Comparison, scale: int, width: int) -> Colors:
    """The image, every pixel as a square of `scale` pixels, with lines `width` pixels wide."""
    picture = _enlarged(np.rint(grey_or_rgb(item.image) * 0.85).astype(np.uint8), scale)
    lines = np.zeros((2, *picture.shape[:2]), dtype=np.bool_)
    sides = zip((item.truth, item.predicted), item.hits, (TRUE_COLOR, PREDICTED_COLOR), strict=True)
    for line, (cells, hits, color) in zip(lines, sides, strict=True):
        for (box, mask), hit in zip(cell_masks(as_instances(cells)), hits, strict=True):
            place = tuple(slice(scale * part.start, scale * part.stop) for part in box)
            inside = _enlarged(mask, scale)
            line[place] |= inside & ~binary_erosion(inside, iterations=width + (not hit))
            if not hit:
                part = picture[place]
                tinted = (1 - FILL) * part[inside] + FILL * color_bytes(color)
                part[inside] = np.rint(tinted).astype(np.uint8)
    true, predicted = lines
    picture[true] = color_bytes(TRUE_COLOR)
    picture[predicted] = color_bytes(PREDICTED_COLOR)
    picture[true & predicted] = 255
    return picture


def _enlarged(array: NDArray[Any], scale: int) -> NDArray[Any]:
    return np.asarray(array.repeat(scale, axis=0).repeat(scale, axis=1))


def _add_legend(figure: Figure) -> None:
    lines = (("truth", TRUE_COLOR), ("prediction", PREDICTED_COLOR), ("both", (1.0, 1.0, 1.0)))
    fills = (("missed cell", TRUE_COLOR), ("false cell", PREDICTED_COLOR))
    handles: list[Any] = [
        Line2D([], [], color=color, label=name, linewidth=3) for name, color in lines
    ]
    handles += [
        Patch(facecolor=(*color, FILL), edgecolor=color, linewidth=2, label=name)
        for name, color in fills
    ]
    constrained = figure.get_layout_engine() is not None
    legend = figure.legend(
        handles=handles, loc="outside lower center" if constrained else "lower center",
        ncols=len(handles), frameon=True, fontsize=9,
    )  # fmt: skip
    legend.get_frame().set_facecolor("0.75")
