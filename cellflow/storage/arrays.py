"""Arrays in ``.npy`` files, read from any thread."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["map_array"]

_reading = Lock()
_TRIES = 20


def map_array(path: Path) -> NDArray[Any]:
    """An array by memory map.

    NumPy parses the header as Python text, and CPython 3.11 counts wrongly where two threads parse at once
    (python/cpython#106905): ``SystemError: AST constructor recursion depth mismatch``. So one thread does at a
    time, and again where somebody else's parsing came in between.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError, EOFError
        If it is no array, or not whole.
    """
    with _reading:
        for _ in range(_TRIES):
            try:
                return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
            except SystemError as error:
                last = error
        raise last
