"""What to type where a folder holds no images with cells: where these lie instead, and what is there and not read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from cellflow.errors import DataError
from cellflow.io import places
from cellflow.io.file_names import id_of, mask_filters, stem_of
from cellflow.io.formats.base import ReadOptions
from cellflow.io.formats.coco import CocoFile, is_annotations
from cellflow.io.formats.geojson import begins_as_geojson
from cellflow.io.images import list_images, passed_over
from cellflow.io.mask_findings import looks_like_label_map
from cellflow.io.tables import find_table, read_rows
from cellflow.storage.sizes import few_text, plural

__all__ = ["half_kaggle", "pair_of_folders", "unread", "unread_file", "where_else"]

_MAX_FOLDERS, _MAX_FILES = 200, 5000
"""So many are looked at, at most."""
_FEW = 8
"""Folders whose images are looked at where no name says which of them holds label maps."""
_LEVELS = 4
"""Folders within each other that are looked into."""
_RUNS = ({"id", "annotation"}, {"ImageId", "EncodedPixels"})
"""Columns of tables of run lengths."""
_UNREAD = (
    ".json", ".mat", ".xml", ".npy", ".npz", ".nii", ".nii.gz", ".h5", ".hdf5", ".mha", ".nrrd",
)  # fmt: skip
"""Files in which other programs keep cells, or images with them."""
_OF_MASKS = ("object|instance", "label|man_seg|seg$|gt$", "mask|segment|target|truth|annot")
_OF_IMAGES = re.compile("image|img|raw|source", re.IGNORECASE)
_OF_TESTS = re.compile(r"(?:\b|_)(?:test|val)", re.IGNORECASE)
_UNSAID = len(_OF_MASKS)
"""What people call folders of label maps, and the rank of other names."""
_READ = "Cells are read from label maps, COCO json, GeoJSON, ImageJ ROIs, OME-Zarr and _seg.npy: export one of these."


def half_kaggle(folder: Path) -> str:
    """A sentence on a folder with only one half of the Kaggle layout; empty where that is not so."""
    table = find_table(folder, places.KAGGLE_TABLE)
    images = places.find_folder(folder, places.KAGGLE_FOLDERS)
    if table is not None and images is None and _has_runs(table):
        return f" {table.name} is there, but no folder train/: rename the folder of its images to train."
    tables = sorted(folder.glob("*.csv*")) if images is not None and table is None else []
    if tables and _has_runs(tables[0]):
        name = places.KAGGLE_TABLE
        return f" {tables[0].name} is there, but no {name}: rename the table of run-length masks to {name}."
    return ""


def where_else(folder: Path) -> str:
    """A sentence with the command for the data set that lies around or in a folder; empty without one."""
    parent = folder.resolve().parent
    if _is_layout(parent):
        path = folder.parent if folder.name not in ("", "..") else parent
        return f" {path} looks like the data set: cellflow prepare {quote(str(path))}"
    below = _folders_below(folder)
    for level in range(1, _LEVELS):
        found = [path for path, depth in below if depth == level and _is_layout(path)]
        if found:
            return _in_it(folder, sorted(found, key=lambda path: _is_test(path, folder)))
    return _coco_below(folder)


def pair_of_folders(folder: Path) -> str:
    """A sentence with the command for two folders, in one or beside it, whose files belong together; else nothing."""
    pair = _pair_among([folder, *(path for path, _ in _folders_below(folder))])
    if not pair and list_images(folder):  # the other half may lie beside it
        beside = [path for path, _ in _folders_below(folder.parent)]
        pair = _pair_among([folder.parent, *beside], only=folder)
    return pair


def _in_it(folder: Path, found: list[Path]) -> str:
    """Folders in another that look like data sets; test/ is no help where there is train/."""
    command = f"cellflow prepare {quote(str(found[0]))}"
    if len(found) == 1:
        return f" {found[0]} looks like the data set: {command}"
    names = few_text([str(path.relative_to(folder)) for path in found])
    return (
        f" {plural(len(found), 'folder')} in it look like data sets ({names}); prepare the one to train on: "
        f"{command}"
    )


def unread(folder: Path) -> str:
    """A sentence on files in or below a folder that may hold cells and are not read; empty where there are none."""
    found: dict[str, list[Path]] = {}
    told = {path for path, _ in passed_over(folder)}
    images: set[str] = set()
    texts: list[Path] = []
    for path in _files_below(folder):
        name = path.name.lower()
        kind = next((end for end in _UNREAD if name.endswith(end)), "")
        if path in told:
            continue
        if kind and not name.endswith("_seg.npy") and not (kind == ".json" and _is_read(path)):
            found.setdefault(kind, []).append(path)
        elif name.endswith(".txt"):
            texts.append(path)
        else:
            images.add(path.stem)
    if beside := [path for path in texts if path.stem in images]:  # as of YOLO
        found[".txt"] = beside
    if not found:
        return ""
    kinds = [
        f"{plural(len(paths), f'{kind} file')} ({few_text([str(path.relative_to(folder)) for path in paths])})"
        for kind, paths in found.items()
    ]
    return f" Not read: {', '.join(kinds)}. {_READ}"


def unread_file(path: Path) -> str:
    """The same of one file."""
    return (
        f" This kind is not read. {_READ}" if path.name.lower().endswith((*_UNREAD, ".txt")) else ""
    )


def _is_layout(folder: Path) -> bool:
    """Whether `prepare` would read a folder."""
    try:
        table = places.kaggle_table(folder)
        if table is not None and places.is_kaggle_layout(folder):
            return _has_runs(table)
        images = places.find_folder(folder, places.IMAGE_FOLDERS)
        masks = places.find_folder(folder, places.MASK_FOLDERS)
        if images is not None and masks is not None:
            return bool(list_images(images)) and bool(list_images(masks) or places.seg_files(masks))
        return _has_pairs(folder) or _has_cell_files(folder) or _has_coco(folder)
    except (DataError, OSError):
        return False


def _has_runs(table: Path) -> bool:
    """Whether a table has the columns of run-length masks, by any of their names."""
    try:
        columns = set(read_rows(table, ())[0])
    except DataError:
        return True  # which is told when it is read
    return any(names <= columns for names in _RUNS)


def _has_pairs(folder: Path) -> bool:
    maps = (path for path in list_images(folder) if stem_of(path).endswith("_masks"))
    return any(maps) or bool(places.seg_files(folder))


def _has_cell_files(folder: Path) -> bool:
    """Whether it has ``ID/images/ID.png``."""
    first = places.folders_in(folder)[:1]
    return any(any((path / "images").glob(f"{path.name}.*")) for path in first)


def _has_coco(folder: Path) -> bool:
    """Whether it has annotations beside their images."""
    return bool(CocoFile().lies_in(folder, ReadOptions("prepare"))) and bool(list_images(folder))


def _is_read(path: Path) -> bool:
    return begins_as_geojson(path) or is_annotations(path)


def _coco_below(folder: Path) -> str:
    """The command for COCO json that lies deeper."""
    files = (path for path in _files_below(folder) if path.suffix.lower() == ".json")
    for path in sorted(files, key=lambda path: _is_test(path, folder)):
        if is_annotations(path):
            return f" {path} is COCO json: cellflow prepare {quote(str(path))} --images FOLDER_OF_ITS_IMAGES"
    return ""


def _pair_among(folders: list[Path], only: Path | None = None) -> str:
    """The command for two folders of which one holds label maps of the other's images; these `only` in one of them."""
    images = {path: files for path in folders if (files := list_images(path))}
    names = {path: [stem_of(file) for file in files] for path, files in images.items()}
    words = {path: _by_words(path, folders[0]) for path in names}
    for masks in sorted(names, key=lambda path: words[path]):
        said = words[masks][0] < _UNSAID
        if not said and (len(names) > _FEW or not looks_like_label_map(images[masks][0])):
            continue
        others = [path for path in names if path != masks and words[path][0] == _UNSAID]
        others = [path for path in others if _fits(names[masks], names[path])]
        near = iter(sorted(others, key=lambda path: _distance(path, masks))[:_FEW])
        nearest = next((path for path in near if not looks_like_label_map(images[path][0])), None)
        if nearest is None or nearest != (only or nearest):
            continue
        command = f"cellflow prepare {quote(str(nearest))} --masks {quote(str(masks))}"
        return f" {masks} looks like the label maps of {nearest}: {command}"
    return ""


def _distance(images: Path, masks: Path) -> tuple[bool, int, bool, Path]:
    """How little the names of two folders have in common, as 01 and 01_GT do; those called images come first."""
    alike = len(os.path.commonprefix([str(images), str(masks)]))  # noqa: RUF071 - not their folders alone
    return images.name != masks.name, -alike, not _OF_IMAGES.search(images.name), images


def _by_words(folder: Path, root: Path) -> tuple[int, bool, list[str]]:
    """What a folder's name says of label maps in it, those of cells before others; folders to test with come last."""
    words = (re.search(word, folder.name, re.IGNORECASE) for word in _OF_MASKS)
    rank = next((rank for rank, found in enumerate(words) if found), _UNSAID)
    return rank, _is_test(folder, root), list(folder.parts)


def _is_test(path: Path, root: Path) -> bool:
    """Whether names of folders below another, or of a file, say that it is to test with."""
    return any(map(_OF_TESTS.search, path.parts[len(root.parts) :]))


def _fits(masks: list[str], images: list[str]) -> bool:
    """Whether each label map has its image, with other words in its name perhaps."""
    known = set(images)
    for name_filter in ("", *mask_filters(masks)):
        ids = [name for stem in masks if (name := id_of(stem, name_filter))]
        if len(ids) < len(masks):
            continue
        around = {tuple(stem.split(ids[0], 1)) for stem in images if ids[0] in stem}
        if any(all(start + name + end in known for name in ids) for start, end in around):
            return True
    return False


def _folders_below(folder: Path) -> list[tuple[Path, int]]:
    """Folders in a folder, each with how deep it lies; those of the first level before all others."""
    found, level = list[tuple[Path, int]](), [folder]
    for depth in range(1, _LEVELS):
        level = [path for place in level for path in _inside(place)][: _MAX_FOLDERS - len(found)]
        found += [(path, depth) for path in level]
    return found


def _inside(folder: Path) -> list[Path]:
    try:
        return places.folders_in(folder)
    except OSError:
        return []


def _files_below(folder: Path) -> Iterator[Path]:
    """Files in a folder and below it that are not hidden, not too deep and not too many."""
    left = _MAX_FILES
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name[0] != "." and not name.endswith(".zarr")
        )
        if len(Path(place).relative_to(folder).parts) >= _LEVELS:
            folders.clear()
        for name in sorted(name for name in files if name[0] != ".")[: max(0, left)]:
            yield Path(place, name)
        left -= len(files)
