"""What `cellflow eda` makes of pixels and labels: hints in plain words, with what to type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pandas as pd

from cellflow.config import SamplingConfig
from cellflow.engine.data.cell_findings import CELL_KINDS
from cellflow.engine.pages.eda_hints import Gathered, good, ids_text, note, warning
from cellflow.report.pages.eda import Hint
from cellflow.storage.sizes import few_text, plural

__all__ = ["image_hints", "label_hints"]

SATURATED = 0.01
"""Share of the pixels at the largest value, from which on an image is told of."""
PLAIN_CONTRAST = 0.3
"""Standard deviations by which cells must differ from the rest to be called bright or dark."""
_QUIET = ("overlapping", "at the border")
"""Kinds of findings that are no fault of a label."""
_PICTURES = ("same image", "near copy", "shared pixels")
_BAD = ("refused", "changed", "over several folds", "one value")


def label_hints(found: Gathered) -> Iterator[Hint]:
    """Of labels: what `verify` finds, odd sizes, cells that touch or overlap, images with few cells."""
    yield from _problems(found)
    kinds = Counter(item.kind for item in found.findings if item.cell is not None)
    doubtful = {kind: kinds[kind] for kind in CELL_KINDS if kinds[kind] and kind not in _QUIET}
    if len(found.odd_cells):
        doubtful["odd size"] = len(found.odd_cells)
    if doubtful:
        mended = (
            "Some of it can be mended without looking:"
            if found.fix
            else "The table of all of them:"
        )
        names = few_text(f"{kind} {count}" for kind, count in doubtful.items())
        yield note(
            "Labels to look at",
            f"Of {plural(len(found.cells), 'cell')}: {names}. Some of each kind are shown below. {mended}",
            found.fix or f"cellflow verify {found.place} --out findings.csv",
        )
    elif len(found.cells):
        yield good("Labels", "verify finds no fault in any cell, and none is of an odd size.")
    yield from _contacts(found, kinds["overlapping"])
    yield from _few_cells(found)


def _problems(found: Gathered) -> Iterator[Hint]:
    for kind in (*_BAD, "many cells in one"):
        items = [item for item in found.findings if item.kind == kind and item.wrong]
        if items:
            names = ids_text(dict.fromkeys(item.id for item in items if item.id))
            first = items[0].reason
            yield warning(
                kind.capitalize(),
                f"{plural(len(items), 'problem')}{f' ({names})' if names else ''}. The first: {first}",
                f"cellflow verify {found.place}",
            )
    for kind in _PICTURES:
        items = [item for item in found.findings if item.kind == kind]
        if items:
            yield note(
                kind.capitalize(),
                f"{plural(len(items), 'image')} ({ids_text(dict.fromkeys(item.id for item in items))}), the first: "
                f"{items[0].reason}. {_together(found, kind)}",
            )


def _together(found: Gathered, kind: str) -> str:
    """What keeps such images in one fold."""
    if kind != "shared pixels":
        return "cellflow folds keeps them in one fold; each counts in training and in scores."
    if found.group:
        return f"They must lie in one fold: check that each pair has the same {found.group}."
    return "They must lie in one fold: give a table with the columns id and group to cellflow prepare --table."


def _contacts(found: Gathered, overlapping: int) -> Iterator[Hint]:
    total = len(found.cells)
    if not total:
        return
    touching = int(found.images["touching"].sum())
    text = f"{touching / total:.0%} of the cells touch another one, which flows tell apart."
    if overlapping:
        text += (
            f" {overlapping:,} ({overlapping / total:.1%}) share pixels with another: training gives such a pixel to "
            "the smaller cell, scores count the cells as they were drawn."
        )
    if touching or overlapping:
        yield note("Touching and overlapping", text)
    elif total > 1:
        yield note(
            "No contacts",
            "No cell touches another one. If cells touch in the images, the masks were cut apart: scores then punish "
            "what is right.",
        )


def _few_cells(found: Gathered) -> Iterator[Hint]:
    counts, least = found.images["n_cells"], SamplingConfig().min_train_masks
    empty, few = int((counts == 0).sum()), int((counts < least).sum())
    if few:
        without = f", {empty} of them none at all" if empty else ""
        yield (warning if few > 0.2 * len(counts) else note)(
            "Images with few cells",
            f"{plural(few, 'image')} of {len(counts)} {'has' if few == 1 else 'have'} fewer than {least} cells"
            f"{without}. Training leaves them "
            f"out (--min_train_masks {least}); scores do not.",
            f"cellflow train --min_train_masks {0 if empty == few else 1}",
        )


def image_hints(found: Gathered) -> Iterator[Hint]:
    """Of images: those unlike the rest, channels, types of pixels, saturation, bright and dark cells."""
    odd = found.odd_images
    if len(odd):
        yield note(
            "Images unlike the rest",
            f"{plural(len(odd), 'image')}: {ids_text(odd['id'])}, shown below with the reason. Leave out of the "
            "source what is broken; of what is real, annotate more.",
        )
    yield from _channels(found)
    yield from _pixel_types(found)
    yield from _brightness(found)


def _channels(found: Gathered) -> Iterator[Hint]:
    images = found.images
    several = images[images["channels"] > 1]
    if several.empty:
        return
    if several["grey"].all():
        yield good(
            "Channels",
            f"{plural(len(several), 'image')} have several channels that are all the same: grey images. "
            "--chan 0, the default, is right.",
        )
        return
    yield _coloured(found, several[~several["grey"]])
    yield from _empty_channels(several)


def _coloured(found: Gathered, coloured: pd.DataFrame) -> Hint:
    numbers, total = sorted(set(coloured["channels"])), len(found.images)
    names = set(coloured["channel_names"]) - {""}
    called = f" ({next(iter(names)).replace(';', ', ')})" if len(names) == 1 else ""
    text = (
        f"{len(coloured)} of {total} images have {' or '.join(map(str, numbers))} channels{called}"
    )
    if numbers == [3] and not called:
        text += " that differ: colours. --chan 0, the default, makes them grey, which suits stained slides"
    else:
        text += ". --chan 0, the default, makes them grey"
    if len(coloured) < total:
        return note("Channels", f"{text}, and takes the others as they are.")
    return note(
        "Channels",
        f"{text}. Where channels show different things, --chan names the one with the cells, --chan2 one with "
        "their nuclei.",
        "cellflow train --chan 1 --chan2 2",
    )


def _empty_channels(several: pd.DataFrame) -> Iterator[Hint]:
    numbers = range(1, int(several["channels"].max()) + 1)
    always = [n for n in numbers if all(n in empty for empty in several["empty"])]
    sometimes = [name for name, empty in several["empty"].items() if set(empty) - set(always)]
    if always:
        word = "Channel" if len(always) == 1 else "Channels"
        full = next((number for number in numbers if number not in always), 1)
        yield warning(
            "Empty channels",
            f"{word} {', '.join(map(str, always))} {'has' if len(always) == 1 else 'have'} one value only in "
            "every image. Name the channel with the cells.",
            f"cellflow train --chan {full}",
        )
    if sometimes:
        yield warning(
            "Empty in some images",
            f"{plural(len(sometimes), 'image')} lack a channel that others have: {ids_text(sometimes)}.",
        )


def _pixel_types(found: Gathered) -> Iterator[Hint]:
    kinds = found.images["dtype"].value_counts()
    if len(kinds) > 1:
        names = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
        yield note(
            "Types of pixels",
            f"Images are of several types ({names}). Each image is scaled by its own percentiles 1 and 99, so they "
            "can be used together; if that is not meant, export them alike.",
        )


def _brightness(found: Gathered) -> Iterator[Hint]:
    images = found.images
    white = images.index[images["saturated"] > SATURATED]
    if len(white):
        yield note(
            "At the top of the scale",
            f"In {plural(len(white), 'image')} ({ids_text(white)}) more than {SATURATED:.0%} of the pixels have the "
            "largest value: overexposed, unless that is the white of a slide.",
        )
    bright = int((images["contrast"] > PLAIN_CONTRAST).sum())
    dark = int((images["contrast"] < -PLAIN_CONTRAST).sum())
    if bright and dark:
        yield note(
            "Bright and dark cells",
            f"Cells are brighter than what is around them in {plural(bright, 'image')}, darker in {dark}. One network "
            f"can learn both, if it sees enough of each{_rarer(found)}.",
            "cellflow train --balance" if len(found.types) > 1 else "",
        )


def _rarer(found: Gathered) -> str:
    """Types of the rarer kind, if they are a few of several."""
    contrast = found.images["contrast"]
    dark = (contrast < -PLAIN_CONTRAST).sum() <= (contrast > PLAIN_CONTRAST).sum()
    rarer = found.images[contrast < -PLAIN_CONTRAST if dark else contrast > PLAIN_CONTRAST]
    kinds = [kind for kind in rarer["cell_type"].unique() if kind]
    word = "dark" if dark else "bright"
    return f"; {word} are {few_text(kinds)}" if 0 < len(kinds) < len(found.types) else ""
