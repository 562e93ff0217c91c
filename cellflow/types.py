"""Plain data shared by every layer: the cells of an image as runs, and scores as counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import shorten

__all__ = ["Box", "Instances", "Score", "one_line", "shorten"]

Class = TypeVar("Class", bound=type)
LINE = 118
"""Characters that the representation of a result takes at most."""
_ITEM, _FEW = 40, 12


def one_line(cls: Class) -> Class:
    """Give a dataclass a representation that fits a line: arrays and tables by their size."""

    def represent(self: Any) -> str:
        parts = [f"{item.name}={_brief(getattr(self, item.name))}" for item in fields(self)]
        text = f"{type(self).__name__}({', '.join(parts)})"
        return text if len(text) <= LINE else f"{text[: LINE - 4]}...)"

    cls.__repr__ = represent  # type: ignore[method-assign, assignment]
    return cls


def _brief(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, np.generic):
        value = value.item()
    if hasattr(value, "shape") and hasattr(value, "dtype") and value.shape:
        return f"{value.dtype} {'x'.join(map(str, value.shape))}"
    if hasattr(value, "columns"):
        return f"table of {len(value)} rows"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Path):
        return shorten(str(value), _ITEM)
    if isinstance(value, (list, tuple, dict)) and not hasattr(value, "_fields"):
        few = not isinstance(value, dict) and len(value) <= _FEW
        text = repr(value) if few and all(isinstance(item, (int, str)) for item in value) else ""
        return text if text and len(text) <= _ITEM else f"<{len(value)}>"
    if isinstance(value, str):
        return repr(shorten(value, _ITEM))
    if isinstance(value, (int, type(None))):
        return repr(value)
    name = getattr(value, "name", None)
    return f"{type(value).__name__} {name}" if isinstance(name, str) else type(value).__name__


class Box(NamedTuple):
    """A rectangle of an image: rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends excluded.

    Attributes
    ----------
    top, bottom : int
        The first row, and the row after the last.
    left, right : int
        The first column, and the column after the last.

    Examples
    --------
    >>> box = Box(top=2, bottom=5, left=0, right=4)
    >>> box.shape
    (3, 4)
    >>> box.grown(1, (10, 10))
    Box(top=1, bottom=6, left=0, right=5)
    >>> box.intersection(Box(4, 9, 1, 2))
    Box(top=4, bottom=5, left=1, right=2)
    """

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """``(rows, columns)``; 0 on an axis that ends at or before its start."""
        return max(self.bottom - self.top, 0), max(self.right - self.left, 0)

    @property
    def slices(self) -> tuple[slice, slice]:
        """What cuts the box out of an array ``(H, W, ...)``; rows and columns are from 0 on."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def is_empty(self) -> bool:
        """Whether the box holds no pixel."""
        return self.bottom <= self.top or self.right <= self.left

    def grown(self, margin: int, shape: tuple[int, int]) -> Box:
        """The box with `margin` more pixels on each side, as far as an image of `shape` goes."""
        whole = Box(0, shape[0], 0, shape[1])
        return Box(
            self.top - margin, self.bottom + margin, self.left - margin, self.right + margin
        ).intersection(whole)

    def intersection(self, other: Box) -> Box:
        """The pixels that both boxes hold; an empty box where they share none."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Box(top, max(bottom, top), left, max(right, left))


@one_line
@dataclass(frozen=True, eq=False)
class Instances:
    """The cells of one image as runs of pixels; cells may overlap.

    Ground truth is kept and scored in this form, because a label map cannot hold overlaps.

    Attributes
    ----------
    shape : tuple of int
        ``(H, W)`` of the image.
    starts, lengths : (R,) int64 ndarray
        Runs of pixels in the flattened row-major image, 0-indexed. The runs of one cell are sorted,
        do not overlap and have a length of at least 1.
    offsets : (n + 1,) int64 ndarray
        Runs of cell ``i`` are ``offsets[i]:offsets[i + 1]``.

    See Also
    --------
    cellflow.numeric.labels.instances_from_labels, cellflow.numeric.rle.instances_from_rles

    Examples
    --------
    >>> from cellflow.numeric.rle import instances_from_rles
    >>> cells = instances_from_rles(["1 2 5 2", "6 1"], shape=(2, 4))
    >>> len(cells), cells.areas.tolist()
    (2, [4, 1])
    >>> starts, lengths = cells.runs(0)
    >>> starts.tolist(), lengths.tolist()
    ([0, 4], [2, 2])
    """

    shape: tuple[int, int]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def runs(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Starts and lengths of the runs of one cell."""
        part = slice(self.offsets[index], self.offsets[index + 1])
        return self.starts[part], self.lengths[part]

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        return (self.runs(index) for index in range(len(self)))

    @property
    def areas(self) -> NDArray[np.int64]:
        """Pixels per cell, ``(n,)``."""
        total = np.concatenate([[0], np.cumsum(self.lengths)])
        return np.asarray(np.diff(total[self.offsets]), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Score:
    """Counts of one metric over images and thresholds, and the means made from them.

    Attributes
    ----------
    thresholds : (T,) float64 ndarray
        IoU thresholds.
    tp, fp, fn : (N, T) int64 ndarray
        True positives, false positives and false negatives per image and threshold.

    Examples
    --------
    >>> import numpy as np
    >>> from cellflow import Score
    >>> score = Score(np.array([0.5, 0.75]), tp=np.array([[3, 1]]), fp=np.array([[1, 3]]),
    ...               fn=np.array([[0, 2]]))
    >>> score.per_threshold.round(3).tolist()
    [0.75, 0.167]
    >>> score
    Score(mean=0.4583, images=1, thresholds=2)
    """

    thresholds: NDArray[np.float64]
    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]

    @property
    def precision(self) -> NDArray[np.float64]:
        """``tp / (tp + fp + fn)`` of shape ``(N, T)``; 1.0 where there is nothing to find and nothing found."""
        total = self.tp + self.fp + self.fn
        return np.where(total > 0, self.tp / np.maximum(total, 1), 1.0)

    @property
    def per_image(self) -> NDArray[np.float64]:
        """Mean over thresholds, ``(N,)``."""
        return np.asarray(self.precision.mean(axis=1), dtype=np.float64)

    @property
    def per_threshold(self) -> NDArray[np.float64]:
        """Mean over images, ``(T,)``."""
        return np.asarray(self.precision.mean(axis=0), dtype=np.float64)

    @property
    def mean(self) -> float:
        """Mean over images and thresholds: the competition score when the thresholds are 0.50:0.05:0.95."""
        return float(self.precision.mean())

    def __repr__(self) -> str:
        return (
            f"Score(mean={self.mean:.4f}, images={len(self.tp)}, thresholds={len(self.thresholds)})"
        )
