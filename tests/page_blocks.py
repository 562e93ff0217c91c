"""Blocks of a page of docs/: found, and run one after the other as a reader would type them."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cellflow import cli

__all__ = [
    "DOCS",
    "ROOT",
    "Reader",
    "Typed",
    "blocks",
    "cells",
    "code",
    "commands",
    "explained",
    "run_page",
]

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
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


@dataclass(frozen=True)
class Reader:
    """How a page is read: what stands in for what a test cannot have or wait for.

    Attributes
    ----------
    shorter : dict of str to sequence of str
        Flags to add to each cellflow command of that name; they replace those that it has.
    words : dict of str to str
        Words that are typed differently.
    names : dict of str to Any
        What the Python of the page finds there.
    before : dict of str to callable
        What the reader does between two commands: before one that begins so.
    passed_over : sequence of str
        Commands, by their first words, that are not run.
    """

    shorter: Mapping[str, Sequence[str]] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, Any] = field(default_factory=dict)
    before: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    passed_over: Sequence[str] = ()

    def command(self, words: list[str]) -> list[str]:
        """What is run of what is typed."""
        name, *rest = [self.words.get(word, _at_home(word)) for word in words[1:]]
        more = list(self.shorter.get(name, ()))
        replaced = {word for word in more if word.startswith("--")}
        kept, drop = list[str](), False
        for word in rest:
            drop = word in replaced if word.startswith("--") else drop
            kept += [] if drop else [word]
        return [name, *kept, *more]


def _at_home(word: str) -> str:
    """A word as a shell hands it over: with ~ for the home folder."""
    return str(Path(word).expanduser()) if word.startswith("~") else word


def run_page(page: Path, capsys: pytest.CaptureFixture[str], reader: Reader) -> int:
    """Run the console and Python blocks of a page in the working folder, in order; how many commands were run.

    What a page shows below a command must be lines of what it prints, in that order; ``...`` stands for anything.
    A block of YAML that begins with its name in a comment is written to that file.
    """
    names: dict[str, Any] = {"__name__": page.stem, **reader.names}
    count = 0
    for language, text, where in blocks(page):
        if language == "python":
            exec(compile(text, where, "exec"), names)
        elif language == "yaml" and (named := re.match(r"# (\S+\.yaml)\n", text)):
            Path(named[1]).write_text(text)
        elif language == "console":
            for typed in commands(text, where):
                if typed.text.startswith(tuple(reader.passed_over)):
                    continue
                said = "\n".join(_said(words, capsys, reader, typed) for words in typed.commands)
                _check_shown(typed, said)
                count += len(typed.commands)
    return count


def _said(
    words: list[str], capsys: pytest.CaptureFixture[str], reader: Reader, typed: Typed
) -> str:
    """Run one command, which must end well; what it has written to both streams."""
    if words[0] in _LOOKS:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{typed.where}: {typed.text}\n{done.stderr}"
        return done.stdout
    assert words[0] == "cellflow", f"{typed.where}: {typed.text}: what is this?"
    for start, act in reader.before.items():
        if " ".join(words[1:]).startswith(start):
            act()
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main(reader.command(words))
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


def cells(page: str, heading: str | None = None) -> list[list[str]]:
    """Rows of the tables of a page, or of one section of it, without their heads."""
    text = (DOCS / page).read_text(encoding="utf-8")
    if heading is not None:
        _, found, text = text.partition(f"\n## {heading}\n")
        assert found, f"{page} has no section {heading}"
        text = text.partition("\n## ")[0]
    found_rows = []
    lines = text.splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("|") and not line.startswith("|-") and not after.startswith("|-"):
            found_rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return found_rows


def code(text: str) -> list[str]:
    """What stands between backticks, one or two."""
    return [one or two for two, one in re.findall(r"``(.+?)``|`([^`]+)`", text)]


def explained(message: str) -> bool:
    """Whether a row of the page on troubleshooting begins with a message: its words, with anything where dots are."""
    words = " ".join(message.split())
    for row in cells("troubleshooting.md"):
        parts = [re.escape(part.strip()) for text in code(row[0])[:1] for part in text.split("...")]
        if any(parts) and re.search(".*".join(parts), words):
            return True
    return False
