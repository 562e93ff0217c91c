"""Arrays in files of NumPy's, read from any thread.

NumPy parses the header of an array as Python text, and CPython 3.11 counts wrongly where two threads parse at once
(python/cpython#106905): ``SystemError: AST constructor recursion depth mismatch``, once in many readings. Nothing is
damaged by it, so the reading is repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["map_array", "read_again"]

_TRIES = 20
T = TypeVar("T")


def map_array(path: Path) -> NDArray[Any]:
    """An array of a ``.npy`` file, by memory map.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError, EOFError
        If it is no array, or not whole.
    """
    return read_again(lambda: np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False)))


def read_again(read: Callable[[], T]) -> T:
    """What `read` gives, which is called anew where another thread has come in between."""
    for _ in range(_TRIES - 1):
        try:
            return read()
        except SystemError:
            continue
    return read()
