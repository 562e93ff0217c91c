"""What was found in data or a run, as `cellflow verify` prints it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Protocol

import pandas as pd

from cellflow.report.text.dataset import dataset_text
from cellflow.report.text.table import named_lines, text_table
from cellflow.storage.sizes import plural
from cellflow.types import shorten

__all__ = ["verification_text"]

_SHOWN = 3
"""Images, cells of an image, and reasons without an id that are shown of a kind; --out has them all."""
_ID = 24


class Item(Protocol):
    """One thing that was found, see `cellflow.engine.data.findings.Finding`."""

    @property
    def kind(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def wrong(self) -> bool: ...
    @property
    def cell(self) -> int | None: ...


class Found(Protocol):
    """Everything, see `cellflow.engine.data.findings.Verification`."""

    @property
    def images(self) -> pd.DataFrame | None: ...
    @property
    def group(self) -> str | None: ...
    @property
    def facts(self) -> Mapping[str, str]: ...
    @property
    def findings(self) -> Sequence[Item]: ...
    @property
    def problems(self) -> int: ...
    @property
    def next(self) -> str: ...


def verification_text(found: Found) -> str:
    """What was read, a row for each kind of finding with its first ids and reason, and the verdict."""
    images = {} if found.images is None else {"images": _images(found.images, found.group)}
    blocks = [named_lines({**images, **found.facts})]
    if found.findings:
        blocks.append(_table(found.findings))
    verdict = (
        "No problems; what is marked with - is worth a look." if found.findings else "No problems."
    )
    if found.problems:
        verdict = f"{plural(found.problems, 'problem')}, marked with !"
    ending = [verdict, *([f"Next: {found.next}"] if found.next else [])]
    return "\n\n".join([*blocks, "\n".join(ending)])


def _images(images: pd.DataFrame, group: str | None) -> str:
    """What images there are: numbers, sizes, types of pixels, and how large their cells are."""
    if images.empty:
        return "none that can be used"
    kinds = [f"{kind} ({count})" for kind, count in images["dtype"].value_counts().items()]
    diameters = images["median_diameter"][images["n_instances"] > 0]
    size = f", median diameter {diameters.median():.1f} pixels" if len(diameters) else ""
    return f"{dataset_text(images, group)}, {', '.join(kinds)}{size}"


def _table(findings: Sequence[Item]) -> str:
    groups = [
        (kind, wrong, list(items))
        for (kind, wrong), items in groupby(findings, key=lambda item: (item.kind, item.wrong))
    ]
    rows = [["  found", "images", "cells"]]
    for kind, wrong, items in groups:
        names = {item.id for item in items if item.id}
        cells = sum(item.cell is not None for item in items)
        sign = "!" if wrong else "-"
        rows.append([f"{sign} {kind}", str(len(names) or ""), str(cells or "")])
    head, *lines = text_table(rows).splitlines()
    width = max(map(len, (head, *lines)))
    text = [f"{head.ljust(width)}  first"]
    for line, (_, _, items) in zip(lines, groups, strict=True):
        text.append(f"{line.ljust(width)}  {_first(items)}".rstrip())
        text += _reasons(items)
    return "\n".join(text)


def _first(items: Sequence[Item]) -> str:
    """The first ids, with the numbers of their cells."""
    cells: dict[str, list[int]] = {}
    for item in items:
        of_image = cells.setdefault(item.id, [])
        if item.cell is not None:
            of_image.append(item.cell)
    named = {shorten(name, _ID): numbers for name, numbers in cells.items() if name}
    texts = [f"{name}{_numbers(numbers)}" for name, numbers in list(named.items())[:_SHOWN]]
    return ", ".join(texts) + (" ..." if len(named) > _SHOWN else "")


def _numbers(cells: Sequence[int]) -> str:
    """Numbers of cells, if there are any."""
    if not cells:
        return ""
    more = " ..." if len(cells) > _SHOWN else ""
    return f" (cell {' '.join(map(str, cells[:_SHOWN]))}{more})"


def _reasons(items: Sequence[Item]) -> Iterator[str]:
    """Why, of the first; of what is about the whole, all."""
    whole = [item.reason for item in items if not item.id]
    shown = whole[:_SHOWN] if whole else [items[0].reason]
    for reason in shown:
        yield from (f"    {line}" for line in reason.splitlines())
    if len(whole) > len(shown):
        yield f"    and {len(whole) - len(shown)} more"
