"""How many changed copies of real images `cellflow verify` finds, and how many different images it joins.

    python benchmarks/near_copies.py

The images are those of ../shared/data: 22 phase-contrast images of one series and 180 of nuclei. Each is
changed in every way of the table, and all copies are looked for among all images. Different images are these
202, all pairs, and 16 fields cut from each of the phase-contrast images, as alike as fields of one well under
one lamp are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product
from typing import Any

import cv2
import inputs
import numpy as np
from numpy.typing import NDArray

from cellflow.io.images import read_image
from cellflow.numeric.near_copies import SIDE, fingerprint, near_copies

Pixels = NDArray[Any]


def eight_bits(image: Pixels) -> Pixels:
    """An image between its percentiles 0.1 and 99.9, as people export it for a figure."""
    low, high = np.percentile(image, [0.1, 99.9])
    scaled = (image.astype(np.float32) - low) / max(high - low, 1e-6)
    return np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def rescaled(factor: float, how: int) -> Callable[[Pixels], Pixels]:
    return lambda image: cv2.resize(image, None, fx=factor, fy=factor, interpolation=how)


def points(change: Callable[[Pixels], Pixels]) -> Callable[[Pixels], Pixels]:
    """A change of brightness on a scale of 0 to 1; what does not fit is cut off, as in 8 bits."""
    return lambda image: np.round(np.clip(change(image / 255.0), 0, 1) * 255).astype(np.uint8)


def jpeg(quality: int) -> Callable[[Pixels], Pixels]:
    def change(image: Pixels) -> Pixels:
        packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.asarray(cv2.imdecode(packed, cv2.IMREAD_UNCHANGED))

    return change


def noisy(image: Pixels) -> Pixels:
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def several(image: Pixels) -> Pixels:
    small = rescaled(0.6, cv2.INTER_AREA)(np.ascontiguousarray(np.rot90(image[:, ::-1])))
    return jpeg(60)(points(lambda x: 0.9 * x**0.7 + 0.05)(small))


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "turned by 90 degrees": lambda image: np.rot90(image),
    "turned by 180 degrees": lambda image: np.rot90(image, 2),
    "turned by 270 degrees": lambda image: np.rot90(image, 3),
    "mirrored": lambda image: image[:, ::-1],
    "mirrored and turned": lambda image: image.swapaxes(0, 1),
    "half, area": rescaled(0.5, cv2.INTER_AREA),
    "half, nearest": rescaled(0.5, cv2.INTER_NEAREST),
    "0.7, linear": rescaled(0.7, cv2.INTER_LINEAR),
    "1.5, cubic": rescaled(1.5, cv2.INTER_CUBIC),
    "double, linear": rescaled(2, cv2.INTER_LINEAR),
    "brighter by 0.2": points(lambda x: x + 0.2),
    "darker by 0.2": points(lambda x: x - 0.2),
    "contrast halved": points(lambda x: 0.5 * x + 0.25),
    "contrast 1.5": points(lambda x: 1.5 * (x - x.mean()) + x.mean()),
    "gamma 0.5": points(lambda x: x**0.5),
    "gamma 2": points(lambda x: x**2),
    "JPEG 90": jpeg(90),
    "JPEG 50": jpeg(50),
    "JPEG 20": jpeg(20),
    "noise of 8 grey values": noisy,
    "several at once": several,
}


def real_images() -> tuple[list[Pixels], list[Pixels]]:
    phase, nuclei = (
        [
            eight_bits(read_image(file))
            for file in sorted((inputs.SHARED / "data" / name / "images").iterdir())
        ]
        for name in ("usiigaci", "dsb2018")
    )
    return phase, nuclei


def fields(image: Pixels) -> list[Pixels]:
    """Sixteen that share no pixel."""
    height, width = (size // 4 for size in image.shape[:2])
    return [
        image[y * height : (y + 1) * height, x * width : (x + 1) * width]
        for y, x in product(range(4), range(4))
    ]


def main() -> None:
    phase, nuclei = real_images()
    images = [*phase, *nuclei]
    prints = [fingerprint(image) for image in images]
    false = near_copies(prints)
    print(f"different images: {len(images)}, joined pairs: {len(false)}")
    cut = [fingerprint(field) for image in phase for field in fields(image)]
    print(f"fields of phase-contrast images: {len(cut)}, joined pairs: {len(near_copies(cut))}")
    print(f"{'change':26}found       least  wrong")
    for name, change in CHANGES.items():
        copies = [fingerprint(np.ascontiguousarray(change(image))) for image in images]
        pairs = near_copies([*prints, *copies])
        right = [pair.likeness for pair in pairs if pair.second == pair.first + len(images)]
        wrong = len(pairs) - len(right)
        print(f"{name:26}{len(right):3} of {len(images)}  {min(right):.2f}  {wrong:5}")
    many = [fingerprint(image) for image in np.random.default_rng(0).random((1000, SIDE, SIDE))]
    started = time.process_time()
    near_copies(many)
    print(f"1,000 images compared in {time.process_time() - started:.2f} s of a core")
    started = time.process_time()
    for image in phase:
        fingerprint(image)
    print(
        f"fingerprint of an image of 1022 x 1024: {(time.process_time() - started) / len(phase) * 1e3:.1f} ms of a core"
    )


if __name__ == "__main__":
    main()
