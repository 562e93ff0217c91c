"""Images as the network wants them: two channels, percentiles 1 and 99 at 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError

__all__ = [
    "AS_TRAINED",
    "Normalization",
    "Scaling",
    "find_divisor",
    "find_scaling",
    "network_channels",
    "normalize_percentile",
    "scale_channels",
    "select_channels",
]

Floats = NDArray[np.float32]

_ROUNDING = 4 * np.finfo(np.float32).eps
"""A range that is a smaller part of the values than this is rounding, not signal."""
_SAFE = 1e30
"""Values beyond this, or all below one over it, are scaled before they become float32."""


@dataclass(frozen=True)
class Normalization:
    """How an image is brought to the scale of the network; by default as it was in training.

    Attributes
    ----------
    percentiles : (float, float) or None
        Percentiles of each channel that become 0 and 1; None leaves the values as they are.
    bounds : tuple of (float, float)
        Values that become 0 and 1 instead: for both channels, or for the segmented and the nuclear one.
    invert : bool
        Whether 0 and 1 are exchanged afterwards, for dark cells.
    """

    percentiles: tuple[float, float] | None = (1.0, 99.0)
    bounds: tuple[tuple[float, float], ...] = ()
    invert: bool = False

    def __post_init__(self) -> None:
        if self.percentiles is not None:
            low, high = self.percentiles
            if not 0 <= low < high <= 100:
                raise DataError(
                    f"expected percentiles 0 <= lower < upper <= 100, found {low}, {high}"
                )
        if len(self.bounds) > 2 or not all(low < high for low, high in self.bounds):
            raise DataError(
                "expected one or two pairs of a lower and a higher value to become 0 and 1, found "
                f"{list(self.bounds)}"
            )
        if self.invert and self.percentiles is None and not self.bounds:
            raise DataError("an image that is not normalised cannot be inverted")


AS_TRAINED = Normalization()
"""Percentiles 1 and 99, as the training of every network here."""


class Scaling(NamedTuple):
    """How the values of a channel are brought to the scale of the network: less `low`, over `high - low`.

    `flat` is for a channel that says nothing, which becomes 0; without a range values stay.
    """

    low: float = 0.0
    high: float = 1.0
    flat: bool = False


def normalize_percentile(image: Any, lower: float = 1, upper: float = 99) -> Floats:
    """Scale every channel so that its lower percentile becomes 0 and its upper one 1.

    Equal to ``cellpose.transforms.normalize_img``, with percentiles over all pixels (there a channel
    of more than 224**3 pixels is thinned out first), where the percentiles differ by more than 0.001.
    Cellpose makes everything else 0; here an image means the same whatever its unit, and where most
    pixels share one value (a few cells on an empty ground) the range goes up to the largest one.

    Parameters
    ----------
    image : (C, H, W) ndarray
        Any real dtype.
    lower, upper : float
        Percentiles, ``0 <= lower < upper <= 100``.

    Returns
    -------
    (C, H, W) float32 ndarray
        A copy. A constant channel stays as it is; one that varies by rounding only becomes 0. Never
        NaN.

    Raises
    ------
    DataError
        If the image is not of that shape, or holds NaN or infinity.
    """
    out = _as_float32(image)
    if out.ndim != 3:
        raise DataError(f"image: expected shape (C, H, W), found {out.shape}")
    for index, channel in enumerate(out):
        if not channel.size:
            continue
        if not np.isfinite(channel).all():
            raise DataError(
                f"image: channel {index} holds NaN or infinity; repair or mask it first"
            )
        if channel.min() != channel.max():
            _scale(channel, _percentile_scaling(channel, lower, upper))
    return out


def _percentile_scaling(channel: Floats, lower: float, upper: float) -> Scaling:
    """The scaling of a channel that is not constant."""
    # one call each: with a list NumPy interpolates in float64, and the last bits differ
    low, high = np.percentile(channel, lower), np.percentile(channel, upper)
    if high == low:
        low, high = _whole_range(channel, low)
    if high - low > _ROUNDING * max(abs(low), abs(high)):
        return Scaling(float(low), float(high))
    return Scaling(flat=True)


def _scale(channel: Floats, scaling: Scaling) -> None:
    """Scale in place, in float32."""
    if scaling.flat:
        channel[:] = 0
        return
    low, high = np.float32(scaling.low), np.float32(scaling.high)
    channel -= low
    channel /= high - low


def _whole_range(channel: Floats, common: np.float32) -> tuple[np.float32, np.float32]:
    """From the value that nearly all pixels have to the largest; from the smallest where that is it."""
    top = channel.max()
    return (common, top) if top > common else (channel.min(), common)


def find_scaling(
    selected: Floats, normalization: Normalization = AS_TRAINED
) -> tuple[Scaling | None, ...]:
    """The scaling of each channel, found on the whole image or a coarse view of it, for `scale_channels`.

    Parameters
    ----------
    selected : (C, H, W) float32 ndarray
        Channels as `select_channels` gives them.
    normalization : Normalization
        By default percentiles 1 and 99.

    Returns
    -------
    tuple of Scaling or None
        None where values are to stay as they are.

    Raises
    ------
    DataError
        If a channel holds NaN or infinity.
    """
    if not np.isfinite(selected).all():
        raise DataError("image: it holds NaN or infinity; repair or mask it first")
    found: list[Scaling | None] = []
    bounds = normalization.bounds * (3 - len(normalization.bounds))
    for index, channel in enumerate(selected):
        constant = not channel.size or channel.min() == channel.max()
        if bounds:
            found.append(Scaling(*bounds[index], flat=bool(constant)))
        elif normalization.percentiles is None:
            found.append(None)
        elif constant:
            found.append(Scaling(flat=True))
        else:
            found.append(_percentile_scaling(channel, *normalization.percentiles))
    return tuple(found)


def scale_channels(
    selected: Floats, scaling: Sequence[Scaling | None], *, invert: bool = False
) -> Floats:
    """Channels of an image, or of a part of it, at the scale of the network; a copy.

    Equal to `network_channels` of the whole image, cut out, if the scaling was found on the whole image.

    Raises
    ------
    DataError
        If a channel holds NaN or infinity.
    """
    if not np.isfinite(selected).all():
        raise DataError("image: it holds NaN or infinity; repair or mask it first")
    out = np.array(selected, dtype=np.float32)
    for channel, how in zip(out, scaling, strict=True):
        if how is None:
            continue
        _scale(channel, how)
        if invert and not how.flat:
            np.subtract(1, channel, out=channel)
    return out


def select_channels(
    image: Any, chan: int = 0, chan2: int = 0, divisor: float | None = None
) -> Floats:
    """Pick the channel to segment and the optional nuclear channel, as Cellpose numbers them.

    Parameters
    ----------
    image : (H, W) or (H, W, C) ndarray
    chan : int
        0 the mean of all channels, 1 the first (red), 2 the second (green), 3 the third (blue), ...
    chan2 : int
        0 none, otherwise as `chan`. It has no effect with ``chan=0``, as in Cellpose.
    divisor : float, optional
        What `find_divisor` gives for the whole image, where this is a part of it.

    Returns
    -------
    (2, H, W) float32 ndarray
        The second channel is 0 where there is none. An image of one channel gives it and 0 whatever
        the choice.

    Raises
    ------
    DataError
        If the image is not of that shape or has no such channel.
    """
    array = np.asarray(image)
    if divisor is None:
        divisor = find_divisor(array)
    array = array / divisor if divisor != 1 else array
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.ndim != 3 or not array.shape[2]:
        raise DataError(f"image: expected shape (H, W) or (H, W, C), found {np.shape(image)}")
    n_channels = array.shape[2]
    out = np.zeros((2, *array.shape[:2]), dtype=np.float32)
    if n_channels == 1:
        out[0] = array[:, :, 0]
        return out
    for name, value in (("chan", chan), ("chan2", chan2)):
        if not 0 <= value <= n_channels:
            raise DataError(
                f"{name}: expected 0 to {n_channels} for an image of {n_channels} channels, found"
                f" {value}"
            )
    if chan == 0:
        out[0] = array.astype(np.float32).mean(axis=-1)
        return out
    out[0] = array[:, :, chan - 1]
    if chan2 > 0:
        out[1] = array[:, :, chan2 - 1]
    return out


def network_channels(
    image: Any, chan: int = 0, chan2: int = 0, normalization: Normalization = AS_TRAINED
) -> Floats:
    """The two channels that the network sees: selected, and normalised each by its percentiles.

    A channel of a single value says nothing and becomes 0 (Cellpose hands on the value itself, which
    the network may take for anything), unless values are to be left as they are.

    Parameters
    ----------
    image : (H, W) or (H, W, C) ndarray
        At least one pixel.
    chan, chan2 : int
        As in `select_channels`.
    normalization : Normalization
        By default percentiles 1 and 99.

    Returns
    -------
    (2, H, W) float32 ndarray

    Raises
    ------
    DataError
        As `select_channels`; also if the image has no pixels, or holds NaN or infinity.
    """
    selected = select_channels(image, chan, chan2)
    if not selected.size:
        raise DataError(f"image: expected at least one pixel, found shape {np.shape(image)}")
    scaling = find_scaling(selected, normalization)
    return scale_channels(selected, scaling, invert=normalization.invert)


def _as_float32(image: Any) -> Floats:
    array = np.asarray(image)
    if array.dtype.kind not in "buif":
        raise DataError(f"image: expected real numbers, found dtype {array.dtype}")
    divisor = find_divisor(array)
    return np.array(array / divisor if divisor != 1 else array, dtype=np.float32, order="C")


def find_divisor(image: NDArray[Any]) -> float:
    """What to divide an image by so that float32 holds its values: 1, unless they are float64 and extreme."""
    if image.dtype.kind != "f" or image.dtype.itemsize <= 4 or not image.size:
        return 1.0
    peak = np.abs(image).max()
    extreme = np.isfinite(peak) and peak and not 1 / _SAFE < peak < _SAFE
    return float(peak) if extreme else 1.0
