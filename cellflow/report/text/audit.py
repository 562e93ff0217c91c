"""Why annotations are suspected, and what an audit found, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from cellflow.numeric.suspicion import KINDS, Suspicion
from cellflow.storage.sizes import plural

__all__ = ["KIND_NAMES", "audit_text", "reason_text"]

KIND_NAMES = {
    "missing": "cell without annotation",
    "unseen": "annotation that no model sees",
    "merged": "one annotation over several cells",
    "split": "several annotations over one cell",
    "outline": "moved or poor outline",
    "hollow": "hollow annotation",
    "in parts": "annotation in parts",
}
_FAR, _OTHER_SIZE = 0.12, 0.2
"""From this part of a diameter on a cell lies elsewhere; from this part of its area on it has another size."""


def reason_text(item: Suspicion) -> str:
    """Why an annotation is suspected, in a sentence or two."""
    return _REASONS[item.kind](item.facts)


def audit_text(counts: Mapping[str, int], images: int, places: Sequence[Path]) -> str:
    """What an audit found, and where it is written.

    Parameters
    ----------
    counts : mapping of str to int
        Suspicions of each kind.
    images : int
        Images that were looked at.
    places : sequence of Path
        Files that were written.
    """
    total = sum(counts.values())
    lines = [f"{plural(images, 'image')} looked at, {plural(total, 'suspicion')}"]
    lines += [f"  {counts[kind]:6}  {KIND_NAMES[kind]}" for kind in KINDS if counts.get(kind)]
    return "\n".join([*lines, f"Written: {', '.join(map(str, places))}"])


def _missing(facts: Mapping[str, float]) -> str:
    return f"The model sees a cell here{_sure(facts)}; {facts['free']:.0%} of it has no annotation."


def _unseen(facts: Mapping[str, float]) -> str:
    seen = facts["seen"]
    likely = (
        "" if math.isnan(seen) else f", and its pixels are cell with a probability of {seen:.2f}"
    )
    return f"The model sees no cell here: {facts['free']:.0%} of the annotation is on none{likely}."


def _merged(facts: Mapping[str, float]) -> str:
    return (
        f"The model sees {facts['pieces']:.0f} cells in this one annotation{_sure(facts)}; the second has "
        f"{facts['second']:.0%} of it."
    )


def _split(facts: Mapping[str, float]) -> str:
    return (
        f"The model sees one cell under these {facts['pieces']:.0f} annotations{_sure(facts)}; the second has "
        f"{facts['second']:.0%} of it."
    )


def _outline(facts: Mapping[str, float]) -> str:
    found = []
    diameter = 2 * math.sqrt(facts["area"] / math.pi)
    dy, dx = facts["dy"], facts["dx"]
    if math.hypot(dy, dx) > _FAR * diameter:
        steps = [
            f"{abs(value):.0f} pixels {plus if value > 0 else minus}"
            for value, plus, minus in ((dy, "down", "up"), (dx, "right", "left"))
            if abs(value) >= 1
        ]
        found.append(f"lies {' and '.join(steps) or 'a little aside'}")
    ratio = facts["predicted_area"] / facts["area"] - 1
    if abs(ratio) > _OTHER_SIZE:
        found.append(f"is {abs(ratio):.0%} {'larger' if ratio > 0 else 'smaller'}")
    what = " and ".join(found) or "has another shape"
    return (
        f"The predicted cell {what}{_sure(facts)}: IoU {facts['iou']:.2f}, where "
        f"{facts['usual']:.2f} is usual."
    )


def _hollow(facts: Mapping[str, float]) -> str:
    return f"The annotation encloses {facts['holes']:.0f} pixels of background."


def _in_parts(facts: Mapping[str, float]) -> str:
    return (
        f"The annotation has {facts['parts']:.0f} parts that do not touch; {facts['rest']:.0f} pixels are not in "
        "the largest."
    )


def _sure(facts: Mapping[str, float]) -> str:
    sure = facts["sure"]
    return f" (sure: {sure:.2f})" if sure < 1 else ""


_REASONS = {
    "missing": _missing,
    "unseen": _unseen,
    "merged": _merged,
    "split": _split,
    "outline": _outline,
    "hollow": _hollow,
    "in parts": _in_parts,
}
