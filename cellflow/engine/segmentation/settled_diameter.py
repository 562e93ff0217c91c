"""The diameter that an image's own cells have: predict, measure, predict again, until it rests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cellflow.config import MaskConfig, SamplingConfig
from cellflow.engine.segmentation.mask_step import make_labels
from cellflow.engine.segmentation.recognition import Recognition
from cellflow.errors import DataError
from cellflow.numeric.labels import measure_areas
from cellflow.types import Box

Floats = NDArray[np.float32]
PartMeans = tuple[Floats, Floats, Floats]
Seen = tuple[PartMeans, dict[int, Floats]]
MeansOf = Callable[[Box, Recognition], PartMeans]

__all__ = ["sample_boxes", "settle", "settle_whole"]

REST = 1 + SamplingConfig().scale_range / 2
"""A diameter rests where the cells found with it differ from it by no more than this factor, over which training varies
the scale of its crops."""
SMALLEST, LARGEST = 1 / 3, 6.0
"""How far a diameter may go from where it started; what lies farther is not believed. Small ones cost time: a
third of the diameter takes nine times the pixels."""
FEWEST = 5
"""Cells without which there is nothing to measure."""
WHOLE = 1_500_000
"""Pixels up to which all of an image is measured."""
WINDOW, ACROSS = 512, 3
"""Side in pixels and number along each side of the windows that are measured of a larger image."""

_log = logging.getLogger(__name__)


class Predicts(Protocol):
    """What is needed of a `cellflow.engine.segmentation.segmenter.Segmenter`, which imports this module."""

    @property
    def rounds(self) -> int: ...
    def settings_for(self, known: Recognition) -> tuple[str, float, MaskConfig]: ...
    def part_means(self, read: Any, shape: Any, box: Box, known: Recognition) -> PartMeans: ...


def settle(
    segmenter: Predicts, means_of: MeansOf, shape: tuple[int, int], known: Recognition
) -> Recognition:
    """What is known of an image, with the diameter of the cells found in it where that is another.

    The image is predicted at the diameter that the policy says, and again at the median diameter of what was
    found, until the two are alike (`REST`); at most ``segmenter.rounds`` times more. Where it does not come to
    rest, goes too far (`SMALLEST`, `LARGEST`) or too few cells are found, the policy's diameter stays, and that is
    logged. Large images are measured in windows, which depend on `shape` alone: however an image is cut into
    blocks, its diameter is one.

    Parameters
    ----------
    segmenter : cellflow.engine.segmentation.segmenter.Segmenter
        The members.
    means_of : callable
        Gives flow, logit and disagreement of a box of the image at what is known of it.
    shape : (int, int)
        ``(H, W)``.
    known : Recognition
        What the styles tell.
    """
    start = segmenter.settings_for(known)[1]
    tried, seen = [start], known
    for _ in range(segmenter.rounds + 1):
        sizes = np.concatenate(
            [_sizes(segmenter, means_of, shape, box, seen) for box in sample_boxes(shape)]
        )
        if len(sizes) < FEWEST:
            _log.warning("%s: too few cells to measure (%d)", _way(tried), len(sizes))
            return known
        found = float(np.median(sizes))
        if max(found, tried[-1]) / min(found, tried[-1]) <= REST:
            if len(tried) > 1:
                _log.info("%s: at rest, the cells found have %.4g pixels", _way(tried), found)
            return seen
        tried.append(found)
        if not SMALLEST <= found / start <= LARGEST:
            _log.warning("%s: too far from where it started, %.4g is taken", _way(tried), start)
            return known
        seen = known._replace(measured=found)
    _log.warning(
        "%s: not at rest after %d rounds, %.4g is taken", _way(tried), segmenter.rounds, start
    )
    return known


def settle_whole(
    segmenter: Predicts, see: Callable[[Recognition], Seen], normal: Floats, known: Recognition
) -> tuple[Recognition, Seen | None]:
    """The same for an image ``(C, H, W)`` that is held, with what was seen of all of it where that needs no repeating.

    `see` gives the means of the whole image, and the styles beside them, at what is known of it.
    """
    height, width = normal.shape[1:]
    last: list[tuple[Recognition, Seen]] = []

    def means_of(box: Box, known: Recognition) -> PartMeans:
        if box.shape != (height, width):
            part: PartMeans = segmenter.part_means(
                lambda of: normal[:, *of.slices], (height, width), box, known
            )
            return part
        last[:] = [(known, see(known))]
        return last[0][1][0]

    found = settle(segmenter, means_of, (height, width), known)
    return found, last[0][1] if last and last[0][0] is found else None


def sample_boxes(shape: tuple[int, int]) -> Sequence[Box]:
    """What of an image of ``(H, W)`` is measured: all of it, or windows spread evenly over a large one."""
    height, width = shape
    if height * width <= WHOLE:
        return [Box(0, height, 0, width)]
    rows, columns = (
        sorted(
            {
                max(0, (2 * place + 1) * side // (2 * ACROSS) - WINDOW // 2)
                for place in range(ACROSS)
            }
        )
        for side in shape
    )
    return [
        Box(top, min(top + WINDOW, height), left, min(left + WINDOW, width))
        for top in rows
        for left in columns
    ]


def _sizes(
    segmenter: Predicts, means_of: MeansOf, shape: tuple[int, int], box: Box, known: Recognition
) -> NDArray[np.float64]:
    """Diameters of the cells found in a box, without those that its sides cut; none where it cannot be read."""
    _, diameter, mask = segmenter.settings_for(known)
    try:
        flow, cellprob, _ = means_of(box, known)
    except DataError as error:
        if box.shape == shape:
            raise
        _log.warning("%s The diameter is measured without it.", error)
        return np.zeros(0)
    labels = make_labels(flow, cellprob, diameter, mask)
    top = int(labels.max(initial=0))
    areas = measure_areas(labels, top).astype(np.float64)
    whole = np.ones(len(areas), np.bool_)
    whole[0] = False
    for side, cut in (
        (labels[0], box.top > 0),
        (labels[-1], box.bottom < shape[0]),
        (labels[:, 0], box.left > 0),
        (labels[:, -1], box.right < shape[1]),
    ):
        if cut:
            whole[side] = False
    return np.asarray(2 * np.sqrt(areas[whole & (areas > 0)] / np.pi))


def _way(tried: Sequence[float]) -> str:
    return "diameter " + " -> ".join(f"{size:.4g}" for size in tried)
