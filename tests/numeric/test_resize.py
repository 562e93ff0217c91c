"""Resizing is OpenCV's, and that of a box is that of the whole, to the bit."""

from __future__ import annotations

import platform

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Oracle

from cellflow.numeric._jit import set_threads
from cellflow.numeric.resize import resize_linear, resize_part, source_box
from cellflow.types import Box

X86 = platform.machine().lower() in ("x86_64", "amd64")
IPP = cv2.ipp.getIppVersion() if cv2.ipp.useIPP() else ""
shapes = st.tuples(st.integers(1, 70), st.integers(1, 70))


def make_image(channels: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=(channels, *shape)).astype(np.float32)


def by_opencv(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Channels last and all at once, as Cellpose calls it; one and several differ in the last bits."""
    last = np.ascontiguousarray(image.transpose(1, 2, 0))
    resized = cv2.resize(last, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return resized.reshape(*shape, len(image)).transpose(2, 0, 1)


def tolerance(channels: int, old: tuple[int, int], new: tuple[int, int]) -> float:
    """How far OpenCV may be from us: its own code only where it does not fuse, IPP by its processor."""
    if not X86:
        return 1e-4  # no IPP, whose places are exact
    if channels in (2, 5) or min(old) == 1:
        return 0.0
    # IPP does not fuse the last columns of narrow images of several channels, and nothing before AVX2
    if "AVX-512" in IPP and (channels == 1 or new[1] < 3 * old[1]):
        return 0.0
    return 2e-6 if IPP else 1e-4


@pytest.mark.parametrize("shape", [(30, 41), (7, 90), (60, 82), (1, 1), (25, 33)])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_resize_equals_cellpose(shape, channels):
    resize_image = Oracle("transforms").resize_image

    image = make_image(channels, (25, 33))
    theirs = resize_image(image.transpose(1, 2, 0), *shape, interpolation=cv2.INTER_LINEAR)
    theirs = theirs.reshape(*shape, channels).transpose(2, 0, 1)
    atol = tolerance(channels, (25, 33), shape)
    np.testing.assert_allclose(resize_linear(image, shape), theirs, rtol=0, atol=atol)


@settings(max_examples=200, deadline=None)
@given(shapes, shapes, st.sampled_from([1, 2, 3, 5]))
def test_resize_equals_opencv(old, new, channels):
    image = make_image(channels, old)
    atol = tolerance(channels, old, new)
    np.testing.assert_allclose(resize_linear(image, new), by_opencv(image, new), rtol=0, atol=atol)


@settings(max_examples=30, deadline=None)
@given(shapes, st.sampled_from([1, 2, 3]))
def test_halving_equals_opencv(new, channels):
    """Its own code takes the mean of four pixels there, in an order of its own."""
    old = (2 * new[0], 2 * new[1])
    image = make_image(channels, old)
    atol = tolerance(channels, old, new)
    np.testing.assert_allclose(resize_linear(image, new), by_opencv(image, new), rtol=0, atol=atol)


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("new", [(700, 650), (311, 402), (250, 262), (1000, 1048)])
def test_larger_images_and_threads(channels, new):
    """OpenCV cuts large images up for its threads, and so do we."""
    old = (500, 524)
    image = make_image(channels, old)
    found = resize_linear(image, new)
    atol = tolerance(channels, old, new)
    np.testing.assert_allclose(found, by_opencv(image, new), rtol=0, atol=atol)
    try:
        set_threads(1)
        assert found.tobytes() == resize_linear(image, new).tobytes()
    finally:
        set_threads(None)


@settings(max_examples=60, deadline=None)
@given(shapes, shapes)
def test_the_fused_formula_in_plain_numpy(old, new):
    """What a processor without IPP does not show: from the nearer pixel a part of the way, rounded once."""

    def mix(first, second, way):
        wide = np.longdouble  # holds the product whole
        return ((second - first).astype(wide) * way + first).astype(np.float32)

    def places(count, length):
        at = (np.arange(count) + 0.5) * (length / count) - 0.5
        first = np.floor(at).astype(int)
        ends = [np.clip(first + step, 0, length - 1) for step in (0, 1)]
        return *ends, (at - first).astype(np.float32)

    image = make_image(3, old)
    if min(old) == 1 or old == new:
        return
    y0, y1, down = places(new[0], old[0])
    x0, x1, along = places(new[1], old[1])
    lines = mix(image[:, :, x0], image[:, :, x1], along)
    expected = mix(lines[:, y0], lines[:, y1], down[:, np.newaxis])
    assert np.array_equal(resize_linear(image, new), expected)


@st.composite
def boxes(draw, shape):
    sides = [sorted(draw(st.sets(st.integers(0, n), min_size=2, max_size=2))) for n in shape]
    return Box(*sides[0], *sides[1])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_box_is_that_of_the_whole(data):
    old, new = data.draw(shapes), data.draw(shapes)
    case = data.draw(st.sampled_from(["any", "same", "half", "rows", "huge"]))
    if case == "huge":  # where places in float32 are rounded to another pixel
        old = (data.draw(st.integers(1, 3)), data.draw(st.integers(20_000, 90_000)))
        new = (old[0], int(old[1] * data.draw(st.floats(0.3, 3.0))))
    elif case != "any":
        old = {"same": new, "half": (2 * new[0], 2 * new[1]), "rows": (new[0], old[1])}[case]
    image = make_image(data.draw(st.sampled_from([1, 2, 3])), old)
    box = data.draw(boxes(new))
    needed = source_box(box, old, new)
    assert needed == needed.intersection(Box(0, old[0], 0, old[1]))
    read = needed.grown(data.draw(st.integers(0, 2)), old)  # more than that may be given
    part = image[:, *read.slices]
    found = resize_part(part, read, old, new, box)
    assert found.tobytes() == resize_linear(image, new)[:, *box.slices].tobytes()


def test_what_comes_back_is_a_copy():
    image = make_image(2, (5, 6))
    whole = Box(0, 5, 0, 6)
    assert not np.shares_memory(resize_linear(image, (5, 6)), image)
    assert not np.shares_memory(resize_part(image, whole, (5, 6), (5, 6), whole), image)
    assert resize_linear(image.astype(np.float64), (7, 7)).dtype == np.float32
