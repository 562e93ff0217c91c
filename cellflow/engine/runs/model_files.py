"""Model files by path or by name, with the progress of what is fetched shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cellflow.engine.runtime.progress_lines import show_progress
from cellflow.io import cellpose_models

__all__ = ["find_model_file", "find_model_files"]

MEGABYTE = 1_000_000


def find_model_files(name: str, *, download: bool = True) -> tuple[Path, ...]:
    """As `cellflow.io.cellpose_models.model_files`."""
    return cellpose_models.model_files(name, fetch=download, show_progress=_megabytes)


def find_model_file(name: str, *, download: bool = True) -> Path:
    """As `cellflow.io.cellpose_models.model_file`."""
    return cellpose_models.model_file(name, fetch=download, show_progress=_megabytes)


@contextmanager
def _megabytes(title: str, size: int) -> Iterator[Callable[[int], None]]:
    """Shows how many megabytes have come, where it is known how many will."""
    if size < MEGABYTE:
        yield lambda came: None
        return
    with show_progress(title, size // MEGABYTE, unit="megabyte") as progress:

        def show(came: int) -> None:
            more = came // MEGABYTE - progress.done
            if more:
                progress.update(more)

        yield show
