"""`cellflow eda`: the first look at a dataset before training."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.config import EdaConfig, VerifyConfig, check_config
from cellflow.engine.data.findings import Verification
from cellflow.engine.data.folds import group_column, groups_of, split_text
from cellflow.engine.data.verify_data import verify_data
from cellflow.engine.pages.eda_hints import Gathered, size_hints, split_hints
from cellflow.engine.pages.eda_image_hints import image_hints, label_hints
from cellflow.engine.pages.eda_measures import Measures
from cellflow.engine.pages.eda_odd import odd_cells, odd_images
from cellflow.engine.pages.eda_views import Views, chosen_labels, chosen_samples
from cellflow.errors import DataError, FoldError
from cellflow.io.dataset import Dataset, is_dataset
from cellflow.io.fold_table import read_fold_facts
from cellflow.io.pixel_limit import at_most
from cellflow.io.source import SourceImage
from cellflow.report.pages.eda import EdaFacts, Hint, View, write_eda_page
from cellflow.storage.sizes import type_text
from cellflow.types import Instances, one_line

__all__ = ["EdaResult", "eda"]

ODD_SHOWN = 12
"""Images unlike the rest that are shown at most."""


@one_line
@dataclass(frozen=True, eq=False)
class EdaResult:
    """What the first look at a dataset gave.

    Attributes
    ----------
    dataset : Dataset
        What was looked at.
    page : Path
        The page that was written.
    images : DataFrame
        A row for each image that can be used, by id: cell_type, group, fold, height, width, channels, dtype,
        n_cells, diameter (median, pixels), diameter_um, covered (share of the pixels in cells), density (cells
        for each million pixels), touching (cells), mean, p1, p50, p99 (intensity), contrast, and more.
    cells : DataFrame
        A row for each cell: id, cell (from 1), area, diameter, diameter_um, at_border.
    findings : DataFrame
        What `verify` found: kind, verdict, id, cell, reason.
    hints : tuple of Hint
        What to look at, and why, in words.
    next : str
        The command that comes next.
    group : str or None
        Column of what belongs together.
    """

    dataset: Dataset
    page: Path
    images: pd.DataFrame
    cells: pd.DataFrame
    findings: pd.DataFrame
    hints: tuple[Hint, ...]
    next: str
    group: str | None


def eda(config: EdaConfig) -> EdaResult:
    """Read a dataset once, and write a page that shows what is in it and says what to do.

    Parameters
    ----------
    config : EdaConfig

    Raises
    ------
    DataError
        If there is no dataset, or none of its images can be used.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from skimage.io import imsave
    >>> from cellflow import EdaConfig, PrepareConfig, eda, prepare
    >>> labels = np.zeros((20, 20), dtype=np.uint8)
    >>> labels[3:12, 3:12] = 1
    >>> with TemporaryDirectory() as name:
    ...     cells, data = Path(name) / "cells", Path(name) / "data"
    ...     cells.mkdir()
    ...     imsave(cells / "a.png", np.arange(400, dtype=np.uint16).reshape(20, 20))
    ...     imsave(cells / "a_masks.png", labels, check_contrast=False)
    ...     _ = prepare(PrepareConfig(cells, out=data))
    ...     found = eda(EdaConfig(data))
    >>> found.page.name, len(found.cells), found.images.at["a", "diameter"].round(2)
    ('eda.html', 1, np.float64(10.16))
    """
    check_config(config)
    _check_place(config.data)
    dataset = Dataset.open(config.data)
    samples = chosen_samples(dataset.images, config.samples, config.seed)
    views = Views(dataset, (name for names in samples.values() for name in names))
    measures = Measures()

    def look(
        image: SourceImage, pixels: NDArray[np.generic], cells: Instances, labels: NDArray[np.int32]
    ) -> None:
        measures(image, pixels, cells, labels)
        views.keep(image.id, pixels, cells)

    reading = VerifyConfig(config.data)
    with at_most(reading.max_pixels):
        verified = verify_data(reading, look=look, title="eda")
        if not measures.rows:
            reason = verified.findings[0].reason if verified.findings else "there are none"
            raise DataError(
                f"{config.data}: none of its images can be used: {reason}", path=config.data
            )
        found = _gather(dataset, measures, verified)
        facts = _facts(found, verified, samples, views)
    write_eda_page(config.page, facts, made_by=_command(config))
    return EdaResult(
        *(dataset, config.page, found.images, found.cells, verified.table),
        *(tuple(facts.hints), verified.next, found.group),
    )


def _check_place(place: Path) -> None:
    """Refuse what is no dataset folder, and say what to type."""
    if is_dataset(place) or not place.exists():
        return
    inside = sorted(path.parent for path in place.glob("*/dataset.json"))
    if inside:
        raise DataError(
            f"{place}: expected a dataset folder, found one inside it. Type: cellflow eda "
            f"{shlex.quote(str(inside[0]))}",
            path=place,
        )
    raise DataError(
        f"{place}: expected a dataset folder, found {'a folder' if place.is_dir() else 'a file'} without "
        f"dataset.json. Make a dataset of it first: cellflow prepare {shlex.quote(str(place))}; then type: "
        f"cellflow eda {EdaConfig().data}",
        path=place,
        expected="dataset.json",
    )


def _gather(dataset: Dataset, measures: Measures, verified: Verification) -> Gathered:
    group = _group(dataset)
    images, cells = _images(dataset, measures, verified, group), measures.cells
    border = {(item.id, item.cell) for item in verified.findings if item.kind == "at the border"}
    keys = zip(cells["id"], cells["cell"], strict=True)
    cells["at_border"] = np.array([key in border for key in keys], dtype=bool)
    return Gathered(
        *(dataset, images, cells, verified.findings, group),
        fix=verified.next if " --fix " in verified.next else "",
        odd_images=odd_images(images.assign(spread=images["p99"] - images["p1"])),
        odd_cells=odd_cells(cells, images["cell_type"]),
    )


def _images(
    dataset: Dataset, measures: Measures, verified: Verification, group: str | None
) -> pd.DataFrame:
    """Everything that is known of each image."""
    measured = measures.images
    table = verified.images
    assert table is not None  # of data it is always there
    table = table.loc[measured.index]
    megapixels = table["height"] * table["width"] / 1e6
    facts = pd.DataFrame(
        {
            "cell_type": table.get("cell_type", ""),
            "group": groups_of(table, group),
            "fold": _fold_of(dataset).reindex(measured.index),
            **{name: table[name] for name in ("height", "width", "channels", "dtype")},
            "channel_names": dataset.images["channel_names"].reindex(measured.index).fillna(""),
            "n_cells": table["n_instances"],
            "density": table["n_instances"] / megapixels,
            "diameter": table["median_diameter"],
            "diameter_um": table["median_diameter"] * measured["um"],
        },
        index=measured.index,
    )
    return facts.join(measured)


def _group(dataset: Dataset) -> str | None:
    """Column of groups, as the folds were made with it where there are any."""
    column = group_column(dataset.images, read_fold_facts(dataset.folds_path))
    return column if column in dataset.images else None


def _fold_of(dataset: Dataset) -> pd.Series[float]:
    """Fold of every image; none where there is no table that can be used, which `verify` tells."""
    with suppress(FoldError):
        if dataset.folds_path.exists():
            return dataset.folds().astype(float)
    return pd.Series(np.nan, index=dataset.images.index, dtype=float)


def _facts(
    found: Gathered, verified: Verification, samples: dict[str, list[str]], views: Views
) -> EdaFacts:
    hints = [*size_hints(found), *split_hints(found), *label_hints(found), *image_hints(found)]
    order, odd = {"warning": 0, "note": 1, "good": 2}, found.odd_images.head(ODD_SHOWN)
    return EdaFacts(
        str(found.dataset.path), found.images, found.cells, verified.table, found.group,
        folds=_split(found.dataset), hints=sorted(hints, key=lambda hint: order[hint.kind]),
        samples={
            type_text(kind) if kind else "": _shown(views, dict.fromkeys(names, ""))
            for kind, names in samples.items()
        },
        odd=_shown(views, dict(zip(odd["id"], odd["why"], strict=True))),
        odd_images=found.odd_images, next=verified.next,
        labels=views.cells(chosen_labels(found.findings, found.odd_cells)),
    )  # fmt: skip


def _shown(views: Views, captions: dict[str, str]) -> list[View]:
    made = (views.image(name, caption) for name, caption in captions.items())
    return [view for view in made if view is not None]


def _split(dataset: Dataset) -> str:
    try:
        return split_text(dataset) if dataset.folds_path.exists() else ""
    except FoldError as error:
        return f"folds.csv cannot be used: {error}"


def _command(config: EdaConfig) -> str:
    words = ["cellflow", "eda", str(config.data)]
    usual = EdaConfig()
    for name in ("out", "samples", "seed"):
        if getattr(config, name) != getattr(usual, name):
            words += [f"--{name}", str(getattr(config, name))]
    return shlex.join(words)
