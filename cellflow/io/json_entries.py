"""Large JSON files entry by entry: what is in memory is one entry and a buffer, never the file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from cellflow.errors import DataError
from cellflow.io._damage import unreadable
from cellflow.storage.sizes import size_text

__all__ = ["is_list", "read_entries"]

_CHUNK = 1 << 20
_LONGEST = 1 << 28
"""Characters that one entry may have."""
_CUT_OFF = 16
"""What is so near to the end of what was read may be part of a word that goes on in the next chunk."""
_NOT_WHOLE = "the end of the file: it is not whole. Copy or download it again"
_NO_SPACE = re.compile(r"[^ \t\r\n]")
_DECODER = json.JSONDecoder()


def read_entries(path: Path) -> Iterator[tuple[str, Any]]:
    """The entries of a list, or those of all sections of an object, in the order of the file.

    The parser is that of the standard library, which is given one entry after the other.

    Parameters
    ----------
    path : Path
        JSON, UTF-8.

    Yields
    ------
    section : str
        Key of the section; empty where the file is a list.
    entry
        An element of its list, or a value of its object. Sections that are neither have no entries.

    Raises
    ------
    DataError
        If the file is not JSON, not whole, nested too deeply, or one entry is larger than 256 MiB. What was
        found until then has been given.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = _Text(path, file)
            if text.skip("["):
                for entry in text.elements():
                    yield "", entry
            elif text.skip("{"):
                for key in text.members():
                    for entry in text.section():
                        yield key, entry
            else:
                found = repr(text.peek()) if text.peek() else "an empty file"
                raise text.error("expected a list or an object", found)
            if text.peek():
                raise text.error("expected the end of the file", repr(text.peek()))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected JSON as UTF-8 text, found bytes that are none ({error.reason}).",
                        path=path) from error  # fmt: skip
    except OSError as error:
        raise unreadable(path, error) from error


def is_list(path: Path) -> bool:
    """Whether a JSON file that can be read is a list, an empty one too."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return _Text(path, file).peek() == "["


class _Text:
    """A text of which the part in memory begins with what is not used yet."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file
        self._text = ""
        self._at = 0
        self._before = 0
        self._ended = False

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            found = _NO_SPACE.search(self._text, self._at)
            self._at = len(self._text) if found is None else found.start()
            if found is not None:
                return found.group()
            if self._ended:
                return ""
            self._read_on()

    def skip(self, mark: str) -> bool:
        """Pass over a character, if it is the next one."""
        if self.peek() != mark:
            return False
        self._at += 1
        return True

    def elements(self) -> Iterator[Any]:
        """Values up to the end of a list whose bracket has been passed."""
        if self.skip("]"):
            return
        while True:
            yield self.value()
            if self.skip("]"):
                return
            self.expect(",")

    def members(self) -> Iterator[str]:
        """Keys of an object whose bracket has been passed; whoever asks reads the value of each."""
        if self.skip("}"):
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise self.error("expected a key in quotes", repr(key)[:40])
            self.expect(":")
            yield key
            if self.skip("}"):
                return
            self.expect(",")

    def section(self) -> Iterator[Any]:
        """Entries of a list or an object; none of another value, which is passed over."""
        if self.skip("["):
            yield from self.elements()
        elif self.skip("{"):
            for _ in self.members():
                yield self.value()
        else:
            self.value()

    def expect(self, mark: str) -> None:
        """Pass over a character that must be there."""
        if not self.skip(mark):
            found = self.peek()
            raise self.error(f"expected {mark!r}", repr(found) if found else _NOT_WHOLE)

    def value(self) -> Any:
        """The next value as Python objects."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                raise self.error("expected an entry", "brackets nested too deeply") from None
            except json.JSONDecodeError as error:
                self._check_cut_off(error)
            except ValueError as error:
                raise self.error("expected JSON", str(error)) from None
            else:
                # a number that goes on in the next chunk may pass for a whole one: 1 of 1.5, of "1." too
                if self._ended or end + _CUT_OFF < len(self._text):
                    self._at = end
                    return value
            self._read_on()

    def error(self, expected: str, found: str) -> DataError:
        """What is wrong at the place that was reached."""
        text = (
            f"{self._path}: {expected} at character {self._before + self._at + 1}, found {found}."
        )
        return DataError(text, path=self._path, expected=expected, found=found)

    def _check_cut_off(self, error: json.JSONDecodeError) -> None:
        """Refuse an error that more text would not mend."""
        open_text = error.msg.startswith("Unterminated string")
        if not (open_text or error.pos >= len(self._text) - _CUT_OFF):
            self._at = error.pos
            raise self.error("expected JSON", f"an error ({error.msg})") from None
        if self._ended:
            self._at = len(self._text)
            raise self.error("expected more", _NOT_WHOLE) from None
        if len(self._text) - self._at > _LONGEST:
            raise self.error("expected an entry", f"one of over {size_text(_LONGEST)}") from None

    def _read_on(self) -> None:
        """Drop what was used and read on, at least as much as there is: an entry is parsed few times."""
        rest = self._text[self._at :]
        new = self._file.read(max(_CHUNK, len(rest)))
        self._before += self._at
        self._text, self._at, self._ended = rest + new, 0, not new
