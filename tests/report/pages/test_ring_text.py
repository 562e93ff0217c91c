from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cellflow.io.shapes import outlines_from_labels
from cellflow.report.pages.explorer import ring_text


def corners(text: str) -> np.ndarray:
    start, letters = text.split(":")
    points = [np.array(start.split(","), int)]
    for place, letter in enumerate(letters):
        step = ord(letter) - 79
        points.append(points[-1] + ((0, step) if place % 2 else (step, 0)))
    return np.array(points)


def turns(points: np.ndarray) -> list[tuple[int, int]]:
    """The corners of a closed ring, without points along an edge or twice the same, from the first."""
    points = points[:-1]
    points = points[(points != np.roll(points, 1, 0)).any(1)]
    along = (points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points)
    bends = along[0][:, 0] * along[1][:, 1] != along[0][:, 1] * along[1][:, 0]
    return [tuple(point) for point in points[bends].tolist()]


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32))
def test_rings_come_back_from_their_letters(height, width, seed):
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 2, (3, 3)), np.ones((height, width), np.int32)).astype(
        np.int32
    )
    for outline in outlines_from_labels(labels).values():
        for part in outline:
            for ring in part:
                text = ring_text(ring)
                assert turns(corners(text)) == turns(ring.astype(int))
                assert all(40 <= ord(letter) <= 118 for letter in text.split(":")[1])


def test_a_letter_a_move():
    ring = np.array([[2, 3], [5, 3], [5, 4], [2, 4], [2, 3]])
    assert ring_text(ring) == "2,3:RPLN"
    assert (
        ring_text(ring * 40)
        == "80,120:vOvOvOR" + "O" * 0 + ring_text(ring * 40)[len("80,120:vOvOvOR") :]
    )
