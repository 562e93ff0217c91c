"""Fetch a file from a server, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from cellflow.errors import DownloadError
from cellflow.storage.atomic import atomic_path

__all__ = ["ShowProgress", "download"]

ShowProgress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Takes a title and a number of bytes; while its context lasts, it is told how many have come."""

TIMEOUT = 30.0
"""Seconds that a server may be silent."""
_CHUNK = 1 << 18


def download(
    url: str, path: Path, *, check: Callable[[Path], None], show_progress: ShowProgress
) -> None:
    """Fetch a file; it is there in the end, complete and checked, or nothing is.

    Parameters
    ----------
    url : str
        Address of the file.
    path : Path
        File to write.
    check : callable
        Gets the path of what came, and raises where that is not what it should be.
    show_progress : callable
        Shows how far it is, where the server says how many bytes will come.

    Raises
    ------
    DownloadError
        If the server cannot be reached or has no such file, or less comes than it said.
    """
    with closing(_open(url)) as answer, atomic_path(path) as temporary:
        told = answer.headers.get("Content-Length", "")
        size = int(told) if told.isdecimal() else 0
        came = 0
        with temporary.open("wb") as file, show_progress(f"fetching {path.name}", size) as show:
            for chunk in _chunks(answer, url):
                file.write(chunk)
                came += len(chunk)
                show(came)
        if size and came != size:
            text = f"{url}: {came} of {size} bytes came before the connection ended."
            raise DownloadError(text, path=path, expected=size, found=came)
        check(temporary)


def _open(url: str) -> HTTPResponse:
    try:
        answer: HTTPResponse = urlopen(url, timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        text = f"{url}: the server answered {error.code} ({error.reason})."
        raise DownloadError(text, found=error.code) from None
    except (OSError, HTTPException, ValueError) as error:
        raise DownloadError(f"{url} cannot be reached: {_reason(error)}.") from None
    return answer


def _chunks(answer: HTTPResponse, url: str) -> Iterator[bytes]:
    while True:
        try:
            chunk = answer.read(_CHUNK)
        except (OSError, HTTPException) as error:
            raise DownloadError(f"{url}: the connection broke: {_reason(error)}.") from None
        if not chunk:
            return
        yield chunk


def _reason(error: Exception) -> str:
    """What is wrong, without the brackets of Python's own texts."""
    inner = error.reason if isinstance(error, URLError) else error
    text = inner.strerror if isinstance(inner, OSError) and inner.strerror else inner
    return (str(text) or type(error).__name__).strip(" .<>")
