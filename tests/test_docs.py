"""What pages of docs/ and files of the root say of the package is so."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from page_blocks import DOCS, ROOT, Reader, Typed, blocks, cells, code, commands, run_page

import cellflow
from cellflow import cli, errors
from cellflow.cli import console
from cellflow.cli.meant import flags_of
from cellflow.cli.parsing import parse
from cellflow.config import check_config

PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md"]
OF_PYTHON = re.compile(r"^\.\. (?:auto\w+|py:data):: cellflow\.(\w+)$", re.MULTILINE)
OF_PARSING = {"sgd", "SGD", "adam", "config", "dir", "init", "help"}
"""Flags that are no field of their own: short ways, Cellpose's names, and what each command has."""


def test_every_public_name_is_documented_once() -> None:
    assert sorted(OF_PYTHON.findall((DOCS / "api.rst").read_text())) == cellflow.__all__


def test_every_error_is_documented() -> None:
    text = (DOCS / "api.rst").read_text()
    for name in set(errors.__all__) - {"CellflowError"}:
        assert text.count(f".. autoexception:: cellflow.errors.{name}\n") == 1


def test_every_page_is_in_the_site_and_named_once() -> None:
    index = (DOCS / "index.md").read_text()
    named = [
        line
        for block in re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
        for line in block.splitlines()
        if line and not line.startswith(":")
    ]
    pages = {path.stem for path in DOCS.iterdir() if path.suffix in (".md", ".rst")}
    assert sorted(named) == sorted(pages - {"index"})


def test_links_between_files_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@cache
def texts_of_the_source() -> str:
    """Every text of the package, parts of formatted ones by themselves."""
    found = []
    for path in sorted((ROOT / "cellflow").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n\n".join(found)


def test_quoted_messages_are_those_of_the_source() -> None:
    sections = [*errors.__all__, "Of the machine"]
    for section in sections:
        rows = cells("troubleshooting.md", section)
        assert rows, f"no message for {section}"
        for row in rows:
            assert len(row) == 3, row
            (message, *_) = code(row[0])
            for part in filter(None, (part.strip() for part in message.split("..."))):
                assert part in texts_of_the_source(), f"{section}: nothing says {part!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_flags_of_a_page_exist(page: Path) -> None:
    """Those of all commands in blocks."""
    for item in (item for _, text, where in blocks(page) for item in commands(text, where)):
        for words in item.commands:
            if words[0] == "cellflow" and len(words) > 1 and words[1] != "--help":
                assert words[1] in cli.COMMANDS, f"{item.where}: {item.text}"
                known = {*flags_of(cli.COMMANDS[words[1]].config), *OF_PARSING, "model"}
                for word in words[2:]:
                    name = word[2:].partition("=")[0].replace("-", "_")
                    if word.startswith("--"):
                        assert {name, name.removeprefix("no_")} & known, f"{item.where}: {word}"


def test_what_others_call_it() -> None:
    """Each of our commands and flags in the tables of `coming-from.md` is one that the parser takes."""
    known = {name for command in cli.COMMANDS.values() for name in flags_of(command.config)}
    parsed = 0
    for row in cells("coming-from.md"):
        assert len(row) >= 2, row
        for text in (text for cell in row[1:] for text in code(cell)):
            if text.startswith("cellflow "):
                (words,) = Typed(text, "coming-from.md").commands
                check_config(parse(words[1], words[2:], config=cli.COMMANDS[words[1]].config))
                parsed += 1
            elif text.startswith("--"):
                name = text.split()[0][2:]
                assert {name, name.removeprefix("no_")} & (known | OF_PARSING), row
    assert parsed > 50


@pytest.mark.slow
def test_every_flag_of_cellpose_has_its_row() -> None:
    upstream = pytest.importorskip("cellpose.cli")
    train = pytest.importorskip("cellpose.train")
    text = " ".join(row[0] for row in cells("coming-from.md"))
    named = set(code(text))
    flags = {
        option
        for action in upstream.get_arg_parser()._actions
        for option in action.option_strings
        if option.startswith("--")
    }
    arguments = {f"{name}=" for name in inspect.signature(train.train_seg).parameters}
    assert flags - {"--help"} <= named
    assert arguments <= named


def test_what_choosing_flatters(capsys: pytest.CaptureFixture[str]) -> None:
    """The little example prints what the page says."""
    (example,) = [text for name, text, _ in blocks(DOCS / "honest-cv.md") if name == "python"]
    exec(example, {})
    assert capsys.readouterr().out in [text for _, text, _ in blocks(DOCS / "honest-cv.md")]


def test_every_exit_code_is_said() -> None:
    text = (DOCS / "files.md").read_text().partition("## Exit codes\n")[2].partition("\n## ")[0]
    codes = {value for name, value in vars(console).items() if name.startswith("EXIT_")}
    said = {int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert said == {0, *codes}


def test_a_page_that_shows_what_is_not_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("```console\n$ cellflow --version\ncellflow ...\n```\n")
    run_page(page, capsys, Reader())
    page.write_text("```console\n$ cellflow --version\nCellpose ...\n```\n")
    with pytest.raises(
        AssertionError, match=r"line 1: cellflow --version\nshows 'Cellpose \.\.\.'"
    ):
        run_page(page, capsys, Reader())
    page.write_text("```console\n$ cellflow train --no_such_flag\n```\n")
    with pytest.raises(AssertionError, match="has no such flag"):
        run_page(page, capsys, Reader())


def test_citation_and_license() -> None:
    facts = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= facts.keys()
    assert facts["cff-version"] == "1.2.0"
    assert facts["version"] == cellflow.__version__
    assert facts["license"] == "BSD-3-Clause"
    assert "BSD 3-Clause" in (ROOT / "LICENSE").read_text()
