"""`cellflow verify` of images with their cells, in any layout, and of a dataset folder."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.config import PrepareConfig, ReadingConfig, VerifyConfig
from cellflow.engine.data.cell_findings import CELL_KINDS, cell_findings, fixes_of
from cellflow.engine.data.findings import Finding, Verification, in_order
from cellflow.engine.data.folds import group_column
from cellflow.engine.data.prepare import pixels_and_cells, read_annotated
from cellflow.engine.data.verify_folds import fold_findings
from cellflow.engine.runtime.logs import kept_warnings
from cellflow.engine.runtime.progress_lines import follow
from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.io.formats.dataset_folder import DatasetFolder
from cellflow.io.mask_findings import MaskReview
from cellflow.io.problems import EveryProblem, Problems
from cellflow.io.source import Source, SourceImage
from cellflow.numeric.labels import labels_from_instances, median_diameter
from cellflow.numeric.mask_checks import without_repeats
from cellflow.numeric.near_copies import fingerprint, near_copies
from cellflow.numeric.shared_pixels import Marks, overlaps, window_marks
from cellflow.storage.hashing import hash_array
from cellflow.storage.nearby import beside
from cellflow.storage.sizes import flag_text, plural
from cellflow.types import Instances

__all__ = ["verify_data"]

KINDS = (
    "refused",
    "changed",
    "over several folds",
    "left out",
    "remark",
    "same image",
    "near copy",
    "shared pixels",
    "one value",
    *CELL_KINDS,
)


Labels = NDArray[np.int32]
Look = Callable[[SourceImage, NDArray[Any], Instances, Labels], None]
"""Is shown what was read of an image: the image, its pixels, its cells each once, and its training labels."""


def verify_data(
    config: VerifyConfig, *, look: Look | None = None, title: str = "verify"
) -> Verification:
    """Read every image and every cell of a source or a dataset once, and say what was found.

    `look` is shown each image that can be used while its pixels are at hand, so that none is read twice; `title` is
    what the progress is called. Refused if nothing there can be read.
    """
    problems = EveryProblem()
    with kept_warnings() as said:
        source = read_annotated(config, problems)
        seen = _read(source, problems, look, title)
        if not any(item.kind == "many cells in one" for item in seen.findings):
            seen.review.warn(
                "--fix split makes every separate part a cell; cells that touch stay one."
            )
    findings = [Finding("refused", name, text, wrong=True) for text, name in problems]
    findings += [Finding("remark", "", text) for text in said]
    findings += seen.findings
    findings += _twins(seen)
    copies = _near_copies(seen)
    findings += [Finding("near copy", other, text) for (_, other), text in copies.items()]
    shared = _shared(seen, copies)
    findings += [Finding("shared pixels", other, text) for (_, other), text in shared.items()]
    index = pd.Index(seen.rows, name="id", dtype=str)
    images = pd.DataFrame(seen.rows.values(), index=index).fillna("")
    facts = {"read as": source.layout}
    dataset = None
    if source.layout == DatasetFolder.name:
        dataset = Dataset.open(config.source)
        findings += _changes(dataset, seen)
        in_folds, facts["folds"] = fold_findings(dataset, copies | shared)
        findings += in_folds
    ordered = in_order(findings, KINDS)
    command = _next(config, dataset, ordered)
    return Verification(
        config.source, facts, ordered, command, images=images, group=group_column(images)
    )


@dataclass
class _Seen:
    """What was seen of the images that can be used."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    prints: list[NDArray[np.float32]] = field(default_factory=list)
    marks: list[Marks] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    review: MaskReview = field(default_factory=MaskReview)


def _read(source: Source, problems: Problems, look: Look | None, title: str) -> _Seen:
    """Read images with their cells; those that cannot be used are problems."""
    seen = _Seen()
    for image in follow(source.images.values(), title, brief=True):
        try:
            pixels, instances = pixels_and_cells(image)
        except DataError as error:
            problems.add(error, image.id)
            continue
        cells = without_repeats(instances)
        labels = labels_from_instances(cells)
        _look(seen, image, pixels, cells, labels)
        seen.findings += cell_findings(image.id, instances)
        if look is not None:
            look(image, pixels, cells, labels)
    return seen


def _look(
    seen: _Seen, image: SourceImage, pixels: NDArray[Any], cells: Instances, labels: Labels
) -> None:
    seen.rows[image.id] = {
        **image.columns,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "channels": pixels.shape[2] if pixels.ndim == 3 else 1,
        "dtype": str(pixels.dtype),
        "n_instances": len(cells),
        "median_diameter": median_diameter(labels),
        "pixel_hash": hash_array(pixels),
    }
    seen.prints.append(fingerprint(pixels))
    seen.marks.append(window_marks(pixels))
    if (pixels == pixels[:1, :1]).all():
        there = plural(len(cells), "cell") if len(cells) else "no cells"
        text = f"all pixels have one value, and there are {there}"
        seen.findings.append(Finding("one value", image.id, text, wrong=len(cells) > 0))
    seen.review.add(image.id, cells)


def _twins(seen: _Seen) -> Iterator[Finding]:
    """Images of the same pixels, all but the first of each."""
    first: dict[str, str] = {}
    for name, row in seen.rows.items():
        other = first.setdefault(row["pixel_hash"], name)
        if other != name:
            yield Finding("same image", name, f"the same pixels as {other}")


def _near_copies(seen: _Seen) -> dict[tuple[str, str], str]:
    """Pairs of images of which one was made from the other, in words."""
    names = list(seen.rows)
    found = {}
    for pair in near_copies(seen.prints):
        one, other = names[pair.first], names[pair.second]
        if seen.rows[one]["pixel_hash"] != seen.rows[other]["pixel_hash"]:
            how = f", {pair.how}" if pair.how else ""
            found[one, other] = f"{one} in another form{how} (likeness {pair.likeness:.2f})"
    return found


def _shared(seen: _Seen, copies: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """Pairs of images that overlap, such as crops of one larger image, in words."""
    names, found = list(seen.rows), {}
    for first, second, height, width in overlaps(seen.marks):
        pair = names[first], names[second]
        hashes = {seen.rows[name]["pixel_hash"] for name in pair}
        if len(hashes) > 1 and pair not in copies:
            found[pair] = f"a crop beside {pair[0]}, with {height} x {width} pixels in common"
    return found


def _changes(dataset: Dataset, seen: _Seen) -> Iterator[Finding]:
    """What is no longer as `cellflow prepare` wrote it."""
    try:
        _ = dataset.hash
    except DataError as error:
        yield Finding("changed", "", str(error), wrong=True)
    for name, row in seen.rows.items():
        if row["pixel_hash"] != dataset.images.at[name, "pixel_hash"]:
            file = str(dataset.images.at[name, "file"])
            text = f"images/{file} has other pixels than were prepared"
            yield Finding("changed", name, text, wrong=True)
        wrong = _label_fault(dataset, name)
        if wrong:
            yield Finding("changed", name, f"labels/{name}.tif {wrong}", wrong=True)
    labels = {f"{name}.tif" for name in dataset.ids}
    text = "is no file of the dataset; it is not read"
    for folder, names in (("images", set(dataset.images["file"])), ("labels", labels)):
        for path in sorted((dataset.path / folder).glob("*")):
            if path.name not in names:
                yield Finding("left out", f"{folder}/{path.name}", text)


def _label_fault(dataset: Dataset, name: str) -> str:
    """What is wrong with the label map of an image; empty if it is that of its cells."""
    try:
        labels, cells = dataset.labels(name), labels_from_instances(dataset.instances(name))
    except DataError as error:
        return f"cannot be read: {error}"
    return "" if np.array_equal(labels, cells) else "has other cells than instances.csv"


def _next(config: VerifyConfig, dataset: Dataset | None, findings: tuple[Finding, ...]) -> str:
    """The command that comes next, as it can be typed."""
    place, kinds = shlex.quote(str(config.source)), {item.kind for item in findings}
    fixes = fixes_of(kinds)
    fix = f" --fix {' '.join(fixes)}" if fixes else ""
    if {item.kind for item in findings if item.wrong} & {"refused", "changed"}:
        return f"cellflow verify {place}{_reading_flags(config)}, once that is mended"
    if dataset is None:
        return f"cellflow prepare {place}{_reading_flags(config)}{fix}"
    if fix:
        return f"cellflow prepare {place}{fix} --out {beside(config.source, '-fixed')}"
    if not dataset.folds_path.exists():
        return f"cellflow folds --data {place}"
    if any(item.kind == "over several folds" for item in findings):
        return f"cellflow folds --data {place} --overwrite"
    return f"cellflow train --fold all --data {place}"


def _reading_flags(config: ReadingConfig) -> str:
    """The flags that say how a source is read, as far as they are not the defaults."""
    usual, flags = PrepareConfig(Path()), ""
    for item in dataclasses.fields(ReadingConfig):
        value = getattr(config, item.name)
        if item.name != "source" and value != getattr(usual, item.name):
            words = value if isinstance(value, tuple) else (value,)
            flag = f"--{item.name}"
            flags += " " + (flag if value is True else flag_text(flag, *map(str, words)))
    return flags
