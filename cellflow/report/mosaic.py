"""Validation images with their true and with their predicted cells, as two pictures of one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import imagecodecs
import numpy as np
from matplotlib.font_manager import FontProperties, findfont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

from cellflow.numeric.labels import outlines
from cellflow.numeric.score import hit_cells
from cellflow.report.overlays import (
    PREDICTED_COLOR,
    TRUE_COLOR,
    cell_masks,
    color_bytes,
    grey_or_rgb,
)
from cellflow.storage.atomic import atomic_path
from cellflow.storage.sizes import plural
from cellflow.types import Instances, shorten

__all__ = ["MAX_TILES", "Tile", "TilePair", "write_mosaic"]

MAX_TILES = 16
"""Images of a mosaic."""
COLUMNS = 4
SIDE = 360
"""Pixels of the longer side of an image in the mosaic."""
SEEN = 10
"""Pixels across a cell of middle size, at least: of an image where it would have fewer, the part with the most
cells is shown."""
DIM, FILL = 0.85, 0.3
"""Brightness of the images, and part of the colour in a cell that is missed or false."""
HEAD, CAPTION, FOOT, GAP, MARGIN = 40, 38, 34, 10, 12
"""Heights of the title, of the two lines over an image, and of the legend; spaces. In pixels."""
DARK, PALE, WHITE = (24, 24, 24), (185, 185, 185), (255, 255, 255)
NOTE_LETTERS, FEWEST = 16, 5
"""Letters of a cell type; letters to which a text is shortened at most."""

Bools = NDArray[np.bool_]
Colors = NDArray[np.uint8]


class TilePair(NamedTuple):
    """An image of a mosaic with its true, and with its predicted cells, and a line about each."""

    name: str
    true: Colors
    true_line: str
    predicted: Colors
    predicted_line: str


@dataclass(frozen=True, eq=False)
class Tile:
    """An image of a mosaic, made small once; what is predicted on it is drawn again and again.

    Attributes
    ----------
    name, note : str
        Id of the image, and what else is said of it: its cell type, or "".
    truth : Instances
        True cells of the whole image.
    picture : (h, w, 3) uint8 ndarray
        The image as it is shown.
    rows, columns : (h,), (w,) int64 ndarray
        The image's row and column that each of the picture shows.
    cells : (h, w) int32 ndarray
        Numbers of the true cells, 0 background.
    lines : (h, w) bool ndarray
        Their outlines.
    """

    name: str
    note: str
    truth: Instances
    picture: Colors
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    cells: NDArray[np.int32]
    lines: Bools

    @classmethod
    def of(cls, name: str, image: NDArray[Any], truth: Instances, note: str = "") -> Tile:
        """Make an image of shape ``(H, W)`` or ``(H, W, C)`` small."""
        top, left, height, width = _window(truth)
        scale = SIDE / max(height, width, 1)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        rows, columns = top + _centres(height, size[0]), left + _centres(width, size[1])
        shown = grey_or_rgb(image)[top : top + height, left : left + width]
        kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        picture = cv2.resize(shown, size[::-1], interpolation=kind)
        cells, lines = _small_cells(truth, rows, columns)
        return cls(
            name, note, truth, np.rint(picture * DIM).astype(np.uint8), rows, columns, cells, lines
        )

    def compare(self, labels: NDArray[Any], score: float) -> TilePair:
        """Draw truth and prediction, a label map of the whole image that has this score."""
        true_hit, predicted_hit = hit_cells(self.truth, labels)
        small = labels[np.ix_(self.rows, self.columns)]
        missed, false = (int(np.count_nonzero(~hit)) for hit in (true_hit, predicted_hit))
        true = self._drawn(self.lines, _of_pixels(~true_hit, self.cells), TRUE_COLOR)
        predicted = self._drawn(outlines(small), _of_pixels(~predicted_hit, small), PREDICTED_COLOR)
        right = len(predicted_hit) - false
        lines = (
            self._line(f"{plural(len(true_hit), 'cell')}, {missed} missed"),
            self._line(f"score {score:.2f}", f"{right} right, {false} false"),
        )
        return TilePair(self.name, true, lines[0], predicted, lines[1])

    def _line(self, *found: str) -> str:
        """With the type, and that this is not the whole image."""
        is_part = max(self.truth.shape) > _window_side(self.truth)
        parts = "part" * is_part, shorten(self.note, NOTE_LETTERS), *found
        return " · ".join(part for part in parts if part)

    def _drawn(self, lines: Bools, wrong: Bools, color: tuple[float, float, float]) -> Colors:
        picture = self.picture.copy()
        tinted = (1 - FILL) * picture[wrong] + FILL * 255 * np.array(color)
        picture[wrong] = np.rint(tinted).astype(np.uint8)
        picture[lines] = color_bytes(color)
        return picture


def write_mosaic(path: Path, pairs: Sequence[TilePair], *, title: str, predicted: bool) -> None:
    """Write a PNG with the true or the predicted cells of up to 16 images.

    The two pictures of the same pairs have one grid, so that they can be flipped. A missed cell (no
    prediction with an IoU above 0.5) and a false one are lightly filled.

    Parameters
    ----------
    path : Path
        File to write, atomically.
    pairs : sequence of TilePair
        What is drawn, at least one; those after the sixteenth are left out.
    title : str
        Title of the picture.
    predicted : bool
        Whether to show the predicted cells.
    """
    shown = pairs[:MAX_TILES]
    columns = min(COLUMNS, len(shown))
    tall, wide = (max(pair.true.shape[axis] for pair in shown) for axis in (0, 1))
    bands = -(-len(shown) // columns)
    across = max(columns * (wide + GAP) - GAP, 2 * SIDE) + 2 * MARGIN
    down = HEAD + bands * (CAPTION + tall + GAP) + FOOT
    canvas = Image.new("RGB", (across, down), DARK)
    text = ImageDraw.Draw(canvas)
    large = _font(17, bold=True)
    title = _fitting(title, large, across - 2 * MARGIN)
    text.text((across / 2, HEAD / 2), title, WHITE, large, "mm")
    for number, pair in enumerate(shown):
        band, column = divmod(number, columns)
        x, y = MARGIN + column * (wide + GAP), HEAD + band * (CAPTION + tall + GAP)
        bold = _font(12, bold=True)
        text.text((x, y), _fitting(pair.name, bold, wide), WHITE, bold)
        line = pair.predicted_line if predicted else pair.true_line
        text.text((x, y + 17), _fitting(line, _font(12), wide), PALE, _font(12))
        picture = pair.predicted if predicted else pair.true
        canvas.paste(Image.fromarray(picture), (x, y + CAPTION))
    _add_key(text, down - FOOT / 2 - 4, predicted=predicted)
    with atomic_path(path) as temporary:
        temporary.write_bytes(imagecodecs.png_encode(np.asarray(canvas), level=1))


def _add_key(text: ImageDraw.ImageDraw, y: float, *, predicted: bool) -> None:
    """Legend at this height."""
    color = tuple(color_bytes(PREDICTED_COLOR if predicted else TRUE_COLOR).tolist())
    tint = tuple(np.rint(FILL * np.array(color) + (1 - FILL) * 90).astype(int).tolist())
    names = ("predicted cell", "false") if predicted else ("true cell", "missed")
    x = float(MARGIN)
    for fill, name in zip((None, tint), names, strict=True):
        text.rectangle((x, y - 7, x + 14, y + 7), fill, color, 2)
        text.text((x + 22, y), name, PALE, _font(12), "lm")
        x += 50 + text.textlength(name, _font(12))
    text.text((x, y), "at IoU 0.5", PALE, _font(12), "lm")


def _fitting(words: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """A text, its middle left out as far as it is wider than that many pixels."""
    length = len(words)
    while length > FEWEST and font.getlength(shorten(words, length)) > width:
        length -= 1
    return shorten(words, length)


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font of the other pictures, which comes with matplotlib."""
    name = findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal"))
    return ImageFont.truetype(name, size)


def _of_pixels(of_cells: Bools, labels: NDArray[Any]) -> Bools:
    """What holds for a cell, for its pixels; not for the background."""
    return np.asarray(np.concatenate([[False], of_cells])[labels], np.bool_)


def _window(truth: Instances) -> tuple[int, int, int, int]:
    """First row and column, height and width of what is shown: where the most cell pixels are."""
    height, width = truth.shape
    side = _window_side(truth)
    tall, wide = min(height, side), min(width, side)
    y, x = np.divmod(truth.starts + truth.lengths // 2, max(1, width))
    best = -1, 0, 0
    for top in _steps(height, tall):
        for left in _steps(width, wide):
            inside = (y >= top) & (y < top + tall) & (x >= left) & (x < left + wide)
            found = int(truth.lengths[inside].sum())
            if found > best[0]:
                best = found, top, left
    return best[1], best[2], tall, wide


def _window_side(truth: Instances) -> int:
    """Pixels of the image that fit the mosaic, along one side."""
    if not len(truth):
        return max(truth.shape)
    diameter = 2 * np.sqrt(np.median(truth.areas) / np.pi)
    return max(SIDE, int(SIDE * diameter / SEEN))


def _steps(length: int, window: int) -> list[int]:
    """Where windows may begin: half a window apart, the last one at the end."""
    return sorted({*range(0, length - window, max(1, window // 2)), length - window})


def _centres(length: int, size: int) -> NDArray[np.int64]:
    """The pixel in the middle of each of `size` parts."""
    return ((np.arange(size) + 0.5) * length / size).astype(np.int64)


def _small_cells(
    truth: Instances, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> tuple[NDArray[np.int32], Bools]:
    """Numbers and outlines of the cells at the rows and columns that are shown."""
    cells = np.zeros((len(rows), len(columns)), np.int32)
    lines = np.zeros(cells.shape, np.bool_)
    for number, (box, mask) in enumerate(cell_masks(truth), 1):
        y, x = (
            slice(*np.searchsorted(places, (part.start, part.stop)))
            for places, part in zip((rows, columns), box, strict=True)
        )
        small = mask[np.ix_(rows[y] - box[0].start, columns[x] - box[1].start)]
        cells[y, x][small] = number
        lines[y, x] |= small & ~binary_erosion(small)
    return cells, lines
