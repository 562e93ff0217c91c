"""What every reader makes of its file when that is damaged; `benchmarks/fuzz_readers.py` does the same at length."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from fuzz import damage
from readers import READERS, check

CASES = 30


@pytest.mark.parametrize("name", READERS)
def test_damaged_copies_are_read_or_refused_in_our_words(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    place = reader.make(tmp_path)
    assert check(reader, place)
    files = {path: path.read_bytes() for path in reader.files(place)}
    refused = 0
    for case in range(CASES):
        rng = np.random.default_rng([1, zlib.crc32(name.encode()), case])
        path = list(files)[int(rng.integers(len(files)))]
        path.write_bytes(damage(files[path], rng))
        refused += not check(reader, place)
        path.write_bytes(files[path])
    assert refused or reader.quiet
    assert check(reader, place)
