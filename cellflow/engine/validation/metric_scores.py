"""Metrics of scored masks: columns per image, means with intervals, pooled values."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.engine.validation.score_result import scopes, verdict_of
from cellflow.errors import DataError
from cellflow.io.source import Source
from cellflow.io.tables import Row, read_rows
from cellflow.numeric.bootstrap import bootstrap_mean
from cellflow.numeric.metrics.counts import CellCounts, count_cells, pool
from cellflow.numeric.metrics.table import METRICS
from cellflow.types import Instances

__all__ = ["Confidences", "MetricScores", "Predicted", "metric_columns", "metric_names"]

_log = logging.getLogger(__name__)

Predicted = tuple[NDArray[np.int32], NDArray[np.float64] | None]
"""Predicted cells of an image, and how sure each is."""


def metric_names(words: Sequence[str]) -> tuple[str, ...]:
    """Names of metrics in the order of tables; all for "all"."""
    return tuple(name for name in METRICS if name in words or "all" in words)


def metric_columns(name: str) -> tuple[str, str, str]:
    """Columns of a metric where two predictions are compared: of the first, of the other, their difference."""
    return name, f"{name}_versus", f"{name}_difference"


@dataclass(frozen=True, eq=False)
class Confidences:
    """How sure a prediction is of its cells.

    Attributes
    ----------
    path : Path or None
        File that says it; None where nothing does.
    by_id : dict
        From an id to the confidences of its cells, in the order of their labels.
    """

    path: Path | None = None
    by_id: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def of_source(cls, source: Source) -> Confidences:
        """Those that the masks bring along; else of ``cells.csv`` in their folder or the one that holds it."""
        scores = {
            name: np.array(image.scores, np.float64)
            for name, image in source.images.items()
            if image.scores is not None
        }
        if scores:
            return cls(source.path, scores)
        masks = source.path
        for path in (masks / "cells.csv", masks.parent / "cells.csv"):
            if path.is_file() and (path.parent == masks or masks.name == "masks"):
                return cls._of_table(path)
        return cls()

    @classmethod
    def _of_table(cls, path: Path) -> Confidences:
        """Those of a cell table; none where somebody else's table has its name."""
        try:
            rows = read_rows(path, ("id", "label", "confidence"), exact=True)[1]
        except DataError as error:
            _log.warning("%s This table is left out.", error)
            return cls()
        return cls(path, _read_confidences(path, rows))

    def of(self, name: str, count: int) -> NDArray[np.float64] | None:
        """Those of an image with so many predicted cells; None where nothing says them."""
        if self.path is None:
            return None
        found = self.by_id.get(name, np.zeros(0))
        if len(found) != count or not np.isfinite(found).all():
            raise DataError(
                f"{self.path}: expected a confidence for each of the {count} cells in the mask of {name}, found "
                f"{np.isfinite(found).sum()}. Make both again, or rename the table to give every cell 1.",
                path=self.path,
                id=name,
                expected=count,
                found=len(found),
            )
        return found

    def line(self) -> str:
        """Where they are from, in a line."""
        if self.path is not None:
            return f"{'confidence':<12}{self.path}, for COCO's AP"
        return f"{'confidence':<12}not known: 1 for every cell, so COCO's AP depends on the order of cells"


def _read_confidences(path: Path, rows: Iterable[Row]) -> dict[str, NDArray[np.float64]]:
    """Confidences of the cells of every image, in the order of their labels."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        try:
            pair = float(row.values["label"]), float(row.values["confidence"])
        except ValueError:
            raise DataError(
                f"{path}, line {row.line}: expected numbers as label and confidence, found "
                f"{row.values['label']!r:.40} and {row.values['confidence']!r:.40}. Rename the table to give "
                "every cell a confidence of 1.",
                path=path,
                line=row.line,
            ) from None
        found.setdefault(row.values["id"], []).append(pair)
    return {name: np.array(sorted(pairs))[:, 1] for name, pairs in found.items()}


@dataclass(frozen=True, eq=False)
class MetricScores:
    """Metrics of images on one side or two.

    Attributes
    ----------
    names : tuple of str
        The metrics.
    max_dets : int
        Predicted cells per image that count for COCO's AP.
    counts : dict
        From an id to the counts of each side.
    """

    names: tuple[str, ...]
    max_dets: int = 100
    counts: dict[str, list[CellCounts]] = field(default_factory=dict)

    @property
    def needs_confidences(self) -> bool:
        """Whether how sure a prediction is of its cells plays a part."""
        return any(name.startswith("coco") for name in self.names)

    def add(
        self,
        name: str,
        cells: Instances,
        sides: Iterable[Predicted],
    ) -> dict[str, float]:
        """Count an image, whose prediction and confidence each side gives; its columns of the table of images."""
        if not self.names:
            return {}
        self.counts[name] = [
            count_cells(cells, labels, scores=sure, max_dets=self.max_dets)
            for labels, sure in sides
        ]
        row: dict[str, float] = {}
        for key in self.names:
            values = [METRICS[key].value(counts) for counts in self.counts[name]]
            if len(values) > 1:
                values.append(values[0] - values[1])
            row |= dict(zip(metric_columns(key), values, strict=False))
        return row

    def table(self, images: pd.DataFrame) -> pd.DataFrame:
        """Means with intervals and pooled values, per cell type and overall."""
        rows = []
        for scope, name, part in scopes(images) if self.names else ():
            counts = zip(*(self.counts[image] for image in part["id"]), strict=True)
            sums = [pool(side) for side in counts]
            rows += [
                {"scope": scope, "name": name, **self._row(part, sums, key)} for key in self.names
            ]
        return pd.DataFrame(rows)

    def _row(self, part: pd.DataFrame, sums: list[CellCounts], key: str) -> dict[str, Any]:
        groups, metric = part["group"].to_numpy(str), METRICS[key]
        mean = bootstrap_mean(part[key], groups)
        pooled = [metric.value(counts) for counts in sums]
        row = {
            "metric": key,
            "images": len(part),
            "groups": part["group"].nunique(),
            "mean": mean.mean,
            "low": mean.low,
            "high": mean.high,
            "pooled": pooled[0],
        }
        if len(pooled) == 1:
            return row
        difference = bootstrap_mean(part[metric_columns(key)[2]], groups)
        low, high = difference.low, difference.high
        better = (-high, -low) if metric.better == "lower" else (low, high)
        verdict = "" if metric.better == "zero" else verdict_of(*better, part["group"].nunique())
        return row | {
            "mean_versus": float(part[metric_columns(key)[1]].mean()),
            "pooled_versus": pooled[1],
            "difference": difference.mean,
            "difference_low": low,
            "difference_high": high,
            "verdict": verdict,
        }
