"""Many problems of a source in one error, with one line for each cause."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from cellflow.errors import CellflowError, DataError
from cellflow.storage.sizes import few_text

__all__ = ["EveryProblem", "Problems"]


class Problems:
    """Collects messages so that one error can report many of them, in one line for each cause."""

    limit = 20

    def __init__(self) -> None:
        self._causes: list[list[_Message]] = []
        self._facts: list[dict[str, Any]] = []

    def add(self, message: object, name: str = "") -> None:
        """Keep a message; at the limit of causes, raise at once.

        Parameters
        ----------
        message : str or error
        name : str
            Whom it is about. Messages that differ in this name and in numbers only have one cause: the
            first is shown, and the names of the others.
        """
        new = _Message.of(str(message), name)
        for found in self._causes:
            if _same_cause(found[0], new):
                found.append(new)
                return
        self._causes.append([new])
        facts = message.facts if isinstance(message, CellflowError) else {}
        self._facts.append(facts | {"id": facts.get("id") or name or None})
        if len(self._causes) >= self.limit:
            self.raise_if_any()

    def __len__(self) -> int:
        return sum(len(found) for found in self._causes)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Every message with the name it is about, those of one cause together."""
        return ((item.text, item.name) for found in self._causes for item in found)

    def raise_if_any(self) -> None:
        """Raise one `DataError` with a line for each cause, if there is one."""
        lines = [_one_line(found) for found in self._causes]
        if len(lines) == 1:
            raise DataError(lines[0], **self._facts[0])
        if lines:
            head = f"{len(self)} problems:"
            if len(lines) >= self.limit:
                head = f"The first {len(self)} problems:"
            raise DataError("\n".join([head, *(f"  - {text}" for text in lines)]))


class EveryProblem(Problems):
    """Collects all there are: for whoever lists them instead of raising."""

    limit = sys.maxsize


class _Message(NamedTuple):
    """A message, the name it is about, and its words, as they are and without name and numbers."""

    text: str
    name: str
    words: list[str]
    plain: list[str]

    @classmethod
    def of(cls, text: str, name: str) -> _Message:
        words = text.split()
        return cls(text, name, words, [_without(word, name) for word in words])


def _same_cause(one: _Message, other: _Message) -> bool:
    """Whether two messages say the same of two names."""
    return len(one.words) == len(other.words) and all(
        a == b or plain == others or _numberless(b) in _renamed(a, one.name, other.name)
        for a, b, plain, others in zip(one.words, other.words, one.plain, other.plain, strict=True)
    )


def _renamed(word: str, name: str, other: str) -> set[str]:
    """A word with one place of a name taken by another: ``exp_a/a.png`` holds ``a`` twice, and names it once."""
    places, at = [], word.find(name) if name else -1
    while at >= 0:
        places.append(at)
        at = word.find(name, at + len(name))
    return {_numberless(word[:place] + other + word[place + len(name) :]) for place in places}


def _without(word: str, name: str) -> str:
    """A word without numbers and without a name, unless that is part of a longer name."""
    if name and name in word:
        word = re.sub(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", "<>", word)
    return _numberless(word)


def _numberless(word: str) -> str:
    return re.sub(r"[0-9]+", "#", word)


def _one_line(found: list[_Message]) -> str:
    text, first, *_ = found[0]
    names = sorted({message.name for message in found} - {first})
    if len(found) == 1:
        return text
    others = f" ({few_text(names)})" if names else ""
    return f"{text} The same for {len(found) - 1} more{others}."
