"""What a model is, for those who get it: the README of what `cellflow export` writes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cellflow.config import MaskConfig
from cellflow.report.text.cv import CV_COLUMNS
from cellflow.report.text.table import interval, number

__all__ = ["ModelFacts", "model_card"]

_CHANNELS = {
    0: "the mean of all",
    1: "the first (red)",
    2: "the second (green)",
    3: "the third (blue)",
}
_POLICIES = {
    "dataset": "the mean of the training images",
    "type": "the mean of the image's cell type, which the models recognise",
    "image": "what the models see in the image",
}
_COUNTS = ("images", "groups", "cells")


@dataclass(frozen=True)
class ModelFacts:
    """What there is to say of the models of a run; no names of images or people, and no paths.

    Attributes
    ----------
    name : str
        Name of the run.
    network : str
        Title of the network.
    folds : mapping of int to (float, str)
        Folds that are there, with the mean diameter of their training images in pixels, and the hash of
        their model file.
    folds_of_run : int
        How many folds the run has.
    diam_mean : float
        Diameter in pixels that the networks work at.
    channels : (int, int)
        Channels as in Cellpose.
    policy : str
        Diameter policy.
    diameter : float or None
        Diameter in pixels where one was given for all images instead.
    start : str
        What the training started from.
    trained_on : mapping of str to int
        Numbers of images, groups and cells, as far as they are known.
    cv : mapping of str to float
        The overall row of the cross-validation; empty where there is none.
    predicted : int or None
        How many of the images the cross-validation is of; None where that is not known.
    cell_types : mapping of str to MaskConfig
        Thresholds by cell type.
    mask : MaskConfig
        Thresholds of all other images.
    thresholds : str
        Where the thresholds are from.
    hashes, versions : mapping of str to str
        What made it.
    authors, license : sequence of str, str
        Who made it, and what may be done with it.
    is_final : bool
        Whether it is one network on all images, so that scores are those of the folds that vouch for it.
    """

    name: str
    network: str
    folds: Mapping[int, tuple[float, str]]
    folds_of_run: int
    diam_mean: float
    channels: tuple[int, int]
    policy: str
    diameter: float | None
    start: str
    trained_on: Mapping[str, int]
    cv: Mapping[str, float | None]
    mask: MaskConfig
    thresholds: str
    predicted: int | None = None
    cell_types: Mapping[str, MaskConfig] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    authors: Sequence[str] = ()
    license: str = ""
    is_final: bool = False

    @property
    def description(self) -> str:
        """What it is, in one sentence."""
        count = len(self.folds)
        models = f"{count} models of a {self.folds_of_run}-fold training, averaged"
        one = (
            f"the model of fold {next(iter(self.folds), 0)} of a {self.folds_of_run}-fold training"
        )
        return (
            f"Finds cells in 2D microscopy images: {models if count > 1 else one} ({self.network})."
        )

    @property
    def diameters(self) -> str:
        """Mean diameters of the training cells."""
        sizes = sorted(size for size, _ in self.folds.values())
        low, high = f"{sizes[0]:.1f}", f"{sizes[-1]:.1f}"
        return low if low == high else f"{low} to {high}"


def model_card(facts: ModelFacts, usage: str) -> str:
    """A page in Markdown.

    Parameters
    ----------
    facts : ModelFacts
        What there is to say.
    usage : str
        How to use this form of the model, Markdown.
    """
    parts = [
        f"# {facts.name}\n\n{facts.description}",
        _table(_what(facts)),
        f"## How to use it\n\n{usage}",
        f"## Validation\n\n{_validation(facts)}",
        f"## Thresholds\n\n{_thresholds(facts)}",
        f"## Made with\n\n{_table({**facts.versions, **facts.hashes, **_models(facts)})}",
    ]
    return "\n\n".join(parts) + "\n"


def _what(facts: ModelFacts) -> dict[str, str]:
    chan, chan2 = facts.channels
    first = f"--chan {chan}: {_CHANNELS.get(chan, chan)}"
    second = f"--chan2 {chan2}: {_CHANNELS.get(chan2, chan2)}" if chan2 else "no second one"
    counts = [f"{facts.trained_on[key]:,} {key}" for key in _COUNTS if key in facts.trained_on]
    told = facts.diameter
    found = f"{told:g} pixels for all images" if told else _POLICIES.get(facts.policy, facts.policy)
    left_out = "none was left out" if facts.is_final else "each model without those of its fold"
    lines = {
        "folds": f"{', '.join(map(str, facts.folds))} of {facts.folds_of_run}",
        "trained on": f"{', '.join(counts)}; {left_out}" if counts else "not known",
        "started from": facts.start,
        "channels": f"{first}; {second}",
        "diameter of the training cells": f"{facts.diameters} pixels (mean of each fold)",
        "diameter that the network works at": f"{facts.diam_mean:g} pixels; images are rescaled to it",
        "diameter of new images": f"{found}, unless one is given",
    }
    if facts.cell_types:
        lines["cell types"] = ", ".join(facts.cell_types)
    lines["author"] = ", ".join(facts.authors) or "not named"
    lines["licence"] = facts.license
    return lines


def _validation(facts: ModelFacts) -> str:
    if facts.is_final and not facts.cv:
        return "It has seen all its images, so no score of it is known, nor are its folds' here."
    if not facts.cv:
        return "Not cross-validated: nothing is known of how well it does."
    values = {key: math.nan if value is None else value for key, value in facts.cv.items()}
    rows = ["| score | mean over images | what it is |", "|---|---|---|"]
    for key, (heading, meaning) in CV_COLUMNS.items():
        rows.append(f"| {heading} | {number(values.get(key, math.nan))} | {meaning} |")
    low, high = values.get("low", math.nan), values.get("high", math.nan)
    return "\n".join(
        [
            f"{_predicted(facts)} The score of an image is its "
            "mean precision over IoU 0.50, 0.55 ... 0.95 (cells found over cells found, missed and false).\n",
            *rows,
            f"\n95 % interval of *expected*, whole groups drawn anew: {interval(low, high)}. It holds for "
            "images of the kind it was trained on; look at the masks of others before they are used.",
        ]
    )


def _predicted(facts: ModelFacts) -> str:
    """Which images the scores are of; of a holdout, and of a run that is half-way, not all."""
    if facts.is_final:
        return (
            "This network has seen all images, so no score of it is known; these are of models of the same settings, "
            "each on images that it never saw."
        )
    known = facts.trained_on.get("images")
    if facts.predicted in (None, known):
        return "Every training image was predicted by the model that never saw it."
    of_all = "" if known is None else f" of the {known:,}"
    return f"{facts.predicted:,}{of_all} images were predicted, each by a model that never saw it."


def _thresholds(facts: ModelFacts) -> str:
    rows = {"all others" if facts.cell_types else "all images": facts.mask}
    shown = {**facts.cell_types, **rows}
    names = ["cellprob_threshold", "flow_threshold", "min_size", "niter"]
    lines = [f"Where they are from: {facts.thresholds}.\n"]
    lines += [f"| images | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for title, mask in shown.items():
        values: dict[str, Any] = asdict(mask)
        lines.append(f"| {title} | {' | '.join(f'{values[name]:g}' for name in names)} |")
    return "\n".join([*lines, "\nniter 0 is 200 steps per 30 pixels of diameter, as in Cellpose."])


def _models(facts: ModelFacts) -> dict[str, str]:
    return {f"model of fold {fold}": digest for fold, (_, digest) in facts.folds.items()}


def _table(lines: Mapping[str, str]) -> str:
    rows = (f"| {key} | {value} |" for key, value in lines.items())
    return "\n".join(["| | |", "|---|---|", *rows])
