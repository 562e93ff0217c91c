"""What the arguments of ``CellposeModel.eval`` mean here, and its form of answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.errors import DataError
from cellflow.numeric.flow_picture import flow_picture
from cellflow.numeric.normalize import Normalization

__all__ = ["Answer", "answer_of", "check_left_out", "normalization_of", "nth", "stack_answers"]

_ONLY_2D = "only 2D images are segmented, every plane by itself"
_ONE_GRID = "the network's output depends on the tiles, which are those of Cellpose's defaults"
LEFT_OUT = {
    "resample": (True, "masks are always made at the size of the image"),
    "do_3D": (False, _ONLY_2D),
    "anisotropy": (None, _ONLY_2D),
    "flow3D_smooth": (0, _ONLY_2D),
    "stitch_threshold": (0, _ONLY_2D),
    "tile_overlap": (0.1, _ONE_GRID),
    "bsize": (224, _ONE_GRID),
    "interp": (True, "pixels always follow the interpolated flow"),
}
"""Arguments that cannot be other than by default, with their default and the reason."""
_NORMALIZE = {
    "normalize", "percentile", "lowhigh", "invert", "norm3D", "tile_norm_smooth3D",
    "sharpen_radius", "smooth_radius", "tile_norm_blocksize",
}  # fmt: skip
"""Keys of Cellpose's dictionary; the two about 3D have no effect on planes, there as here."""
_NOT_DONE = ("sharpen_radius", "smooth_radius", "tile_norm_blocksize")
_UINT16 = 2**16


class Answer(NamedTuple):
    """Masks, flows ``[picture, flow, logit]`` and styles, as ``CellposeModel.eval`` gives them."""

    masks: Any
    flows: Any
    styles: Any


def check_left_out(given: Mapping[str, Any]) -> None:
    """Refuse arguments that ask for what is not done, all of them at once.

    Raises
    ------
    DataError
        With the name, the value and the reason of each.
    """
    lines = []
    for name, value in given.items():
        default, reason = LEFT_OUT[name]
        if value is not default and value != default:
            lines.append(f"{name}={value}: {reason}; leave it at {default}")
    if lines:
        raise DataError("eval cannot do that: " + "; ".join(lines))


def normalization_of(normalize: bool | Mapping[str, Any], *, invert: bool) -> Normalization:
    """Cellpose's `normalize`, a truth value or a dictionary, and `invert`.

    Raises
    ------
    DataError
        If it is neither, or asks for what is not done.
    """
    if isinstance(normalize, (bool, np.bool_)):
        normalize = {"normalize": bool(normalize)}
    if not isinstance(normalize, Mapping):
        raise DataError(f"normalize: expected True, False or a dictionary, found {normalize!r}")
    unknown = sorted(set(normalize) - _NORMALIZE)
    if unknown:
        raise DataError(
            f"normalize: expected keys of Cellpose ({', '.join(sorted(_NORMALIZE))}), found {unknown[0]!r}"
        )
    asked = [f"{name} {normalize[name]}" for name in _NOT_DONE if normalize.get(name)]
    if asked:
        raise DataError(
            f"normalize: {', '.join(asked)} cannot be done; images are normalised whole, neither sharpened "
            "nor smoothed. Filter them before, or leave this out."
        )
    percentile, lowhigh = normalize.get("percentile"), normalize.get("lowhigh")
    try:
        percentiles = (1.0, 99.0) if percentile is None else tuple(map(float, percentile))
        pairs = np.zeros((0, 2)) if lowhigh is None else np.asarray(lowhigh, float).reshape(-1, 2)
        low, high = percentiles
    except (TypeError, ValueError):
        raise DataError(
            "normalize: expected percentile as (lower, upper) and lowhigh as (low, high) or a pair for each "
            f"of two channels, found percentile {percentile}, lowhigh {lowhigh}"
        ) from None
    return Normalization(
        percentiles=(low, high) if normalize.get("normalize", True) else None,
        bounds=tuple((float(a), float(b)) for a, b in pairs),
        invert=bool(normalize.get("invert", False) or invert),
    )


def nth(value: Any, place: int, count: int, name: str) -> Any:
    """The value for one of several images: an item of a list of values, or the one for all.

    Raises
    ------
    DataError
        If the list is of another length.
    """
    if value is None or np.ndim(value) == 0:
        return value
    if len(value) != count:
        raise DataError(
            f"{name}: expected one for each of {count} image{'s' if count > 1 else ''}, found {len(value)}"
        )
    return value[place]


def answer_of(segmenter: Segmenter, image: NDArray[Any], *, masks: bool) -> Answer:
    """Segment one image; without `masks` the network's part only."""
    means = segmenter.means(image)
    found: NDArray[Any] = np.zeros(0)  # as Cellpose
    if masks:
        labels = segmenter.label(means).labels
        found = labels.astype(np.uint16 if labels.max(initial=0) < _UINT16 else np.uint32)
    picture = flow_picture(means.flow)
    return Answer(found, [picture, means.flow, means.cellprob], means.style)


def stack_answers(planes: Sequence[Answer], *, masks: bool) -> Answer:
    """The answers for the planes of a stack as one: planes in front of rows and columns."""
    flow = np.stack([plane.flows[1] for plane in planes], axis=1)
    cellprob = np.stack([plane.flows[2] for plane in planes])
    labels = np.stack([plane.masks for plane in planes]) if masks else planes[0].masks
    return Answer(
        labels, [flow_picture(flow), flow, cellprob], np.stack([plane.styles for plane in planes])
    )
