"""Damaged copies of a file: cut, with flipped bits, zeros, swapped, repeated or foreign blocks.

`damage` also hits what sums vouch for, inside a zip, a PNG or a gzip, and puts values of other types into texts.
"""

from __future__ import annotations

import gzip
import io
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np

_PNG = b"\x89PNG\r\n\x1a\n"
_TOKEN = re.compile(rb'"[^"\n]{0,200}"|[A-Za-z0-9_.+-]+')
_VALUES = (
    b"null", b"true", b"-1", b"0", b"0.5", b"1e400", b"1e308", b"NaN", b"9" * 30, b"9" * 5000, b'""', b'"text"',
    b'"\\u0000"', b"\x00", b"[]", b"[1]", b'["a"]', b"{}", b'{"a": 1}', b"\xc3\xa9", b"\xff", b"*a", b"!!set", b",",
    b'"' + b"x" * 5000 + b'"', b"[" * 20_000, b'{"a":' * 20_000, b"2020-13-41", b"\n", b": ", b"- ",
)  # fmt: skip
"""What stands in place of a number or a word."""
_SWOLLEN = 2**20
"""Bytes that a file grows by."""


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
        count = 400 if rng.random() < 0.1 else int(rng.integers(1, 15))  # 400: no float64
        data[place : place + 1] = b"9" * count
    return data


def _token(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A word, number or quoted text becomes a value of another type."""
    found = list(_TOKEN.finditer(data))
    if found:
        start, end = found[int(rng.integers(len(found)))].span()
        data[start:end] = _VALUES[int(rng.integers(len(_VALUES)))]
    return data


def _field(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A field of a header becomes the smallest or largest number of its size."""
    start, size = _place(len(data), rng), int(rng.choice([1, 2, 4, 8]))
    last = bytes(1) if rng.random() < 0.3 else b"\xff"
    data[start : start + size] = last * (size - 1) + (b"\x7f" if rng.random() < 0.3 else last)
    return data


def _swell(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A block comes again and again, up to a megabyte."""
    start, size = _place(len(data), rng), int(rng.integers(1, 200))
    block = data[start : start + size] or bytearray(1)
    count = int(_SWOLLEN ** rng.random()) // len(block)
    return data[:start] + block * count + data[start:]


WAYS = (_cut, _flip, _zero, _swap, _repeat, _noise, _number, _token, _field)


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """A damaged copy of a file, by one to three of all ways."""
    inside = {b"PK\3\4": _inside_zip, _PNG[:4]: _inside_png, b"\x1f\x8b\x08\x00": _inside_gzip}
    unpack = inside.get(data[:4])
    if unpack is not None and rng.random() < 0.5:
        return unpack(data, rng)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        way = _swell if rng.random() < 0.03 else WAYS[int(rng.integers(len(WAYS)))]
        data = bytes(way(bytearray(data or bytes(1)), rng))
    return data


def _inside_zip(data: bytes, rng: np.random.Generator) -> bytes:
    """A member is damaged, or its name, and the sums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(item, archive.read(item)) for item in archive.infolist()]
    hit, packed = int(rng.integers(len(members))), io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w") as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for number, (item, content) in enumerate(members):
            info = zipfile.ZipInfo(item.filename)
            if number == hit and rng.random() < 0.1:
                info.filename = damage(item.filename.encode(), rng)[:200].decode("latin-1")
            elif number == hit:
                content = damage(content, rng)
            archive.writestr(info, content, item.compress_type)
    return packed.getvalue()


def _inside_png(data: bytes, rng: np.random.Generator) -> bytes:
    """A chunk is damaged, that of the pixels before it is packed, and the sums are right."""
    chunks, at = list[tuple[bytes, bytes]](), len(_PNG)
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += size + 12
    hit, out = int(rng.integers(len(chunks))), bytearray(_PNG)
    for number, (kind, content) in enumerate(chunks):
        if number == hit and kind == b"IDAT":
            content = zlib.compress(damage(zlib.decompress(content), rng))
        elif number == hit:
            content = damage(content, rng)
        sums = zlib.crc32(kind + content)
        out += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", sums)
    return bytes(out)


def _inside_gzip(data: bytes, rng: np.random.Generator) -> bytes:
    """What is packed is damaged."""
    return gzip.compress(damage(gzip.decompress(data), rng), 1)
