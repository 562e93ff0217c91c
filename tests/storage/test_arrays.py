"""Arrays in ``.npy`` files."""

from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cellflow.storage.arrays import map_array


class InACircle:
    """Something that the garbage collection ends, which lets other threads run."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        time.sleep(0)


def test_many_threads_read_headers_at_once(tmp_path: Path) -> None:
    """Without care a SystemError of CPython 3.11 in one of 600 readings."""
    kind = [("labels", "<u2", (40, 50)), ("flow", "<f4", (2, 900)), ("diameter", "<f8")]
    stored = np.ones(1, kind)
    path = tmp_path / "a.npy"
    np.save(path, stored)
    end = time.monotonic() + 2

    def read() -> int:
        count = 0
        while time.monotonic() < end:
            InACircle()
            assert map_array(path)["diameter"][0] == 1
            count += 1
        return count

    threshold = gc.get_threshold()
    gc.set_threshold(23)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(lambda _: read(), range(4))) > 100
    finally:
        gc.set_threshold(*threshold)


def test_what_is_no_array_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with pytest.raises(FileNotFoundError):
        map_array(path)
    for content in (b"", b"no array", b"\x93NUMPY\x01\x00v\x00{"):
        path.write_bytes(content)
        with pytest.raises((ValueError, EOFError)):
            map_array(path)
