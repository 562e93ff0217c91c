"""What may be wrong with a prediction, said with the numbers that lead to it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cellflow.config import MaskConfig
from cellflow.engine.segmentation.member import Member
from cellflow.engine.segmentation.result import Prediction
from cellflow.engine.segmentation.settled_diameter import FEWEST
from cellflow.numeric.labels import median_diameter
from cellflow.storage.sizes import few_text, plural

__all__ = ["ImageFacts", "facts_of", "warn_of_diameter", "warn_of_diameters", "warn_of_no_cells"]

FAR = 3.0
"""A diameter that differs by more than this factor from the model's cells is said."""

UNLIKE = 1.5
"""Cells that were found whose diameter differs by more than this factor from the one taken make it worth another look:
less is common among images like those of the training, and measuring again gained nothing there."""

_log = logging.getLogger(__name__)


class ImageFacts(NamedTuple):
    """What doubts are made of, of one predicted image.

    `diameter` is the one used, `style_diameter` the estimate of the style models (0 where there is none),
    both in pixels; `logit` is the highest cellprob; `values` are minimum, median and maximum of the segmented
    channel; `found` is the median diameter of the cells found, 0 where they are too few to tell.
    """

    name: str
    cells: int
    cell_type: str
    diameter: float
    style_diameter: float
    logit: float
    values: tuple[float, float, float]
    found: float = 0.0


def facts_of(name: str, prediction: Prediction) -> ImageFacts:
    """The facts of one image; of its values only where there are no cells, which is when they matter."""
    cells = int(prediction.labels.max(initial=0))
    values = 0.0, 0.0, 0.0
    if not cells and prediction.intensity.size:
        low, middle, high = np.quantile(prediction.intensity, (0.0, 0.5, 1.0))
        values = float(low), float(middle), float(high)
    return ImageFacts(
        name, cells, prediction.cell_type, prediction.diameter, prediction.recognition.diameter,
        float(prediction.cellprob.max(initial=-np.inf)), values,
        median_diameter(prediction.labels) if cells >= FEWEST else 0.0,
    )  # fmt: skip


def warn_of_diameter(given: float | None, members: Sequence[Member]) -> None:
    """Warn before the network runs of a diameter that is far from the cells of the training."""
    trained = _trained(members)
    if given is None or not _far(given, trained):
        return
    sides = float(np.mean([member.diam_mean for member in members])) / given
    usual = trained / given
    change = f"{usual:.3g} times longer" if usual > 1 else f"{1 / usual:.3g} times shorter"
    cost = f", {usual**2:.3g} times the pixels and the time" if usual > 1 else ""
    _log.warning(
        "a diameter of %.4g pixels, but the cells that %s was trained on have %.4g: images are scaled by %.3g "
        "for the network, their sides %s than with that diameter%s. If the cells in your images have about "
        "%.4g pixels, give --diameter %.4g or leave it out; --dry_run says how long it takes.",
        given, members[0].name, trained, sides, change, cost, trained, trained,
    )  # fmt: skip


def warn_of_diameters(facts: Sequence[ImageFacts], members: Sequence[Member]) -> None:
    """Warn of diameters that were estimated or taken, and are far from the training or the estimate."""
    trained = _trained(members)
    estimated = [item for item in facts if _far(item.diameter, trained)]
    if estimated:
        _log.warning(
            "in %s the diameter that was estimated is far from %.4g pixels, that of the training: %s. If that "
            "is wrong, give --diameter.",
            plural(len(estimated), "image"), trained, _diameters(estimated, "diameter"),
        )  # fmt: skip
    other = [
        item for item in facts if item.style_diameter and _far(item.diameter, item.style_diameter)
    ]
    if other and not estimated:
        _log.warning(
            "%s look as if their cells had another diameter than the %.4g pixels that were taken: %s. Compare "
            "with --diameter %.3g.",
            plural(len(other), "image"), other[0].diameter, _diameters(other, "style_diameter"),
            float(np.median([item.style_diameter for item in other])),
        )  # fmt: skip
    unlike = [item for item in facts if item.found and _far(item.found, item.diameter, UNLIKE)]
    if unlike and not (estimated or other):
        _log.info(
            "in %s the cells found have another diameter than the %.4g pixels that were taken: %s. If these images "
            "are of another magnification than the training's, compare with --diameter_rounds 3.",
            plural(len(unlike), "image"), unlike[0].diameter, _diameters(unlike, "found"),
        )  # fmt: skip


def warn_of_no_cells(
    facts: Sequence[ImageFacts],
    mask: MaskConfig,
    per_type: Mapping[str, MaskConfig],
    members: Sequence[Member],
) -> None:
    """Warn of images without cells, with what is known of the cause."""
    empty = [item for item in facts if not item.cells]
    if not empty:
        return
    flat = [item for item in empty if item.values[0] == item.values[2]]
    rest = [item for item in empty if item not in flat]
    used = {item.name: per_type.get(item.cell_type, mask) for item in rest}
    low = [item for item in rest if item.logit <= used[item.name].cellprob_threshold]
    lost = [item for item in rest if item not in low]
    lines = []
    if flat:
        names = few_text(f"{item.name}: {item.values[0]:zg}" for item in flat)
        lines.append(f"{plural(len(flat), 'image')} of one value only ({names})")
    if low:
        best = max(low, key=lambda item: item.logit)
        lines.append(
            f"{plural(len(low), 'image')} where no cellprob is above --cellprob_threshold "
            f"{used[best.name].cellprob_threshold:zg}; the highest is {best.logit:z.2f} ({best.name})"
        )
    if lost:
        best = max(lost, key=lambda item: item.logit)
        own = used[best.name]
        lines.append(
            f"{plural(len(lost), 'image')} with cellprob up to {best.logit:z.2f} ({best.name}), where "
            f"--flow_threshold {own.flow_threshold:g}, --min_size {own.min_size} or --max_size_fraction "
            f"{own.max_size_fraction:g} leaves no mask"
        )
    if rest:
        lines.append(_size_and_contrast(rest, members))
    _log.warning(
        "no cell was found in %d of %s (%s):\n%s",
        len(empty), plural(len(facts), "image"), few_text(item.name for item in empty),
        "\n".join(f"  - {line}" for line in lines),
    )  # fmt: skip


def _size_and_contrast(empty: Sequence[ImageFacts], members: Sequence[Member]) -> str:
    """What is most often wrong where there are cells to see: their size, or dark ones taken for bright."""
    first = empty[0]
    low, middle, high = first.values
    bright = (middle - low) > (high - low) / 2
    return (
        f"if there are cells to see: the diameter taken is {first.diameter:.4g} pixels (training: "
        f"{_trained(members):.4g}), --diameter changes it; values go from {low:zg} to {high:zg}, half of them "
        f"below {middle:zg} ({first.name}): a {'bright' if bright else 'dark'} image, which must look like "
        "those of the training, else invert it"
    )


def _trained(members: Sequence[Member]) -> float:
    """Mean diameter of the cells that the members were trained on, in pixels."""
    return float(np.mean([member.diam_labels for member in members]))


def _far(one: float, other: float, factor: float = FAR) -> bool:
    return max(one, other) > factor * min(one, other)


def _diameters(facts: Sequence[ImageFacts], name: str) -> str:
    return few_text(f"{item.name} {getattr(item, name):.3g}" for item in facts)
