"""Look at a slide, and say what is to be done with all of its blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellflow.engine.segmentation.mask_step import niter_of
from cellflow.engine.segmentation.recognition import UNKNOWN
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.engine.slides.plan import SlidePlan
from cellflow.io.large import coarse_pixels
from cellflow.io.roi import read_roi
from cellflow.io.source import SourceImage
from cellflow.numeric.normalize import find_divisor, find_scaling, scale_channels, select_channels
from cellflow.types import Box

__all__ = ["make_plan"]


def make_plan(
    image: SourceImage,
    segmenter: Segmenter,
    identity: str,
    *,
    block: int,
    level: int = 0,
    roi: str = "",
    empty: float = 0.0,
) -> SlidePlan:
    """What is to be done with a slide: the scale of its values, from a coarse view, and what styles tell of it.

    `identity` and what follows are as in `SlidePlan`.

    Raises
    ------
    DataError
        If the image cannot be read, there is no such level, or the region holds no pixel of it.
    """
    member = segmenter.members[0]
    channels = (member.chan, member.chan2)
    how = segmenter.normalization
    with image.open_large(level) as large:
        if roi:
            read_roi(roi, large.levels[0])
        coarse = coarse_pixels(large, pass_over=True)
        seen = coarse.pixels if coarse.known is None else coarse.pixels[coarse.known]
        divisor = find_divisor(seen)
        seen = select_channels(coarse.pixels, *channels, divisor)
        if coarse.known is not None:
            seen = seen[:, coarse.known][:, np.newaxis]
        scaling = find_scaling(seen, how)

        def normal(box: Box) -> NDArray[np.float32]:
            selected = select_channels(large.read(box), *channels, divisor)
            return scale_channels(selected, scaling, invert=how.invert)

        known = UNKNOWN
        if segmenter.rounds or any(item.styles is not None for item in segmenter.members):
            known = segmenter.recognize_large(normal, large.shape)
        cell_type, diameter, mask = segmenter.settings_for(known)
        return SlidePlan(
            id=image.id,
            image=image.path,
            level=level,
            shape=large.shape,
            block=block,
            channels=channels,
            divisor=divisor,
            scaling=scaling,
            invert=how.invert,
            recognition=known,
            cell_type=cell_type,
            diameter=diameter,
            mask=mask,
            steps=niter_of(mask, diameter),
            pixel_size=large.pixel_size(),
            roi=roi,
            empty=empty,
            identity=identity,
        )
