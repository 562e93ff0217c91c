"""Facts and mending of single cells, against a slow twin that paints every cell by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from cellflow.numeric.cell_faults import FIXES, cell_facts, fill_holes, largest_parts
from cellflow.numeric.labels import instances_from_labels
from cellflow.numeric.rle import instances_from_rles, rle_encode

STACKS = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9).flatmap(
    lambda shape: st.lists(
        hnp.arrays(np.bool_, shape, elements=st.booleans()).filter(np.any), min_size=1, max_size=3
    )
)
EIGHT = np.ones((3, 3))


def cells_of(stack):
    return instances_from_rles([rle_encode(mask) for mask in stack], stack[0].shape)


def masks_of(instances):
    for starts, lengths in instances:
        flat = np.zeros(instances.shape[0] * instances.shape[1], bool)
        for start, length in zip(starts, lengths, strict=True):
            assert not flat[start : start + length].any()
            flat[start : start + length] = True
        yield flat.reshape(instances.shape)


def holes_of(stack, cell):
    """Free pixels of which no smaller hole, or one as small of an earlier cell, has any."""
    sizes = np.full((len(stack), *stack[0].shape), np.inf)
    for size, mask in zip(sizes, stack, strict=True):
        holes, count = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
        for number in range(1, count + 1):
            size[holes == number] = (holes == number).sum()
    innermost = np.isfinite(sizes[cell]) & (sizes.argmin(axis=0) == cell)
    return innermost & ~np.any(stack, axis=0)


@settings(deadline=None, max_examples=200)
@given(STACKS)
def test_facts_are_those_of_cells_painted_one_by_one(stack):
    facts = cell_facts(cells_of(stack))
    for cell, mask in enumerate(stack):
        others = np.any(
            [m for i, m in enumerate(stack) if i != cell] or [np.zeros_like(mask)], axis=0
        )
        inside = np.pad(np.ones(np.maximum(np.subtract(mask.shape, 2), 0)), 1)[
            : mask.shape[0], : mask.shape[1]
        ]
        assert facts.areas[cell] == mask.sum()
        parts, count = ndimage.label(mask, EIGHT)
        assert facts.parts[cell] == count
        assert facts.largest_part[cell] == np.bincount(parts.ravel())[1:].max()
        assert facts.holes[cell] == holes_of(stack, cell).sum()
        assert facts.shared[cell] == (mask & others).sum()
        assert facts.at_border[cell] == (mask & (inside == 0)).any()


@settings(deadline=None, max_examples=200)
@given(STACKS)
def test_fixes_are_those_of_cells_painted_one_by_one(stack):
    cells = cells_of(stack)
    filled = list(masks_of(fill_holes(cells)))
    largest = list(masks_of(largest_parts(cells)))
    assert len(filled) == len(largest) == len(stack)
    for cell, mask in enumerate(stack):
        assert np.array_equal(filled[cell], mask | holes_of(stack, cell))
        parts, _ = ndimage.label(mask, EIGHT)
        sizes = np.bincount(parts.ravel())[1:]
        assert np.array_equal(largest[cell], parts == 1 + sizes.argmax()) or (
            largest[cell].sum() == sizes.max() and ndimage.label(largest[cell], EIGHT)[1] == 1
        )
        assert not (largest[cell] & ~mask).any()
    assert sum(mask.sum() for mask in masks_of(FIXES["split"](cells))) == sum(
        m.sum() for m in stack
    )
    assert FIXES["keep"](cells) is cells


@pytest.mark.parametrize("fix", FIXES)
def test_a_second_time_changes_nothing(fix):
    labels = np.zeros((20, 20), np.int32)
    labels[2:9, 2:9] = 1
    labels[4:7, 4:7] = 0
    labels[5, 5] = 2
    labels[15, 15] = 1
    once = FIXES[fix](instances_from_labels(labels))
    twice = FIXES[fix](once)
    assert [m.tolist() for m in masks_of(once)] == [m.tolist() for m in masks_of(twice)]


def test_what_another_cell_covers_is_no_hole_and_stays_its_own():
    labels = np.zeros((20, 20), np.int32)
    labels[2:9, 2:9] = 1
    labels[4:7, 4:7] = 0
    labels[5, 5] = 2
    cells = instances_from_labels(labels)
    assert cell_facts(cells).holes.tolist() == [8, 0]
    first, second = masks_of(fill_holes(cells))
    assert first.sum() == 48
    assert second.sum() == 1
    assert not (first & second).any()


def test_of_nested_rings_each_gets_its_own_hole():
    labels = np.zeros((20, 20), np.int32)
    for number, edge in enumerate((1, 4, 7), 1):
        labels[edge : 20 - edge, edge : 20 - edge] = number
        labels[edge + 1 : 19 - edge, edge + 1 : 19 - edge] = 0
    cells = instances_from_labels(labels)
    assert cell_facts(cells).holes.tolist() == [16**2 - 12**2, 10**2 - 6**2, 4**2]
    filled = list(masks_of(fill_holes(cells)))
    assert np.array_equal(sum(mask.astype(int) for mask in filled), np.pad(np.ones((18, 18)), 1))
    assert [int(mask[10, 10]) for mask in filled] == [0, 0, 1]


@pytest.mark.parametrize("fix", FIXES)
def test_no_cells(fix):
    cells = instances_from_labels(np.zeros((5, 6), np.int32))
    assert len(FIXES[fix](cells)) == 0
    assert len(cell_facts(cells).areas) == 0
