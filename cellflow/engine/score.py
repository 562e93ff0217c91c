"""`cellflow score`: any masks against the truth, and two predictions against each other."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from cellflow.config import ScoreConfig, check_config
from cellflow.engine.evaluate import SCORE_COLUMNS, score_row
from cellflow.engine.runs import run_dataset
from cellflow.errors import ConfigError, DataError, RunError
from cellflow.io.fold_table import read_fold_facts
from cellflow.io.mask_findings import MaskReview
from cellflow.io.predictions import PredictedMasks, read_predicted_masks
from cellflow.io.source import match_id
from cellflow.io.truth import Truth, dataset_truth, read_truth
from cellflow.numeric.bootstrap import bootstrap_mean
from cellflow.storage.atomic import write_csv
from cellflow.storage.run_folder import RunFolder, find_run
from cellflow.types import Instances

__all__ = ["MIN_GROUPS", "ScoreResult", "mean_row", "score_masks"]

_log = logging.getLogger(__name__)

MIN_GROUPS = 6
"""With fewer groups there is no verdict. Under a difference of nothing, all of five groups lie on one side
in one case of 16: no result of theirs would be surprising at 5 %, whatever a bootstrap interval says."""

_MAX_NAMED = 10
_GROUP_COLUMNS = ("group", "sample_id")


@dataclass(frozen=True, eq=False)
class ScoreResult:
    """Scores of predicted masks, and how they compare with others.

    Attributes
    ----------
    pred : str
        What was scored, as it was named.
    versus : str or None
        What it was compared with.
    images : DataFrame
        A row per image: id, cell_type, group, score (competition metric), ap50, ap75, n_true,
        n_predicted; with `versus` also score_versus, ap50_versus, ap75_versus, n_predicted_versus and
        difference (score - score_versus).
    table : DataFrame
        Means over images, a row per cell type (where there are several) and one overall: scope, name,
        images, groups, score with its 95 % interval low..high, ap50, ap75; with `versus` also
        score_versus, difference with its interval difference_low..difference_high, and verdict:
        "better" or "worse" where that interval lies on one side of 0 and there are at least
        `MIN_GROUPS` groups, else "undecided". Intervals come from resampling whole groups.
    """

    pred: str
    versus: str | None
    images: pd.DataFrame
    table: pd.DataFrame

    @property
    def conclusion(self) -> str:
        """The comparison over all images in one sentence; empty without one."""
        if self.versus is None:
            return ""
        row = self.table.iloc[-1]
        found = (
            f"difference {row['difference']:+.4f}, 95 % interval {row['difference_low']:+.4f} to "
            f"{row['difference_high']:+.4f}, {row['images']} images in {row['groups']} groups"
        )
        if row["verdict"] != "undecided":
            return f"{self.pred} is {row['verdict']} than {self.versus}: {found}."
        why = f" (a verdict needs {MIN_GROUPS})" if row["groups"] < MIN_GROUPS else ""
        return f"Undecided between {self.pred} and {self.versus}: {found}{why}."


@dataclass(frozen=True)
class _Side:
    """One prediction: what it was called, its masks, and the run it comes from."""

    name: str
    masks: PredictedMasks
    run: RunFolder | None

    def __str__(self) -> str:
        return str(self.masks.path)


def score_masks(config: ScoreConfig) -> ScoreResult:
    """Score predicted masks against the truth, and compare them with others image by image.

    Images are read and scored one at a time. Writes ``config.out`` if it is given.

    Parameters
    ----------
    config : ScoreConfig

    Raises
    ------
    ConfigError
        If there is no truth to score against, or it has no such column of groups.
    RunError
        If a run is unknown, has no out-of-fold masks, or its data cannot be found.
    DataError
        If masks lack images of the truth, do not fit them, or cannot be read.
    """
    check_config(config)
    sides = [_find(name, config.runs_dir) for name in (config.pred, config.versus) if name]
    truth = _find_truth(config.truth, sides)
    names = _matched(sides, truth, subset=config.subset)
    images = _with_facts(truth, list(names), _group_column(config.group, sides, truth))
    rows, review = [], MaskReview()
    for name, ids in tqdm(names.items(), "score", unit="image", disable=None, leave=False):
        cells = review.add(name, truth.instances(name))
        rows.append({"id": name} | _scores(cells, sides, ids))
    review.warn(f"The truth is {truth.path}; `cellflow prepare --split_parts` makes parts cells.")
    images = images.merge(pd.DataFrame(rows), on="id", validate="one_to_one")
    result = ScoreResult(config.pred, config.versus, images, _summary(images))
    if config.out is not None:
        write_csv(config.out, images)
    return result


def _find(name: str, runs_dir: Path) -> _Side:
    """Predicted masks by path, or a run's out-of-fold masks by its folder or name."""
    path = Path(name)
    if path.exists() and not RunFolder(path).exists():
        return _Side(name, read_predicted_masks(path), None)
    try:
        run = RunFolder(path) if RunFolder(path).exists() else find_run(name, runs_dir)
    except RunError as error:
        raise RunError(f"{name}: there is no such folder or CSV. {error}") from None
    masks = run.oof / "masks"
    if not masks.is_dir():
        raise RunError(
            f"Run {run.name!r} has no out-of-fold masks in {masks}. Make them with: "
            f"cellflow oof {name}"
        )
    return _Side(name, read_predicted_masks(masks), run)


def _find_truth(path: Path | None, sides: list[_Side]) -> Truth:
    if path is not None:
        return read_truth(path)
    runs = [side.run for side in sides if side.run is not None]
    if not runs:
        raise ConfigError(
            f"{sides[0]} is no run, so its truth is not known; give it with --truth (dataset folder, "
            "folder of label maps, or CSV with id, annotation, width and height)"
        )
    if len({run.read_record()["data_hash"] for run in runs}) > 1:
        raise RunError(
            f"{' and '.join(run.name for run in runs)} were trained on different data; say with "
            "--truth what both are to be scored against."
        )
    return dataset_truth(run_dataset(runs[0], None))


def _matched(sides: list[_Side], truth: Truth, *, subset: bool) -> dict[str, list[str]]:
    """Images of the truth that all sides have, sorted, with the id that each side gives them."""
    found = []
    for side in sides:
        ids = _ids_in_truth(side, truth)
        missing = [str(name) for name in truth.images.index if name not in ids]
        if missing and ids and side.run is None and not subset:
            raise DataError(
                f"{side}: no masks for {len(missing)} of the {len(truth.images)} images of "
                f"{truth.path} ({_some(missing)}). Add them (an image without cells needs a label map "
                "of zeros, or a row with an empty value), or add --subset to score only those there are."
            )
        if missing:
            _log.info("%s: no masks for %d images of the truth", side, len(missing))
        found.append(ids)
    common = sorted(set.intersection(*(set(ids) for ids in found)))
    if not common:
        raise DataError(
            f"{' and '.join(map(str, sides))} have no image of {truth.path} in common; the truth has "
            f"{_some(truth.images.index)}, the masks {_some(sides[-1].masks.ids)}. File names without "
            "their ending must be the ids of the truth."
        )
    return {name: [ids[name] for ids in found] for name in common}


def _ids_in_truth(side: _Side, truth: Truth) -> dict[str, str]:
    """From an id of the truth to what the prediction calls it: ``NAME.png`` in a table is NAME."""
    ids: dict[str, str] = {}
    known, extra = set(truth.images.index), []
    for own in side.masks.ids:
        name = match_id(own, known)
        if name is None:
            extra.append(own)
        elif name in ids:
            raise DataError(f"{side}: {ids[name]!r} and {own!r} are the same image. Remove one.")
        else:
            ids[name] = own
    if extra:
        _log.info("%s: %d images are not in the truth (%s)", side, len(extra), _some(extra))
    return ids


def _group_column(wanted: str | None, sides: list[_Side], truth: Truth) -> str | None:
    """Column of groups; None if every image stands for itself."""
    columns = truth.images.columns
    if wanted == "id":
        return None
    if wanted is not None:
        if wanted in columns:
            return wanted
        raise ConfigError(
            f"--group {wanted}: {truth.path} has no such column with one value per image. It has: "
            f"id{''.join(f', {name}' for name in columns)}."
        )
    run = next((side.run for side in sides if side.run is not None), None)
    facts = truth.fold_facts if run is None else read_fold_facts(run.folds)
    default = next((name for name in _GROUP_COLUMNS if name in columns), None)
    column = facts.get("group", default)
    if column is None or column in columns:
        return None if column is None else str(column)
    _log.warning(
        "the folds were grouped by %s, which %s does not know; intervals take %s for groups",
        *(column, truth.path, default or "single images"),
    )
    return default


def _with_facts(truth: Truth, names: list[str], column: str | None) -> pd.DataFrame:
    """Cell type and group of each image; an image without a group stands for itself."""
    rows = truth.images.loc[names]
    ids = pd.Series(names, index=rows.index)
    groups = ids if column is None else rows[column].astype(str)
    types = rows["cell_type"].astype(str) if "cell_type" in rows else ""
    facts = {"id": ids, "cell_type": types, "group": groups.where(groups != "", ids)}
    return pd.DataFrame(facts).reset_index(drop=True)


def _scores(cells: Instances, sides: list[_Side], ids: list[str]) -> dict[str, Any]:
    """Scores of one image on each side."""
    rows = [
        score_row(cells, side.masks.read(own, cells.shape))
        for side, own in zip(sides, ids, strict=True)
    ]
    if len(rows) == 1:
        return rows[0]
    others = {f"{key}_versus": rows[1][key] for key in SCORE_COLUMNS if key != "n_true"}
    return rows[0] | others | {"difference": rows[0]["score"] - rows[1]["score"]}


def _summary(images: pd.DataFrame) -> pd.DataFrame:
    rows = []
    if images["cell_type"].nunique() > 1:
        types = images.groupby("cell_type")
        rows = [mean_row("cell_type", str(name), part) for name, part in types]
    return pd.DataFrame([*rows, mean_row("overall", "all", images)])


def mean_row(scope: str, name: str, part: pd.DataFrame) -> dict[str, Any]:
    """A row of the table: mean score of some images with its interval, and of what they are compared to."""
    groups = part["group"].to_numpy(str)
    score = bootstrap_mean(part["score"], groups)
    row: dict[str, Any] = {
        "scope": scope,
        "name": name,
        "images": len(part),
        "groups": part["group"].nunique(),
        "score": score.mean,
        "low": score.low,
        "high": score.high,
        "ap50": float(part["ap50"].mean()),
        "ap75": float(part["ap75"].mean()),
    }
    if "difference" not in part:
        return row
    difference = bootstrap_mean(part["difference"], groups)
    return row | {
        "score_versus": float(part["score_versus"].mean()),
        "difference": difference.mean,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "verdict": _verdict(difference.low, difference.high, row["groups"]),
    }


def _verdict(low: float, high: float, groups: int) -> str:
    if groups < MIN_GROUPS or low <= 0 <= high:
        return "undecided"
    return "better" if low > 0 else "worse"


def _some(names: Iterable[Any]) -> str:
    """The first names of many, as text."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - _MAX_NAMED} more" if len(listed) > _MAX_NAMED else ""
    return ", ".join(listed[:_MAX_NAMED]) + more
