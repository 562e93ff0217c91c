"""Slides of tests, and what lies in their folders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cellflow.config import EnsembleConfig, MaskOverrides, SlidesConfig
from cellflow.engine.prediction.ensemble import EnsembleResult, ensemble
from cellflow.io.label_pyramid import LabelPyramid
from cellflow.types import Box

__all__ = ["LOOSE", "Slide", "files_of", "labels_of"]

LOOSE = MaskOverrides(cellprob_threshold=-1.0, flow_threshold=2.0, min_size=5)


@dataclass(frozen=True)
class Slide:
    """An image file, and how tests segment it."""

    path: Path
    config: EnsembleConfig

    def segment(self, name: str, **slides: object) -> EnsembleResult:
        config = replace(
            self.config,
            slides=SlidesConfig(**slides),
            output=replace(self.config.output, name=name),
        )
        return ensemble(config)


def labels_of(folder: Path, level: int = 0) -> np.ndarray:
    pyramid = LabelPyramid(folder / "labels.zarr")
    height, width = pyramid.shape(level)
    return pyramid.read(Box(0, height, 0, width), level)


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything in the folder of a slide, but what it took."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("slide.json", ".lock")
    }
