"""The page of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.config import CompareConfig
from cellflow.engine.runs.contents import run_dataset
from cellflow.engine.runs.metadata import read_metadata
from cellflow.engine.runs.next_command import run_word
from cellflow.engine.runs.run_records import find_oof_record, with_later_settings
from cellflow.engine.runs.state import lenient_table, overall_cv, run_created, run_state
from cellflow.engine.validation.compare_runs import Comparison, compare_runs
from cellflow.errors import CellflowError
from cellflow.io.dataset import Dataset
from cellflow.io.images import read_labels
from cellflow.report.comparison import Comparison as Pictured
from cellflow.report.comparison import comparison_picture
from cellflow.report.overlays import grey_or_rgb
from cellflow.report.pages.compare_page import (
    CompareFacts,
    PairFacts,
    PairPicture,
    draw_compare_page,
)
from cellflow.report.pages.picture import picture_uri, shrunk
from cellflow.report.pages.run_facts import Hint
from cellflow.storage.plain_values import flatten
from cellflow.storage.run_folder import RunFolder

__all__ = ["write_compare_page"]

SHOWN = 8
"""Images with the largest differences that are drawn, half of them in favour of either run where there are."""
SIDE = 480
"""Pixels of the longer side of a picture."""


def write_compare_page(runs: Sequence[RunFolder], path: Path, *, data: Path | None = None) -> Path:
    """Write the page of several runs; each is compared with the first.

    Parameters
    ----------
    runs : sequence of RunFolder
        Two or more.
    path : Path
        File to write, atomically.
    data : Path, optional
        Dataset folder of the runs, when it is not where they found it.

    Raises
    ------
    ConfigError, RunError
        As `compare_runs`.
    """
    names = _names(runs)
    facts = CompareFacts(
        names,
        [_run_row(run, name) for run, name in zip(runs, names, strict=True)],
        _settings(runs),
        [
            _pair(runs[0], run, (names[0], name), data)
            for run, name in zip(runs[1:], names[1:], strict=True)
        ],
    )
    made_by = f"cellflow report {' '.join(map(run_word, runs))}"
    draw_compare_page(path, facts, made_by=made_by)
    return path


def _names(runs: Sequence[RunFolder]) -> list[str]:
    """Names of runs; their folders where two are called the same."""
    names = [run.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _run_row(run: RunFolder, name: str) -> dict[str, Any]:
    state = run_state(run)
    cv = overall_cv(run)
    scores = lenient_table(run.scores)
    return {
        "name": name,
        "status": state.status if not state.problem else f"{state.status}; {state.problem}",
        "created": run_created(run, read_metadata(run))[:16].replace("T", " "),
        "images": None if scores is None else len(scores),
        **cv,
    }


def _settings(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Settings, diameters of predictions and versions that are not the same in all runs."""
    every = [dict(flatten(_made_with(run))) for run in runs]
    names = dict.fromkeys(name for item in every for name in item)
    return [
        {"name": name, **{str(at): _text(item.get(name)) for at, item in enumerate(every)}}
        for name in names
        if any(item.get(name) != every[0].get(name) for item in every[1:])
    ]


def _made_with(run: RunFolder) -> dict[str, Any]:
    record, made = run.read_record(), find_oof_record(run)
    oof = (
        {}
        if made is None
        else {"policy": made.policy, "diameter": made.diameter, "mask": dict(made.mask)}
    )
    return {
        **with_later_settings(record["config"]),
        "data": record["data"],
        "data_hash": record["data_hash"],
        "folds_hash": record["folds_hash"],
        "oof": oof,
        "versions": record.get("versions", {}),
    }


def _text(value: Any) -> str:
    return "–" if value is None else str(value)


def _pair(a: RunFolder, b: RunFolder, names: tuple[str, str], data: Path | None) -> PairFacts:
    found = compare_runs(CompareConfig(str(a.path.resolve()), str(b.path.resolve())))
    images = found.images
    pictures, without = _pictures(a, b, images, names, data)
    return PairFacts(*names, _hints(found), found.table, images, pictures, without)


def _hints(found: Comparison) -> list[Hint]:
    """What follows from the differences, and what to mind."""
    hints: list[Hint] = [("note", text) for text in found.conclusions]
    return hints + [("warning", note) for note in found.notes]


def _pictures(
    a: RunFolder, b: RunFolder, images: pd.DataFrame, names: tuple[str, str], data: Path | None
) -> tuple[list[PairPicture], str]:
    """Images whose scores differ most, and why there are none."""
    if images.empty:
        return [], "There is no image whose scores can be compared."
    different = images[images["difference"] != 0]
    if different.empty:
        return [], "All images have the same score in both runs."
    try:
        dataset = run_dataset(a, data)
        rows = _largest(different).to_dict("records")
        return [_picture(a, b, dataset, row, names) for row in rows], ""
    except (CellflowError, OSError) as error:
        return [], f"They cannot be drawn: {error}"


def _largest(images: pd.DataFrame) -> pd.DataFrame:
    """The largest differences, half of them in favour of either run where there are as many."""
    ranked = images.sort_values(["difference", "id"], kind="stable")
    worse, better = ranked[ranked["difference"] < 0], ranked[ranked["difference"] > 0]
    half = SHOWN // 2
    fewer = max(half, SHOWN - len(better)), max(half, SHOWN - len(worse))
    shown = pd.concat([worse.head(fewer[0]), better.tail(fewer[1])])
    return shown.sort_values("difference", key=abs, ascending=False, kind="stable")


def _picture(
    a: RunFolder, b: RunFolder, dataset: Dataset, row: dict[Any, Any], names: tuple[str, str]
) -> PairPicture:
    name = str(row["id"])
    image, truth = dataset.image(name), dataset.instances(name)
    found = [read_labels(run.oof / "masks" / f"{name}.tif") for run in (a, b)]
    drawn = [comparison_picture(Pictured(name, image, truth, labels), SIDE) for labels in found]
    uris = [picture_uri(shrunk(item, SIDE), quality=70) for item in (grey_or_rgb(image), *drawn)]
    text = (
        f"{names[0]} {row['score_a']:.3f}, {names[1]} {row['score_b']:.3f}: a difference of "
        f"{row['difference']:+.3f}. Cells: {len(truth)} true, {found[0].max(initial=0)} and "
        f"{found[1].max(initial=0)} predicted."
    )
    return PairPicture(name, text, *uris)
