"""Scores of images at thresholds: over a grid from one pass over their flows, elsewhere when asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.config import MaskConfig
from cellflow.config.calibration import GridConfig
from cellflow.engine.runs.thresholds import AXIS_NAMES
from cellflow.engine.runtime.progress_lines import follow
from cellflow.engine.segmentation.mask_step import niter_of
from cellflow.numeric._jit import thread_count
from cellflow.numeric.bootstrap import MIN_GROUPS
from cellflow.numeric.metrics.selection import SelectCounts
from cellflow.numeric.sweep import MaskFilter, score_filters, sweep
from cellflow.types import Instances

__all__ = ["CalibrationImages", "Place", "ThresholdScores"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Place = tuple[int, int, int]
"""Indices of a setting along the axes of the grid."""


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

    @cached_property
    def every(self) -> Bools:
        """All of them."""
        return np.ones(len(self), np.bool_)

    def of_type(self, cell_type: str, rows: Bools | None = None) -> Bools:
        """Which of them, or of those in `rows`, are of a cell type."""
        found = np.array(self.types) == cell_type
        return np.asarray(found if rows is None else rows & found, dtype=np.bool_)

    def mean_gain(self, rows: Bools, gains: Floats) -> tuple[float, float, int]:
        """Mean gain of some images, its standard error with groups whole, and the number of groups."""
        part = gains[rows]
        names, groups = np.unique(np.array(self.groups)[rows], return_inverse=True)
        spread = np.bincount(groups, part - part.mean())
        return float(part.mean()), float(np.sqrt((spread**2).sum())) / len(part), len(names)


@dataclass(frozen=True, eq=False)
class ThresholdScores:
    """Scores of images at thresholds.

    Attributes
    ----------
    images : CalibrationImages
        What is scored.
    grid : GridConfig
        Thresholds that are tried.
    base : MaskConfig
        Where the search starts; settings that are not on the grid are as they are here.
    metric : str
        What scores are: a name of `SELECT_METRICS`.
    """

    images: CalibrationImages
    grid: GridConfig
    base: MaskConfig
    metric: str = "competition"
    _known: dict[tuple[str, MaskConfig], Floats] = field(default_factory=dict, repr=False)

    @cached_property
    def axes(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """Cellprob thresholds, flow thresholds (0, no check, at the end) and minimum sizes, in order."""
        flow = sorted(set(self.grid.flow_thresholds), key=lambda value: value or np.inf)
        sizes = sorted(set(self.grid.min_sizes))
        return self.grid.cellprob_thresholds, tuple(flow), tuple(sizes)

    @cached_property
    def on_grid(self) -> NDArray[np.float32]:
        """Score of every image at every setting, ``(N, C, F, M)``."""
        return self._swept[:, -1]

    @cached_property
    def _swept(self) -> NDArray[np.float32]:
        """The competition score, and the metric where it is another: ``(N, 1 or 2, C, F, M)``."""
        jobs = self._over_images(self._sweep, self.images.ids, "thresholds")
        return np.stack(list(jobs))

    def at(self, rows: Iterable[int], mask: MaskConfig) -> Floats:
        """Scores of images, by their places, at one setting: from the grid where it is there."""
        return self._at(rows, mask, -1)

    def competition_at(self, rows: Iterable[int], mask: MaskConfig) -> Floats:
        """Competition scores of the same, whatever the metric is."""
        return self._at(rows, mask, 0)

    def _at(self, rows: Iterable[int], mask: MaskConfig, kind: int) -> Floats:
        rows = [int(row) for row in rows]
        place = self.place_of(mask)
        if place is not None:
            return np.asarray(self._swept[(rows, kind, *place)], dtype=np.float64)
        self.learn(rows, [mask])
        return np.array([self._known[self.images.ids[row], mask][kind] for row in rows])

    def learn(self, rows: Iterable[int], masks: Sequence[MaskConfig]) -> None:
        """Score images at settings that are not on the grid; those of one base at once."""
        ids = [self.images.ids[row] for row in rows]
        todo = {name: [mask for mask in masks if (name, mask) not in self._known] for name in ids}
        names = [name for name in ids if todo[name]]
        for name, scores in zip(
            names,
            self._over_images(lambda name: self._score(name, todo[name]), names, None),
            strict=True,
        ):
            self._known.update(
                ((name, mask), score) for mask, score in zip(todo[name], scores, strict=True)
            )

    def _sweep(self, name: str) -> NDArray[np.float32]:
        flow, cellprob, diameter = self.images.flows(name)
        cellprobs, flows, sizes = self.axes
        counts = sweep(
            flow,
            cellprob,
            self.images.truth(name),
            cellprob_thresholds=cellprobs,
            flow_thresholds=flows,
            min_sizes=[int(size) for size in sizes],
            niter=niter_of(self.base, diameter),
            max_size_fraction=self.base.max_size_fraction,
            score_per_pixel=self.base.score_per_pixel,
            fill_holes=self.base.fill_holes,
        )
        return np.stack(self._values(counts)).astype(np.float32)

    def _values(self, counts: SelectCounts) -> list[Floats]:
        """The competition score, and the metric where it is another."""
        names = dict.fromkeys(("competition", self.metric))
        return [counts.value(name) for name in names]

    def _score(self, name: str, masks: Sequence[MaskConfig]) -> list[Floats]:
        """Scores of an image at settings that differ in what `MaskFilter` holds."""
        flow, cellprob, diameter = self.images.flows(name)
        base = masks[0]
        counts = score_filters(
            flow,
            cellprob,
            self.images.truth(name),
            [MaskFilter(m.max_size_fraction, m.score_per_pixel, m.fill_holes) for m in masks],
            cellprob_threshold=base.cellprob_threshold,
            flow_threshold=base.flow_threshold,
            min_size=base.min_size,
            niter=niter_of(base, diameter),
        )
        return [np.array(self._values(item)) for item in counts]

    def once(self, name: str, mask: MaskConfig) -> float:
        """Score of one image at one setting, whatever the grid is; nothing is kept."""
        return float(self._score(name, [mask])[0][-1])

    def each(self, mask: MaskConfig, title: str | None = None) -> Floats:
        """Score of every image at one setting, whatever the grid is, with progress under a title; nothing is kept."""
        return np.array(
            list(self._over_images(lambda name: self.once(name, mask), self.images.ids, title))
        )

    def _over_images(
        self, task: Callable[[str], Any], names: Sequence[str], title: str | None
    ) -> Iterable[Any]:
        """Work on images side by side; kernels release the GIL."""
        with ThreadPoolExecutor(thread_count(), thread_name_prefix="cellflow-search") as pool:
            made = pool.map(task, names)
            yield from follow(made, title, len(names), brief=True) if title else made

    def surface(self, rows: Bools) -> Floats:
        """Mean score of some images at every setting of the grid, ``(C, F, M)``."""
        return np.asarray(self.on_grid[rows].mean(axis=0, dtype=np.float64), dtype=np.float64)

    def curves(self, thresholds: MaskConfig, cell_type: str = "") -> dict[str, list[list[float]]]:
        """Mean score along each axis through the nearest grid setting, as ``[value, score]`` pairs."""
        rows = self.images.of_type(cell_type) if cell_type else self.images.every
        return self.curves_of(rows, thresholds)

    def curves_of(self, rows: Bools, thresholds: MaskConfig) -> dict[str, list[list[float]]]:
        """The same of any of the images."""
        surface = self.surface(rows)
        place = self.nearest(thresholds)
        result = {}
        for axis, (name, values) in enumerate(zip(AXIS_NAMES, self.axes, strict=True)):
            line = np.moveaxis(surface, axis, 0)[(slice(None), *np.delete(place, axis))]
            pairs = zip(values, line, strict=True)
            result[name] = [[float(value), round(float(score), 5)] for value, score in pairs]
        return result

    def errors(self, thresholds: MaskConfig, cell_type: str = "") -> dict[str, list[float | None]]:
        """Standard errors of what every value of `curves` gains over the chosen one, groups whole.

        None where there are fewer than `MIN_GROUPS` groups, so that they are not known.
        """
        rows = self.images.of_type(cell_type) if cell_type else self.images.every
        place = self.nearest(thresholds)
        chosen = self.on_grid[(slice(None), *place)].astype(np.float64)
        result: dict[str, list[float | None]] = {}
        for axis, name in enumerate(AXIS_NAMES):
            line = np.moveaxis(self.on_grid, axis + 1, 0)[
                (slice(None), slice(None), *np.delete(place, axis))
            ]
            gains = [self.images.mean_gain(rows, part - chosen) for part in line]
            result[name] = [round(e, 5) if n >= MIN_GROUPS else None for _, e, n in gains]
        return result

    def mask(self, place: Place) -> MaskConfig:
        """The setting at a place of the grid."""
        cellprob, flow, size = (axis[index] for axis, index in zip(self.axes, place, strict=True))
        return dataclasses.replace(
            self.base, cellprob_threshold=cellprob, flow_threshold=flow, min_size=int(size)
        )

    def place_of(self, mask: MaskConfig) -> Place | None:
        """Where a setting lies on the grid; None where it does not."""
        place = self.nearest(mask)
        return place if self.mask(place) == mask else None

    def nearest(self, mask: MaskConfig) -> Place:
        """The place on the grid that is nearest to a setting."""
        cellprobs, flows, sizes = (np.array(axis, dtype=np.float64) for axis in self.axes)
        limits = np.where(flows > 0, flows, 1e3)  # no check lies beyond every threshold
        limit = mask.flow_threshold or 1e3
        return (
            int(np.abs(cellprobs - mask.cellprob_threshold).argmin()),
            int(np.abs(limits - limit).argmin()),
            int(np.abs(sizes - mask.min_size).argmin()),
        )
