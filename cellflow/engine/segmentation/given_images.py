"""Images as people hand them over in Python: arrays of any kind, files, PIL images, stacks."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io.images import is_zarr, read_image

__all__ = ["Planes", "as_image", "as_planes", "is_several"]

MOST_CHANNELS = 4
"""Axes up to this length are taken for channels without being told."""
_NOT_CHANNELS = 10
_NOT_DEPTH = 5
"""Cellpose takes the shortest axis for channels below the first, and for planes above the second."""
_PLAIN_MODES = {"1", "L", "I", "F", "RGB", "I;16", "I;16L", "I;16B", "I;16N"}
"""Modes of PIL images whose numbers are those of the pixels."""

_log = logging.getLogger(__name__)


class Planes(NamedTuple):
    """Images ``(H, W)`` or ``(H, W, C)`` that were handed over together; `stacked` as one array."""

    images: list[NDArray[Any]]
    stacked: bool


def is_several(given: Any) -> bool:
    """Whether it is a list of images, not one image as nested lists of numbers."""
    if not isinstance(given, (list, tuple)):
        return False
    return not given or not isinstance(given[0], (int, float, list, tuple, np.number))


def as_image(given: Any, channel_axis: int | None = None) -> NDArray[Any]:
    """One image as ``(H, W)`` or ``(H, W, C)``.

    Parameters
    ----------
    given : array_like, path, str or PIL image
        ``(H, W)``, or with up to four channels last; axes of length 1 in front are dropped.
    channel_axis : int, optional
        Which axis of three holds the channels; then there may be any number of them.

    Raises
    ------
    DataError
        If it is a stack, or could be one, with its shape and what to type instead.
    """
    array = _array(given)
    while array.ndim > 3 and len(array) == 1:
        array = array[0]
    if channel_axis is not None:
        return _channels_last(array, channel_axis)
    if array.ndim == 3 and len(array) == 1 and array.shape[2] > MOST_CHANNELS:
        return np.asarray(array[0])
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] <= MOST_CHANNELS):
        return array
    found = (
        f"image: expected shape (H, W), or (H, W, C) with at most {MOST_CHANNELS} channels, found "
    )
    if array.ndim == 3:
        axis = 0 if array.shape[0] < array.shape[2] else 2
        planes = "stack" if axis == 0 else "np.moveaxis(stack, 2, 0)"
        raise DataError(
            f"{found}{array.shape}. If these are planes or images: [model.predict(plane) for plane in "
            f"{planes}]; if they are channels: model.predict(image, channel_axis={axis})"
        )
    if array.ndim > 3:
        kept = 3 if array.shape[-1] <= MOST_CHANNELS else 2
        planes = "stack" if array.ndim == kept + 1 else f"stack.reshape(-1, *stack.shape[-{kept}:])"
        raise DataError(
            f"{found}{array.shape}. This is a stack; one image at a time: [model.predict(plane) for plane "
            f"in {planes}]"
        )
    raise DataError(f"{found}{array.shape}.")


def as_planes(given: Any, channel_axis: int | None = None, z_axis: int | None = None) -> Planes:
    """An image or a stack, its axes found as ``cellpose.transforms.convert_image`` finds them.

    Without being told, the shortest axis holds planes where it is longer than 5, else channels. Of four
    axes the shortest holds channels where it is shorter than 10, and the first of the others planes.

    Parameters
    ----------
    given : array_like, path, str or PIL image
        Two to four axes longer than 1.
    channel_axis, z_axis : int, optional
        Axes that hold channels and planes.

    Raises
    ------
    DataError
        If there are other axes, or none that could be meant.
    """
    array = _array(given)
    channels = _axis(array, channel_axis, "channel_axis")
    depth = _axis(array, z_axis, "z_axis")
    if channels is not None and channels == depth:
        raise DataError(f"channel_axis and z_axis are both {channel_axis}")
    names = ["z" if i == depth else "c" if i == channels else "" for i in range(array.ndim)]
    if array.ndim > 3:
        names = [name for name, length in zip(names, array.shape, strict=True) if length > 1]
        array = array.squeeze()
    if array.ndim not in (2, 3, 4):
        raise DataError(f"image: expected 2 to 4 axes longer than 1, found shape {array.shape}")
    _name_axes(names, array.shape)
    if "c" in names:
        place = names.index("c")
        array = np.moveaxis(array, place, -1)
        names.append(names.pop(place))
    if "z" not in names:
        return Planes([array], stacked=False)
    return Planes(list(np.moveaxis(array, names.index("z"), 0)), stacked=True)


def _name_axes(names: list[str], shape: tuple[int, ...]) -> None:
    """Say which axes hold planes ("z") and channels ("c"), until two are left for the image."""
    if len(shape) == 3 and not any(names) and min(shape) > _NOT_DEPTH:
        planes = shape.index(min(shape))
        names[planes] = "z"
        _log.warning(
            "an image of shape %s: axis %d is taken for planes, each segmented by itself; "
            "channel_axis=%d takes it for channels",
            shape, planes, planes,
        )  # fmt: skip
    if names.count("") > 2 and "c" not in names:
        free = [i for i, name in enumerate(names) if not name]
        channels = min(free, key=lambda i: (shape[i], i != len(shape) - 1))
        if shape[channels] >= _NOT_CHANNELS:
            raise DataError(
                f"image: found shape {shape} without an axis short enough for channels; say what its axes "
                "are with channel_axis and z_axis"
            )
        names[channels] = "c"
    if names.count("") > 2:
        names[names.index("")] = "z"


def _array(given: Any) -> NDArray[Any]:
    """The pixels of what was handed over."""
    if isinstance(given, (str, Path)):
        path = Path(given)
        if path.is_dir() and not is_zarr(path):
            raise DataError(
                f"{path} is a folder. Segment all its images with: cellflow predict {shlex.quote(str(path))}"
            )
        return read_image(path)
    if type(given).__module__.startswith("PIL.") and given.mode not in _PLAIN_MODES:
        given = given.convert("L" if given.mode in ("LA", "La") else "RGB")
    if hasattr(given, "detach"):  # a tensor, on whatever device
        given = given.detach().cpu()
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise DataError(f"image: expected one array of numbers, found {error}") from None
    if array.dtype.kind not in "buif":
        raise DataError(
            f"image: expected an array of numbers, a path or a PIL image, found {type(given).__name__}"
            f" with dtype {array.dtype}"
        )
    return array


def _axis(array: NDArray[Any], axis: int | None, name: str) -> int | None:
    """An axis counted from 0; None where none was given, or the array has two only."""
    if axis is None or array.ndim < 3:
        return None
    if not -array.ndim <= axis < array.ndim:
        raise DataError(
            f"{name}: expected an axis of an image of shape {array.shape}, found {axis}"
        )
    return axis % array.ndim


def _channels_last(array: NDArray[Any], channel_axis: int) -> NDArray[Any]:
    axis = _axis(array, channel_axis, "channel_axis")
    if array.ndim not in (2, 3):
        raise DataError(
            f"image: expected three axes, one of them channels, found shape {array.shape}. For a stack: "
            "[model.predict(plane, channel_axis=0) for plane in stack]"
        )
    return array if axis is None else np.moveaxis(array, axis, -1)
