"""Search for thresholds on stored flows: scores over a grid, optima per cell type, cross-fitting."""

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
from cellflow.engine.runs.thresholds import AXIS_NAMES, Thresholds
from cellflow.engine.runtime.progress_lines import follow
from cellflow.engine.segmentation.mask_step import niter_of
from cellflow.engine.validation.threshold_scores import CalibrationImages
from cellflow.numeric._jit import thread_count
from cellflow.numeric.bootstrap import MIN_GROUPS
from cellflow.numeric.grid_optimum import grid_optimum, shrink
from cellflow.numeric.sweep import MaskFilter, score_filters, sweep
from cellflow.report.text.thresholds import mask_text

__all__ = ["Decision", "ThresholdSearch"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Place = tuple[int, int, int]

MIN_EXTRA_GAIN = 0.001
"""What an extra must gain to be taken: a setting with one switch more has to be worth it."""
PIECES = 5
"""Parts for cross-fitting where there are no folds."""
EXTRAS: dict[str, tuple[Any, ...]] = {
    "score_per_pixel": (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
    "max_size_fraction": (0.2, 0.1, 0.05, 0.02),
    "fill_holes": (False,),
}
"""Tried one after the other, each at the optimum so far."""


@dataclass(frozen=True)
class Decision:
    """Why thresholds of some images were taken, or not.

    Attributes
    ----------
    optimum, kept : MaskConfig
        The optimum of the grid, and what it would replace.
    over : str
        What that is, for people.
    taken : bool
        Whether it replaces it.
    gain, error : float
        Mean gain on images that the optimum was not fitted on, and its standard error, groups whole; NaN
        where there are none such.
    groups : int
        Groups behind them.
    """

    optimum: MaskConfig
    kept: MaskConfig
    over: str
    taken: bool
    gain: float
    error: float
    groups: int

    @property
    def why(self) -> str:
        """The decision in words."""
        if self.optimum == self.kept:
            return f"The optimum of the grid is {self.over} themselves."
        optimum = f"The optimum of the grid is {mask_text(self.optimum)}."
        if np.isnan(self.gain):
            return f"{optimum} There are no images it was not fitted on, so {self.over} stay."
        gain = (
            f"{optimum} On images it was not fitted on it gains {self.gain:+.4f} over {self.over}"
        )
        if self.groups < MIN_GROUPS:
            return (
                f"{gain}, which {self.groups} groups cannot tell from noise ({MIN_GROUPS} can), so "
                f"{self.over} stay."
            )
        if self.taken:
            return f"{gain}, more than its standard error of {self.error:.4f}, so it is taken."
        return f"{gain}, no more than its standard error of {self.error:.4f}, so {self.over} stay."


@dataclass(frozen=True, eq=False)
class ThresholdSearch:
    """Scores of images over a grid of thresholds, and what is best.

    Attributes
    ----------
    images : CalibrationImages
        What is scored.
    grid : GridConfig
        Thresholds that are tried.
    base : MaskConfig
        Where the search starts: the training's thresholds.
    shrinkage, smoothing : float
        See `CalibrateConfig`.
    prior : ThresholdSearch or None
        Search on other flows, towards whose optima this one is shrunk (single models for an ensemble).
    """

    images: CalibrationImages
    grid: GridConfig
    base: MaskConfig
    shrinkage: float = 10.0
    smoothing: float = 0.7
    prior: ThresholdSearch | None = None
    _known: dict[tuple[str, MaskConfig], float] = field(default_factory=dict, repr=False)

    @cached_property
    def axes(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """Cellprob thresholds, flow thresholds (0, no check, at the end) and minimum sizes, in order."""
        flow = sorted(set(self.grid.flow_thresholds), key=lambda value: value or np.inf)
        sizes = sorted(set(self.grid.min_sizes))
        return self.grid.cellprob_thresholds, tuple(flow), tuple(sizes)

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """Score of every image at every setting, ``(N, C, F, M)``."""
        jobs = self._over_images(self._sweep, self.images.ids, "thresholds")
        return np.stack(list(jobs))

    def fit(self, rows: Bools | None = None) -> Thresholds:
        """The best thresholds for some of the images: shared, and per type shrunk towards shared.

        An optimum of the grid is taken where it holds on images it was not fitted on: fitted on all
        pieces but one and scored on that one, it must gain more than the standard error over what it
        replaces (the training's thresholds; for a type the shared ones). With fewer than `MIN_GROUPS` groups
        that cannot be told, and what was there stays. Extras are tried on top of what was taken.
        """
        rows = np.ones(len(self.images), np.bool_) if rows is None else rows
        confirmed = self._confirmed(rows, self._fit(rows))[0]
        shared = self._refine(rows, confirmed.shared)
        per_type = {
            name: self._refine(self._of_type(rows, name), mask)
            for name, mask in confirmed.per_type.items()
        }
        return Thresholds(shared, per_type)

    def _fit(self, rows: Bools) -> Thresholds:
        """Optima of the grid on the images they are fitted on, whether they hold elsewhere or not."""
        shared = self._mask(self._place(rows))
        names = sorted({name for name in np.array(self.images.types)[rows] if name})
        if len(names) < 2:
            return Thresholds(shared)
        per_type = {
            name: self._mask(self._place(self._of_type(rows, name), rows, name)) for name in names
        }
        return Thresholds(shared, per_type)

    def decisions(self) -> dict[str, Decision]:
        """Why the thresholds that `fit` gives for all images were taken: "" for shared, and per type."""
        every = np.ones(len(self.images), np.bool_)
        return self._confirmed(every, self._fit(every))[1]

    def _confirmed(self, rows: Bools, fitted: Thresholds) -> tuple[Thresholds, dict[str, Decision]]:
        """Of fitted thresholds those that hold on images they were not fitted on, and why."""
        held_out = self._held_out(rows)
        nothing = np.full(len(rows), np.nan)
        shared, own = (nothing, nothing) if held_out is None else held_out
        before, pieces = nothing.copy(), self._pieces(rows)
        before[rows] = self.score_rows(np.flatnonzero(rows), self.base)
        decision = self._decide(rows, fitted.shared, self.base, _TRAINING, shared - before)
        decisions, taken = {"": decision}, self.base
        if decision.taken:
            taken, before = fitted.shared, shared
        per_type = {}
        for name, mask in fitted.per_type.items():
            of_type = self._of_type(rows, name)
            # a type of one piece is in no fit without it: what is scored is not its own optimum
            apart = len(np.unique(pieces[of_type])) > 1
            gains = own - before if apart else nothing
            decision = self._decide(of_type, mask, taken, _SHARED, gains)
            per_type[name] = mask if decision.taken else taken
            decisions[name] = decision
        return Thresholds(taken, per_type), decisions

    def _decide(
        self, own: Bools, optimum: MaskConfig, kept: MaskConfig, over: str, gains: Floats
    ) -> Decision:
        gain, error, groups = self._mean_gain(own, gains)
        return Decision(optimum, kept, over, self._gains(own, gains), gain, error, groups)

    def _of_type(self, rows: Bools, cell_type: str) -> Bools:
        return np.asarray(rows & (np.array(self.images.types) == cell_type), dtype=np.bool_)

    def _held_out(self, rows: Bools) -> tuple[Floats, Floats] | None:
        """Scores at shared and at the type's own thresholds, each fitted on the other pieces."""
        pieces = self._pieces(rows)
        if len(np.unique(pieces[rows])) < 2:
            return None
        shared, own = np.full((2, len(rows)), np.nan)
        for piece in np.unique(pieces[rows]):
            fitted = self._fit(rows & (pieces != piece))
            for row in np.flatnonzero(rows & (pieces == piece)).tolist():
                shared[row] = self.score_rows([row], fitted.shared)[0]
                own[row] = self.score_rows([row], fitted.of(self.images.types[row]))[0]
        return shared, own

    def cross_fit(self) -> tuple[Floats, dict[int, Thresholds]]:
        """Score of every image at the thresholds fitted on the other folds, and these thresholds.

        Images of one fold only (a holdout split, reserved images) are cut into `PIECES` parts, groups
        whole. Scores are nan where there is a single group: nothing is left to fit on.
        """
        every = np.ones(len(self.images), np.bool_)
        folds, scores = self._pieces(every), np.full(len(self.images), np.nan)
        if len(np.unique(folds)) < 2:
            return scores, {}
        fitted = {}
        for fold in np.unique(folds).tolist():
            fitted[fold] = self.fit(folds != fold)
            for row in np.flatnonzero(folds == fold):
                mask = fitted[fold].of(self.images.found_types[row])
                scores[row] = self.score_rows([row], mask)[0]
        return scores, fitted

    def _pieces(self, rows: Bools) -> NDArray[np.int64]:
        """What is held out together: folds; parts of whole groups where the images are of one fold."""
        folds = np.array(self.images.folds)
        if len(np.unique(folds[rows])) > 1:
            return folds
        numbers = np.unique(np.array(self.images.groups)[rows], return_inverse=True)[1]
        pieces = np.zeros(len(folds), np.int64)
        pieces[rows] = numbers % PIECES
        return pieces

    def score_rows(self, rows: Iterable[int], mask: MaskConfig) -> Floats:
        """Scores of images, by their places, at one setting: from the grid where it is there."""
        rows = [int(row) for row in rows]
        place = self._place_of(mask)
        if place is not None:
            return np.asarray(self.scores[(rows, *place)], dtype=np.float64)
        self._learn(rows, [mask])
        return np.array([self._known[self.images.ids[row], mask] for row in rows])

    def _learn(self, rows: Iterable[int], masks: Sequence[MaskConfig]) -> None:
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

    def curves(self, thresholds: MaskConfig, cell_type: str = "") -> dict[str, list[list[float]]]:
        """Mean score along each axis through the nearest grid setting, as ``[value, score]`` pairs."""
        rows = np.array([cell_type in ("", name) for name in self.images.types])
        surface = self._surface(rows)
        place = self._nearest(thresholds)
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
        rows = np.array([cell_type in ("", name) for name in self.images.types])
        place = self._nearest(thresholds)
        chosen = self.scores[(slice(None), *place)].astype(np.float64)
        result: dict[str, list[float | None]] = {}
        for axis, (name, values) in enumerate(zip(AXIS_NAMES, self.axes, strict=True)):
            line = np.moveaxis(self.scores, axis + 1, 0)[
                (slice(None), slice(None), *np.delete(place, axis))
            ]
            found = [self._mean_gain(rows, line[index] - chosen) for index in range(len(values))]
            result[name] = [round(e, 5) if n >= MIN_GROUPS else None for _, e, n in found]
        return result

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
        return counts.scores.astype(np.float32)

    def _score(self, name: str, masks: Sequence[MaskConfig]) -> list[float]:
        """Scores of an image at settings that differ in what `MaskFilter` holds."""
        flow, cellprob, diameter = self.images.flows(name)
        base = masks[0]
        scores = score_filters(
            flow,
            cellprob,
            self.images.truth(name),
            [MaskFilter(m.max_size_fraction, m.score_per_pixel, m.fill_holes) for m in masks],
            cellprob_threshold=base.cellprob_threshold,
            flow_threshold=base.flow_threshold,
            min_size=base.min_size,
            niter=niter_of(base, diameter),
        )
        return [float(score) for score in scores]

    def _over_images(
        self, task: Callable[[str], Any], names: Sequence[str], title: str | None
    ) -> Iterable[Any]:
        """Work on images side by side; kernels release the GIL."""
        with ThreadPoolExecutor(thread_count(), thread_name_prefix="cellflow-search") as pool:
            made = pool.map(task, names)
            yield from follow(made, title, len(names), brief=True) if title else made

    def _surface(self, rows: Bools) -> Floats:
        return np.asarray(self.scores[rows].mean(axis=0, dtype=np.float64), dtype=np.float64)

    def _place(self, own: Bools, wider: Bools | None = None, cell_type: str = "") -> Place:
        """Best grid setting of some images, shrunk towards a wider set and the prior search."""
        surface, count = self._surface(own), float(own.sum())
        prior = None if wider is None else self._surface(wider)
        if self.prior is not None:
            prior = self.prior.surface_of(cell_type)
        if prior is not None:
            surface = shrink(surface, count, prior, self.shrinkage)
        place = grid_optimum(surface, self._nearest(self.base), smoothing=self.smoothing)
        return place[0], place[1], place[2]

    def surface_of(self, cell_type: str) -> Floats:
        """Mean scores of a type's images, shrunk towards all; of all for "" or an unknown type."""
        everything = np.ones(len(self.images), np.bool_)
        own = np.array(self.images.types) == cell_type
        if not cell_type or not own.any():
            return self._surface(everything)
        both = self._surface(own), self._surface(everything)
        return shrink(both[0], float(own.sum()), both[1], self.shrinkage)

    def _refine(self, own: Bools, mask: MaskConfig) -> MaskConfig:
        """Take extras that gain something, one after the other.

        The gain of a few images is noise as likely as not: it counts as ``n / (n + shrinkage)`` of
        itself, and must be larger than its standard error.
        """
        if not self.grid.extras:
            return mask
        every = [
            dataclasses.replace(mask, **{name: value})
            for name, values in EXTRAS.items()
            for value in values
        ]
        self._learn(np.flatnonzero(own).tolist(), every)  # all at once: most often none is taken
        for name, values in EXTRAS.items():
            tried = {value: dataclasses.replace(mask, **{name: value}) for value in values}
            gains = {value: self._gain(own, mask, other) for value, other in tried.items()}
            best = max(gains, key=lambda value: gains[value].mean())
            shrunk = gains[best].mean() * own.sum() / (own.sum() + self.shrinkage)
            spread = np.full(len(own), np.nan)
            spread[own] = gains[best]
            if shrunk > MIN_EXTRA_GAIN and self._gains(own, spread):
                mask = tried[best]
        return mask

    def _gains(self, own: Bools, gains: Floats) -> bool:
        """Whether the mean gain of some images is larger than its standard error, groups whole.

        The error of a few groups is not known, so nothing is gained there.
        """
        gain, error, groups = self._mean_gain(own, gains)
        return groups >= MIN_GROUPS and gain > max(error, 0.0)

    def _mean_gain(self, own: Bools, gains: Floats) -> tuple[float, float, int]:
        """Mean gain of some images, its standard error with groups whole, and the number of groups."""
        found = gains[own]
        names, groups = np.unique(np.array(self.images.groups)[own], return_inverse=True)
        spread = np.bincount(groups, found - found.mean())
        return float(found.mean()), float(np.sqrt((spread**2).sum())) / len(found), len(names)

    def _gain(self, own: Bools, before: MaskConfig, after: MaskConfig) -> Floats:
        """What one setting gains over another, image by image."""
        rows = np.flatnonzero(own)
        return np.asarray(self.score_rows(rows, after) - self.score_rows(rows, before))

    def _mask(self, place: Place) -> MaskConfig:
        """The setting at a place of the grid."""
        cellprob, flow, size = (axis[index] for axis, index in zip(self.axes, place, strict=True))
        return dataclasses.replace(
            self.base, cellprob_threshold=cellprob, flow_threshold=flow, min_size=int(size)
        )

    def _place_of(self, mask: MaskConfig) -> Place | None:
        """Where a setting lies on the grid; None where it does not."""
        place = self._nearest(mask)
        return place if self._mask(place) == mask else None

    def _nearest(self, mask: MaskConfig) -> Place:
        cellprobs, flows, sizes = (np.array(axis, dtype=np.float64) for axis in self.axes)
        limits = np.where(flows > 0, flows, 1e3)  # no check lies beyond every threshold
        limit = mask.flow_threshold or 1e3
        return (
            int(np.abs(cellprobs - mask.cellprob_threshold).argmin()),
            int(np.abs(limits - limit).argmin()),
            int(np.abs(sizes - mask.min_size).argmin()),
        )


_TRAINING, _SHARED = "the training's thresholds", "the shared thresholds"
