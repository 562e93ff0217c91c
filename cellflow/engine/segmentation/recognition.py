"""Cell type and diameter that the style models see in an image."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["UNKNOWN", "Recognition"]


class Recognition(NamedTuple):
    """What the members' style vectors say of an image.

    `probabilities` maps cell types to their mean probability over the members; `cell_type` is the most
    probable one, empty where that is unsure; `diameter` is the geometric mean of the members' estimates
    in pixels, 0 where there is none.
    """

    cell_type: str
    probabilities: dict[str, float]
    diameter: float


UNKNOWN = Recognition("", {}, 0.0)
