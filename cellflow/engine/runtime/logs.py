"""Log lines on the console and in files."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cellflow.storage.secrets import RedactSecrets

__all__ = ["kept_warnings", "log_to", "log_to_console"]

_log = logging.getLogger(__name__)
_LOGGER = "cellflow"
_CONSOLE = "cellflow-console"


def log_to_console() -> None:
    """Show what cellflow logs on stderr, from level INFO; calling it again changes nothing.

    The handler writes to whatever ``sys.stderr`` is at the time, above progress bars. Lines still reach
    handlers of the root logger, except those that write to the console too, as Colab's, Kaggle's and absl's
    do: they leave cellflow's lines out. Secrets of the environment are replaced by stars.
    """
    if _console_handler() is None:
        handler = _Console()
        handler.set_name(_CONSOLE)
        _add(handler, "%(message)s")
    _quieten_root()


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append everything cellflow logs to a file while the context lasts; it and its folder are made when missing.

    Secrets of the environment are replaced by stars. Where the file takes no more, that is said once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _LogFile(path, encoding="utf-8")
    _add(handler, "%(asctime)s %(levelname)s %(message)s")
    try:
        yield
    finally:
        logging.getLogger(_LOGGER).removeHandler(handler)
        handler.close()


@contextmanager
def kept_warnings() -> Iterator[list[str]]:
    """Keep what is warned of while files are read, instead of showing it; yields the list.

    For who tells of it in another way. What is only informed of is shown as ever.
    """
    readers, kept = logging.getLogger(f"{_LOGGER}.io"), list[str]()
    handler = _Keeper(kept)
    readers.addHandler(handler)
    propagate, readers.propagate = readers.propagate, False
    try:
        yield kept
    finally:
        readers.removeHandler(handler)
        readers.propagate = propagate


class _LogFile(logging.FileHandler):
    """A file that may fail, as on a full disk: what needs the disk more says so, and ends the command."""

    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not self._failed:
            self._failed = True
            error = sys.exc_info()[1]
            _log.warning("%s lacks lines that could not be written: %s", self.baseFilename, error)

    def close(self) -> None:
        with suppress(OSError):  # what could not be written before cannot be now
            super().close()


class _Keeper(logging.Handler):
    """Puts warnings into a list, and hands on all else."""

    def __init__(self, kept: list[str]) -> None:
        super().__init__()
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self._kept.append(record.getMessage())
        else:
            logging.getLogger(_LOGGER).handle(record)


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
        is_quiet = any(isinstance(item, _NotOurs) for item in handler.filters)
        if _writes_to_console(handler) and not is_quiet:
            handler.addFilter(_NotOurs())


def _writes_to_console(handler: logging.Handler) -> bool:
    """Whether a handler ends on stderr or stdout; rich has a console in between, absl another handler."""
    writers = [handler, *(getattr(handler, name, None) for name in ("console", "python_handler"))]
    streams = [getattr(item, name, None) for item in writers for name in ("stream", "file")]
    ends = [sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__]
    return any(stream is not None and stream is end for stream in streams for end in ends)


def _add(handler: logging.Handler, line: str) -> None:
    """Let a handler show what cellflow logs from level INFO, without secrets."""
    handler.setFormatter(logging.Formatter(line))
    handler.addFilter(RedactSecrets())
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(handler)
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
