"""Log lines on the console and in files: each line once, however often this is asked for."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cellflow.storage.secrets import RedactSecrets

__all__ = ["log_to", "log_to_console"]

_LOGGER = "cellflow"
_CONSOLE = "cellflow-console"

_lock = threading.Lock()
_files: dict[
    Path, tuple[logging.FileHandler, int]
] = {}  # open log files and how many contexts use them


def log_to_console(filters: Sequence[logging.Filter] = ()) -> None:
    """Show what cellflow logs on stderr, from level INFO.

    Calling it again changes nothing but adds filters of new types. The handler writes to whatever
    ``sys.stderr`` is at the time, above progress bars. Records still reach handlers of the root logger,
    except those that write to the console too, as Colab's, Kaggle's and absl's do: they leave cellflow's
    lines out. Secrets of the environment are replaced by stars.

    Parameters
    ----------
    filters : sequence of logging.Filter
        Further filters for the handler.
    """
    logger = logging.getLogger(_LOGGER)
    with _lock:
        handler = _console_handler()
        if handler is None:
            handler = _Console()
            handler.set_name(_CONSOLE)
            handler.setFormatter(logging.Formatter("%(message)s"))
            logger.addHandler(handler)
        _add_filters(handler, [RedactSecrets(), *filters])
        _let_info_through(logger)
    _quieten_root()


@contextmanager
def log_to(path: Path, filters: Sequence[logging.Filter] = ()) -> Iterator[None]:
    """Append everything cellflow logs to a file while the context lasts.

    Contexts for one file may lie inside each other; every line is written once. Secrets of the environment
    are replaced by stars.

    Parameters
    ----------
    path : Path
        Log file; it and its folder are made when missing.
    filters : sequence of logging.Filter
        Further filters for the handler.
    """
    key = path.resolve()
    with _lock:
        handler, count = _files.get(key) or (_open_log(path), 0)
        _files[key] = handler, count + 1
        _add_filters(handler, filters)
    try:
        yield
    finally:
        with _lock:
            handler, count = _files[key]
            _files[key] = handler, count - 1
            if count == 1:
                del _files[key]
                logging.getLogger(_LOGGER).removeHandler(handler)
                handler.close()


class _Console(logging.Handler):
    """Writes to the stderr of the moment, and keeps progress bars whole."""

    def emit(self, record: logging.LogRecord) -> None:
        _quieten_root()  # its handlers may have come since; they see the record after this one
        try:
            self._write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)

    def _write(self, text: str) -> None:
        stream = sys.stderr
        if stream is None:  # a program without a console
            return
        bars = sys.modules.get("tqdm")
        if bars is None:
            stream.write(text)
        else:
            bars.tqdm.write(text, file=stream, end="")
        stream.flush()


class _NotOurs(logging.Filter):
    """Leaves out cellflow's records while cellflow shows them itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        ours = record.name == _LOGGER or record.name.startswith(f"{_LOGGER}.")
        return not (ours and _console_handler() is not None)


def _console_handler() -> logging.Handler | None:
    """Our handler, by name: the class is another one after this module was reloaded in a notebook."""
    named = [item for item in logging.getLogger(_LOGGER).handlers if item.get_name() == _CONSOLE]
    return named[0] if named else None


def _quieten_root() -> None:
    for handler in logging.getLogger().handlers:
        if _writes_to_console(handler):
            _add_filters(handler, [_NotOurs()])


def _writes_to_console(handler: logging.Handler) -> bool:
    """Whether a handler ends on stderr or stdout; rich has a console in between, absl another handler."""
    writers = [handler, *(getattr(handler, name, None) for name in ("console", "python_handler"))]
    streams = [getattr(item, name, None) for item in writers for name in ("stream", "file")]
    ends = [sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__]
    return any(stream is not None and stream is end for stream in streams for end in ends)


def _add_filters(handler: logging.Handler, filters: Sequence[logging.Filter]) -> None:
    """Add filters of types that the handler has not yet, by name for the sake of reloaded modules."""
    there = {type(item).__qualname__ for item in handler.filters}
    for item in filters:
        if type(item).__qualname__ not in there:
            there.add(type(item).__qualname__)
            handler.addFilter(item)


def _open_log(path: Path) -> logging.FileHandler:
    logger = logging.getLogger(_LOGGER)
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(RedactSecrets())
    _let_info_through(logger)
    logger.addHandler(handler)
    return handler


def _let_info_through(logger: logging.Logger) -> None:
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
