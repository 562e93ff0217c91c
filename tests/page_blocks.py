"""Blocks of a page of docs/: found, and run one after the other as a reader would type them."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cellflow import cli

__all__ = ["ROOT", "Typed", "blocks", "commands", "run_page"]

ROOT = Path(__file__).resolve().parents[1]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LOOKS = ("head", "ls")
"""Programs beside cellflow that a page may run: they only look."""


@dataclass
class Typed:
    """A line behind a ``$``, and what the page shows of what it prints."""

    text: str
    where: str
    shown: list[str] = field(default_factory=list)

    @property
    def commands(self) -> list[list[str]]:
        """Its words without comments; what ``&&`` joins are several commands."""
        words: list[list[str]] = [[]]
        for word in shlex.split(self.text, comments=True):
            if word == "&&":
                words.append([])
            else:
                words[-1].append(word)
        return [command for command in words if command]


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Language, text and place of every fenced block."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield found[1], found[2], f"{page.name} line {line}"


def commands(text: str, where: str) -> list[Typed]:
    """What is typed in a console block."""
    typed: list[Typed] = []
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            typed.append(Typed(line[2:], where))
        elif typed:
            typed[-1].shown.append(line)
    return typed


def run_page(
    page: Path, capsys: pytest.CaptureFixture[str], shorter: Mapping[str, Sequence[str]]
) -> None:
    """Run the console and Python blocks of a page in the working folder, in order.

    What a page shows below a command must be lines of what it prints, in that order; ``...`` stands for anything.

    Parameters
    ----------
    page : Path
    capsys : pytest fixture
    shorter : dict of str to sequence of str
        Flags to add to each cellflow command of that name.
    """
    names: dict[str, Any] = {"__name__": page.stem}
    for language, text, where in blocks(page):
        if language == "python":
            exec(compile(text, where, "exec"), names)
        elif language == "console":
            for typed in commands(text, where):
                said = "\n".join(_said(words, capsys, shorter, typed) for words in typed.commands)
                _check_shown(typed, said)


def _said(
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    shorter: Mapping[str, Sequence[str]],
    typed: Typed,
) -> str:
    """Run one command, which must end well; what it has written to both streams."""
    if words[0] in _LOOKS:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{typed.where}: {typed.text}\n{done.stderr}"
        return done.stdout
    assert words[0] == "cellflow", f"{typed.where}: {typed.text}: what is this?"
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main([*words[1:], *shorter.get(words[1], ())])
    streams = capsys.readouterr()
    assert not end.value.code, f"{typed.where}: {typed.text}\n{streams.err}"
    return streams.err + streams.out


def _check_shown(typed: Typed, said: str) -> None:
    lines = iter(said.splitlines())
    for shown in typed.shown:
        pattern = re.compile(".*".join(map(re.escape, shown.split("..."))))
        assert any(pattern.fullmatch(line) for line in lines), (
            f"{typed.where}: {typed.text}\nshows {shown!r}, found\n{said}"
        )
