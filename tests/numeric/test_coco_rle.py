"""Strings of COCO against pycocotools, which decodes them into whole images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as masks

from cellflow.errors import RleError
from cellflow.numeric.coco_rle import (
    check_coco_rle,
    coco_counts_from_labels,
    instances_from_coco_rles,
)
from cellflow.types import Instances

SIDES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)


def pixels(cells: Instances) -> NDArray[np.bool_]:
    """Every cell as an image of its own, ``(n, H, W)``."""
    flat = np.zeros((len(cells), cells.shape[0] * cells.shape[1]), dtype=bool)
    for row, (starts, lengths) in zip(flat, cells, strict=True):
        assert (np.diff(starts) > lengths[:-1]).all()  # sorted, and they do not touch
        for start, length in zip(starts, lengths, strict=True):
            row[start : start + length] = True
    return flat.reshape(-1, *cells.shape)


@settings(deadline=None)  # kernels are compiled at the first call
@given(st.data(), SIDES)
def test_strings_give_the_pixels_that_they_were_made_of(
    data: st.DataObject, shape: tuple[int, int]
) -> None:
    cells = data.draw(st.lists(arrays(np.uint8, shape, elements=st.integers(0, 1)), max_size=4))
    texts = [masks.encode(np.asfortranarray(cell))["counts"] for cell in cells]
    for text in texts:
        check_coco_rle(text, shape)
    found = pixels(instances_from_coco_rles(texts, shape))

    np.testing.assert_array_equal(found, np.array(cells, dtype=bool).reshape(-1, *shape))


@settings(deadline=None)  # kernels are compiled at the first call
@given(st.data(), SIDES)
def test_counts_of_labels_give_their_pixels(data: st.DataObject, shape: tuple[int, int]) -> None:
    labels = data.draw(arrays(np.int32, shape, elements=st.sampled_from([0, 1, 2, 70_000])))
    counts = coco_counts_from_labels(labels)
    numbers = np.unique(labels[labels > 0])
    assert len(counts) == len(numbers)
    for number, of_cell in zip(numbers, counts, strict=True):
        size = {"size": list(shape), "counts": of_cell.tolist()}
        string = masks.frPyObjects(size, *shape)
        np.testing.assert_array_equal(masks.decode(string), labels == number)
        assert string["counts"] == masks.encode(np.asfortranarray(labels == number))["counts"]


def test_a_large_image_and_cells_of_many_columns() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((700, 900)) < 0.5
    image[:, 400:] = False
    image[:, 500:800] = True
    texts = [masks.encode(np.asfortranarray(part))["counts"] for part in (image, ~image)]
    found = pixels(instances_from_coco_rles(texts, (700, 900)))
    np.testing.assert_array_equal(found, [image, ~image])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"0~", "no run-length string"),
        (b"0\xff", "no run-length string"),
        (b"5P", "no run-length string"),  # the last number goes on after the end
        (b"ooooooo0", "no run-length string"),  # of more than 32 bits
        (b"4", "counts of 4 pixels for an image of 2 x 3 = 6 pixels"),
        (b"34", "counts of 7 pixels"),
        (b"", "counts of 0 pixels"),
        (b"0OG", "negative count"),
    ],
)
def test_strings_that_would_leave_the_image_are_refused(text: bytes, said: str) -> None:
    with pytest.raises(RleError, match=said):
        check_coco_rle(text, (2, 3))
