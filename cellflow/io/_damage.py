"""What decoders raise on damaged files, and pixels that are no numbers, in words that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.storage.nearby import nearby


@contextmanager
def damage_told(path: Path, kind: str, place: str = "") -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged file into one message that names the file, and where in it."""
    where = f"{path}, {place}" if place else str(path)
    try:
        yield
    except DataError as error:
        named = str(error).startswith(str(path))
        facts = error.facts | {"path": path}
        raise error if named else DataError(f"{where}: {error}", **facts) from error.__cause__
    except OSError as error:
        if error.errno is not None:
            raise unreadable(path, error) from error
        raise _damaged(where, path, kind, str(error)) from error
    except MemoryError as error:
        raise DataError(
            f"{where}: takes more memory than there is. If the image is not that large, the file is "
            "damaged: copy or export it again. Else cut it into parts.",
            path=path,
        ) from error
    except Exception as error:  # decoders raise nearly every kind of error on damaged files
        raise _damaged(where, path, kind, str(error) or type(error).__name__) from error


def unreadable(path: Path, error: Exception) -> DataError:
    """The error of a place that the system does not let read."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: there is no such file.{nearby(path)}", path=path)
    reason = getattr(error, "strerror", None) or error
    return DataError(f"{path}: cannot be read ({reason}).", path=path)


def _damaged(where: str, path: Path, kind: str, reason: str) -> DataError:
    text = f"{where}: damaged or truncated {kind} file ({reason}). Copy or export the file again."
    return DataError(text, path=path)


def check_numbers(pixels: NDArray[Any], path: Path, place: str = "") -> NDArray[Any]:
    """Pixels as they are, those of 1 bit as uint8; refuses what is no finite real number."""
    where = f"{path}, {place}" if place else str(path)
    if pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8)
    if pixels.dtype.kind not in "iuf":
        text = f"{where}: expected whole or real numbers, found {pixels.dtype}."
        raise DataError(text, path=path, found=pixels.dtype)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        count = int((~np.isfinite(pixels)).sum())
        text = f"{where}: {count:,} of {pixels.size:,} values are not finite (NaN or infinity). Write numbers there, "
        raise DataError(f"{text}0 for the background of masks, and save the file again.", path=path)
    return pixels
