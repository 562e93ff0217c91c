"""What the page of a run shows: what `cellflow.engine.pages.run_page` gathers from its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

__all__ = ["FoldFacts", "Hint", "RunFacts", "ThresholdFacts"]

Hint = tuple[str, str]
"""Its kind ("good", "note" or "warning"), and a sentence or two."""


@dataclass(frozen=True, eq=False)
class FoldFacts:
    """One fold.

    Attributes
    ----------
    fold : int
        Its number.
    state : str
        How far it is, in words: "running", "finished", "stopped", "not begun".
    history, evaluations : pandas.DataFrame
        Rows of `history.csv` and `evaluations.csv`; empty where there are none.
    epoch, score, epochs : float or None
        Epoch of the best model, its score on the validation images, and epochs trained.
    ended : str
        What ended it: "epochs", "patience"; empty while it goes on.
    skipped_steps : int
        Steps of the optimizer that were left out because their gradients were not finite.
    """

    fold: int
    state: str
    history: pd.DataFrame
    evaluations: pd.DataFrame
    epoch: float | None
    score: float | None
    epochs: float | None
    ended: str = ""
    skipped_steps: int = 0


@dataclass(frozen=True, eq=False)
class ThresholdFacts:
    """Calibrated thresholds.

    Attributes
    ----------
    source : str
        What they were fitted on.
    chosen : mapping
        From "all types" or a cell type to its settings by name.
    curves : mapping
        Likewise, from the name of a threshold to ``[value, score]`` pairs.
    fold_curves : mapping
        The same by fold, of its own images around the shared setting; empty where an older calibration kept none.
    fold_chosen : mapping
        From a fold to the settings that were fitted without it.
    why : mapping
        Why each was taken.
    scores : mapping
        For all types and each one: images, score at the training's thresholds, and cross-fitted.
    metric : str
        What the scores are.
    swings : sequence of dict
        One for each threshold: `threshold`, `values` by fold, `steps` of the grid between the outermost,
        `costs`, `swings`.
    """

    source: str
    chosen: Mapping[str, Mapping[str, Any]]
    curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
    fold_curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
    fold_chosen: Mapping[str, Mapping[str, Any]]
    why: Mapping[str, str]
    scores: Mapping[str, Mapping[str, Any]]
    metric: str
    swings: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class RunFacts:
    """A run, as far as it has come.

    Attributes
    ----------
    name, status, created, comment : str
    debug : bool
    select_metric : str
        Name of the metric that chooses the models, for people.
    folds : sequence of FoldFacts
    tiles : sequence of (str, str, str, str)
        Label, value, note below it, explanation.
    hints : sequence of Hint
    problems : sequence of str
        Files that could not be read, and why.
    cv, scores, confusion : pandas.DataFrame or None
        `cv.csv`, `oof/scores.csv` (with `cross_fitted` once there is a calibration), `oof/cell_types.csv`.
    thresholds : ThresholdFacts or None
    ensembles, predictions : sequence of mapping
        Rows: calibrations of ensembles of its models, with the single models on the same images; and results
        made with them.
    machine, time : sequence of mapping
        Rows of the hardware, and of the time of every fold.
    changed, settings : sequence of mapping
        Rows of settings that differ from Cellpose's recipe and the other defaults, and of all: name, value, default.
    again, use : sequence of (str, str)
        What a command does, and the command: to make the run again, and to predict with it.
    data, word : str
        Folder of the dataset, and the run as commands take it.
    flows : bool
        Whether its out-of-fold flows are there, which calibrations are made of.
    """

    name: str
    status: str
    created: str = ""
    comment: str = ""
    debug: bool = False
    select_metric: str = "competition score"
    folds: Sequence[FoldFacts] = ()
    tiles: Sequence[tuple[str, str, str, str]] = ()
    hints: Sequence[Hint] = ()
    problems: Sequence[str] = ()
    cv: pd.DataFrame | None = None
    scores: pd.DataFrame | None = None
    confusion: pd.DataFrame | None = None
    thresholds: ThresholdFacts | None = None
    ensembles: Sequence[Mapping[str, Any]] = ()
    predictions: Sequence[Mapping[str, Any]] = ()
    machine: Sequence[Mapping[str, Any]] = ()
    time: Sequence[Mapping[str, Any]] = ()
    changed: Sequence[Mapping[str, Any]] = ()
    settings: Sequence[Mapping[str, Any]] = ()
    again: Sequence[tuple[str, str]] = ()
    use: Sequence[tuple[str, str]] = ()
    data: str = ""
    word: str = ""
    flows: bool = True
