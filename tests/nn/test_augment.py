from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import Oracle
from scipy import ndimage

from cellflow import labels_to_flows
from cellflow.nn.augment import (
    Crop,
    Warp,
    draw_warp,
    inside_image,
    jitter_intensity,
    recompute_sample,
    warp_sample,
)

transforms = Oracle("transforms")
cellpose_dynamics = Oracle("dynamics")

seeds = st.integers(0, 2**32)


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
        [
            labels[None].astype(np.float32),
            cellpose_dynamics.masks_to_flows(labels).astype(np.float32),
        ]
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
        [
            labels[None].astype(np.float32),
            cellpose_dynamics.masks_to_flows(labels).astype(np.float32),
        ]
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


def draw_cells(shape: tuple[int, int], *discs: tuple[float, float, float]) -> np.ndarray:
    """Label map as float32 with discs given as (y, x, radius)."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.float32)
    for number, (y, x, radius) in enumerate(discs, start=1):
        labels[(yy - y) ** 2 + (xx - x) ** 2 < radius**2] = number
    return labels


def recompute(labels: np.ndarray, warp: Warp, *, diameter: float = 24.0, size: int = 64) -> Crop:
    image = np.zeros((1, *labels.shape), np.float32)
    return recompute_sample(image, labels, warp, diameter=diameter, size=size)


def cosines(crop: Crop, centre: tuple[float, float], *, nearest: float = 4.0) -> np.ndarray:
    """Cosine between the flow and the way to the centre, for cell pixels that are not too near it."""
    pixels = np.argwhere(crop.foreground > 0)
    away = np.asarray(centre) - pixels
    distance = np.linalg.norm(away, axis=1)
    flow = crop.unit_flow[:, pixels[:, 0], pixels[:, 1]].T
    return ((flow * away).sum(axis=1) / np.maximum(distance, 1e-9))[distance > nearest]


def in_one_part(labels: np.ndarray) -> np.ndarray:
    """Without cells that others cut in pieces: only the piece with the centre has a flow, as in Cellpose."""
    whole = labels.copy()
    for number in np.unique(labels)[1:]:
        if ndimage.label(labels == number)[1] > 1:
            whole[labels == number] = 0
    return whole


@settings(max_examples=30, deadline=None)
@given(seed=seeds, rescale=st.floats(0.5, 2.0))
@example(seed=4042, rescale=2.0)
def test_recomputed_flow_is_1_long_in_cells_and_0_elsewhere(seed: int, rescale: float) -> None:
    labels = in_one_part(make_sample(seed)[1][0])
    warp = draw_warp(np.random.default_rng(seed), (90, 120), rescale=rescale, size=64)
    crop = recompute(labels, warp, diameter=15.0)
    assert crop.unit_flow.shape == (2, 64, 64)
    assert crop.unit_flow.dtype == crop.foreground.dtype == np.float32
    length = np.hypot(*crop.unit_flow)
    assert (length[crop.foreground == 0] == 0).all()
    length = length[crop.foreground > 0]
    assert (np.isclose(length, 1, atol=1e-5) | (length == 0)).all()
    # Next to nothing but centres and cut-off corners may be 0.
    assert (length == 0).sum() <= 8 + 0.02 * length.size


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0, 4.4])
@pytest.mark.parametrize("scale", [0.7, 1.5])
def test_recomputed_flow_points_to_the_turned_centre(
    flip: bool, angle: float, scale: float
) -> None:
    y, x = 52.0, 41.0
    labels = draw_cells((90, 100), (y, x, 13.0))
    crop = recompute(labels, Warp(flip, angle, scale, (3.0, -5.0)))
    x = 99 - x if flip else x
    away_x, away_y = scale * (x - 50), scale * (y - 45)
    centre_y = 32 - 5 + np.sin(angle) * away_x + np.cos(angle) * away_y
    centre_x = 32 + 3 + np.cos(angle) * away_x - np.sin(angle) * away_y
    assert np.quantile(cosines(crop, (centre_y, centre_x)), 0.02) > 0.95


@pytest.mark.parametrize("outside", [2, 8, 14])
def test_a_cell_cut_by_the_border_keeps_its_true_centre(outside: int) -> None:
    """The crop shows columns 68 to 131; the cell's centre lies to the right of them."""
    labels = draw_cells((200, 200), (100, 131 + outside, 20.0))
    whole = recompute(labels, Warp(False, 0.0, 1.0, (0.0, 0.0)), diameter=40.0)
    assert whole.foreground.any()
    centre = (32, 63 + outside)
    assert cosines(whole, centre).min() > 0.95
    assert whole.unit_flow[1][whole.foreground > 0].min() > 0  # to the right everywhere
    cut = labels_to_flows(labels[68:132, 68:132].astype(np.int32))
    assert cut[1][whole.foreground > 0].min() < 0  # what the crop alone would give


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_recomputed_and_warped_flows_agree(seed: int) -> None:
    labels = draw_cells((120, 140), (30, 35, 14), (40, 90, 17), (85, 50, 15), (88, 105, 12))
    target = np.concatenate([labels[None], labels_to_flows(labels.astype(np.int32))])
    image = np.random.default_rng(seed).random((1, 120, 140), dtype=np.float32)
    warp = draw_warp(np.random.default_rng(seed), (120, 140), rescale=1.0, size=96)
    warped = warp_sample(image, target, warp, size=96)
    crop = recompute_sample(image, labels, warp, diameter=29.0, size=96)
    np.testing.assert_array_equal(crop.image, warped.image)
    assert np.mean(crop.foreground == warped.foreground) > 0.999
    length = np.hypot(*warped.unit_flow)
    inner = cv2.erode(warped.foreground, np.ones((5, 5))) > 0
    inner &= length > 0.8  # interpolation shortens what turns within a pixel
    cosine = (crop.unit_flow * warped.unit_flow).sum(axis=0)[inner] / length[inner]
    assert np.mean(cosine > 0.95) > 0.95


def test_recomputed_flow_of_many_cells_with_gaps_in_their_numbers() -> None:
    labels = np.zeros((160, 160), np.float32)
    for number, (y, x) in enumerate(np.ndindex(32, 32)):
        labels[5 * y : 5 * y + 4, 5 * x : 5 * x + 4] = 7 * number + 3000
    crop = recompute(labels, Warp(False, 0.0, 1.0, (0.0, 0.0)), diameter=4.5)
    expected = labels_to_flows(labels.astype(np.int32))[:, 48:112, 48:112]
    np.testing.assert_array_equal(crop.unit_flow, expected)


def test_recomputed_flow_without_cells() -> None:
    crop = recompute(draw_cells((90, 90), (5, 5, 4)), Warp(False, 0.0, 1.0, (0.0, 0.0)), size=32)
    assert not crop.unit_flow.any()
    assert not crop.foreground.any()


def test_inside_image_is_where_an_image_of_ones_arrives() -> None:
    ones = np.ones((1, 60, 90), np.float32)
    warp = Warp(True, 0.5, 0.8, (0.0, 0.0))
    crop = warp_sample(ones, np.zeros((3, 60, 90), np.float32), warp, size=96)
    inside = inside_image((60, 90), warp, size=96)
    assert inside[crop.image[0] == 1].all()
    assert not inside[crop.image[0] == 0].any()


@given(seed=seeds, strength=st.floats(0.01, 2.0), channels=st.integers(1, 3))
def test_jitter_gives_finite_float32_and_the_same_again(
    seed: int, strength: float, channels: int
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(0.4, 0.6, (channels, 24, 20)).astype(np.float32)
    before = image.copy()
    first, again = (
        jitter_intensity(image, np.random.default_rng(seed), strength=strength) for _ in range(2)
    )
    assert first.dtype == np.float32
    assert first.shape == image.shape
    assert np.isfinite(first).all()
    assert not np.array_equal(first, image)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(image, before)


def test_jitter_of_strength_0_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((2, 16, 16), dtype=np.float32)
    state = rng.bit_generator.state
    np.testing.assert_array_equal(jitter_intensity(image, rng, strength=0.0), image)
    assert rng.bit_generator.state == state


@given(seed=seeds)
def test_jitter_leaves_absent_channels_and_padding_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.random((2, 16, 16), dtype=np.float32)
    image[1] = 0
    inside = rng.random((16, 16)) < 0.7
    changed = jitter_intensity(image, rng, strength=1.0, inside=inside)
    assert not changed[1].any()
    np.testing.assert_array_equal(changed[0][~inside], image[0][~inside])
    nothing = jitter_intensity(image, rng, strength=1.0, inside=np.zeros((16, 16), bool))
    np.testing.assert_array_equal(nothing, image)


def jittered(image: np.ndarray, strength: float) -> np.ndarray:
    """One plane under 300 draws, ``(300, H, W)``."""
    rng = np.random.default_rng(0)
    return np.stack([jitter_intensity(image[None], rng, strength=strength)[0] for _ in range(300)])


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_jitter_changes_brightness_and_contrast_within_bounds(strength: float) -> None:
    """Values from 1 to 2 have no gamma, and a ramp is hardly changed by blur."""
    ramp = np.repeat(np.linspace(1, 2, 128, dtype=np.float32)[None], 64, axis=0)
    planes = jittered(ramp, strength)
    shift = planes.mean(axis=(1, 2)) - ramp.mean()
    # Noise and blur do not change the way from left to right.
    contrast = planes[:, :, -16:].mean(axis=(1, 2)) - planes[:, :, :16].mean(axis=(1, 2))
    contrast /= ramp[:, -16:].mean() - ramp[:, :16].mean()
    low, high = 1.4**-strength, 1.4**strength
    assert 0.1 * strength < np.abs(shift).max() < 0.15 * strength + 0.01
    assert low - 0.02 < contrast.min() < low + 0.05
    assert high - 0.05 < contrast.max() < high + 0.02
    assert np.log(contrast).mean() == pytest.approx(0, abs=0.05)


def test_jitter_changes_gamma_within_bounds() -> None:
    """A black and a white half fix contrast and brightness; the grey dot between them tells gamma."""
    image = np.zeros((64, 64), np.float32)
    image[:, 32:] = 1
    image[24:40, 8:24] = 0.5
    planes = jittered(image, 1.0)
    dark, bright = planes[:, :20].mean(axis=1)[:, [3, 60]].T
    dot = planes[:, 28:36, 12:20].mean(axis=(1, 2))
    gamma = np.log2((bright - dark) / (dot - dark))
    assert 1 / 1.4 - 0.1 < gamma.min() < 0.8
    assert 1.25 < gamma.max() < 1.4 + 0.1


def test_jitter_blurs_some_and_adds_noise_to_some() -> None:
    flat = jittered(np.full((32, 32), 0.5, np.float32), 1.0).std(axis=(1, 2))
    assert 0.15 < np.mean(flat > 1e-4) < 0.35
    assert 0.03 < flat.max() < 0.06
    stripes = np.tile(np.array([1, 2], np.float32), (32, 16))
    contrast = jittered(stripes, 1.0)[:, 8:-8, 8:-8].std(axis=(1, 2)) / stripes.std()
    assert 0.05 < np.mean(contrast < 0.65) < 0.25  # only blur lowers it as far
