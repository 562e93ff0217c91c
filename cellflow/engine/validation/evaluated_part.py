"""What of an image is evaluated: without cells at its border, without regions to ignore."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.engine.validation.match_names import Names, match_names
from cellflow.errors import DataError
from cellflow.io.formats import ReadOptions, read_source
from cellflow.io.source import Source
from cellflow.numeric.labels import compact
from cellflow.numeric.metrics.regions import BORDER, leave_out
from cellflow.storage.sizes import few_text, plural
from cellflow.types import Instances

__all__ = ["EvaluatedPart"]


@dataclass(frozen=True, eq=False)
class EvaluatedPart:
    """What of each image counts.

    Attributes
    ----------
    border : bool
        Whether cells at the border are left out.
    ignore : Source or None
        Regions to ignore.
    names : Names or None
        Which of them belong to which image of the truth.
    """

    border: bool
    ignore: Source | None = None
    names: Names | None = None

    @classmethod
    def plan(
        cls, *, border: bool, ignore: Path | None, ending: str, truth: Source
    ) -> EvaluatedPart:
        """Find the regions.

        Raises
        ------
        DataError
            If none of them belongs to an image of the truth.
        """
        if ignore is None:
            return cls(border)
        source = read_source(ignore, ReadOptions("prediction", mask_filter=ending))
        names = match_names(source, truth)
        if not names.ids:
            raise DataError(
                f"--ignore {ignore}: expected label maps or masks named by the ids of the truth, such as "
                f"{few_text(names.only_true)}, found {few_text(names.only_predicted)}. Rename them.",
                path=ignore,
                expected=names.only_true,
                found=names.only_predicted,
            )
        return cls(border, source, names)

    @property
    def is_all(self) -> bool:
        """Whether everything counts."""
        return not self.border and self.ignore is None

    def cells(self, name: str, cells: Instances) -> Instances:
        """True cells of an image that count."""
        return cells if self.is_all else self._left(name, cells)[0]

    def labels(
        self, name: str, labels: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_] | None]:
        """Predicted cells that count, 1..n without gaps, and which of all they are; None for all of them."""
        if self.is_all:
            return labels, None
        left, kept = self._left(name, labels)
        return compact(left)[0], kept

    def _left(self, name: str, cells: Any) -> tuple[Any, NDArray[np.bool_]]:
        region = self._region(name, tuple(cells.shape))
        return leave_out(cells, border=self.border, ignore=region)

    def _region(self, name: str, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
        """Pixels of an image that do not count; None where no region belongs to it."""
        if self.ignore is None or self.names is None or name not in self.names.ids:
            return None
        image = self.ignore.images[self.names.ids[name]]
        regions = image.instances((shape[0], shape[1]))
        if tuple(regions.shape) != shape:
            raise DataError(
                f"{image.path}: expected regions to ignore of the size of the image {name}, {shape[0]} x "
                f"{shape[1]}, found {regions.shape[0]} x {regions.shape[1]} (height x width).",
                path=image.path,
                id=name,
                expected=shape,
                found=regions.shape,
            )
        flat = np.zeros(shape[0] * shape[1] + 1, dtype=np.int64)
        np.add.at(flat, regions.starts, 1)
        np.add.at(flat, regions.starts + regions.lengths, -1)
        return np.asarray(flat.cumsum()[:-1].reshape(shape) > 0, dtype=np.bool_)

    def lines(self, names: list[str]) -> list[str]:
        """What is left out, a line each."""
        found = []
        if self.border:
            found.append(
                f"{'border':<12}cells with a pixel in the outer {BORDER} pixels are left out on both sides"
            )
        if self.ignore is not None and self.names is not None:
            count = sum(name in self.names.ids for name in names)
            found.append(
                f"{'ignored':<12}regions of {self.ignore.path}, in {count} of {plural(len(names), 'image')}"
            )
        return found
