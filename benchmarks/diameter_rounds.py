"""The diameter of an image told once, or predicted, measured and predicted again until it rests.

    python benchmarks/diameter_rounds.py [--images 6] [--demo cellflow-demo]

Images are rescaled by 0.5 to 2, and their truth with them: as if they were taken with another objective. The real
U-Net of ../shared/models works at the mean diameter of its training images, and at what style models tell that are
fitted on the other images of ../shared/data/usiigaci; it has seen all of these images, so only differences count.
With --demo also the ensemble of a finished `cellflow demo`, on its images that no fold saw, as its run says.
Printed is a Markdown table: mean competition score, median error of the diameter (a factor), both told once and
measured, the gain with its 95 % interval over images, the predictions an image took, and images whose diameter
did not come to rest, so that what was told stayed.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import inputs
import numpy as np
from numpy.typing import NDArray

from cellflow.config import MaskConfig, RuntimeConfig
from cellflow.engine.runtime.machine import choose_machine
from cellflow.engine.segmentation.member import Member, load_member
from cellflow.engine.segmentation.open_models import open_models
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.engine.segmentation.styles import image_style
from cellflow.io.images import read_image, read_labels
from cellflow.numeric.bootstrap import bootstrap_mean
from cellflow.numeric.labels import compact, median_diameter
from cellflow.numeric.score import competition_score
from cellflow.style_models import DiameterModel, StyleModels

FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
ROUNDS = 3
SIDE = 512
Pixels = NDArray[Any]


@dataclass
class Way:
    """One way of telling diameters."""

    name: str
    segmenter: Segmenter
    images: list[tuple[Pixels, Pixels]]


class Listener(logging.Handler):
    """Hears what is said of each image: how many diameters were tried, and whether one came to rest."""

    def __init__(self) -> None:
        super().__init__()
        self.stayed, self.predictions = 0, [0]

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self.stayed += record.levelno >= logging.WARNING
        self.predictions[-1] = text.count("->") + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--demo", type=Path)
    options = parser.parse_args()
    ways = [*real_ways(options.images), *(demo_ways(options.demo) if options.demo else [])]
    head = ["diameter from", "scale", "score once", "measured", "gain", "95 % interval", "error once",
            "measured", "predictions", "not at rest"]  # fmt: skip
    print("|", " | ".join(head), "|\n" + "|---" * len(head) + "|")
    log = logging.getLogger("cellflow.engine.segmentation.settled_diameter")
    log.setLevel(logging.INFO)
    log.propagate = False
    for way in ways:
        for factor in FACTORS:
            log.handlers = [listener := Listener()]
            print("|", " | ".join(row_of(way, factor, listener)), "|", flush=True)


def row_of(way: Way, factor: float, listener: Listener) -> list[str]:
    """What a way gives at a scale, told once and measured."""
    scores, errors = [], []
    for image, labels in way.images:
        pixels, truth = rescaled(image, labels, factor)
        true, pair, sizes = median_diameter(truth), [], []
        listener.predictions.append(1)
        for rounds in (0, ROUNDS):
            result = replace(way.segmenter, rounds=rounds).predict(pixels)
            pair.append(competition_score(truth, result.labels).mean)
            sizes.append(np.exp(abs(np.log(result.diameter / true))))
        scores.append(pair)
        errors.append(sizes)
    once, measured = np.mean(scores, axis=0)
    gain = bootstrap_mean(np.diff(scores, axis=1)[:, 0])
    wrong = np.median(errors, axis=0)
    return [
        way.name, f"{factor:g}", f"{once:.4f}", f"{measured:.4f}", f"{gain.mean:+.4f}",
        f"{gain.low:+.4f} to {gain.high:+.4f}", f"{wrong[0]:.2f}", f"{wrong[1]:.2f}",
        f"{np.mean(listener.predictions[1:]):.1f}", f"{listener.stayed} of {len(way.images)}",
    ]  # fmt: skip


def rescaled(image: Pixels, labels: Pixels, factor: float) -> tuple[Pixels, Pixels]:
    """An image and its truth at another scale."""
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    pixels = cv2.resize(image, None, fx=factor, fy=factor, interpolation=how)
    nearest = cv2.resize(
        labels.astype(np.float32), None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST
    )
    return pixels, compact(nearest.astype(np.int32))[0]


def real_ways(count: int) -> Iterator[Way]:
    """The real U-Net at its mean diameter, and at what styles tell."""
    folder = inputs.SHARED / "data/usiigaci"
    images = [
        (read_image(path)[:SIDE, :SIDE], read_labels(folder / "masks" / path.name)[:SIDE, :SIDE])
        for path in sorted((folder / "images").glob("*.png"))
    ]
    step = len(images) // count
    shown = images[::step][:count]
    others = [item for place, item in enumerate(images) if place % step or place // step >= count]
    member = load_member(
        inputs.SHARED / "models/usiigaci_unet", "usiigaci_unet", choose_machine(RuntimeConfig())
    )
    yield Way("training's mean", Segmenter([member], MaskConfig()), shown)
    told = replace(member, styles=styles_of(member, others))
    yield Way("style", Segmenter([told], MaskConfig(), policy="image"), shown)


def styles_of(member: Member, images: list[tuple[Pixels, Pixels]]) -> StyleModels:
    """Style models of the diameter, fitted on these images."""
    styles = np.stack([image_style(member, image) for image, _ in images])
    sizes = [median_diameter(labels) for _, labels in images]
    return StyleModels(None, DiameterModel.fit(styles, sizes), {}, member.hash)


def demo_ways(folder: Path) -> Iterator[Way]:
    """The ensemble of a demo, with the diameters and thresholds of its run."""
    opened = open_models(
        [str(folder / "runs/demo")], choose_machine(RuntimeConfig()), ensembles_dir=folder / "ensembles"
    )  # fmt: skip
    images = [
        (read_image(path), read_labels(folder / "unseen/masks" / f"{path.stem}.tif"))
        for path in sorted((folder / "unseen/images").glob("*.png"))
    ]
    for policy in dict.fromkeys((opened.policy, "dataset")):
        segmenter = Segmenter(
            opened.members, opened.thresholds.shared, policy=policy,  # type: ignore[arg-type]
            per_type=opened.thresholds.per_type,
        )  # fmt: skip
        yield Way(f"demo, {policy}", segmenter, images)


if __name__ == "__main__":
    main()
