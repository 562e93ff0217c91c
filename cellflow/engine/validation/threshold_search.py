"""Search for thresholds on stored flows: optima per cell type, what holds elsewhere, cross-fitting."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.config import MaskConfig
from cellflow.config.calibration import GridConfig
from cellflow.engine.runs.thresholds import Thresholds
from cellflow.engine.validation.threshold_scores import (
    Bools,
    CalibrationImages,
    Floats,
    Place,
    ThresholdScores,
)
from cellflow.numeric.bootstrap import MIN_GROUPS
from cellflow.numeric.grid_optimum import grid_optimum, shrink
from cellflow.report.text.thresholds import mask_text

__all__ = ["Decision", "ThresholdSearch"]

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

_TRAINING, _SHARED = "the training's thresholds", "the shared thresholds"


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
    """What is best for images whose scores at thresholds are known.

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
    metric : str
        What is to be best: a name of `SELECT_METRICS`.
    """

    images: CalibrationImages
    grid: GridConfig
    base: MaskConfig
    shrinkage: float = 10.0
    smoothing: float = 0.7
    prior: ThresholdSearch | None = None
    metric: str = "competition"

    @cached_property
    def scores(self) -> ThresholdScores:
        """Scores of the images at thresholds."""
        return ThresholdScores(self.images, self.grid, self.base, self.metric)

    def fit(self, rows: Bools | None = None) -> Thresholds:
        """The best thresholds for some of the images: shared, and per type shrunk towards shared.

        An optimum of the grid is taken where it holds on images it was not fitted on: fitted on all
        pieces but one and scored on that one, it must gain more than the standard error over what it
        replaces (the training's thresholds; for a type the shared ones). With fewer than `MIN_GROUPS` groups
        that cannot be told, and what was there stays. Extras are tried on top of what was taken.
        """
        rows = self.images.every if rows is None else rows
        confirmed = self._confirmed(rows, self._fit(rows))[0]
        shared = self._refine(rows, confirmed.shared)
        per_type = {
            name: self._refine(self.images.of_type(name, rows), mask)
            for name, mask in confirmed.per_type.items()
        }
        return Thresholds(shared, per_type)

    def _fit(self, rows: Bools) -> Thresholds:
        """Optima of the grid on the images they are fitted on, whether they hold elsewhere or not."""
        shared = self.scores.mask(self._place(rows))
        names = sorted({str(name) for name in np.array(self.images.types)[rows] if name})
        if len(names) < 2:
            return Thresholds(shared)
        per_type = {
            name: self.scores.mask(self._place(self.images.of_type(name, rows), rows, name))
            for name in names
        }
        return Thresholds(shared, per_type)

    def decisions(self) -> dict[str, Decision]:
        """Why the thresholds that `fit` gives for all images were taken: "" for shared, and per type."""
        every = self.images.every
        return self._confirmed(every, self._fit(every))[1]

    def _confirmed(self, rows: Bools, fitted: Thresholds) -> tuple[Thresholds, dict[str, Decision]]:
        """Of fitted thresholds those that hold on images they were not fitted on, and why."""
        held_out = self._held_out(rows)
        nothing = np.full(len(rows), np.nan)
        shared, own = (nothing, nothing) if held_out is None else held_out
        before, pieces = nothing.copy(), self._pieces(rows)
        before[rows] = self.scores.at(np.flatnonzero(rows), self.base)
        decision = self._decide(rows, fitted.shared, self.base, _TRAINING, shared - before)
        decisions, taken = {"": decision}, self.base
        if decision.taken:
            taken, before = fitted.shared, shared
        per_type = {}
        for name, mask in fitted.per_type.items():
            of_type = self.images.of_type(name, rows)
            # a type of one piece is in no fit without it: what is scored is not its own optimum
            apart = len(np.unique(pieces[of_type])) > 1
            gains = own - before if apart else nothing
            decision = self._decide(of_type, mask, taken, _SHARED, gains)
            per_type[name] = mask if decision.taken else taken
            decisions[name] = decision
        return Thresholds(taken, per_type), decisions

    def _decide(
        self, rows: Bools, optimum: MaskConfig, kept: MaskConfig, over: str, gains: Floats
    ) -> Decision:
        gain, error, groups = self.images.mean_gain(rows, gains)
        return Decision(optimum, kept, over, self._gains(rows, gains), gain, error, groups)

    def _held_out(self, rows: Bools) -> tuple[Floats, Floats] | None:
        """Scores at shared and at the type's own thresholds, each fitted on the other pieces."""
        pieces = self._pieces(rows)
        if len(np.unique(pieces[rows])) < 2:
            return None
        shared, own = np.full((2, len(rows)), np.nan)
        for piece in np.unique(pieces[rows]):
            fitted = self._fit(rows & (pieces != piece))
            for row in np.flatnonzero(rows & (pieces == piece)).tolist():
                shared[row] = self.scores.at([row], fitted.shared)[0]
                own[row] = self.scores.at([row], fitted.of(self.images.types[row]))[0]
        return shared, own

    def cross_fit(self) -> tuple[Floats, dict[int, Thresholds]]:
        """Score of every image at the thresholds fitted on the other folds, and these thresholds.

        Images of one fold only (a holdout split, reserved images) are cut into `PIECES` parts, groups
        whole. Scores are nan where there is a single group: nothing is left to fit on.
        """
        folds = self._pieces(self.images.every)
        fitted = {}
        if len(np.unique(folds)) > 1:
            fitted = {fold: self.fit(folds != fold) for fold in np.unique(folds).tolist()}
        return self._at_fitted(fitted, self.scores.at), fitted

    def fold_curves(self, thresholds: Thresholds) -> dict[str, dict[str, list[list[float]]]]:
        """Curves of the images of each fold, or of each part that `cross_fit` holds out, around the shared setting."""
        folds = self._pieces(self.images.every)
        return {
            str(fold): self.scores.curves_of(folds == fold, thresholds.shared)
            for fold in np.unique(folds).tolist()
        }

    def competition_of(self, fitted: Mapping[int, Thresholds]) -> Floats:
        """Competition score of every image at the thresholds that `cross_fit` fitted without it."""
        return self._at_fitted(fitted, self.scores.competition_at)

    def _at_fitted(
        self, fitted: Mapping[int, Thresholds], at: Callable[[list[int], MaskConfig], Floats]
    ) -> Floats:
        folds, scores = self._pieces(self.images.every), np.full(len(self.images), np.nan)
        for fold, thresholds in fitted.items():
            for row in np.flatnonzero(folds == fold).tolist():
                scores[row] = at([row], thresholds.of(self.images.found_types[row]))[0]
        return scores

    def _pieces(self, rows: Bools) -> NDArray[np.int64]:
        """What is held out together: folds; parts of whole groups where the images are of one fold."""
        folds = np.array(self.images.folds)
        if len(np.unique(folds[rows])) > 1:
            return folds
        numbers = np.unique(np.array(self.images.groups)[rows], return_inverse=True)[1]
        pieces = np.zeros(len(folds), np.int64)
        pieces[rows] = numbers % PIECES
        return pieces

    def _place(self, rows: Bools, wider: Bools | None = None, cell_type: str = "") -> Place:
        """Best grid setting of some images, shrunk towards a wider set and the prior search."""
        surface, count = self.scores.surface(rows), float(rows.sum())
        prior = None if wider is None else self.scores.surface(wider)
        if self.prior is not None:
            prior = self.prior.surface_of(cell_type)
        if prior is not None:
            surface = shrink(surface, count, prior, self.shrinkage)
        place = grid_optimum(surface, self.scores.nearest(self.base), smoothing=self.smoothing)
        return place[0], place[1], place[2]

    def surface_of(self, cell_type: str) -> Floats:
        """Mean scores of a type's images, shrunk towards all; of all for "" or an unknown type."""
        of_all, of_type = self.scores.surface(self.images.every), self.images.of_type(cell_type)
        if not cell_type or not of_type.any():
            return of_all
        surface = self.scores.surface(of_type)
        return shrink(surface, float(of_type.sum()), of_all, self.shrinkage)

    def _refine(self, rows: Bools, mask: MaskConfig) -> MaskConfig:
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
        self.scores.learn(
            np.flatnonzero(rows).tolist(), every
        )  # all at once: most often none is taken
        for name, values in EXTRAS.items():
            tried = {value: dataclasses.replace(mask, **{name: value}) for value in values}
            gains = {value: self._gain(rows, mask, other) for value, other in tried.items()}
            best = max(gains, key=lambda value: gains[value].mean())
            shrunk = gains[best].mean() * rows.sum() / (rows.sum() + self.shrinkage)
            spread = np.full(len(rows), np.nan)
            spread[rows] = gains[best]
            if shrunk > MIN_EXTRA_GAIN and self._gains(rows, spread):
                mask = tried[best]
        return mask

    def _gains(self, rows: Bools, gains: Floats) -> bool:
        """Whether the mean gain of some images is larger than its standard error, groups whole.

        The error of a few groups is not known, so nothing is gained there.
        """
        gain, error, groups = self.images.mean_gain(rows, gains)
        return groups >= MIN_GROUPS and gain > max(error, 0.0)

    def _gain(self, rows: Bools, before: MaskConfig, after: MaskConfig) -> Floats:
        """What one setting gains over another, image by image."""
        places = np.flatnonzero(rows)
        return np.asarray(self.scores.at(places, after) - self.scores.at(places, before))
