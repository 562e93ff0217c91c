"""Files read entry by entry are what the standard library makes of the whole, wherever a piece ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellflow.errors import DataError
from cellflow.io.json_entries import read_entries

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
FILES = st.lists(VALUES, max_size=4) | st.dictionaries(st.text(max_size=4), VALUES, max_size=4)


def expected(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, list):
        yield from (("", entry) for entry in content)
        return
    for key, section in content.items():
        entries = section.values() if isinstance(section, dict) else section
        if isinstance(section, list | dict):
            yield from ((key, entry) for entry in entries)


@settings(deadline=None)
@given(
    content=FILES,
    chunk=st.integers(1, 9),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    mark=st.booleans(),
)
def test_any_json(
    content: Any, chunk: int, indent: int | None, ascii_only: bool, mark: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("json") / "x.json"
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
    try:
        path.write_text(text, encoding="utf-8-sig" if mark else "utf-8", newline="")
    except UnicodeEncodeError:  # half of a pair cannot be written as it is
        return
    with mock.patch("cellflow.io.json_entries._CHUNK", chunk):
        assert list(read_entries(path)) == list(expected(json.loads(text)))


@settings(deadline=None)
@given(content=FILES.filter(bool), chunk=st.integers(1, 9), data=st.data())
def test_no_part_of_a_file_passes_for_the_whole(
    content: Any, chunk: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("json") / "x.json"
    text = json.dumps(content)
    path.write_text(text[: data.draw(st.integers(0, len(text) - 1))])
    with mock.patch("cellflow.io.json_entries._CHUNK", chunk), pytest.raises(DataError) as caught:
        list(read_entries(path))
    assert caught.value.path == path


def test_an_entry_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quote that never closes does not take the whole file into memory."""
    monkeypatch.setattr("cellflow.io.json_entries._CHUNK", 100)
    monkeypatch.setattr("cellflow.io.json_entries._LONGEST", 1000)
    (tmp_path / "x.json").write_text('{"images": [{"file_name": "' + "x" * 100_000)
    with pytest.raises(
        DataError, match=r"expected an entry at character 13, found one of over 1000 B"
    ):
        list(read_entries(tmp_path / "x.json"))


def test_errors_count_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellflow.io.json_entries._CHUNK", 4)
    (tmp_path / "x.json").write_text('{"a": [1, 2, 3], "b" 5' + " " * 40 + "}")
    with pytest.raises(DataError, match=r"expected ':' at character 22, found '5'"):
        list(read_entries(tmp_path / "x.json"))
