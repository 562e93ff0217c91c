"""Damaged copies of a file: cut, with flipped bits, zeros, swapped, repeated or foreign blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def damaged(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Copies of a file, each damaged in one way; the head and the tail are hit as often as all the rest."""
    rng = np.random.default_rng(seed)
    ways = (_cut, _flip, _zero, _swap, _repeat, _noise, _number)
    for number in range(count):
        found = ways[number % len(ways)](bytearray(data), rng)
        if bytes(found) != data:
            yield bytes(found)


def _place(size: int, rng: np.random.Generator) -> int:
    edge = min(size, 2000)
    low, high = [(0, size), (0, edge), (size - edge, size)][rng.integers(3)]
    return int(rng.integers(low, max(high, low + 1)))


def _cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: _place(len(data), rng)]


def _flip(data: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(int(rng.integers(1, 5))):
        data[_place(len(data), rng)] ^= 1 << int(rng.integers(8))
    return data


def _zero(data: bytearray, rng: np.random.Generator) -> bytearray:
    start, size = _place(len(data), rng), int(rng.integers(1, 200))
    data[start : start + size] = bytes(len(data[start : start + size]))
    return data


def _swap(data: bytearray, rng: np.random.Generator) -> bytearray:
    size = int(rng.integers(1, 100))
    one, other = _place(len(data), rng), _place(len(data), rng)
    block = data[one : one + size]
    data[one : one + size] = data[other : other + size]
    data[other : other + size] = block
    return data


def _repeat(data: bytearray, rng: np.random.Generator) -> bytearray:
    start, size = _place(len(data), rng), int(rng.integers(1, 500))
    return data[: start + size] + data[start:]


def _noise(data: bytearray, rng: np.random.Generator) -> bytearray:
    start, size = _place(len(data), rng), int(rng.integers(1, 40))
    data[start : start + size] = rng.bytes(len(data[start : start + size]))
    return data


def _number(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A digit becomes nines: sizes and shapes in headers and in JSON grow huge."""
    digits = [place for place, byte in enumerate(data[:5000]) if 48 <= byte < 58]
    if digits:
        place = digits[int(rng.integers(len(digits)))]
        data[place : place + 1] = b"9" * int(rng.integers(1, 15))
    return data
