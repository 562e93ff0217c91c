"""What is exported: the models of a run, opened, with what there is to say of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cellflow.config.model_export import ModelExportConfig
from cellflow.engine.data.folds import image_groups
from cellflow.engine.runs.contents import check_models, run_dataset, vouching_run
from cellflow.engine.runs.identity import versions
from cellflow.engine.runs.metadata import build_metadata
from cellflow.engine.runs.state import lenient_table
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.segmentation.member import Member
from cellflow.engine.segmentation.open_models import Opened, open_models
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.errors import DataError, RunError
from cellflow.report.text.model_card import ModelFacts, model_card
from cellflow.storage.atomic import write_text
from cellflow.storage.records import number_or_none
from cellflow.storage.run_folder import RunFolder, find_run, is_final_record

__all__ = ["ModelExportJob", "open_job"]

_NO_START = "new weights"


@dataclass(frozen=True)
class ModelExportJob:
    """The models of the chosen folds."""

    config: ModelExportConfig
    run: RunFolder
    opened: Opened
    """The chosen members, on the CPU in float32, with thresholds and policy: in an archive those of all together, in
    files of one network those of single models.
    """
    averaged: Opened
    """The same with what goes with the average of all, where a file of that is wanted too."""
    facts: ModelFacts

    @property
    def members(self) -> dict[int, Member]:
        """The members by their folds."""
        return {int(member.facts["fold"]): member for member in self.opened.members}

    def write_card(self, folder: Path, usage: str) -> Path:
        """Write the page that says what the models are and how to use them."""
        write_text(folder / "README.md", model_card(self.facts, usage))
        return folder / "README.md"

    def facts_of(self, fold: int) -> ModelFacts:
        """What there is to say of one model by itself."""
        return dataclasses.replace(self.facts, folds={fold: self.facts.folds[fold]})

    def segmenter(self, fold: int) -> Segmenter:
        """One model by itself, as `predict` takes it."""
        opened = self.opened
        return Segmenter(
            [self.members[fold]], opened.thresholds.shared, policy=opened.policy,
            diameter=opened.diameter, per_type=opened.thresholds.per_type,
        )  # fmt: skip


def open_job(config: ModelExportConfig) -> ModelExportJob:
    """Open the models that are to be exported."""
    run = find_run(config.run, config.runs_dir)
    if not (config.unfinished or config.fold):
        check_models(run)
    open_folds = partial(
        open_models, [str(run.path)], Machine(torch.device("cpu")),
        ensembles_dir=config.ensembles_dir, unfinished=config.unfinished, folds=config.fold,
    )  # fmt: skip
    opened = open_folds(together=config.to == "archive")
    averaged = open_folds() if config.merged else opened
    return ModelExportJob(config, run, opened, averaged, _facts(run, opened, config))


def _facts(run: RunFolder, opened: Opened, config: ModelExportConfig) -> ModelFacts:
    record, scored = run.read_record(), vouching_run(run) or run
    metadata = build_metadata(scored, ensembles_dir=config.ensembles_dir)
    predicted = _predicted_counts(scored) if metadata["cv"] is not None else {}
    first = opened.members[0]
    start = str(record["config"].get("model", {}).get("pretrained_model", "none"))
    return ModelFacts(
        name=run.name,
        network=first.net.title,
        folds={int(item.facts["fold"]): (item.diam_labels, item.hash) for item in opened.members},
        folds_of_run=len(record["folds"]),
        diam_mean=first.diam_mean,
        channels=(first.chan, first.chan2),
        policy=opened.policy,
        diameter=opened.diameter,
        start=_NO_START if start.lower() == "none" else start,
        trained_on=_counts(run, predicted),
        predicted=predicted.get("images"),
        cv=_scores(metadata["cv"] or {}),
        cell_types=opened.thresholds.per_type,
        mask=opened.thresholds.shared,
        thresholds=opened.thresholds.source,
        hashes={"data": record["data_hash"], "folds.csv": record["folds_hash"]},
        versions={**versions(), **{"network trained with": _text(record.get("versions"))}},
        authors=config.author,
        license=config.license,
        is_final=is_final_record(record),
    )


def _text(found: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in dict(found or {}).items()) or "not known"


def _scores(cv: Mapping[str, Any]) -> dict[str, float | None]:
    return {key: number_or_none(value) for key, value in cv.items() if not isinstance(value, dict)}


def _predicted_counts(run: RunFolder) -> dict[str, int]:
    """Images, groups and cells that the cross-validation is of; empty where that is not known."""
    table, names = lenient_table(run.cv), ["images", "groups", "cells"]
    if table is None or not {"scope", *names} <= set(table):
        return {}
    overall = table.loc[table["scope"] == "overall", names]
    return {key: int(overall.iloc[0][key]) for key in names} if len(overall) else {}


def _counts(run: RunFolder, predicted: dict[str, int]) -> dict[str, int]:
    """Images, groups and cells that the run was trained on, as far as that is known.

    Those of the cross-validation are of the predicted images, of a holdout not of all that trained.
    """
    folds = lenient_table(run.folds)
    if folds is None or not {"id", "fold"} <= set(folds):
        return predicted
    ids = list(folds.loc[folds["fold"] >= 0, "id"])
    if predicted.get("images") == len(ids):
        return predicted
    return {"images": len(ids), **_counts_of_data(run, ids)}


def _counts_of_data(run: RunFolder, ids: list[str]) -> dict[str, int]:
    """Groups and cells of images, where the data is still there."""
    try:
        dataset = run_dataset(run, None)
    except (RunError, DataError):
        return {}
    cells = int(dataset.images.loc[ids, "n_instances"].sum())
    return {"groups": image_groups(dataset, run.folds).loc[ids].nunique(), "cells": cells}
