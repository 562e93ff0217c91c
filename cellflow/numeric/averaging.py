"""Averages of the flows and logits of several networks or views, one member in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError

__all__ = ["VARIANTS", "average_flows"]

Variant = Literal["plain", "cellprob", "direction"]
Floats = NDArray[np.float32]
Fields = tuple[Floats, Floats, Floats]

VARIANTS: tuple[Variant, ...] = ("plain", "cellprob", "direction")
_SCALE = np.float32(5.0)  # as dynamics.FLOW_SCALE, which would bring numba along


def average_flows(
    members: Iterable[tuple[Any, Any]],
    weights: Sequence[float] | None = None,
    *,
    variant: Variant = "plain",
) -> Fields:
    """Average flows and logits over members, with their disagreement.

    Parameters
    ----------
    members : iterable of (flow, cellprob)
        ``(2, H, W)`` and ``(H, W)`` float32 or float16 each, at the scale of the network. A generator
        is consumed one member at a time.
    weights : sequence of float, optional
        One a member, 0 or more, not all 0; equal by default.
    variant : {"plain", "cellprob", "direction"}
        "plain" is the weighted mean. "cellprob" also weights every pixel of a member by
        ``sigmoid(cellprob)``, so that a member that sees no cell there says less about its flow.
        "direction" averages directions and gives the result the mean length of the members, which
        undoes that an average of arrows is shorter where they disagree. Logits are always averaged
        plainly.

    Returns
    -------
    flow : (2, H, W) float32 ndarray
    cellprob : (H, W) float32 ndarray
    disagreement : (H, W) float32 ndarray
        Weighted root mean square distance of the members' flows from their mean, in unit flows: 0
        where all agree, about 1 where they point everywhere.

    Raises
    ------
    DataError
        If there is no member, shapes differ, a value is NaN or infinite, or weights do not fit; the
        message gives the member's position, counted from 0.

    Examples
    --------
    >>> import numpy as np
    >>> from cellflow import average_flows
    >>> down = np.zeros((2, 1, 1), dtype=np.float32)
    >>> down[0] = 5
    >>> logit = np.full((1, 1), 2, dtype=np.float32)
    >>> flow, cellprob, disagreement = average_flows([(down, logit), (-down, logit - 4)])
    >>> flow.ravel().tolist(), cellprob.item(), disagreement.item()
    ([0.0, 0.0], 0.0, 1.0)
    """
    if variant not in VARIANTS:
        raise DataError(f"variant: expected one of {', '.join(VARIANTS)}, found {variant!r}")
    checked = None if weights is None else _check_weights(weights)
    running: _Running | None = None
    position = -1
    for position, member in enumerate(members):
        shape = None if running is None else running.cellprob.shape
        flow, cellprob = _check_member(member, position, shape)
        if checked is not None and position >= len(checked):
            continue  # counted for the message below
        if running is None:
            running = _Running(cellprob.shape, variant)
        weight = 1.0 if checked is None else checked[position]
        if weight > 0:
            running.add(flow, cellprob, weight)
    if running is None:
        raise DataError("members: expected at least one (flow, cellprob), found none")
    if checked is not None and position + 1 != len(checked):
        raise DataError(
            f"weights: expected one for each of {position + 1} members, found {len(checked)}"
        )
    return running.result()


class _Running:
    """Weighted running means, and the running sum of squared distances from them (Welford)."""

    def __init__(self, shape: tuple[int, ...], variant: Variant) -> None:
        self.variant = variant
        self.total, self.alone = 0.0, False
        # written by the first member as a whole where that is all there is to do: see `add`
        make = np.empty if variant == "plain" else np.zeros
        self.cellprob = make(shape, dtype=np.float32)
        self.flow = make((2, *shape), dtype=np.float32)
        self.spread = np.zeros(shape, dtype=np.float32)
        # per pixel, and only where a variant needs them
        self.pixel_total = np.zeros(shape, dtype=np.float32) if variant == "cellprob" else None
        self.direction = np.zeros_like(self.flow) if variant == "direction" else None
        self.length = np.zeros(shape, dtype=np.float32) if variant == "direction" else None

    def add(self, flow: Floats, cellprob: Floats, weight: float) -> None:
        first = self.total == 0
        self.total += weight
        if first and self.variant == "plain":  # what follows gives just this, and takes longer
            np.add(cellprob, np.float32(0), out=self.cellprob)  # and no -0
            np.add(flow, np.float32(0), out=self.flow)
            self.alone = True
            return
        self.alone = False
        part: Any = np.float32(weight / self.total)
        self.cellprob += part * (cellprob - self.cellprob)
        weights: Any = np.float32(weight)
        if self.pixel_total is not None:
            # at least 1e-6: where no member sees a cell the mean is still defined
            weights = weights * np.maximum(_sigmoid(cellprob), np.float32(1e-6))
            self.pixel_total += weights
            part = weights / self.pixel_total
        away = flow - self.flow
        self.flow += part * away
        self.spread += weights * (away * (flow - self.flow)).sum(axis=0)
        if self.direction is not None and self.length is not None:
            length = np.sqrt((flow * flow).sum(axis=0))
            unit = flow / np.maximum(length, np.float32(1e-12))
            self.direction += part * (unit - self.direction)
            self.length += part * (length - self.length)

    def result(self) -> Fields:
        if self.direction is not None and self.length is not None:
            norm = np.sqrt((self.direction * self.direction).sum(axis=0))
            self.flow = self.direction * (self.length / np.maximum(norm, np.float32(1e-12)))
        if self.alone:
            return self.flow, self.cellprob, self.spread
        total = np.float32(self.total) if self.pixel_total is None else self.pixel_total
        disagreement = np.sqrt(np.maximum(self.spread, 0) / total) / _SCALE
        return self.flow, self.cellprob, np.asarray(disagreement, dtype=np.float32)


def _sigmoid(logit: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -80, 80))), dtype=np.float32)


def _check_weights(weights: Sequence[float]) -> list[float]:
    values = [float(weight) for weight in weights]
    for position, value in enumerate(values):
        if not (np.isfinite(value) and value >= 0):
            raise DataError(f"weights: expected 0 or more for member {position}, found {value}")
    if sum(values) <= 0:
        raise DataError(f"weights: expected at least one above 0, found {values}")
    return values


def _check_member(
    member: Any, position: int, shape: tuple[int, ...] | None
) -> tuple[Floats, Floats]:
    where = f"member {position} (counted from 0)"
    try:
        first, second = member
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: expected (flow, cellprob), found {type(member).__name__}"
        ) from None
    flow, cellprob = np.asarray(first), np.asarray(second)
    for name, array in (("flow", flow), ("cellprob", cellprob)):
        if array.dtype.kind != "f":
            raise DataError(f"{where}: expected a float {name}, found dtype {array.dtype}")
    if cellprob.ndim != 2 or flow.shape != (2, *cellprob.shape):
        raise DataError(
            f"{where}: expected flow (2, H, W) and cellprob (H, W), found {flow.shape} and"
            f" {cellprob.shape}"
        )
    if shape is not None and cellprob.shape != shape:
        raise DataError(
            f"{where}: expected the size of member 0, {shape}, found {cellprob.shape}; members are"
            " averaged at the native size of the image"
        )
    if not (np.isfinite(flow).all() and np.isfinite(cellprob).all()):
        raise DataError(f"{where}: expected finite values, found NaN or infinity")
    return flow.astype(np.float32, copy=False), cellprob.astype(np.float32, copy=False)
