"""What the members see in images without annotation, and which of them need no look."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.engine.pages.suggestion import outline_path
from cellflow.engine.prediction.image_pass import problem_of
from cellflow.engine.runtime.progress_lines import follow
from cellflow.engine.segmentation.mask_step import make_labels
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.engine.segmentation.styles import image_style
from cellflow.errors import DataError, NotFiniteError
from cellflow.io.dataset import Dataset
from cellflow.io.source import SourceImage
from cellflow.numeric.averaging import average_flows
from cellflow.numeric.near_copies import fingerprint, near_copies
from cellflow.numeric.suggestion import disagreement_of_labels, doubt_of_flows
from cellflow.storage.atomic import restore_folder
from cellflow.storage.hashing import hash_array

__all__ = ["Known", "Look", "Screened", "check_free", "known_images", "look_at", "screen"]


@dataclass(frozen=True, eq=False)
class Known:
    """The images that are annotated already."""

    ids: list[str]
    styles: NDArray[np.float32]
    """``(M, D)``."""
    prints: list[NDArray[np.float32]]
    """By what they are known again in another form, ``(2, 64, 64)`` each."""
    hashes: dict[str, str]
    """Id by the hash of the pixels."""
    trains: NDArray[np.bool_]
    """Which of them the folds train on; the others are kept back as a test set."""


@dataclass(frozen=True)
class Screened:
    """Images by what becomes of them before any network runs; why others are left out or cannot be used."""

    ids: list[str] = field(default_factory=list)
    """Those to look at, sorted."""
    copies: set[tuple[str, str]] = field(default_factory=set)
    """Pairs of these that are forms of one image."""
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Look:
    """What the members see in one image."""

    doubt: float
    """How far their masks are apart, or how unsure a single one is; 0 to 1."""
    style: NDArray[np.float32]
    """Styles of all members, one after the other."""
    cell_type: str
    """Predicted; empty where that is unknown or unsure."""
    cells: int
    """Predicted with all members together."""
    outlines: str
    """Of these cells, as an SVG path in pixels of the image."""
    shape: tuple[int, int]


def check_free(folder: Path, mark: str, *, overwrite: bool) -> None:
    """Refuse a folder for results that is there already; what a killed command had moved away is back then.

    With `overwrite` an empty one, and an earlier result, known by its file `mark`, may be replaced; nothing else.
    """
    restore_folder(folder)
    if not folder.exists():
        return
    is_empty = folder.is_dir() and not any(folder.iterdir())
    if not (is_empty or (folder / mark).is_file()):
        raise DataError(
            f"{folder}: expected nothing, or an earlier result (with {mark}), found something else, which is not "
            "replaced. Give another --name.",
            path=folder, expected=mark,
        )  # fmt: skip
    if not overwrite:
        raise DataError(
            f"{folder} exists already. Give another --name, or --overwrite to replace it.",
            path=folder,
        )


def known_images(
    dataset: Dataset | None, segmenter: Segmenter | None = None, reserved: Iterable[str] = ()
) -> Known:
    """Fingerprints of all images of a dataset, and what the members see in them; `reserved` train no fold."""
    ids = [] if dataset is None else dataset.ids
    kept_back = set(reserved)
    styles, prints, hashes = [], [], {}
    for name in follow(ids, "annotated images", brief=True):
        assert dataset is not None
        pixels = dataset.image(name)
        if segmenter is not None:
            styles.append(_style(segmenter, pixels))
        prints.append(fingerprint(pixels))
        hashes[str(dataset.images.at[name, "pixel_hash"])] = name
    trains = np.array([name not in kept_back for name in ids], np.bool_)
    return Known(
        ids, np.stack(styles) if styles else np.zeros((0, 0), np.float32), prints, hashes, trains
    )


def screen(images: Mapping[str, SourceImage], known: Known) -> Screened:
    """Read all images once, and leave out those that are annotated already, in whatever form."""
    found = Screened()
    prints: list[NDArray[np.float32]] = []
    same: dict[str, list[str]] = {}
    for name in follow(sorted(images), "reading", brief=True):
        pixels = _tried(images[name], images[name].pixels, found.failed)
        if pixels is None:
            continue
        mark = hash_array(pixels)
        if mark in known.hashes:
            found.left_out[name] = f"is annotated already: {known.hashes[mark]}"
            continue
        same.setdefault(mark, []).append(name)
        found.ids.append(name)
        prints.append(fingerprint(pixels))
    first = len(known.ids)
    pairs = []
    for pair in near_copies([*known.prints, *prints]):
        if pair.first >= first:
            pairs.append((found.ids[pair.first - first], found.ids[pair.second - first]))
        elif pair.second >= first:
            how = f" ({pair.how})" if pair.how else ""
            found.left_out.setdefault(
                found.ids[pair.second - first],
                f"is another form of an annotated image: {known.ids[pair.first]}{how}",
            )
    pairs += [
        (one, other) for names in same.values() for one in names for other in names if one < other
    ]
    found.ids[:] = [name for name in found.ids if name not in found.left_out]
    left = set(found.ids)
    found.copies.update((one, other) for one, other in pairs if {one, other} <= left)
    return found


def look_at(
    segmenter: Segmenter, images: Mapping[str, SourceImage], found: Screened, *, title: str
) -> dict[str, Look]:
    """What the members see in each image; what they refuse goes to ``found.failed``."""
    looks = {}
    for name in follow(found.ids, title):
        image = images[name]
        seen = _tried(image, partial(_look, segmenter, image), found.failed)
        if seen is not None:
            looks[name] = seen
    return looks


def _look(segmenter: Segmenter, image: SourceImage) -> Look:
    pixels = image.pixels()
    fields, diameter, cell_type = segmenter.member_flows(pixels)
    mask = segmenter.per_type.get(cell_type, segmenter.mask)
    mean = average_flows(fields, variant=segmenter.average)
    labels = make_labels(mean[0], mean[1], diameter, mask)
    if len(fields) > 1:
        doubt = disagreement_of_labels([make_labels(*one, diameter, mask) for one in fields])
    else:
        doubt = doubt_of_flows(*fields[0])
    style = _style(segmenter, pixels)
    cells = int(labels.max(initial=0))
    shape = labels.shape[0], labels.shape[1]
    return Look(doubt, style, cell_type, cells, outline_path(labels), shape)


def _style(segmenter: Segmenter, pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Styles of all members one after the other, of length 1 together; empty where none has any."""
    parts: Sequence[NDArray[np.float32]] = [
        image_style(member, pixels, batch_size=segmenter.batch_size)
        for member in segmenter.members
        if member.net.style_size is not None
    ]
    joined = np.concatenate([*parts, np.zeros(0, np.float32)])
    return np.asarray(joined / max(len(parts), 1) ** 0.5, np.float32)


def _tried(image: SourceImage, work: Callable[[], Any], failed: dict[str, str]) -> Any:
    """What the work gives; None, with the reason in `failed`, where the image cannot be used."""
    try:
        return work()
    except (DataError, NotFiniteError) as error:
        failed[image.id] = problem_of(image, error)
        return None
