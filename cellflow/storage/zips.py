"""What is in a zip, whoever made it."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from pathlib import Path

__all__ = ["ZIP_DAMAGES", "names_in_zip"]

ZIP_DAMAGES = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError,
    ValueError, OverflowError, struct.error,
)  # fmt: skip
"""What is raised on a damaged zip: `NotImplementedError` for versions and methods that nobody writes, `ValueError`
for names that are not in the encoding they claim."""


def names_in_zip(path: Path) -> list[str]:
    """Names of what a zip says it holds; none where it is no zip, or a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, *ZIP_DAMAGES):
        return []
