"""Flows and truth of images that thresholds are fitted on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from cellflow.types import Instances

__all__ = ["CalibrationImages"]


@dataclass(frozen=True, eq=False)
class CalibrationImages:
    """Images with known cells and stored flows.

    Attributes
    ----------
    ids, types, folds, groups : tuple
        Id, true cell type ("" for none), fold and group of every image.
    found_types : tuple of str
        Cell type that prediction would take ("" for unsure).
    truth : callable
        Cells of an id.
    flows : callable
        Flow ``(2, H, W)``, logit ``(H, W)`` and diameter in pixels of an id.
    """

    ids: tuple[str, ...]
    types: tuple[str, ...]
    folds: tuple[int, ...]
    groups: tuple[str, ...]
    found_types: tuple[str, ...]
    truth: Callable[[str], Instances]
    flows: Callable[[str], tuple[NDArray[Any], NDArray[Any], float]]

    def __len__(self) -> int:
        return len(self.ids)
