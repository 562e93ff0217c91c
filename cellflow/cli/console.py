"""What reaches the terminal."""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["EXIT_ERROR", "EXIT_INTERRUPTED", "EXIT_TERMINATED", "EXIT_USAGE", "fail", "say"]

EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143


def say(text: str) -> None:
    """Write to standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fail(message: str, code: int = EXIT_ERROR) -> NoReturn:
    """Write a message to standard error and leave."""
    sys.stderr.write(f"cellflow: {message}\n")
    sys.exit(code)
