"""Blocks of any side, stored in pieces of a sensible one."""

from __future__ import annotations

import pytest

from cellflow.engine.slides.blocks import BlockGrid


@pytest.mark.parametrize("block", [256, 257, 512, 521, 1000, 1018, 1536, 2048, 5003])
@pytest.mark.parametrize("shape", [(300, 330), (9000, 20_000)])
def test_a_slide_is_stored_in_few_pieces_which_no_two_blocks_share(block, shape):
    grid = BlockGrid(shape, block)
    assert len(grid.names) == 1 or block % grid.chunk == 0
    assert grid.chunk >= 128
