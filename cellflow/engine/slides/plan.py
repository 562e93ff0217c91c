"""What is done with a slide, the same for all of its blocks; kept beside them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.config import MaskConfig
from cellflow.engine.segmentation.recognition import Recognition
from cellflow.engine.slides.blocks import BlockGrid
from cellflow.errors import DataError
from cellflow.io.pixel_size import PixelSize
from cellflow.numeric.normalize import Scaling, scale_channels, select_channels
from cellflow.storage.records import read_json

__all__ = ["BLOCKS", "PLAN", "SlidePlan", "read_plan"]

BLOCKS = ".blocks"
"""Folder of what blocks leave while a slide is under way, in the folder of the slide."""
PLAN = f"{BLOCKS}/plan.json"
"""File of the plan; without it what else lies there means nothing."""


@dataclass(frozen=True)
class SlidePlan:
    """What every block of a slide is done with. All pixels and boxes are those of the level that is segmented."""

    id: str
    image: Path
    level: int
    shape: tuple[int, int]
    block: int
    """Side of a block in pixels."""
    channels: tuple[int, int]
    """What is looked at, as ``--chan`` and ``--chan2``."""
    divisor: float
    """What values are divided by, so that float32 holds them; nearly always 1."""
    scaling: tuple[Scaling | None, ...]
    """How each of the two channels is brought to the scale of the networks."""
    invert: bool
    """Whether 0 and 1 are exchanged afterwards."""
    recognition: Recognition
    """What styles of a sample of tiles say of the slide."""
    cell_type: str
    """The one whose settings are used; empty where there is none."""
    diameter: float
    """In pixels, the mean over the members."""
    mask: MaskConfig
    steps: int
    """Steps that pixels follow the flow."""
    pixel_size: PixelSize | None
    roi: str
    """What is segmented, as it was given; empty for all of it."""
    empty: float
    """Tiles whose normalised values differ by no more than this hold no cell."""
    identity: str
    """Hash of what makes the result what it is."""

    @property
    def grid(self) -> BlockGrid:
        """The blocks."""
        return BlockGrid(self.shape, self.block)

    @property
    def reach(self) -> int:
        """How far from its block a pixel may come to rest, in pixels.

        A step is about one pixel where a network is sure; what runs farther is not a cell.
        """
        return 2 * self.steps

    def select(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """The two channels of pixels in native units, ``(2, h, w)``."""
        return select_channels(pixels, *self.channels, self.divisor)

    def normal(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """The same as the networks want them."""
        return scale_channels(self.select(pixels), self.scaling, invert=self.invert)

    def to_json(self) -> dict[str, Any]:
        """What `read_plan` reads."""
        facts = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return facts | {
            "image": str(self.image),
            "scaling": [None if item is None else item._asdict() for item in self.scaling],
            "recognition": self.recognition._asdict(),
            "mask": dataclasses.asdict(self.mask),
            "pixel_size": None if self.pixel_size is None else list(self.pixel_size),
        }


def read_plan(path: Path) -> SlidePlan | None:
    """A plan that was written; None where there is none."""
    facts = read_json(path)
    if facts is None:
        return None
    try:
        size, scaling = facts["pixel_size"], facts["scaling"]
        typed = {
            "image": Path(facts["image"]),
            "shape": tuple(facts["shape"]),
            "channels": tuple(facts["channels"]),
            "scaling": tuple(None if item is None else Scaling(**item) for item in scaling),
            "recognition": Recognition(**facts["recognition"]),
            "mask": MaskConfig(**facts["mask"]),
            "pixel_size": None if size is None else PixelSize(*size),
        }
        return SlidePlan(**facts | typed)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is damaged ({error!r}). Remove its folder and repeat the command.", path=path
        ) from error
