from __future__ import annotations

import cv2
import numpy as np
import pytest
from cellpose import transforms
from cellpose.dynamics import masks_to_flows

from cellflow.nn.augment import Warp, draw_warp, warp_sample


def make_sample(seed: int, shape: tuple[int, int] = (90, 120)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for number in range(1, 9):
        centre = tuple(
            int(v) for v in (rng.integers(10, shape[1] - 10), rng.integers(10, shape[0] - 10))
        )
        cv2.ellipse(labels, centre, (9, 6), float(rng.uniform(0, 180)), 0, 360, number, -1)
    image = rng.random((2, *shape), dtype=np.float32)
    target = np.concatenate(
        [labels[None].astype(np.float32), masks_to_flows(labels).astype(np.float32)]
    )
    return image, target


class Numbers:
    """Stands in for both generators: gives the same numbers to ours and to cellpose's recipe."""

    def __init__(self, seed: int):
        self.values = np.random.default_rng(seed).random(5)
        self.position = 0

    def random(self, size: int) -> np.ndarray:
        return self.values[:size]

    def rand(self, *shape: int) -> np.ndarray | float:
        count = int(np.prod(shape)) if shape else 1
        part = self.values[self.position : self.position + count]
        self.position += count
        return part if shape else float(part[0])


@pytest.mark.parametrize("seed", range(8))
def test_equals_cellpose(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    image, target = make_sample(seed)
    numbers = Numbers(seed)
    monkeypatch.setattr(np.random, "rand", numbers.rand)
    rescale = 1.3
    expected_image, expected_target, _ = transforms.random_rotate_and_resize(
        [image], Y=[target], rescale=np.array([1 / rescale]), scale_range=0.5, xy=(64, 64)
    )
    warp = draw_warp(numbers, image.shape[1:], rescale=rescale, scale_range=0.5, size=64)  # type: ignore[arg-type]
    crop = warp_sample(image, target, warp, size=64)
    np.testing.assert_allclose(crop.image, expected_image[0], atol=2e-3)
    np.testing.assert_allclose(crop.unit_flow, expected_target[0, 1:], atol=2e-3)
    assert np.mean(crop.foreground == (expected_target[0, 0] > 0.5)) > 0.999


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0, 4.4])
def test_flows_still_point_to_the_centre(flip: bool, angle: float) -> None:
    yy, xx = np.mgrid[:80, :100]
    labels = ((yy - 45) ** 2 / 18**2 + (xx - 38) ** 2 / 12**2 < 1).astype(np.int32)
    target = np.concatenate(
        [labels[None].astype(np.float32), masks_to_flows(labels).astype(np.float32)]
    )
    crop = warp_sample(
        np.zeros((1, 80, 100), np.float32), target, Warp(flip, angle, 1.0, (0.0, 0.0)), size=112
    )
    inside = np.argwhere(crop.foreground > 0)
    centre = inside.mean(axis=0)
    away = centre - inside
    distance = np.linalg.norm(away, axis=1)
    flow = crop.unit_flow[:, inside[:, 0], inside[:, 1]].T
    far = (distance > 5) & (np.linalg.norm(flow, axis=1) > 0.5)
    cosine = (away * flow).sum(axis=1)[far] / distance[far] / np.linalg.norm(flow[far], axis=1)
    assert np.median(cosine) > 0.9


def test_identity_leaves_the_image() -> None:
    image, target = make_sample(0, (64, 64))
    crop = warp_sample(image, target, Warp(False, 0.0, 1.0, (0.0, 0.0)), size=64)
    np.testing.assert_array_equal(crop.image, image)
    np.testing.assert_allclose(crop.unit_flow, target[1:])
    np.testing.assert_array_equal(crop.foreground, target[0] > 0)


def test_small_images_are_not_shifted() -> None:
    warp = draw_warp(np.random.default_rng(0), (20, 30), rescale=1.0, size=224)
    assert warp.shift_xy == (0.0, 0.0)
