"""Tables and tiles of the page of `cellflow eda`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from cellflow.report.pages.table import Column, Table, rows_of
from cellflow.storage.sizes import plural, type_text

__all__ = [
    "MOST_ROWS",
    "finding_rows",
    "finding_table",
    "fold_table",
    "group_table",
    "image_table",
    "layout_table",
    "odd_table",
    "tiles",
    "type_table",
]

MOST_ROWS = 1000
"""Rows of a table at most; a page with more opens slowly."""
_EACH = 40
"""Findings of one kind that are listed."""


def tiles(
    images: pd.DataFrame, cells: pd.DataFrame, group: str | None
) -> list[tuple[str, str, str]]:
    """What stands on top: label, value, and a note."""
    named = sorted({str(kind) for kind in images["cell_type"]} - {""})
    per_image = images["n_cells"]
    groups = (f"{images['group'].nunique():,}", f"column {group}") if group else ("not given", "")
    return [
        ("Images", f"{len(images):,}", _sizes(images)),
        ("Cells", f"{len(cells):,}", f"{per_image.min():,} to {per_image.max():,} per image"),
        ("Cell types", str(len(named)) if named else "not given", ""),
        ("Groups", *groups),
        ("Median diameter", *_diameter(images, cells)),
        ("Pixels", *_pixels(images)),
        ("Pixel size", *_pixel_size(images)),
        ("In cells", f"{_share_in_cells(images):.0%}", "of all pixels"),
    ]


def _share_in_cells(images: pd.DataFrame) -> float:
    pixels = images["height"] * images["width"]
    return float((images["covered"] * pixels).sum() / pixels.sum())


def _sizes(images: pd.DataFrame) -> str:
    sides = images[["height", "width"]].drop_duplicates()
    if len(sides) == 1:
        height, width = sides.to_numpy()[0].tolist()
        return f"{height} x {width}"
    return f"{sides['height'].min()} x {sides['width'].min()} to {sides['height'].max()} x {sides['width'].max()}"


def _diameter(images: pd.DataFrame, cells: pd.DataFrame) -> tuple[str, str]:
    if cells.empty:
        return "no cells", ""
    um = cells["diameter_um"].median()
    known = images["um"].notna()
    where = "" if known.all() else f" in {plural(int(known.sum()), 'image')}"
    note = "pixels, of all cells" if np.isnan(um) else f"pixels; {um:.1f} µm{where}"
    return f"{cells['diameter'].median():.1f}", note


def _pixels(images: pd.DataFrame) -> tuple[str, str]:
    kinds = images["dtype"].value_counts()
    channels = sorted(set(images["channels"]))
    several = f"{' or '.join(map(str, channels))} channels"
    value = " or ".join(map(str, kinds.index)) if len(kinds) <= 2 else plural(len(kinds), "type")
    return value, "1 channel" if channels == [1] else several


def _pixel_size(images: pd.DataFrame) -> tuple[str, str]:
    known = images["um"].dropna()
    if known.empty:
        return "not known", "sizes are in pixels"
    low, high = known.min(), known.max()
    value = f"{low:.3g}" if np.isclose(low, high) else f"{low:.3g} to {high:.3g}"
    of = "" if len(known) == len(images) else f", known of {plural(len(known), 'image')}"
    return value, f"µm{of}"


def type_table(images: pd.DataFrame, cells: pd.DataFrame) -> Table:
    """A row for each cell type."""
    kinds = cells["id"].map(images["cell_type"])
    rows = [
        {
            "type": type_text(kind),
            "images": len(members),
            "groups": members["group"].nunique(),
            "cells": int(members["n_cells"].sum()),
            "per_image": members["n_cells"].median(),
            "fewest": int(members["n_cells"].min()),
            "most": int(members["n_cells"].max()),
            "covered": 100 * members["covered"].median(),
            "density": members["density"].median(),
            **_sizes_of(cells[kinds == kind]),
        }
        for kind, members in _by_type(images)
    ]
    columns = [
        Column("type", "Cell type"), Column("images", "Images"), Column("groups", "Groups"),
        Column("cells", "Cells"),
        Column("per_image", "Cells per image", 0, "Median over the images"),
        Column("fewest", "Fewest"), Column("most", "Most"),
        Column("area", "Area", 0, "Median area of the cells, in pixels"),
        Column("diameter", "Diameter", 1, "Median diameter of discs of the cells' areas, in pixels"),
        Column("low", "Small (5 %)", 1, "5 % of the cells are less wide"),
        Column("high", "Large (95 %)", 1, "5 % of the cells are wider"),
        *([Column("um", "Diameter in µm", 1)] if images["um"].notna().any() else []),
        Column("covered", "In cells, %", 0, "Share of the pixels that lie in cells; median over the images"),
        Column("density", "Cells per megapixel", 0, "Median over the images"),
    ]  # fmt: skip
    return Table("Every cell type", columns, rows)


def _by_type(images: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Images of each type, the most frequent first."""
    for kind in images["cell_type"].value_counts().index:
        yield str(kind), images[images["cell_type"] == kind]


def _sizes_of(cells: pd.DataFrame) -> dict[str, Any]:
    if cells.empty:
        return {}
    low, middle, high = np.percentile(cells["diameter"], (5, 50, 95))
    area, um = cells["area"].median(), cells["diameter_um"].median()
    return {"area": area, "diameter": middle, "low": low, "high": high, "um": um}


def layout_table(images: pd.DataFrame) -> Table:
    """Sizes, channels and types of pixels that occur."""
    keys = ["height", "width", "channels", "dtype"]
    counts = images.groupby(keys).size().sort_values(ascending=False).reset_index(name="images")
    rows = [
        {**row, "size": f"{row['height']} x {row['width']}"}
        for row in rows_of(counts.head(MOST_ROWS))
    ]
    columns = [
        Column("size", "Height x width"), Column("channels", "Channels"), Column("dtype", "Pixels"),
        Column("images", "Images"),
    ]  # fmt: skip
    return Table("Sizes and types of images", columns, rows)


def finding_table(findings: pd.DataFrame) -> Table:
    """A row for each kind of finding."""
    rows = [
        {
            "kind": kind,
            "verdict": verdict,
            "images": items.loc[items["id"] != "", "id"].nunique(),
            "cells": int((items["cell"] != "").sum()),
            "first": f"{row['id']}, cell {row['cell']}" if row["cell"] else str(row["id"]),
            "reason": row["reason"],
        }
        for (kind, verdict), items in findings.groupby(["kind", "verdict"], sort=False)
        for row in [items.iloc[0]]
    ]
    columns = [
        Column("kind", "Found"), Column("verdict", "Verdict"), Column("images", "Images"),
        Column("cells", "Cells"), Column("first", "The first"), Column("reason", "Details"),
    ]  # fmt: skip
    return Table("What verify finds", columns, rows)


def finding_rows(findings: pd.DataFrame) -> Table:
    """The findings one by one, the first of every kind."""
    first = findings.groupby(["kind", "verdict"], sort=False).head(_EACH)
    rows = [{**row, "cell": int(row["cell"]) if row["cell"] else None} for row in rows_of(first)]
    more = "" if len(first) == len(findings) else f", the first {_EACH} of each kind"
    columns = [
        Column("kind", "Found"), Column("id", "Image"), Column("cell", "Cell"),
        Column("reason", "Details"),
    ]  # fmt: skip
    return Table(f"Findings one by one{more}", columns, rows)


def odd_table(odd: pd.DataFrame) -> Table:
    """Images unlike the rest."""
    columns = [
        Column("id", "Image"), Column("why", "Why"),
        Column("distance", "Distance", 1, "From the median, in robust standard deviations"),
    ]  # fmt: skip
    return Table("Images unlike the rest of their type", columns, rows_of(odd.head(MOST_ROWS)))


def image_table(images: pd.DataFrame, group: str | None) -> Table:
    """A row for each image."""
    typed, folded = (images["cell_type"] != "").any(), images["fold"].notna().any()
    columns = [
        Column("id", "Image"), *([Column("cell_type", "Cell type")] if typed else []),
        *([Column("group", group)] if group else []), *([Column("fold", "Fold")] if folded else []),
        Column("n_cells", "Cells"),
        Column("diameter", "Diameter", 1, "Median of its cells, in pixels"),
        Column("covered", "In cells, %", 0), Column("density", "Cells per megapixel", 0),
        Column("mean", "Brightness", 1, "Mean intensity"),
        Column("contrast", "Contrast", 2, "Cells against the rest, in standard deviations of the image"),
        Column("size", "Height x width"), Column("channels", "Channels"), Column("dtype", "Pixels"),
    ]  # fmt: skip
    shown = images.head(MOST_ROWS).assign(
        covered=100 * images["covered"],
        size=images["height"].astype(str) + " x " + images["width"].astype(str),
        diameter=images["diameter"].replace(0, np.nan),
    )
    rows = [
        {**row, "id": name, "fold": _fold_text(row["fold"])}
        for name, row in zip(shown.index, rows_of(shown), strict=True)
    ]
    return Table("Every image", columns, rows)


def group_table(images: pd.DataFrame) -> Table:
    """A row for each group, the largest first."""
    rows = [
        {
            "group": name,
            "images": len(members),
            "cells": int(members["n_cells"].sum()),
            "types": ", ".join(sorted({type_text(kind) for kind in members["cell_type"]})),
            "fold": ", ".join(sorted({_fold_text(fold) for fold in members["fold"]} - {""})),
        }
        for name, members in images.groupby("group", sort=True)
    ]
    rows.sort(key=lambda row: -int(str(row["images"])))
    columns = [
        Column("group", "Group"), Column("images", "Images"), Column("cells", "Cells"),
        *([Column("types", "Cell types")] if (images["cell_type"] != "").any() else []),
        *([Column("fold", "Fold")] if images["fold"].notna().any() else []),
    ]  # fmt: skip
    return Table("Every group", columns, rows[:MOST_ROWS])


def fold_table(images: pd.DataFrame) -> Table:
    """A row for each fold, with the images of each type in it."""
    kinds = [str(kind) for kind in images["cell_type"].value_counts().index]
    rows = []
    for fold, members in images.groupby("fold"):
        sizes = members["diameter"][members["diameter"] > 0]
        counts = members["cell_type"].value_counts()
        rows.append(
            {
                "fold": _fold_text(fold),
                "images": len(members),
                "groups": members["group"].nunique(),
                "cells": int(members["n_cells"].sum()),
                "diameter": sizes.median() if len(sizes) else None,
                **{f"type {kind}": int(counts.get(kind, 0)) for kind in kinds},
            }
        )
    columns = [
        Column("fold", "Fold"), Column("images", "Images"), Column("groups", "Groups"),
        Column("cells", "Cells"),
        Column("diameter", "Diameter", 1, "Median over the images of their median diameter, in pixels"),
        *([Column(f"type {kind}", type_text(kind)) for kind in kinds] if kinds != [""] else []),
    ]  # fmt: skip
    return Table("Every fold, with its images of each type", columns, rows)


def _fold_text(fold: Any) -> str:
    if pd.isna(fold):
        return ""
    return "reserved" if fold < 0 else str(int(fold))
