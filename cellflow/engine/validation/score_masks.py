"""`cellflow score`: any masks against the truth, and two predictions against each other."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.config import ScoreConfig, check_config
from cellflow.engine.data.folds import group_column, groups_of
from cellflow.engine.runs.contents import run_dataset, warn_of_old_masks
from cellflow.engine.runs.next_command import run_word
from cellflow.engine.runtime.progress_lines import follow
from cellflow.engine.segmentation.scoring import SCORE_COLUMNS, score_row
from cellflow.engine.validation.evaluated_part import EvaluatedPart
from cellflow.engine.validation.match_names import Names, check_names, match_names
from cellflow.engine.validation.metric_scores import (
    Confidences,
    MetricScores,
    Predicted,
    metric_names,
)
from cellflow.engine.validation.outlines import check_outlines_folder, write_outlines_folder
from cellflow.engine.validation.score_result import ScoreResult, summary
from cellflow.errors import ConfigError, DataError, RunError
from cellflow.io.fold_table import read_fold_facts
from cellflow.io.formats import ReadOptions, read_source
from cellflow.io.formats.base import Use
from cellflow.io.formats.dataset_folder import dataset_source
from cellflow.io.formats.label_maps import LabelMaps
from cellflow.io.formats.submission import SubmissionTable
from cellflow.io.image_source import ImageReaders, find_images
from cellflow.io.mask_findings import MaskReview
from cellflow.io.pixel_limit import at_most
from cellflow.io.source import Source
from cellflow.numeric.labels import instances_from_labels
from cellflow.report.comparison import Comparison
from cellflow.storage.atomic import write_csv
from cellflow.storage.nearby import nearby
from cellflow.storage.run_folder import RunFolder, find_run
from cellflow.storage.sizes import few_text, flag_text
from cellflow.types import Instances

__all__ = ["ScoreResult", "score_masks"]

_log = logging.getLogger(__name__)

_ORDER_HINT = " If its runs go column by column, add --rle_order F."


@dataclass(frozen=True)
class _Side:
    """One prediction: what it was called, its masks, and the run it comes from."""

    name: str
    masks: Source
    run: RunFolder | None
    confidences: Confidences = field(default_factory=Confidences)

    def with_confidences(self, wanted: bool) -> _Side:
        """The same, with how sure it is of its cells."""
        return replace(self, confidences=Confidences.of_source(self.masks)) if wanted else self

    @property
    def has_runs(self) -> bool:
        """Whether its cells are run lengths of a table."""
        return self.masks.layout == SubmissionTable.name

    def __str__(self) -> str:
        return str(self.masks.path)


@dataclass(frozen=True, eq=False)
class _Pictures:
    """Pictures of truth and prediction to be drawn."""

    folder: Path
    side: _Side
    truth: Source
    ids: dict[str, str]
    readers: ImageReaders
    part: EvaluatedPart

    @classmethod
    def plan(
        cls,
        config: ScoreConfig,
        side: _Side,
        truth: Source,
        names: dict[str, list[str]],
        part: EvaluatedPart,
    ) -> _Pictures:
        """Find the images, and refuse what would fail after all is scored."""
        if config.images is not None:
            readers: ImageReaders = find_images(config.images)
        elif all(truth.images[name].has_pixels for name in names):
            readers = truth.images
        else:
            raise ConfigError(
                f"--outlines needs the images, which {truth.path} does not hold ({truth.kind}). Say where "
                "they are with --images FOLDER."
            )
        missing = [name for name in names if name not in readers]
        if missing:
            raise DataError(
                f"{config.images}: no image for {len(missing)} of the {len(names)} that are scored "
                f"({few_text(missing)}); it has {few_text(readers)}. File names without their ending must be the "
                "ids of the truth."
            )
        folder = config.outlines_dir
        if folder is None and side.run is not None and config.truth is None:
            folder = side.run.oof / "outlines"
        folder = folder or Path("outlines") / _result_name(side)
        check_outlines_folder(folder)
        return cls(
            folder, side, truth, {name: ids[0] for name, ids in names.items()}, readers, part
        )

    def write(self, scores: pd.DataFrame) -> Path:
        """Draw all; the sheet of the worst."""
        return write_outlines_folder(self.folder, scores, self._compare)

    def _compare(self, name: str) -> Comparison:
        cells = self.truth.images[name].instances()
        labels = self.side.masks.images[self.ids[name]].labels(cells.shape)
        labels, cells = self.part.labels(name, labels)[0], self.part.cells(name, cells)
        return Comparison(name, self.readers[name](), cells, labels)


def _result_name(side: _Side) -> str:
    """What a prediction is called: a run by its name, others by their folder or file."""
    if side.run is not None:
        return side.run.name
    path = side.masks.path.resolve()
    return path.parent.name if path.name == "masks" else path.name.removesuffix(path.suffix)


def score_masks(config: ScoreConfig) -> ScoreResult:
    """Score predicted masks against the truth, and compare them with others image by image.

    Images are read and scored one at a time. Writes ``config.out`` if it is given, and with
    ``config.outlines`` pictures of truth and prediction.

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

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from cellflow import score_masks, ScoreConfig
    >>> from cellflow.io.images import write_labels
    >>> labels = np.pad(np.ones((6, 6), np.int32), 4)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     truth, found = Path(place, "truth"), Path(place, "found")
    ...     write_labels(truth / "a.tif", labels)
    ...     write_labels(found / "a.tif", np.roll(labels, 1, axis=1))
    ...     result = score_masks(ScoreConfig(pred=str(found), truth=truth))
    >>> result.images[["id", "ap50", "score"]].values.tolist()  # the IoU is 30 / 42
    [['a', 1.0, 0.5]]
    """
    check_config(config)
    with at_most(config.max_pixels):
        return _score_masks(config)


def _score_masks(config: ScoreConfig) -> ScoreResult:
    sides = [_find(name, config) for name in (config.pred, config.versus) if name]
    truth = _find_truth(config, sides)
    _check_filter(config.mask_filter, sides, truth)
    if config.colours:
        _check_colours(sides, truth)
    if config.rle_order != "auto" and not any(side.has_runs for side in sides):
        raise ConfigError(
            f"--rle_order: expected a CSV of run lengths, found {sides[0].masks.kind}"
        )
    if config.images is not None and not (config.outlines or truth.needs_images):
        raise ConfigError(f"--images needs --outlines: {truth.path} says how large images are")
    matched = [match_names(side.masks, truth) for side in sides]
    names = _matched(sides, truth, matched, subset=config.subset)
    images = _with_facts(truth, list(names), _group_column(config.group, sides, truth))
    part = EvaluatedPart.plan(
        border=config.border == "drop", ignore=config.ignore, ending=config.mask_filter, truth=truth
    )
    metrics = MetricScores(metric_names(config.metrics), config.max_dets)
    sides = [side.with_confidences(metrics.needs_confidences) for side in sides]
    pictures = _Pictures.plan(config, sides[0], truth, names, part) if config.outlines else None
    rows, review, answers = [], MaskReview(), MaskReview()
    for name, ids in follow(names.items(), "score", brief=True):
        cells = review.add(name, truth.images[name].instances())
        pair = _predicted(truth, cells, sides, name, ids, part)
        answers.add(name, instances_from_labels(pair[0][0]))
        cells = part.cells(name, cells)
        rows.append({"id": name} | _scores(cells, pair) | metrics.add(name, cells, pair))
    review.warn(f"The truth is {truth.path}; `cellflow prepare --split` makes parts cells.")
    answers.warn_of_foreground(f"The prediction is {sides[0]}.{_ORDER_HINT * sides[0].has_runs}")
    images = images.merge(pd.DataFrame(rows), on="id", validate="one_to_one")
    if config.out is not None:
        write_csv(config.out, images)
    sheet = None if pictures is None else pictures.write(images)
    compared = (*_compared(sides, truth, matched, len(names)), *part.lines(list(names)))
    return ScoreResult(
        config.pred,
        config.versus,
        images,
        summary(images),
        metrics.table(images),
        compared + tuple(side.confidences.line() for side in sides if metrics.needs_confidences),
        sheet,
    )


def _options(use: Use, config: ScoreConfig) -> ReadOptions:
    return ReadOptions(
        use,
        mask_filter=config.mask_filter,
        category=config.category,
        colours=config.colours,
        rle_order=config.rle_order if use == "prediction" else "auto",
        truth=config.truth if use == "prediction" else None,
        images=config.images if use == "truth" else None,
    )


def _find(name: str, config: ScoreConfig) -> _Side:
    """Predicted masks by path, or a run's out-of-fold masks by its folder or name."""
    path = Path(name)
    if path.exists() and not RunFolder(path).exists():
        return _Side(name, read_source(path, _options("prediction", config)), None)
    try:
        run = RunFolder(path) if RunFolder(path).exists() else find_run(name, config.runs_dir)
    except RunError as error:
        there = nearby(path)
        raise RunError(f"{name}: there is no such folder or CSV.{there} {error}") from None
    masks = run.oof / "masks"
    if not masks.is_dir():
        raise RunError(
            f"Run {run.name!r} has no out-of-fold masks in {masks}. Make them with: "
            f"cellflow oof {run_word(run)}"
        )
    warn_of_old_masks(run)
    return _Side(name, read_source(masks, ReadOptions("prediction")), run)


def _find_truth(config: ScoreConfig, sides: list[_Side]) -> Source:
    if config.truth is not None:
        return read_source(config.truth, _options("truth", config))
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
    return dataset_source(run_dataset(runs[0], None), truth=True)


def _check_filter(ending: str, sides: list[_Side], truth: Source) -> None:
    """Refuse a filter that no name fits."""
    if ending and ending.removesuffix(".npy") not in {
        truth.ending,
        *(side.masks.ending for side in sides),
    }:
        places = ", ".join([*map(str, sides), str(truth.path)])
        raise ConfigError(
            f"{flag_text('--mask_filter', ending)}: no label map has such a name in {places}. Correct it, or "
            "leave it out."
        )


def _check_colours(sides: list[_Side], truth: Source) -> None:
    """Refuse colours where nothing is read from pictures."""
    layouts = [truth.layout, *(side.masks.layout for side in sides if side.run is None)]
    if LabelMaps.name not in layouts:
        places = ", ".join([*map(str, sides), str(truth.path)])
        raise ConfigError(
            f"--colours: expected a folder of label maps, found none in {places}. Leave it out."
        )


def _matched(
    sides: list[_Side], truth: Source, matched: list[Names], *, subset: bool
) -> dict[str, list[str]]:
    """Images of the truth that all sides have, sorted, with the id that each side gives them."""
    for side, names in zip(sides, matched, strict=True):
        # a run may lack images that were reserved from its folds
        check_names(side.masks, truth, names, subset=subset or side.run is not None)
    common = sorted(set.intersection(*(set(names.ids) for names in matched)))
    if not common:
        raise DataError(
            f"{' and '.join(map(str, sides))} have no image of {truth.path} in common; the first has "
            f"{few_text(matched[0].ids)}, the second {few_text(matched[1].ids)}."
        )
    return {name: [names.ids[name] for names in matched] for name in common}


def _compared(
    sides: list[_Side], truth: Source, matched: list[Names], common: int
) -> tuple[str, ...]:
    """What was taken for what, a line each."""
    lines = []
    for word, side, names in zip(("prediction", "versus"), sides, matched, strict=False):
        kind = side.masks.kind
        if side.run is not None:
            kind = f"out-of-fold masks of run {side.run.name}, {kind}"
        lines.append(f"{word:<12}{side.masks.path} ({kind}), {len(side.masks.images)} images")
        if names.only_predicted:
            extra = f"{len(names.only_predicted)} are not in the truth"
            lines.append(f"{'':12}{extra}: {few_text(names.only_predicted)}")
        if names.only_true:
            lacking = f"{len(names.only_true)} of the truth are not there"
            lines.append(f"{'':12}{lacking}: {few_text(names.only_true)}")
    lines.append(f"{'truth':<12}{truth.path} ({truth.kind}), {len(truth.images)} images")
    lines.append(f"{'compared':<12}{common} images that match by name")
    return tuple(lines)


def _group_column(wanted: str | None, sides: list[_Side], truth: Source) -> str | None:
    """Column of groups; None if every image stands for itself."""
    columns = truth.table.columns
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
    column, default = group_column(truth.table, facts), group_column(truth.table)
    if column is None or column in columns:
        return column
    _log.warning(
        "the folds were grouped by %s, which %s does not know; intervals take %s for groups",
        *(column, truth.path, default or "single images"),
    )
    return default


def _with_facts(truth: Source, names: list[str], column: str | None) -> pd.DataFrame:
    """Cell type and group of each image; an image without a group stands for itself."""
    rows = truth.table.loc[names]
    types = rows["cell_type"].astype(str) if "cell_type" in rows else ""
    facts = {"cell_type": types, "group": groups_of(rows, column)}
    return pd.DataFrame(facts, index=rows.index).reset_index()


def _predicted(
    truth: Source,
    cells: Instances,
    sides: list[_Side],
    name: str,
    ids: list[str],
    part: EvaluatedPart,
) -> list[Predicted]:
    """Of each side the predicted cells of one image that count, and how sure it is of them."""
    found = []
    for side, own in zip(sides, ids, strict=True):
        try:
            labels = side.masks.images[own].labels(cells.shape)
        except DataError as error:
            text = f"{error} The truth is {truth.images[name].cells_path}."
            raise DataError(text, **error.facts | {"id": name}) from None
        sure = side.confidences.of(own, int(labels.max(initial=0)))
        labels, kept = part.labels(name, labels)
        found.append((labels, sure if sure is None or kept is None else sure[kept]))
    return found


def _scores(cells: Instances, sides: list[Predicted]) -> dict[str, Any]:
    """Scores of one image on each side."""
    rows = [score_row(cells, labels) for labels, _ in sides]
    if len(rows) == 1:
        return rows[0]
    others = {f"{key}_versus": rows[1][key] for key in SCORE_COLUMNS if key != "n_true"}
    return rows[0] | others | {"difference": rows[0]["score"] - rows[1]["score"]}
