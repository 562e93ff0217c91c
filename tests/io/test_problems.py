"""What is wrong with several images in the same way is said once."""

from __future__ import annotations

import pytest

from cellflow.errors import DataError
from cellflow.io.problems import Problems


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"a": "in/a.png is empty.", "b": "in/b.png is empty."}, "in/a.png is empty. The same for 1 more (b)."),
        ({"a": "exp_a/a.png is empty.", "b": "exp_a/b.png is empty."}, "The same for 1 more (b)."),
        ({"a": "a/a/a_1.png is empty.", "c7": "a/a/c7_2.png is empty."}, "The same for 1 more (c7)."),
        ({"a": "a/a.png is empty.", "b": "b/b.png is empty."}, "The same for 1 more (b)."),
        ({"a": "in/a.png is empty.", "b": "in/b.png is torn."}, "2 problems:"),
        ({"a": "in/a.png is empty.", "b": "elsewhere/b.png is empty."}, "2 problems:"),
    ],
)  # fmt: skip
def test_one_line_for_a_cause(texts: dict[str, str], said: str) -> None:
    problems = Problems()
    for name, text in texts.items():
        problems.add(DataError(text), name)
    with pytest.raises(DataError) as caught:
        problems.raise_if_any()
    assert said in str(caught.value)
