"""Ids and long words as pages write them."""

from __future__ import annotations

import html
import re

from hypothesis import given
from hypothesis import strategies as st

from cellflow.report.pages.page import ID_LETTERS, _breaks, _short


@given(st.text(max_size=200))
def test_words_that_may_break_are_the_same_text(text: str) -> None:
    """What is copied is what it was, and markup in it stays text."""
    written = str(_breaks(text))
    assert html.unescape(written.replace("<wbr>", "")) == text
    assert "<" not in written.replace("<wbr>", "")
    assert all(len(html.unescape(part)) <= 16 for part in re.split(r"<wbr>|\s", written) if part)


@given(st.text(max_size=200))
def test_short_ids_keep_their_ends(name: str) -> None:
    short = _short(name)
    assert len(short) == min(len(name), ID_LETTERS)
    if len(name) > ID_LETTERS:
        assert (short[:14], short[14:17], short[17:]) == (name[:14], "...", name[-15:])
    else:
        assert short == name
