"""Two runs beside each other: what differs in their settings, and in their scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellflow.config import ScoreConfig, check_config, config_differences
from cellflow.config.catalog import CompareConfig
from cellflow.engine.runs.contents import read_table
from cellflow.engine.runs.next_command import calibrate_command, run_word
from cellflow.engine.runs.run_records import OofRecord, find_oof_record, with_later_settings
from cellflow.engine.runs.state import RunState, is_debug, run_state
from cellflow.engine.validation.metric_scores import metric_columns, metric_names
from cellflow.engine.validation.score_masks import score_masks
from cellflow.engine.validation.score_result import ScoreResult, mean_row
from cellflow.errors import ConfigError, RunError
from cellflow.storage.atomic import write_csv
from cellflow.storage.run_folder import RunFolder, find_run

__all__ = ["Comparison", "compare_runs"]

TRAINING, CROSS_FITTED = "training", "cross-fitted"
"""Thresholds that are compared at."""

_COLUMNS = [
    "scope", "name", "thresholds", "images", "groups", "score_a", "score_b", "difference", "low", "high",
    "verdict",
]  # fmt: skip
_NEEDED = ["id", "fold", "cell_type", "group", "score", "ap50", "ap75"]
_VERDICTS = {"better": "B better", "worse": "A better", "undecided": "undecided"}


@dataclass(frozen=True, eq=False)
class Comparison:
    """How run B compares with run A.

    Attributes
    ----------
    a, b : str
        Names of the runs.
    config : tuple of str
        What differs in how they were made, as "name: A -> B".
    notes : tuple of str
        What makes them hard to compare, or is missing; a sentence each.
    images : pandas.DataFrame
        A row per image that both have: id, cell_type, group, fold (where the split is one), score_a,
        score_b, difference, and cross_fitted_a, cross_fitted_b, cross_fitted_difference where both are
        calibrated; with `metrics` also METRIC of B, METRIC_versus of A, and
        METRIC_difference. Empty where the data are not the same.
    table : pandas.DataFrame
        Means over these images per fold, per cell type and overall, at the thresholds of the training
        and at cross-fitted ones: scope, name, thresholds, images, groups, score_a, score_b, difference
        (B - A) with its 95 % interval low..high, and verdict. Where nothing can be paired, the two
        scores alone.
    conclusions : tuple of str
        A sentence for each kind of thresholds.
    metrics : pandas.DataFrame
        Other metrics that were asked for, of the out-of-fold masks of B compared with those of A, as
        `ScoreResult.metrics` has them. Empty without any.
    """

    a: str
    b: str
    config: tuple[str, ...]
    notes: tuple[str, ...]
    images: pd.DataFrame
    table: pd.DataFrame
    conclusions: tuple[str, ...]
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)


def compare_runs(config: CompareConfig) -> Comparison:
    """Compare two runs, image by image where their data are the same.

    Every image is scored by a model that never saw it. The differences of images that both runs have
    are taken first and their groups resampled, as `cellflow score --versus` does.

    Raises
    ------
    ConfigError, RunError
        If a run is unknown or its record or tables are damaged, or both are one run.

    Examples
    --------
    Two runs that differ in their seed, after `oof`:

    >>> from cellflow import CompareConfig, compare_runs
    >>> found = compare_runs(CompareConfig("exp", "second"))
    >>> found.config
    ('seed: 0 -> 1',)
    >>> found.table[["scope", "name", "images", "verdict"]].tail(2)
           scope    name  images    verdict
    4  cell_type  spread       2  undecided
    5    overall     all       6  undecided
    """
    check_config(config)
    folders = [find_run(name, config.runs_dir) for name in (config.a, config.b)]
    if folders[0].path.resolve() == folders[1].path.resolve():
        raise ConfigError(f"A run is compared with itself: {folders[0].path}")
    alike = folders[0].name == folders[1].name
    a, b = (_Side.open(run, str(run.path) if alike else run.name) for run in folders)
    images = _paired(a, b)
    rows = list(_rows(images, a, b))
    table = pd.DataFrame([row for row, _ in rows], columns=_COLUMNS)
    scored = _more_metrics(config, a, b) if config.metrics and len(images) else None
    if scored is not None:
        columns = [c for key in metric_names(config.metrics) for c in metric_columns(key)]
        images = images.merge(scored.images[["id", *columns]], on="id", validate="one_to_one")
    if config.out is not None:
        write_csv(config.out, images)
    metrics = pd.DataFrame() if scored is None else scored.metrics
    conclusions = tuple(text for _, text in rows if text)
    return Comparison(
        a.name, b.name, _differences(a, b), _notes(a, b), images, table, conclusions, metrics
    )


@dataclass(frozen=True, eq=False)
class _Side:
    """A run with the scores of its out-of-fold predictions, by image."""

    run: RunFolder
    name: str
    record: dict[str, Any]
    state: RunState
    made: OofRecord | None
    scores: pd.DataFrame | None
    cross_fitted: pd.Series[float] | None
    other_thresholds: bool

    @classmethod
    def open(cls, run: RunFolder, name: str) -> _Side:
        """Read what there is."""
        state, made = run_state(run), find_oof_record(run)
        record = run.read_record()
        scores, cross_fitted = None, None
        other = made is None or made.mask != record["config"].get("mask")
        if run.scores.exists():
            again = f"Make it again with: cellflow oof {run_word(run)}"
            scores = _by_image(run.scores, _NEEDED, again)
        if scores is not None and state.calibrated:
            again = f"Make it again with: {calibrate_command(run)}"
            columns = ["id", "score", "cross_fitted"]
            rows = _by_image(run.calibration / "scores.csv", columns, again)
            cross_fitted = rows["cross_fitted"]
            if other:  # calibration has scored the pass at the thresholds of the training too
                precision = {key: np.nan for key in ("ap50", "ap75")}
                scores, other = scores.assign(score=rows["score"], **precision), False
        return cls(run, name, record, state, made, scores, cross_fitted, other)


def _by_image(path: Path, columns: list[str], remedy: str) -> pd.DataFrame:
    """A table of a run with a row per image, by id."""
    table = read_table(path, columns, remedy=remedy)
    twice = table["id"][table["id"].duplicated()]
    if len(twice):
        name = str(twice.iloc[0])
        raise RunError(
            f"{path}: expected one row for each image, found two of {name!r}. {remedy}",
            path=path, id=name,
        )  # fmt: skip
    return table.set_index("id")


def _more_metrics(config: CompareConfig, a: _Side, b: _Side) -> ScoreResult:
    """Other metrics of the out-of-fold masks of both, B as what is scored and A as what it is compared with."""
    return score_masks(
        ScoreConfig(
            str(b.run.path),
            versus=str(a.run.path),
            metrics=config.metrics,
            runs_dir=config.runs_dir,
        )
    )


def _differences(a: _Side, b: _Side) -> tuple[str, ...]:
    """What differs in how two runs were made: settings, diameters of predictions, versions."""
    made: list[dict[str, Any]] = [
        {
            **with_later_settings(side.record["config"]),
            "oof": {key: getattr(side.made, key, None) for key in ("policy", "diameter", "mask")},
            "versions": side.record.get("versions", {}),
        }
        for side in (a, b)
    ]
    if a.scores is None or b.scores is None:
        made = [{key: item for key, item in side.items() if key != "oof"} for side in made]
    return tuple(config_differences(made[0], made[1]))


def _same(a: _Side, b: _Side, key: str) -> bool:
    return bool(a.record[key] == b.record[key])


def _notes(a: _Side, b: _Side) -> tuple[str, ...]:
    notes = []
    if not _same(a, b, "data_hash"):
        notes.append(
            f"different data: {a.name} was trained on {a.record['data']}, {b.name} on "
            f"{b.record['data']}. Their scores are of different images, so no difference is taken."
        )
    elif not _same(a, b, "folds_hash"):
        notes.append(
            "different splits: every image is still scored by models that never saw it, but these were "
            "trained on different images, and folds cannot be compared."
        )
    for side in (a, b):
        notes += [f"{side.name}: {text}" for text in _own_notes(side)]
    if a.scores is not None and b.scores is not None and _same(a, b, "data_hash"):
        notes += _pair_notes(a, a.scores, b, b.scores)
    return tuple(notes)


def _own_notes(side: _Side) -> Iterator[str]:
    """What is missing in a run, or to be said of it."""
    state, run = side.state, run_word(side.run)
    if state.problem:
        yield state.problem
    left = [str(fold.fold) for fold in state.folds if not fold.complete]
    if left:
        yield f"not trained to its end (fold {', '.join(left)})"
    if is_debug(side.record):
        yield "a debug run, whose scores mean nothing"
    if side.scores is None:
        yield f"no out-of-fold scores; make them with: cellflow oof {run}"
        return
    if not state.predicted:
        yield f"its scores are of other models than those there now; cellflow oof {run}"
    elif not state.calibrated:
        yield f"not calibrated; {calibrate_command(side.run)}"
    if side.other_thresholds:
        yield "its scores are at other thresholds than those of the training"


def _pair_notes(
    a: _Side, scores_a: pd.DataFrame, b: _Side, scores_b: pd.DataFrame
) -> Iterator[str]:
    for side, others in (
        (a, scores_a.index.difference(scores_b.index)),
        (b, scores_b.index.difference(scores_a.index)),
    ):
        if len(others):
            yield f"{len(others)} images only {side.name} has are left out"
    both = scores_a.index.intersection(scores_b.index)
    if (scores_a.loc[both, "group"] != scores_b.loc[both, "group"]).any():
        yield f"the folds were grouped in two ways; intervals take the groups of {a.name}"


def _paired(a: _Side, b: _Side) -> pd.DataFrame:
    """A row per image that both have, of the same data."""
    columns = ["id", "cell_type", "group", "score_a", "score_b", "difference"]
    if a.scores is None or b.scores is None or not _same(a, b, "data_hash"):
        return pd.DataFrame(columns=columns)
    both = a.scores.index.intersection(b.scores.index).sort_values()
    left, right = a.scores.loc[both], b.scores.loc[both]
    images = left[["cell_type", "group"]].copy()
    if _same(a, b, "folds_hash"):
        images["fold"] = left["fold"]
    images["score_a"], images["score_b"] = left["score"], right["score"]
    images["difference"] = images["score_b"] - images["score_a"]
    if a.cross_fitted is not None and b.cross_fitted is not None:
        images["cross_fitted_a"] = a.cross_fitted.reindex(both)
        images["cross_fitted_b"] = b.cross_fitted.reindex(both)
        difference = images["cross_fitted_b"] - images["cross_fitted_a"]
        images["cross_fitted_difference"] = difference
    return images.reset_index()


def _rows(images: pd.DataFrame, a: _Side, b: _Side) -> Iterator[tuple[dict[str, Any], str]]:
    """Rows of the table, and the sentence that goes with the last of each kind of thresholds."""
    kinds = {
        TRAINING: ("score", "difference"),
        CROSS_FITTED: ("cross_fitted", "cross_fitted_difference"),
    }
    for thresholds, (name, difference) in kinds.items():
        if difference not in images:
            continue
        part = pd.DataFrame(
            {
                "score": images[f"{name}_b"],
                "score_versus": images[f"{name}_a"],
                "difference": images[difference],
                "ap50": np.nan,
                "ap75": np.nan,
            }
        )
        part = images[[key for key in ("fold", "cell_type", "group") if key in images]].join(part)
        part = part.dropna(subset=["difference"])  # one group alone cannot be cross-fitted
        if len(part):
            yield from _scopes(part, thresholds, a.name, b.name)
    if images.empty:
        yield from _unpaired(a, b)


def _scopes(
    part: pd.DataFrame, thresholds: str, a: str, b: str
) -> Iterator[tuple[dict[str, Any], str]]:
    """Per fold, per cell type and overall."""
    for scope in ("fold", "cell_type"):
        if scope in part and part[scope].nunique() > 1:
            for name, rows in part.groupby(scope):
                yield _renamed(mean_row(scope, str(name), rows), thresholds), ""
    overall = mean_row("overall", "all", part)
    result = ScoreResult(b, a, part, pd.DataFrame([overall]))
    yield _renamed(overall, thresholds), f"At {_WORDS[thresholds]} thresholds: {result.conclusion}"


_WORDS = {TRAINING: "the training's", CROSS_FITTED: "cross-fitted"}


def _renamed(row: dict[str, Any], thresholds: str) -> dict[str, Any]:
    """A row of `cellflow score --versus`, where A is what B is compared with."""
    return {
        **{key: row[key] for key in ("scope", "name", "images", "groups", "difference")},
        "thresholds": thresholds,
        "score_a": row["score_versus"],
        "score_b": row["score"],
        "low": row["difference_low"],
        "high": row["difference_high"],
        "verdict": _VERDICTS[row["verdict"]],
    }


def _unpaired(a: _Side, b: _Side) -> Iterator[tuple[dict[str, Any], str]]:
    """The two scores alone, where there are any."""
    raw = [None if side.scores is None else side.scores["score"] for side in (a, b)]
    for thresholds, pair in {TRAINING: raw, CROSS_FITTED: [a.cross_fitted, b.cross_fitted]}.items():
        means = [np.nan if scores is None else float(scores.mean()) for scores in pair]
        if not np.isnan(means).all():
            row = {"scope": "overall", "name": "all", "thresholds": thresholds}
            yield {**row, "score_a": means[0], "score_b": means[1]}, ""
