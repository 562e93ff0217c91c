"""Faults of cells mended on the way in, with an account of what was changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cellflow.engine.data.audited import AuditMarks
from cellflow.numeric.cell_faults import FIXES
from cellflow.storage.sizes import few_text, plural
from cellflow.types import Instances

__all__ = ["Mending"]


@dataclass
class _Account:
    """What one fix has changed: images, cells before and after, pixels given or taken."""

    images: list[str] = field(default_factory=list)
    cells: int = 0
    parts: int = 0
    pixels: int = 0


class Mending:
    """Applies fixes to the cells of one image after the other.

    Those of `FIXES` come in order, after the marks of an audit: these name the cells as they were.
    """

    def __init__(self, fixes: Sequence[str], marks: AuditMarks | None = None) -> None:
        self.marks = marks
        self._accounts = {name: _Account() for name in fixes}

    def apply(self, image_id: str, instances: Instances) -> Instances:
        """The cells of an image after all fixes."""
        if self.marks is not None:
            instances = self.marks.apply(image_id, instances)
        for name, account in self._accounts.items():
            mended = FIXES[name](instances)
            _count(account, image_id, instances, mended)
            instances = mended
        return instances

    def lines(self) -> list[str]:
        """What was changed, a line for each fix that is not `keep`, after those of the marks."""
        marked = [] if self.marks is None else self.marks.lines()
        return marked + [
            _line(name, item) for name, item in self._accounts.items() if name != "keep"
        ]


def _count(account: _Account, image_id: str, before: Instances, after: Instances) -> None:
    if len(after) > len(before):
        account.parts += len(after)
        account.cells += len(before)
        account.images.append(image_id)
        return
    change = np.abs(after.areas - before.areas)
    if change.any():
        account.cells += int((change > 0).sum())
        account.pixels += int(change.sum())
        account.images.append(image_id)


def _line(name: str, account: _Account) -> str:
    if not account.images:
        return f"--fix {name}: nothing to do."
    where = f"in {plural(len(account.images), 'image')} ({few_text(account.images)})"
    cells = plural(account.cells, "cell")
    what = {
        "fill": f"holes of {cells} filled, {plural(account.pixels, 'pixel')}",
        "largest": f"the largest part kept of {cells}, {plural(account.pixels, 'pixel')} of others left out",
        "split": f"the parts of {cells} made {plural(account.parts, 'cell')}",
    }[name]
    return f"--fix {name}: {what}, {where}."
