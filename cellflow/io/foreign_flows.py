"""Flows of other origin: ``<id>.npz`` with `flow`, `cellprob` and `scale`."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.numeric.dynamics import FLOW_SCALE

__all__ = ["read_foreign_flows"]

_KEYS = ("flow", "cellprob", "scale")


def read_foreign_flows(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
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
        If the file is missing, damaged, lacks an array, or shapes or the scale do not fit.
    """
    try:
        return _checked(*_load(path))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not an .npz file of plain arrays ({error}).") from error


def _load(path: Path) -> tuple[NDArray[Any], ...]:
    with np.load(path, allow_pickle=False) as file:
        missing = [key for key in _KEYS if key not in file]
        if missing:
            raise DataError(
                f"expected the arrays {', '.join(_KEYS)}, not found: {', '.join(missing)}."
            )
        return tuple(np.asarray(file[key]) for key in _KEYS)


def _checked(
    flow: NDArray[Any], cellprob: NDArray[Any], scale: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both fields as float32, the flow at the network's scale."""
    if cellprob.ndim != 2 or flow.shape != (2, *cellprob.shape):
        raise DataError(
            f"expected flow (2, H, W) and cellprob (H, W), found {flow.shape} and {cellprob.shape}."
        )
    if scale.size != 1 or not 0 < float(scale.reshape(-1)[0]) < np.inf:
        raise DataError(f"expected one positive scale, found {scale}.")
    factor = FLOW_SCALE / float(scale.reshape(-1)[0])
    return (flow * factor).astype(np.float32), cellprob.astype(np.float32)
