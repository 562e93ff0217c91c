"""Flows of other origin: ``<id>.npz`` with `flow`, `cellprob` and `scale`."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io._damage import unreadable
from cellflow.numeric.dynamics import FLOW_SCALE
from cellflow.numeric.flow_layout import likely_layout
from cellflow.storage.arrays import read_again
from cellflow.storage.atomic import atomic_path

__all__ = ["check_layout", "read_foreign_flows", "write_foreign_flows"]

Fields = tuple[NDArray[np.float32], NDArray[np.float32]]

_KEYS = ("flow", "cellprob", "scale")
_SHORTEST, _LONGEST = 0.35, 2.5
"""Median length of a unit flow in the foreground; averages and poor networks are short."""
_FEWEST = 64
"""Pixels that can tell."""
_ZEROS = 0.01
"""Share of zeros that a field of logits does not have."""
_DEFLATE = 1100
"""What a deflated byte becomes at most, and some more."""


def read_foreign_flows(path: Path) -> Fields:
    """Read the flow and logit of one image.

    Parameters
    ----------
    path : Path
        ``.npz`` with `flow` ``(2, H, W)`` (dY, dX), `cellprob` ``(H, W)`` (logit) and `scale` (how long
        a unit flow is in this file: 5 for Cellpose's output, 1 for unit flows).

    Returns
    -------
    flow : (2, H, W) float32 ndarray
        `FLOW_SCALE` times the unit flow.
    cellprob : (H, W) float32 ndarray

    Raises
    ------
    DataError
        If the file is missing, damaged, lacks an array, or holds something else: other shapes or
        types, flows of another scale than it says, probabilities in place of logits.
    """
    path = Path(path)
    try:
        path.open("rb").close()
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        return _checked(*read_again(lambda: _load(path)))
    except DataError as error:
        raise DataError(f"{path}: {error}", **error.facts | {"path": path}) from None
    except Exception as error:  # of any kind: what zipfile and NumPy raise depends on the damage
        why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise DataError(
            f"{path}: not an .npz file of plain arrays, or a damaged one ({why}). Write it again with: "
            "np.savez(path, flow=flow, cellprob=cellprob, scale=scale)",
            path=path,
        ) from error


def write_foreign_flows(
    path: Path, flow: NDArray[np.floating[Any]], cellprob: NDArray[np.floating[Any]]
) -> None:
    """Write flow and logit of one image atomically, in float16: the mask step rounds to that as well.

    Parameters
    ----------
    path : Path
        Ends in ``.npz``.
    flow : (2, H, W) ndarray
        dY, dX, `FLOW_SCALE` times the unit flow.
    cellprob : (H, W) ndarray
        Logit.
    """
    arrays = {"flow": flow.astype(np.float16), "cellprob": cellprob.astype(np.float16)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays, scale=np.float64(FLOW_SCALE))


def check_layout(path: Path, fields: Fields, reference: tuple[NDArray[Any], NDArray[Any]]) -> None:
    """Compare foreign flows of an image with those of one of our networks.

    Parameters
    ----------
    path : Path
        Where they were read from, for the message.
    fields : tuple of ndarray
        What `read_foreign_flows` gave.
    reference : tuple of ndarray
        Flow ``(2, H, W)`` and logit ``(H, W)`` of a network.

    Raises
    ------
    DataError
        If they are of another size, or agree well with the network's once they are turned: dX before
        dY, rows and columns exchanged, or pointing away from the centres.
    """
    flow, cellprob = fields
    ours, our_cellprob = reference
    if cellprob.shape != our_cellprob.shape:
        turned = cellprob.shape == our_cellprob.shape[::-1]
        hint = " Rows and columns are exchanged: the first axis of an array is Y." if turned else ""
        text = (
            f"{path}: expected flows of the image's size {our_cellprob.shape} (height, width), found "
            f"{cellprob.shape}.{hint}"
        )
        raise DataError(text, path=path, expected=our_cellprob.shape, found=cellprob.shape)
    layout = likely_layout(flow, cellprob > 0, ours, our_cellprob > 0)
    if layout is not None:
        text = (
            f"{path}: {layout.what}, as a comparison with the network's own flows shows (mean cosine "
            f"{layout.cosine:.2f}, as it stands {layout.as_it_stands:.2f}). Expected dY, dX towards the "
            f"centre of each cell. Write it with: {layout.remedy}"
        )
        raise DataError(text, path=path, found=layout.what)


def _load(path: Path) -> list[NDArray[Any]]:
    with zipfile.ZipFile(path) as file:
        for item in file.infolist():  # before memory is taken
            if item.file_size > _DEFLATE * (item.compress_size + 1):
                raise ValueError(f"{item.filename} claims {item.file_size} bytes")
    with np.load(path) as arrays:
        missing = [key for key in _KEYS if key not in arrays]
        if missing:
            text = (
                f"expected the arrays {', '.join(_KEYS)}, not found: {', '.join(missing)}. Found: "
                f"{', '.join(sorted(arrays)) or 'none'}."
            )
            raise DataError(text, expected=_KEYS, found=tuple(sorted(arrays)))
        return [np.asarray(arrays[key]) for key in _KEYS]


def _checked(flow: NDArray[Any], cellprob: NDArray[Any], scale: NDArray[Any]) -> Fields:
    """Both fields as float32, the flow at the network's scale."""
    _check_shapes(flow, cellprob)
    for name, array in (("flow", flow), ("cellprob", cellprob), ("scale", scale)):
        if array.dtype.kind not in "fiu":
            message = f"expected numbers in {name}, found the type {array.dtype}."
            raise DataError(message, found=array.dtype)
        bad = int((~np.isfinite(array)).sum())
        if bad:
            text = f"expected finite numbers in {name}, found {bad} that are NaN or infinite."
            raise DataError(text, expected=0, found=bad)
    length = float(scale.reshape(-1)[0]) if scale.size == 1 else 0.0
    if not length > 0:
        raise DataError(f"expected one positive scale, found {scale}.", found=scale)
    _check_logit(cellprob)
    _check_length(flow, cellprob > 0, length)
    return (flow * (FLOW_SCALE / length)).astype(np.float32), cellprob.astype(np.float32)


def _check_shapes(flow: NDArray[Any], cellprob: NDArray[Any]) -> None:
    if cellprob.ndim == 2 and flow.shape == (2, *cellprob.shape):
        return
    hint = ""
    if cellprob.ndim == 2 and flow.shape == (*cellprob.shape, 2):
        hint = "The components come last; write it with: flow=np.moveaxis(flow, -1, 0)"
    elif cellprob.ndim == 2 and flow.shape == (2, *cellprob.shape[::-1]):
        hint = "Rows and columns are exchanged in one of them; the first axis of an array is Y."
    elif flow.ndim == 3 and len(flow) == 3:
        hint = "With Cellpose's three outputs in one array: flow=y[:2], cellprob=y[2]"
    elif cellprob.ndim == 3 and 1 in cellprob.shape:
        hint = "Write it with: cellprob=np.squeeze(cellprob)"
    text = f"expected flow (2, H, W) and cellprob (H, W), found {flow.shape} and {cellprob.shape}. {hint}"
    raise DataError(text, found=(flow.shape, cellprob.shape))


def _check_logit(cellprob: NDArray[Any]) -> None:
    """Refuse what cannot be a logit, which is below 0 in the background and hardly ever just 0."""
    if cellprob.size < _FEWEST or cellprob.min() < 0:
        return
    low, high = float(cellprob.min()), float(cellprob.max())
    whole = 1.0 if high <= 1 else 100.0 if high <= 100 else 255.0
    if high <= 1 or (high <= 255 and float(np.mean(cellprob == 0)) > _ZEROS):
        part = "p = cellprob" if whole == 1 else f"p = cellprob / {whole:.0f}"
        text = (
            f"cellprob lies within {low:.3g} and {high:.3g}: a probability, expected the logit. Write it "
            f"with: {part}; p = np.clip(p, 1e-6, 1 - 1e-6); cellprob = np.log(p / (1 - p))"
        )
        raise DataError(text, expected="logit", found=(low, high))


def _check_length(flow: NDArray[Any], inside: NDArray[np.bool_], scale: float) -> None:
    if int(inside.sum()) < _FEWEST:
        return
    length = float(np.median(np.hypot(*flow[:, inside].astype(np.float64))))
    if not _SHORTEST <= length / scale <= _LONGEST:
        text = (
            f"scale {scale:g} says that a flow in a cell is about {scale:g} long, but where cellprob is "
            f"above 0 they are {length:.3g} long (median). Cellpose's own output has scale=5, unit flows "
            "have scale=1."
        )
        raise DataError(text, expected=scale, found=length)
