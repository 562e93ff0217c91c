from __future__ import annotations

import imagecodecs
import numpy as np

from cellflow.report.pages.picture import picture_bytes


def test_quality_makes_files_smaller_and_pictures_stay_alike():
    y, x = np.mgrid[:120, :160]
    smooth = 128 + 60 * np.sin(y / 9) * np.cos(x / 13)
    noise = np.random.default_rng(0).normal(0, 8, smooth.shape)
    pixels = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    sizes = [len(picture_bytes(pixels, quality=quality)) for quality in (90, 60, 30)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < sizes[0] / 2
    back = imagecodecs.webp_decode(picture_bytes(pixels, quality=90))[..., 1]
    assert np.abs(back.astype(int) - pixels).mean() < 6
