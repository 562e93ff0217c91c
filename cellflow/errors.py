"""The one tree of errors. Every message says what was expected, what was found, where, and what to do."""

from __future__ import annotations

__all__ = [
    "CellflowError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "FoldError",
    "LeakError",
    "NotFiniteError",
    "RleError",
    "RunError",
]


class CellflowError(Exception):
    """Base of every error that cellflow raises on purpose; the command line prints it without a traceback."""


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


class RunError(CellflowError, ValueError):
    """A run folder is missing or incomplete, or runs that do not belong together are mixed."""


class NotFiniteError(CellflowError, ArithmeticError):
    """A network's output is not a number."""
