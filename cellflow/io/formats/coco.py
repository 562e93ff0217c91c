"""COCO json: images, annotations and categories in one file; and the list of results that belongs to one."""

from __future__ import annotations

import logging
import mmap
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import takewhile
from pathlib import Path
from shlex import quote

from cellflow.errors import DataError
from cellflow.io import places
from cellflow.io._coco_table import CocoTable, ListedImage
from cellflow.io._coco_writer import ImageCells, cells_of_labels, read_written, write_coco
from cellflow.io._dataset_facts import is_dataset
from cellflow.io.file_names import id_of, kind_of
from cellflow.io.formats.base import ReadOptions, SourceFormat
from cellflow.io.formats.geojson import begins_as_geojson
from cellflow.io.images import IMAGE_SUFFIXES, list_images
from cellflow.io.json_entries import read_entries
from cellflow.io.source import FileImage, Shape, Source, SourceImage, by_id, check_ids
from cellflow.numeric.coco_rle import instances_from_coco_rles
from cellflow.storage.nearby import is_file
from cellflow.storage.sizes import few_text, plural
from cellflow.types import Instances

__all__ = [
    "CocoFile",
    "CocoTable",
    "ImageCells",
    "ListedImage",
    "cells_of_labels",
    "is_annotations",
    "read_written",
    "write_coco",
]

_log = logging.getLogger(__name__)

_EXPORT = "Files of LabelMe, VIA and Label Studio's own are not read: export COCO json from there."
_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")
_SECTIONS = re.compile(rb'"images"\s*:\s*\['), re.compile(rb'"annotations"\s*:\s*[\[{]')


class CocoFile(SourceFormat):
    """A ``.json`` file of COCO annotations, or a folder, or its ``annotations/``, with one in it.

    As a prediction it may be a list of results; their images are those of the truth, else of the file of
    annotations beside it. Polygons of several parts and run lengths, compressed or not, are what
    pycocotools makes of them; cells may overlap. An image that is listed and has no annotation has no cells.
    """

    name = "coco"
    uses = frozenset({"prepare", "truth", "prediction", "images"})
    heeds = frozenset({"category", "images", "img_filter"})

    def recognises(self, path: Path, options: ReadOptions) -> bool:
        """Any json file but GeoJSON; a folder that holds annotations and neither label maps nor train.csv."""
        if path.is_file():
            return path.suffix.lower() == ".json" and not begins_as_geojson(path)
        if options.masks is not None or options.use == "images":  # there all images, listed or not
            return False
        if not path.is_dir() or places.is_kaggle_layout(path) or is_dataset(path):
            return False
        return bool(_files_in(path)) and not places.has_label_maps(path, options.mask_filter)

    def lies_in(self, folder: Path, options: ReadOptions) -> list[Path]:
        """Files of annotations."""
        return _files_in(folder) if options.masks is None else []

    def read(self, path: Path, options: ReadOptions) -> Source:
        """Read the file to its end: its masks are kept as run lengths until they are asked for."""
        file = _only_file(path) if path.is_dir() else path
        finder = _ImagePlaces(file, options.images)
        looks = options.use != "prediction"
        table = CocoTable(file, options.problems, finder.find if looks else lambda name: None)
        table.read()
        if table.is_list and looks:
            score = f"cellflow score {quote(str(file))} --truth ANNOTATIONS.json"
            found = f"a list of results, which is a prediction: {score}"
            found = found if _is_results(file) else f"a list of something else. {_EXPORT}"
            raise DataError(f"{file}: expected COCO annotations, found {found}", path=file)
        if table.is_list:
            table = _results(file, options)
        if not table.images:
            options.problems.raise_if_any()
            raise DataError(
                f"{file}: expected COCO annotations with images and annotations, found no images. {_EXPORT}",
                path=file,
            )
        if options.category:
            table.keep(options.category)
        passed_over = _pass_over(table, options)
        images = by_id(_source_images(table, options), options.problems)
        check_ids(images.values(), options.problems)
        if options.use in ("prepare", "images"):
            _check_files(table, images, passed_over, finder, options)
        if options.use != "prepare":
            options.problems.raise_if_any()
        cells = sum(len(image.cells) for image in table.images.values())
        kind = "COCO results" if table.is_list else "COCO annotations"
        return Source(path, self.name, dict(sorted(images.items())), f"{kind}, {cells} cells")


@dataclass(frozen=True, eq=False, kw_only=True)
class CocoImage(FileImage):
    """An image whose cells are in a COCO file."""

    table: Path

    @property
    def cells_path(self) -> Path:
        """The COCO file."""
        return self.table


class _ImagePlaces:
    """Where the images of a COCO file may lie: a folder that was named; else beside it, or in images/ there."""

    def __init__(self, file: Path, given: Path | None) -> None:
        self.elsewhere: dict[str, Path] = {}
        """Images that were not found, and a file of this name in a folder that their name does not have."""
        own = {file.stem, file.stem.removeprefix("instances_")}
        roots = [file.parent]
        if file.parent.name.lower() in places.MASK_FOLDERS:
            roots.append(file.parent.parent)
        if given is not None:
            roots, self._deep = [given], [given]
        else:
            self._deep = [
                place for root in roots if (place := places.find_folder(root, places.IMAGE_FOLDERS))
            ]
        self.roots = [
            place
            for root in (*roots, *(place for place in self._deep if place not in roots))
            for place in (root, *(root / name for name in sorted(own)))
            if place.is_dir()
        ]

    def find(self, name: str) -> Path | None:
        """The file of an image: with the folders of its name, else without them where they do not contradict."""
        base = name.rsplit("/", 1)[-1]
        for tried in dict.fromkeys((name, base)):
            for root in self.roots:
                if is_file(root / tried):
                    return root / tried
        named = self._below.get(base) or self._alike.get(base.casefold(), [])
        found = [path for top, path in named if _agree(name, path.relative_to(top).with_name(base))]
        if len(found) > 1:
            text = f"{few_text(found)} could all be meant; expected one. Name the folder of the right one with --images"
            raise DataError(text, path=found[0])
        if named and not found:
            self.elsewhere[name] = named[0][1]
        return found[0] if found else None

    @cached_property
    def _alike(self) -> dict[str, list[tuple[Path, Path]]]:
        """Images in these folders by their names without regard to capitals, with and without the ending."""
        names, stems = dict[str, list[tuple[Path, Path]]](), dict[str, list[tuple[Path, Path]]]()
        near = [(root, path) for root in self.roots for path in list_images(root)]
        deep = [item for items in self._below.values() for item in items]
        for path, top in {path: top for top, path in (*near, *deep)}.items():
            if path.suffix.lower() in IMAGE_SUFFIXES:
                names.setdefault(path.name.casefold(), []).append((top, path))
                stems.setdefault(path.stem.casefold(), []).append((top, path))
        return stems | names

    @cached_property
    def _below(self) -> dict[str, list[tuple[Path, Path]]]:
        """Files at any depth of the folders of images, each with that folder, by their name."""
        found: dict[str, list[tuple[Path, Path]]] = {}
        for top in self._deep:
            for folder, _, names in os.walk(top):
                for name in names:
                    found.setdefault(name, []).append((top, Path(folder, name)))
        return found


def _agree(name: str, path: Path) -> bool:
    """Whether the folders of one are the last ones of the other: day1/a.png may be p/day1/a.png, not day2/a.png."""
    place = path.as_posix()
    return f"/{name}".endswith(f"/{place}") or f"/{place}".endswith(f"/{name}")


def _is_results(file: Path) -> bool:
    """Whether the first entry of a list is a cell of an image, as COCO's results are."""
    _, first = next(read_entries(file), ("", None))
    return isinstance(first, dict) and "image_id" in first


def _results(file: Path, options: ReadOptions) -> CocoTable:
    """The table of a list of results, whose images are those of the truth or of the file beside it."""
    truth, beside = options.truth, file.with_name(file.name.replace("_results.", "."))
    others = []
    if truth is not None and CocoFile().recognises(truth, ReadOptions("truth")):
        others.append(_only_file(truth) if truth.is_dir() else truth)
    if beside != file and beside.is_file() and is_annotations(beside):  # as we write them
        others.append(beside)
    elif _files_in(file.parent):  # whatever else lies there: label maps are of no use to a list
        others.append(_only_file(file.parent))
    for other in others:
        listed = CocoTable(other, options.problems).read_images()
        table = CocoTable(file, options.problems)
        table.read(results_of=listed)
        return table
    raise DataError(
        f"{file}: results name images by numbers; expected the COCO annotations that these belong to as the "
        f"truth or in {file.parent}, found none. Put them there.",
        path=file,
    )


def _source_images(table: CocoTable, options: ReadOptions) -> Iterable[SourceImage]:
    """The images by the ids that their names give, with their cells, and their cell type where there are several."""
    listed = list(table.images.values())
    ids = _ids([image.file_name for image in listed], options.img_filter)
    columns = _cell_types(table, listed)
    for image, name, known in zip(listed, ids, columns, strict=True):
        decode = partial(_cells, image.cells, image.shape)
        if image.path is None:
            scores = image.scores if table.has_scores else None
            yield SourceImage(image.own_id or name, table.path, known, decode, scores=scores)
        else:
            yield CocoImage(image.own_id or name, image.path, known, decode, table=table.path)


def _pass_over(table: CocoTable, options: ReadOptions) -> set[Path]:
    """Take images whose names are not those of ``--img_filter`` out of a table, and say so; their files."""
    wanted = options.img_filter
    others = {
        key: image
        for key, image in table.images.items()
        if id_of(_without_ending(image.file_name.rpartition("/")[2]), wanted) is None
    }
    if not others:
        return set()
    if len(others) == len(table.images):
        names = few_text(image.file_name for image in others.values())
        text = (
            f"{table.path}: expected images named {kind_of(wanted)} (--img_filter), found {names}."
        )
        raise DataError(text, path=table.path, expected=wanted)
    _log.warning(
        "%s whose name is not %s: left out (%s).",
        *(
            plural(len(others), "image"),
            kind_of(wanted),
            few_text(i.file_name for i in others.values()),
        ),
    )
    for key in others:
        del table.images[key]
    return {image.path for image in others.values() if image.path is not None}


def _cells(texts: list[bytes], own: Shape, shape: Shape | None) -> Instances:
    return instances_from_coco_rles(texts, own)


def _ids(names: list[str], img_filter: str) -> list[str]:
    """Names without their endings; the folders that not all have in common stand in front, as in day1__a."""
    parts = [name.split("/") for name in names]
    levels = zip(*(part[:-1] for part in parts), strict=False)
    common = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    stems = [_without_ending(part[-1]) for part in parts]
    own = [id_of(stem, img_filter) or stem for stem in stems]
    return ["__".join([*part[common:-1], name]) for part, name in zip(parts, own, strict=True)]


def _without_ending(name: str) -> str:
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else name


def _cell_types(table: CocoTable, listed: list[ListedImage]) -> list[dict[str, str]]:
    """The column of every image: none where all cells of the file are of one category."""
    counts = [Counter(map(table.category, image.kinds)) for image in listed]
    if len({name for count in counts for name in count}) < 2:
        return [{} for _ in listed]
    every = sum(counts, Counter[str]())
    mixed = [image.file_name for image, count in zip(listed, counts, strict=True) if len(count) > 1]
    if mixed:
        _log.warning(
            "%s: %s with cells of several categories (%s); cell_type is the most frequent of them. Where those of one "
            "lie inside of others, as nuclei do, take one alone: --category %s (there are %s).",
            *(table.path, plural(len(mixed), "image"), few_text(mixed), quote(next(iter(every)))),
            ", ".join(f"{n:,} of {name}" for name, n in every.most_common()),
        )
    return [
        {"cell_type": min(count, key=lambda name: (-count[name], name))} if count else {}
        for count in counts
    ]


def _check_files(
    table: CocoTable,
    images: dict[str, SourceImage],
    passed_over: set[Path],
    finder: _ImagePlaces,
    options: ReadOptions,
) -> None:
    """Images that are listed and not there are problems; those that are there and not listed are told."""
    first: dict[Path, str] = {}
    for image in table.images.values():
        if image.path is not None:
            name = first.setdefault(image.path, image.file_name)
            if name != image.file_name:
                options.problems.add(
                    f"{table.path}: {image.path} was found for {name} and for {image.file_name}; expected a file "
                    "for each. Keep the folders that their names have.",
                    image.file_name,
                )
        else:
            other = finder.elsewhere.get(image.file_name)
            options.problems.add(
                f"{table.path}: the image {image.file_name} is not there; looked for it in "
                f"{few_text(finder.roots)}{f' ({other} is in another folder than its name says)' if other else ''}. "
                "Add it, or name the folder of the images with --images.",
                image.file_name,
            )
    taken = {image.path for image in images.values()}
    folders = {path.parent for path in taken if path != table.path}
    taken |= passed_over
    others = [
        path.name for folder in sorted(folders) for path in list_images(folder) if path not in taken
    ]
    if others and options.use == "prepare":
        _log.warning(
            "%s not listed in %s and left out: %s. An image without cells needs an entry in images.",
            *(plural(len(others), "image"), table.path, few_text(others)),
        )


def _files_in(folder: Path) -> list[Path]:
    """Files of annotations in a folder, else in its folder ``annotations``; lists of results do not count."""
    for place in (folder, folder / "annotations"):
        files = sorted(place.glob("*.[jJ][sS][oO][nN]")) if place.is_dir() else []
        found = [path for path in files if path.name != "zarr.json" and is_annotations(path)]
        if found:
            return found
    return []


def is_annotations(path: Path) -> bool:
    """Whether a file is an object that has images as well as annotations, however far apart they stand."""
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return _OBJECT.match(content) is not None and all(
                section.search(content) for section in _SECTIONS
            )
    except (OSError, ValueError):  # ValueError: an empty file
        return False


def _only_file(folder: Path) -> Path:
    files = _files_in(folder)
    if len(files) > 1:
        text = (
            f"{folder}: expected one file of COCO annotations, found {few_text(path.name for path in files)}. "
            f"Name one of them, such as {quote(str(files[0]))}."
        )
        raise DataError(text, path=folder, found=len(files))
    return files[0]
