"""From flows to labels: the one mask step that live prediction, OOF passes and sweeps share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from cellflow.errors import DataError
from cellflow.numeric import _diffusion, _follow, _regions
from cellflow.numeric._jit import run_blocks
from cellflow.numeric._measure import AREA, BOX, FIRST, close_holes, measure, relabel
from cellflow.numeric.stops import take_all_steps, take_jumps
from cellflow.numeric.targets import cells_per_block

__all__ = ["FLOW_SCALE", "flows_to_labels"]

FLOW_SCALE = 5.0
DEFAULT_NITER = 200

# A unit flow is at most 1 long, a network's is about 5: 1.5 tells them apart.
_UNIT_FLOW_LIMIT = 1.5
_MIN_JUDGED = 100  # foreground pixels; fewer may be noise and are not judged

Method = Literal["basin", "trace"]
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Labels before any filter, with what the filters need.

    Attributes
    ----------
    labels : (H, W) int32 ndarray
        0 background, 1..n, unfilled.
    areas : (n,) int64 ndarray
        Pixels; 0 for a seed that no pixel was left for.
    boxes : (n, 4) int32 ndarray
        First row, past the last row, first column, past the last column.
    first : (n,) int32 ndarray
        Flat index of the first pixel.
    field : (H, W, 2) float32 ndarray
        The unit flow that was followed, rounded to float16 before it was divided by `FLOW_SCALE`.
    """

    labels: Ints
    areas: NDArray[np.int64]
    boxes: Ints
    first: Ints
    field: Floats


def flows_to_labels(
    flow: Any,
    cellprob: Any,
    *,
    cellprob_threshold: float = 0.0,
    flow_threshold: float | None = 0.4,
    min_size: int = 15,
    max_size_fraction: float = 0.4,
    score_per_pixel: float = 0.0,
    fill_holes: bool = True,
    niter: int | None = None,
    method: Method = "basin",
    check_scale: bool = True,
) -> Ints:
    """Turn the network's output into labels.

    The steps, in this order: round to float16; foreground; follow the flows; seeds where many pixels
    end; labels; drop the too large; drop those whose flow does not agree with their shape, the too small
    and the improbable; fill holes over background; number. The thresholds, seeds and the growth of seeds are
    those of ``cellpose.dynamics.compute_masks`` 3.1.1; holes are filled over background only (there a
    cell in the hole of another is overwritten).

    Parameters
    ----------
    flow : (2, H, W) float ndarray
        dY and dX as the network puts them out, `FLOW_SCALE` times the unit flow.
    cellprob : (H, W) float ndarray
        Logit.
    cellprob_threshold : float
        Pixels with a logit above it are foreground.
    flow_threshold : float or None
        Labels with a larger flow error are dropped: the mean over the label's pixels of the squared
        difference between the unit flow of its shape and the given one, as
        ``cellpose.metrics.flow_error``. 0 or None keeps all.
    min_size : int
        Labels with fewer pixels are dropped; 0 or less keeps all.
    max_size_fraction : float
        Labels with more than this part of the image are dropped.
    score_per_pixel : float
        Labels whose pixels have a lower mean probability ``sigmoid(cellprob)`` are dropped; 0 keeps all.
    fill_holes : bool
        Whether holes over background are filled; some annotators leave cells hollow.
    niter : int, optional
        Steps of one unit flow each; 200 by default.
    method : {"basin", "trace"}
        "trace" takes every step of every pixel, as cellpose does. "basin" takes the first few and
        then follows where the pixels it reached went, except for pixels that this may lead astray.
    check_scale : bool
        Whether to refuse a field that looks like a unit flow. Evaluation of a network that has
        hardly been trained turns it off, because its flows are small as well.

    Returns
    -------
    labels : (H, W) int32 ndarray
        0 background, 1..n in the order of their first pixels.

    Raises
    ------
    DataError
        If shapes or dtypes do not fit, a flow is not finite, a logit is NaN, an option is out of
        range, or (with `check_scale`) fewer than one in a hundred of the foreground flows are at
        least 1.5 long. Fewer than 100 foreground pixels are not judged.

    Examples
    --------
    >>> import numpy as np
    >>> from cellflow import FLOW_SCALE, flows_to_labels, labels_to_flows
    >>> labels = np.zeros((12, 20), dtype=np.int32)
    >>> labels[1:10, 1:9], labels[2:11, 9:18] = 1, 2  # two cells that touch
    >>> cellprob = np.where(labels > 0, 6.0, -6.0)
    >>> again = flows_to_labels(FLOW_SCALE * labels_to_flows(labels), cellprob)
    >>> np.array_equal(again, labels)
    True
    """
    flow, cellprob = check_fields(flow, cellprob)
    candidates = find_candidates(
        flow, cellprob, cellprob_threshold=cellprob_threshold, niter=niter,
        max_size_fraction=max_size_fraction, method=method, check_scale=check_scale,
    )  # fmt: skip
    keep = candidates.areas > 0
    if min_size > 0:  # before the check, which costs the most; the order changes no result
        keep &= candidates.areas >= min_size
    if flow_threshold is not None and flow_threshold > 0:
        drop_disagreeing(candidates, keep, flow_threshold)
    if score_per_pixel > 0:
        keep &= candidate_probabilities(candidates, cellprob) >= score_per_pixel
    return finish(candidates, keep, fill_holes=fill_holes)


def check_fields(flow: Any, cellprob: Any) -> tuple[Floats, Floats]:
    """Both fields as writable C-contiguous float32 arrays of fitting shapes."""
    flow, cellprob = _as_float32(flow, "flow"), _as_float32(cellprob, "cellprob")
    if cellprob.ndim != 2:
        raise DataError(f"cellprob: expected shape (H, W), found {cellprob.shape}")
    if flow.shape != (2, *cellprob.shape):
        raise DataError(
            f"flow: expected shape {(2, *cellprob.shape)} for cellprob of shape {cellprob.shape},"
            f" found {flow.shape}"
        )
    if cellprob.size >= 2**31:
        raise DataError(
            f"flow: expected fewer than 2**31 pixels, found {cellprob.size}; work in blocks"
        )
    return flow, cellprob


def find_candidates(
    flow: Floats,
    cellprob: Floats,
    *,
    cellprob_threshold: float,
    max_size_fraction: float,
    niter: int | None,
    method: Method,
    check_scale: bool,
) -> Candidates:
    """Everything up to the maximum size."""
    _check_options(cellprob_threshold, niter, method)
    steps = DEFAULT_NITER if niter is None else int(niter)
    shape = cellprob.shape
    if not cellprob.size:
        empty = np.zeros(shape, dtype=np.int32), np.zeros((1, 6), dtype=np.int32)
        return _as_candidates(*empty, np.zeros((*shape, 2), dtype=np.float32))
    field, inside, tally = unit_field(flow, cellprob, cellprob_threshold)
    check_tally(tally, check_scale)
    follow = take_all_steps if method == "trace" else take_jumps
    stops = follow(field, inside, steps, _rows_at_once(shape[1]))
    final = stops.final
    seeds, owner = grown_seeds(stops.counts, np.sort(stops.crowded))
    stats = measure(final, len(seeds), ends=(final, owner))
    stats[stats[:, AREA] > max_size_fraction * cellprob.size, AREA] = 0
    return _as_candidates(final, stats, field)


def grown_seeds(counts: Ints, places: Ints) -> tuple[Ints, Ints]:
    """The peaks among crowded places, ascending, as seeds, and which seed, from 1, owns each pixel ``(H, W)``."""
    is_peak = np.empty(len(places), dtype=np.bool_)
    _regions.keep_peaks(counts, places, is_peak)
    seeds = places[is_peak]
    seeds = seeds[np.argsort(counts.reshape(-1)[seeds], kind="stable")]
    owner = np.zeros(counts.shape, dtype=np.int32)
    _regions.grow_seeds(counts, seeds, owner)
    return seeds, owner


def drop_disagreeing(candidates: Candidates, keep: NDArray[np.bool_], threshold: float) -> None:
    """Of labels to keep, those whose flow error is above the threshold are not, in place."""
    numbers = (np.flatnonzero(keep) + 1).astype(np.int32)
    errors = candidate_errors(candidates, numbers)
    keep[numbers[errors > np.float32(threshold)] - 1] = False


def candidate_errors(candidates: Candidates, numbers: Ints) -> Floats:
    """Flow errors of some of the labels."""
    boxes = candidates.boxes[numbers - 1]
    errors = np.zeros(len(numbers), dtype=np.float32)
    labels, field = candidates.labels, candidates.field
    run_blocks(
        lambda _, a, b: _diffusion.check_cells(labels, numbers, boxes, a, b, field, errors),
        len(numbers),
        cells_per_block(len(numbers)),
    )
    return errors


def candidate_probabilities(candidates: Candidates, cellprob: Floats) -> NDArray[np.float64]:
    """Mean probability of each label's pixels, ``(n,)``, from logits rounded to float16; 0 for no pixel."""
    flat, n_labels = candidates.labels.reshape(-1), len(candidates.areas)
    inside = np.flatnonzero(flat)
    logit = cellprob.reshape(-1)[inside].astype(np.float16).astype(np.float64)
    sums = np.bincount(flat[inside], expit(logit), n_labels + 1)[1:]
    counts = np.bincount(flat[inside], minlength=n_labels + 1)[1:]
    return np.asarray(sums / np.maximum(counts, 1), dtype=np.float64)


def finish(candidates: Candidates, keep: NDArray[np.bool_], *, fill_holes: bool = True) -> Ints:
    """Drop all labels but those to keep, number by first pixel, fill holes; in place.

    Holes are filled over background only, so no label loses pixels and a second look at the minimum
    size finds nothing.
    """
    labels = candidates.labels
    kept = np.flatnonzero(keep)
    kept = kept[np.argsort(candidates.first[kept], kind="stable")]
    table = np.zeros(len(keep) + 1, dtype=np.int32)
    table[kept + 1] = np.arange(1, len(kept) + 1, dtype=np.int32)
    relabel(labels, table)
    if fill_holes:
        close_holes(labels, candidates.boxes[kept])
    return labels


def unit_field(
    flow: Floats, cellprob: Floats, threshold: float
) -> tuple[Floats, NDArray[np.uint8], NDArray[np.int64]]:
    """What is followed: the unit flow ``(H, W, 2)`` of the foreground, 0 elsewhere, rounded to float16 before.

    Also returns the foreground ``(H, W)``, and what `check_tally` judges, which is summed over parts of an image:
    foreground pixels, those whose flow is at least 1.5 long, and values that are not finite.
    """
    height, width = cellprob.shape
    field = np.empty((height, width, 2), dtype=np.float32)
    inside = np.empty((height, width), dtype=np.uint8)
    rows = _rows_at_once(width)
    tally = np.zeros((-(-height // rows), 3), dtype=np.int64)
    cut = _first_above(threshold)
    run_blocks(
        lambda i, a, b: _follow.prepare_rows(flow, cellprob, cut, a, b, field, inside, tally[i]),
        height,
        rows,
    )
    return field, inside, tally.sum(axis=0)


def _rows_at_once(width: int) -> int:
    return max(1, min(64, 65536 // width))


def _first_above(threshold: float) -> np.float32:
    """The smallest float32 that float16 rounding puts above the threshold.

    Rounding keeps the order, so comparing with it is the same as rounding every logit.
    """
    above = np.float16(threshold)
    if not float(above) > threshold:
        above = np.nextafter(above, np.float16(np.inf))
    below = np.nextafter(above, np.float16(-np.inf))
    middle = np.float32((float(above) + float(below)) / 2)
    if np.float16(middle) != above:
        middle = np.nextafter(middle, np.float32(np.inf))
    return middle


def check_tally(tally: NDArray[np.int64], check_scale: bool) -> None:
    """Refuse fields that are not finite, and (with `check_scale`) those that look like a unit flow.

    Raises
    ------
    DataError
        See `flows_to_labels`.
    """
    n_inside, n_long, n_bad = tally.tolist()
    if n_bad:
        raise DataError(
            f"flow and cellprob: expected finite values that fit float16, found {n_bad} pixels with"
            " NaN, infinity or more than 65504"
        )
    if check_scale and n_inside >= _MIN_JUDGED and n_long * 100 < n_inside:
        raise DataError(
            f"flow: expected the network's scale, {FLOW_SCALE:g} times the unit flow, found 99 % of"
            f" the {n_inside} foreground pixels below a length of {_UNIT_FLOW_LIMIT}; this looks"
            " like a unit flow: multiply it by FLOW_SCALE (or pass check_scale=False for a network"
            " that has hardly been trained)"
        )


def _check_options(cellprob_threshold: float, niter: int | None, method: str) -> None:
    if method not in ("basin", "trace"):
        raise DataError(f'method: expected "basin" or "trace", found {method!r}')
    if niter is not None and niter < 0:
        raise DataError(f"niter: expected 0 or more, found {niter}")
    if not abs(cellprob_threshold) <= 65000:
        raise DataError(
            f"cellprob_threshold: expected a logit within float16, found {cellprob_threshold}"
        )


def _as_candidates(labels: Ints, stats: Ints, field: Floats) -> Candidates:
    return Candidates(
        labels,
        stats[1:, AREA].astype(np.int64),
        np.ascontiguousarray(stats[1:, BOX]),
        stats[1:, FIRST].copy(),
        field,
    )


def _as_float32(array: Any, name: str) -> Floats:
    """Writable, so that every kernel is compiled for one kind of array only."""
    array = np.asarray(array)
    if array.dtype.kind != "f":
        raise DataError(f"{name}: expected floating point numbers, found dtype {array.dtype}")
    return np.require(array, dtype=np.float32, requirements=["C", "W"])
