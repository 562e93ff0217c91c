"""The page of a run: what `RunFacts` hold, as charts and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.report.pages.explorer import EXPLORER_ASSETS, ExplorerFacts, explorer_values
from cellflow.report.pages.page import write_page
from cellflow.report.pages.run_charts import course_charts, recognition_charts, score_charts
from cellflow.report.pages.run_facts import RunFacts
from cellflow.report.pages.table import Column, Table, rows_of
from cellflow.report.pages.threshold_charts import (
    chosen_table,
    fold_table,
    reasons,
    threshold_charts,
)
from cellflow.report.text.cv import CV_COLUMNS, part_name

__all__ = ["draw_run_page"]


def draw_run_page(
    path: Path,
    facts: RunFacts,
    explorer: ExplorerFacts | None = None,
    *,
    made_by: str,
    refresh: float | None = None,
) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
        File to write, atomically.
    facts : RunFacts
        What is shown.
    explorer : ExplorerFacts or None
        Its images, where there are any.
    made_by : str
        The command that makes it.
    refresh : float, optional
        Seconds after which an open page loads itself again.
    """
    found = facts.thresholds
    shown: dict[str, Any] = {
        "facts": facts,
        "score_tables": [] if facts.cv is None else cv_tables(facts.cv),
        "score_charts": score_charts(facts),
        "image_table": None if facts.scores is None else image_table(facts.scores),
        "course_charts": course_charts(facts),
        "recognition_charts": recognition_charts(facts),
        "fold_thresholds": [] if found is None else threshold_charts(found, by="fold"),
        "type_thresholds": [] if found is None else threshold_charts(found, by="type"),
        "chosen_table": None if found is None else chosen_table(found),
        "reasons": [] if found is None else reasons(found),
        "fold_table": None if found is None or not found.swings else fold_table(found),
        "ensemble_table": _ensemble_table(facts) if facts.ensembles else None,
        "prediction_table": _prediction_table(facts) if facts.predictions else None,
        "machine_table": Table("Machine of the last training", _PAIR, facts.machine),
        "time_table": _time_table(facts),
        "changed_table": Table(
            "Settings that differ from Cellpose's recipe and the other defaults",
            _SETTINGS,
            facts.changed,
        ),
        "settings_table": Table("All settings", _SETTINGS, facts.settings),
        "explorer": None,
    }
    if explorer is not None:
        shown |= explorer_values(explorer)
    title = f"Run {facts.name}"
    assets = ["run.css", *EXPLORER_ASSETS]
    write_page(
        path, "run.html", shown, title=title, made_by=made_by, assets=assets, charts=True,
        refresh=refresh,
    )  # fmt: skip


_PAIR = [Column("name", "What"), Column("value", "Value")]
_SETTINGS = [
    Column("name", "Setting"),
    Column("value", "Value"),
    Column("default", "Cellpose's, or default"),
]


def cv_tables(cv: pd.DataFrame) -> list[Table]:
    """Scores, and cells, per fold, per type and overall: the columns of `cv.csv`."""
    first = [
        Column("what", "Images of"), Column("images", "Images"), Column("groups", "Groups"),
        *(Column(key, heading.capitalize(), 3, says) for key, (heading, says) in CV_COLUMNS.items()),
        Column("low", "From", 3, "95 % interval of expected, whole groups drawn anew"),
        Column("high", "To", 3),
    ]  # fmt: skip
    second = [
        Column("what", "Images of"), Column("cells", "Cells"),
        Column("ap50", "AP 0.5", 3, "found / (found + missed + false) at IoU 0.5, mean over images"),
        Column("ap75", "AP 0.75", 3),
        Column("precision", "Precision", 3, "part of the predicted cells that is true, at IoU 0.5"),
        Column("recall", "Recall", 3, "part of the true cells that was found, at IoU 0.5"),
        Column("f1", "F1", 3, "both in one"),
    ]  # fmt: skip
    rows = [{**row, "what": part_name(row, "all")} for row in rows_of(cv)]
    return [
        Table("Scores: means over images", [c for c in first if _has(rows, c.key)], rows),
        Table("Cells at IoU 0.5 and 0.75", [c for c in second if _has(rows, c.key)], rows),
    ]


def _has(rows: list[dict[str, Any]], key: str) -> bool:
    return any(row.get(key) is not None and row.get(key) == row.get(key) for row in rows)


def image_table(scores: pd.DataFrame) -> Table:
    """Every image, the worst first."""
    columns = [
        Column("id", "Image"), Column("fold", "Fold"), Column("cell_type", "Type"),
        Column("group", "Group"),
        Column("score", "Score", 3, "of the out-of-fold masks"),
        Column("cross_fitted", "Fitted", 3, "at thresholds fitted on the other folds"),
        Column("ap50", "AP 0.5", 3), Column("ap75", "AP 0.75", 3), Column("n_true", "Cells"),
        Column("n_found", "Found", None, "true cells that a prediction overlaps with IoU above 0.5"),
        Column("n_missed", "Missed"), Column("n_false", "False"),
        Column("median_diameter", "Diameter", 1, "true median, pixels"),
        Column("style_diameter", "Told", 1, "diameter that the style tells, pixels"),
        Column("predicted_type", "Told type"),
    ]  # fmt: skip
    ranked = scores.sort_values(["score", "id"], kind="stable")
    rows = rows_of(ranked)
    shown = [column for column in columns if column.key in scores and _has(rows, column.key)]
    return Table(f"Out-of-fold predictions of {len(rows)} images, the worst first", shown, rows)


def _ensemble_table(facts: RunFacts) -> Table:
    columns = [
        Column("name", "Ensemble"), Column("members", "Models"), Column("images", "Images"),
        Column("single", "Single models", 4, "mean score of single models on these images"),
        Column("ensemble", "Ensemble", 4, "cross-fitted score of the mean of their flows"),
        Column("difference", "Gain", 4, "ensemble minus single models, image by image"),
        Column("low", "From", 4, "95 % interval of the gain, whole groups drawn anew"),
        Column("high", "To", 4), Column("average", "Flows averaged"), Column("source", "From what"),
    ]  # fmt: skip
    rows = [dict(row) for row in facts.ensembles]
    for row in rows:
        row["images"] = None if row.get("images") is None else int(row["images"])
    return Table("Single models against the ensemble", columns, rows)


def _prediction_table(facts: RunFacts) -> Table:
    columns = [
        Column("name", "Result"), Column("of", "Images from"), Column("images", "Images"),
        Column("cells", "Cells"), Column("members", "Models"), Column("thresholds", "Thresholds"),
    ]  # fmt: skip
    return Table("Predictions made with models of this run", columns, facts.predictions)


def _time_table(facts: RunFacts) -> Table:
    columns = [
        Column("fold", "Fold"), Column("epochs", "Epochs"),
        Column("time", "Time", None, "of training steps; evaluations come on top"),
        Column("epoch", "Seconds an epoch", 1),
        Column("speed", "Images a second", 1, "median over epochs"),
        Column("waited", "Waiting, %", 0, "part of the time spent waiting for crops"),
    ]  # fmt: skip
    return Table("Time of every fold", columns, facts.time)
