"""What `cellflow eda` makes of sizes, types, groups and folds: hints in plain words, with what to type."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from cellflow.config import FoldsConfig, MaskConfig, SamplingConfig
from cellflow.engine.data.findings import Finding
from cellflow.engine.pages.eda_odd import spread_of
from cellflow.io.dataset import Dataset
from cellflow.io.fold_table import read_fold_facts
from cellflow.report.pages.eda import Hint
from cellflow.storage.sizes import few_text, plural, type_text
from cellflow.types import shorten

__all__ = ["Gathered", "ids_text", "size_hints", "split_hints"]

good, note, warning = partial(Hint, "good"), partial(Hint, "note"), partial(Hint, "warning")
"""Hints of each kind."""
_RANGE = SamplingConfig().scale_range
ALIKE = (1 + _RANGE / 2) / (1 - _RANGE / 2)
"""Sizes that differ no more than this are alike to a network: training scales its crops over such a range."""
WITHIN = 3.0
"""Large cells of an image against its small ones, from which on one diameter hardly serves both."""
RARE, RARE_AGAINST = 0.1, 3.0
"""A type is rare with at most this part of the images, if the most frequent one has so many times as many."""
UNEVEN = 1.5
"""Images of the largest fold against those of the smallest."""
_DIAMETER = 30.0
_ID = 24
_SMALL, _LARGE = 15.0, 90.0


@dataclass(frozen=True, eq=False)
class Gathered:
    """What is known of a dataset when all of it was read.

    Attributes
    ----------
    dataset : Dataset
    images : DataFrame
        A row for each image that can be used, by id.
    cells : DataFrame
        A row for each cell.
    findings : tuple of Finding
        Of `verify`.
    group : str or None
        Column of what belongs together.
    fix : str
        The command that mends cells, where `verify` names one.
    odd_images, odd_cells : DataFrame
        See `cellflow.engine.pages.eda_odd`.
    """

    dataset: Dataset
    images: pd.DataFrame
    cells: pd.DataFrame
    findings: tuple[Finding, ...]
    group: str | None
    fix: str
    odd_images: pd.DataFrame
    odd_cells: pd.DataFrame

    @property
    def place(self) -> str:
        """The folder, as it is typed."""
        return shlex.quote(str(self.dataset.path))

    @property
    def types(self) -> list[str]:
        """Cell types, the most frequent first; one empty name where nothing is known of them."""
        return [str(kind) for kind in self.images["cell_type"].value_counts().index]


def ids_text(names: Iterable[object]) -> str:
    """The first ids of many, long ones without their middle."""
    return few_text(shorten(str(name), _ID) for name in names)


def _range(sizes: pd.Series[int]) -> str:
    low, high = sizes.min(), sizes.max()
    return str(low) if low == high else f"{low} to {high}"


def size_hints(found: Gathered) -> Iterator[Hint]:
    """Of diameters: policy, sizes within images, very small and very large cells, `min_size`."""
    known = found.images[found.images["diameter"] > 0]
    if known.empty:
        return
    if len(known) > 1:
        yield _policy(known)
    yield from _within_images(found.cells)
    yield from _scale(float(known["diameter"].median()))
    yield from _min_size(found.cells)


def _policy(known: pd.DataFrame) -> Hint:
    by_type = known.groupby("cell_type")["diameter"]
    everywhere = spread_of(known["diameter"])
    within = spread_of(known["diameter"] / by_type.transform("median"))
    middles = by_type.median().sort_values()
    auto = "The default, --policy auto, tries all policies on held-out images and keeps the best."
    between = float(middles.iloc[-1] / middles.iloc[0])  # of a rare type percentiles say nothing
    if max(everywhere, between) <= ALIKE:
        return good(
            "Diameters",
            f"Cells are about as large in all images: median diameters of 8 in 10 images differ at most "
            f"{everywhere:.1f} times, and training varies the scale {ALIKE:.1f} times. One diameter for all "
            f"will do; it spares the passes with other policies.",
            "cellflow oof --policy dataset",
        )
    if between > ALIKE and within <= ALIKE:
        small, large = type_text(middles.index[0]), type_text(middles.index[-1])
        return note(
            "Diameters",
            f"Sizes are alike within a type ({within:.1f} times between 8 in 10 images) and unlike between "
            f"types: {small} {middles.iloc[0]:.0f} pixels, {large} {middles.iloc[-1]:.0f}. A diameter for each "
            f"type fits, where the type of an image is told well. {auto}",
            "cellflow oof --policy type",
        )
    of = "of the same type" if len(middles) > 1 else "of this set"
    return note(
        "Diameters",
        f"Images {of} differ in the size of their cells ({within:.1f} times between 8 in 10 images), more than "
        f"training varies the scale ({ALIKE:.1f} times). A diameter for each image, estimated by the model, "
        f"fits best. {auto}",
        "cellflow oof --policy image",
    )


def _within_images(cells: pd.DataFrame) -> Iterator[Hint]:
    spreads = [spread_of(part) for _, part in cells.groupby("id")["diameter"] if len(part) >= 10]
    if spreads and (middle := float(pd.Series(spreads).median())) > WITHIN:
        yield note(
            "Sizes within an image",
            f"In the middle image the large cells are {middle:.1f} times as wide as the small ones (percentiles "
            "90 and 10), and the network gets one diameter for both. A wider range of scales in training helps.",
            "cellflow train --scale_range 1",
        )


def _scale(diameter: float) -> Iterator[Hint]:
    work = (_DIAMETER / diameter) ** 2
    if diameter < _SMALL:
        yield note(
            "Small cells",
            f"The median cell is {diameter:.1f} pixels across. Networks see it enlarged to {_DIAMETER:.0f}, which "
            f"is {work:.0f} times as many pixels to compute. From scratch a smaller target is quicker.",
            f"cellflow train --diam_mean {_SMALL:.0f}",
        )
    if diameter > _LARGE:
        yield note(
            "Large cells",
            f"The median cell is {diameter:.0f} pixels across. Networks see it shrunk to {_DIAMETER:.0f}, "
            f"{diameter / _DIAMETER:.1f} times smaller: fine outlines are lost. From scratch a "
            "larger target keeps them.",
            "cellflow train --diam_mean 60",
        )


def _min_size(cells: pd.DataFrame) -> Iterator[Hint]:
    least = MaskConfig().min_size
    small = int((cells["area"] < least).sum())
    if small:
        share = small / len(cells)
        yield (warning if share > 0.01 else note)(
            "Smaller than any prediction",
            f"{plural(small, 'cell')} ({share:.1%}) {'has' if small == 1 else 'have'} fewer than {least} pixels. "
            f"Predictions so small are removed (--min_size {least}) until cellflow calibrate finds another value, "
            "so these count as missed.",
            f"cellflow oof --min_size {max(1, int(cells['area'].min()))}",
        )


def split_hints(found: Gathered) -> Iterator[Hint]:
    """Of types, groups and folds: what is rare, what lacks in a fold, what belongs together."""
    yield from _rare_types(found)
    yield from _groups(found)
    yield from _folds(found)


def _rare_types(found: Gathered) -> Iterator[Hint]:
    counts = found.images["cell_type"].value_counts()
    named = counts[counts.index != ""]
    rare = {
        str(kind): int(count)
        for kind, count in named.items()
        if count <= RARE * len(found.images) and RARE_AGAINST * count <= named.iloc[0]
    }
    if rare:
        names = few_text(f"{plural(count, 'image')} of {kind}" for kind, count in rare.items())
        yield warning(
            "Rare types",
            f"{names}, of {len(found.images)} in all: a network sees little of them, and their scores are those of "
            "few images. Annotate more of them, or draw as many crops of each type in training.",
            "cellflow train --balance",
        )
    if 0 < len(named) < len(counts):
        yield note(
            "Images without a type",
            f"{plural(int(counts['']), 'image')} of {len(found.images)} have no cell type; they are a kind of "
            "their own for folds and thresholds.",
        )


def _groups(found: Gathered) -> Iterator[Hint]:
    images = found.images
    if len(images) == 1:
        return
    if found.group is not None:
        sizes = images["group"].value_counts()
        k = FoldsConfig().k
        if len(sizes) < k:
            apart = f"--group id --k {min(k, len(images))}"  # one group cannot be split
            yield warning(
                "Few groups",
                f"{plural(len(sizes), 'group')} ({found.group}) make at most as many folds; the default is {k}. "
                "Images of one group stay in one fold.",
                f"cellflow folds --data {found.place} {f'--k {len(sizes)}' if len(sizes) > 1 else apart}",
            )
        else:
            yield good(
                "Groups",
                f"{plural(len(sizes), 'group')} ({found.group}), {_range(sizes)} images each. "
                "cellflow folds keeps each in one fold, so that no model is scored on what it has seen.",
            )
        return
    others = _repeating(found)
    text = (
        "There is no column group or sample_id: every image stands for itself. Where several come from one well, "
        "slide or animal, scores are too good unless these lie in one fold. "
    )
    command = "cellflow prepare SOURCE --table groups.csv --overwrite"
    if others:
        text += f"images.csv has the column {few_text(others)}: if that is what belongs together, name it."
        command = f"cellflow folds --data {found.place} --group {shlex.quote(others[0])}"
    else:
        text += "Give a table with the columns id and group."
    yield note("Groups", text, command)


def _repeating(found: Gathered) -> list[str]:
    """Columns of the source whose values come again, so that they may say what belongs together."""
    table = found.dataset.images
    return [
        str(name)
        for name in table.columns
        if name not in (*Dataset.computed_columns, "cell_type")
        and 1 < table[name].nunique() < len(table)
    ]


def _holdout(found: Gathered, table: pd.DataFrame, facts: Mapping[str, Any]) -> Iterator[Hint]:
    """Of a holdout, whose two parts are meant to differ in size; `table`: images by type and fold."""
    group = shlex.quote(str(facts.get("group") or "id"))
    again = (
        f"cellflow folds --data {found.place} --split holdout --holdout {facts.get('holdout', 0.2)} --group {group} "
        f"--calibration {facts.get('calibration', 0)} --seed {int(facts.get('seed', 0)) + 1} --overwrite"
    )
    validates = table[0] if 0 in table else table.sum(axis=1) * 0
    trains = table.sum(axis=1) - validates
    yield good("Folds", f"A holdout: {validates.sum()} images validate, {trains.sum()} train.")
    for word, counts in (("validates", validates), ("trains", trains)):
        lacking = [type_text(kind) for kind in table.index if not counts[kind]]
        if lacking:
            yield warning(
                "Types that lack in a fold",
                f"No image of {few_text(lacking)} {word}. Another seed may spread types better, where there are "
                "several groups of each.",
                again,
            )


def _folds(found: Gathered) -> Iterator[Hint]:
    folds = found.images["fold"]
    if folds.isna().all():
        if not found.dataset.folds_path.exists() and len(found.images) > 1:
            yield note(
                "Folds",
                "There is no folds.csv yet; it comes before training. This page shows the balance of folds once "
                "they are there.",
                f"cellflow folds --data {found.place}",
            )
        return
    inside = found.images[folds >= 0]
    table = pd.crosstab(inside["cell_type"], inside["fold"].astype(int))
    facts = read_fold_facts(found.dataset.folds_path)
    if facts.get("split") == "holdout":
        yield from _holdout(found, table, facts)
        return
    lacking = {
        type_text(kind): [str(fold) for fold in table.columns if not table.at[kind, fold]]
        for kind in table.index
    }
    missing = [f"{kind} in fold {', '.join(where)}" for kind, where in lacking.items() if where]
    if missing and len(table) > 1:
        yield warning(
            "Types that lack in a fold",
            f"There is no {few_text(missing)}. Its score and its threshold then come from the other folds alone. "
            "Types are spread evenly where there are enough groups of each; fewer folds need fewer.",
            f"cellflow folds --data {found.place} --k {max(2, table.shape[1] - 1)} --overwrite",
        )
    sizes = table.sum()
    if sizes.max() > UNEVEN * sizes.min():
        yield note(
            "Uneven folds",
            f"Fold {sizes.idxmax()} has {sizes.max()} images, fold {sizes.idxmin()} has {sizes.min()}: whole groups "
            "are hard to share evenly. Scores of the folds are not alike in weight; cellflow means over images.",
        )
    elif not missing:
        yield good(
            "Folds",
            f"{plural(table.shape[1], 'fold')} of {_range(sizes)} images"
            f"{', each with every type' if len(table) > 1 else ''}.",
        )
