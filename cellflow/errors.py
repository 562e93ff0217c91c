"""The one tree of errors. Every message says what was expected, what was found, where, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = [
    "CellflowError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DownloadError",
    "FoldError",
    "LeakError",
    "NotFiniteError",
    "PackageError",
    "RleError",
    "RunError",
    "TaskError",
]


_LONGEST = 1500
"""Characters of a line of a message."""


def shorten(text: str, length: int) -> str:
    """A text, its middle left out where it is longer than `length`."""
    if len(text) <= length:
        return text
    half = (length - 3) // 2
    return f"{text[:half]}...{text[half + 3 - length :]}"


class CellflowError(Exception):
    """Base of every error that cellflow raises on purpose; the command line prints it without a traceback.

    Of a line of more than 1,500 characters the middle is left out: what a message quotes comes from files, and a
    damaged one may hold a word of any length.

    Attributes
    ----------
    path : Path or None
        File or folder that is not what it should be.
    line : int or None
        Line in that file, from 1.
    id : str or None
        Image.
    expected, found : object
        What should be there, and what is; None where the message is all there is to say.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellflow.errors import DataError
    >>> error = DataError("a.csv, line 3: expected 2 columns, found 1", path=Path("a.csv"), line=3)
    >>> error.path.name, error.line
    ('a.csv', 3)
    """

    def __init__(
        self,
        message: str = "",
        *,
        path: Path | None = None,
        line: int | None = None,
        id: str | None = None,
        expected: object = None,
        found: object = None,
    ):
        super().__init__("\n".join(shorten(line, _LONGEST) for line in message.split("\n")))
        self.path, self.line, self.id = path, line, id
        self.expected, self.found = expected, found

    @property
    def facts(self) -> dict[str, Any]:
        """The attributes, for an error that says the same in other words."""
        return {name: getattr(self, name) for name in ("path", "line", "id", "expected", "found")}


class ConfigError(CellflowError, ValueError):
    """One or more options do not make sense; all problems are listed together."""

    @classmethod
    def from_problems(cls, problems: list[str]) -> ConfigError:
        """Join several problems into one message, one a line."""
        if len(problems) == 1:
            return cls(problems[0])
        return cls("\n".join([f"{len(problems)} problems:", *(f"  - {text}" for text in problems)]))


class DataError(CellflowError, ValueError):
    """An image, a label map, a table or a dataset folder is not what it should be."""


class RleError(DataError):
    """A run-length string is malformed or does not fit its image."""


class FoldError(CellflowError, ValueError):
    """A fold is missing, or a fold table does not fit its dataset."""


class LeakError(FoldError):
    """One group, or one and the same image under two names, lies in two folds."""


class CheckpointError(CellflowError, ValueError):
    """A model file is missing, damaged, or of another kind than expected."""


class DownloadError(CheckpointError):
    """A model file cannot be fetched, or what came is not what should have come."""


class RunError(CellflowError, ValueError):
    """A run folder is missing or incomplete, or runs that do not belong together are mixed."""


class NotFiniteError(CellflowError, ArithmeticError):
    """A network's output is not a number."""


class PackageError(CellflowError, RuntimeError):
    """Packages for another machine cannot be collected, or what is published cannot be sent."""


class TaskError(CellflowError, RuntimeError):
    """A task has failed; the message is that of what it raised.

    Attributes
    ----------
    traceback : str
        Where it was raised.
    worker : str
        Where it ran: process and host; empty where its worker was lost.
    """

    def __init__(self, message: str = "", *, traceback: str = "", worker: str = ""):
        super().__init__(message)
        self.traceback, self.worker = traceback, worker
