"""Outlines in one file an image, beside the images or in a folder of their own: what ROIs and GeoJSON share."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from cellflow.errors import DataError
from cellflow.io import places
from cellflow.io._dataset_facts import is_dataset
from cellflow.io.file_names import id_of, name_of
from cellflow.io.formats.base import ReadOptions, SourceFormat
from cellflow.io.found_outlines import FoundOutlines, cells_of
from cellflow.io.images import IMAGE_SUFFIXES, image_shape, is_text, list_images
from cellflow.io.mask_findings import looks_like_label_map
from cellflow.io.source import FileImage, Shape, Source, SourceImage, by_id
from cellflow.storage.sizes import few_text, plural
from cellflow.types import Instances

__all__ = ["OutlineFiles"]

_log = logging.getLogger(__name__)

_LOOKED_AT = 3
"""Images of which one must look like a label map."""
_FOR_SEVERAL = ".ome"
"""Second ending of images that QuPath leaves out of the names it proposes."""


@dataclass(frozen=True, eq=False, kw_only=True)
class _OutlinedImage(FileImage):
    """An image, and the file with its outlines."""

    outlines: Path

    @property
    def cells_path(self) -> Path:
        return self.outlines


class OutlineFiles(SourceFormat):
    """Outlines as cells, in one file an image.

    The files lie beside the images, or in a folder with a name that is usual for them; the images in
    ``images/``, or where `ReadOptions.images` says. As truth or prediction the files will do alone, where
    the other side knows how large the images are. Where label maps are there too, these are read: they lose
    nothing.
    """

    uses = frozenset({"prepare", "truth", "prediction"})
    heeds = frozenset({"masks", "images", "mask_filter", "img_filter"})
    suffixes: ClassVar[tuple[str, ...]]
    """Endings of the files."""
    endings: ClassVar[tuple[str, ...]] = ()
    """What may stand between the id and that."""
    folders: ClassVar[tuple[str, ...]]
    """Names of folders for them."""
    of_only_image: ClassVar[str] = ""
    """Name of a file that belongs to the image beside it, where there is just one."""
    expected: ClassVar[str]
    """What the file of an image is called, with the id as {0}."""
    empty: ClassVar[str]
    """What stands for an image without cells."""

    @abstractmethod
    def found(self, path: Path) -> FoundOutlines:
        """What lies in a file; whatever is wrong with it is a `DataError`."""

    def is_one(self, path: Path) -> bool:
        """Whether a file with such an ending is meant."""
        return True

    def recognises(self, path: Path, options: ReadOptions) -> bool:
        """Whether such files are there, and no label maps."""
        if path.is_file():
            return options.use != "prepare" and self._is_one(path)
        if not path.is_dir() or is_dataset(path) or places.is_kaggle_layout(path):
            return False
        return bool(self._files(path, options)) and not _label_maps_go_first(path, options)

    def lies_in(self, folder: Path, options: ReadOptions) -> list[Path]:
        """Outlines in all the places where they are looked for."""
        return self._files(folder, options)

    def read(self, path: Path, options: ReadOptions) -> Source:
        """Pair files and images, and look through the files once; cells are read image by image."""
        folder = path.parent if path.is_file() else path
        images = _images(folder, options)
        files = [path] if path.is_file() else self._files(path, options)
        known = _names(images, options.img_filter)
        problems = options.problems if options.use == "prepare" else None
        found = by_id((SourceImage(self._id(f, known, options), f) for f in files), problems)
        if options.use == "prepare":
            self._add_problems(folder, found, images, options)
            found = {name: file for name, file in found.items() if name in images}
        columns = self._survey({name: file.path for name, file in found.items()})
        paired = {
            name: self._image(name, file.path, images.get(name), columns.get(name, {}))
            for name, file in sorted(found.items())
        }
        given = options.mask_filter
        ending = (
            given if given and any(id_of(file.stem, given) is not None for file in files) else ""
        )
        kind = f"outlines such as {files[0].name}"
        return Source(path, self.name, paired, kind, ending, needs_images=True)

    def _files(self, folder: Path, options: ReadOptions) -> list[Path]:
        """The files in the first of the folders where there are any: named, usual for them, or this one."""
        if options.masks is not None:
            return self._files_in(options.masks)
        inside = {item.name.lower(): item for item in _items(folder) if item.is_dir()}
        usual = (*self.folders, *places.MASK_FOLDERS, *places.IMAGE_FOLDERS)
        tried = [*(inside[name] for name in usual if name in inside), folder]
        return next(filter(None, map(self._files_in, tried)), [])

    def _files_in(self, folder: Path) -> list[Path]:
        return sorted(filter(self._is_one, _items(folder)))

    def _is_one(self, path: Path) -> bool:
        return path.suffix.lower() in self.suffixes and path.is_file() and self.is_one(path)

    def _id(self, path: Path, known: Mapping[str, str], options: ReadOptions) -> str:
        """The id of the image that a file belongs to; its own name where there is no such image."""
        ids = list(dict.fromkeys(known.values()))
        if path.stem == self.of_only_image and len(ids) == 1:
            return ids[0]
        endings = [end for end in (options.mask_filter, *self.endings) if end]
        stems = [name for end in endings if (name := id_of(path.stem, end)) is not None]
        for stem in (path.stem, *stems):
            if stem in known:
                return known[stem]
        own = Path(stems[0] if stems else path.stem)
        return own.stem if own.suffix.lower() in IMAGE_SUFFIXES else own.name

    def _add_problems(
        self,
        folder: Path,
        found: Mapping[str, SourceImage],
        images: Mapping[str, Path],
        options: ReadOptions,
    ) -> None:
        """Images and files without a partner."""
        for name in sorted(images.keys() - found.keys()):
            options.problems.add(
                f"{images[name]}: no outlines; expected {self.expected.format(name)}. Add them ({self.empty} if "
                "the image has no cells) or remove the image.",
                name,
            )
        where = "" if options.images is not None or images else f" in {folder}"
        for name in sorted(found.keys() - images.keys()):
            options.problems.add(
                f"{found[name].path}: outlines without an image; expected an image named "
                f"{name_of(name, options.img_filter)}{where}. Add the image, name the folder of the images with "
                "--images, or give the outlines the name of their image.",
                name,
            )

    def _image(
        self, name: str, file: Path, image: Path | None, columns: Mapping[str, str]
    ) -> SourceImage:
        read = partial(self._cells, name, file, image)
        if image is None:
            return SourceImage(name, file, columns, read)
        return _OutlinedImage(name, image, columns, read, outlines=file)

    def _cells(self, name: str, file: Path, image: Path | None, shape: Shape | None) -> Instances:
        if shape is None:
            if image is None:
                text = f"{file}: how large image {name} is, is not known. Name the folder of the images with --images,"
                raise DataError(f"{text} or put them beside the outlines.", path=file, id=name)
            size = image_shape(image)
            shape = size[0], size[1]
        return cells_of(self.found(file), shape, path=file, image_id=name)

    def _survey(self, files: Mapping[str, Path]) -> dict[str, dict[str, str]]:
        """Columns of the images by id; says what is left out. A file that cannot be read tells so later."""
        types: dict[str, Counter[str]] = {}
        left_out: dict[str, Counter[str]] = {}
        remarks: Counter[str] = Counter()
        for name, path in sorted(files.items()):
            with suppress(DataError):
                found = self.found(path)
                types[name] = Counter(filter(None, found.types))
                left_out[name] = found.left_out
                remarks += found.remarks
        total: Counter[str] = sum(left_out.values(), Counter())
        if total:
            what = few_text(plural(count, kind) for kind, count in total.items())
            where = few_text(name for name, counts in left_out.items() if counts)
            _log.warning("left out, because they are no cells: %s (%s)", what, where)
        for text, count in remarks.items():
            _log.warning("%s %s", plural(count, "outline"), text)
        return _type_columns(types)


def _type_columns(types: Mapping[str, Counter[str]]) -> dict[str, dict[str, str]]:
    """The most frequent class of each image as its cell type; nothing where there is one class only."""
    total: Counter[str] = sum(types.values(), Counter())
    if len(total) < 2:
        if total:
            _log.info("all cells with a class are %s; one class alone makes no cell_type", *total)
        return {}
    mixed = {name: counts for name, counts in types.items() if len(counts) > 1}
    if mixed:
        _log.warning(
            "cells of several classes in %d of %d images, whose cell_type is the most frequent one: %s",
            *(len(mixed), len(types)),
            few_text(
                f"{name} ({', '.join(f'{kind} {count}' for kind, count in counts.most_common(3))})"
                for name, counts in mixed.items()
            ),
        )
    return {
        name: {"cell_type": min(counts, key=lambda kind: (-counts[kind], kind), default="")}
        for name, counts in types.items()
    }


def _images(folder: Path, options: ReadOptions) -> dict[str, Path]:
    """Images of a folder by id; not what Cellpose wrote beside them."""
    place = folder if options.images is None else options.images
    if not place.is_dir():
        raise DataError(f"{place}: expected a folder of images (--images).", path=place)
    files = list_images(places.find_folder(place, places.IMAGE_FOLDERS) or place)
    stems = {file.stem for file in files}
    outputs = {
        stem
        for stem in stems
        for end in places.OUTPUT_ENDINGS
        if stem.endswith(end) and stem.removesuffix(end) in stems
    }
    wanted = [
        SourceImage(name, file)
        for file in files
        if (name := id_of(file.stem, options.img_filter)) is not None and file.stem not in outputs
    ]
    problems = options.problems if options.use == "prepare" else None
    return {name: image.path for name, image in by_id(wanted, problems).items()}


def _names(images: Mapping[str, Path], img_filter: str) -> dict[str, str]:
    """Ids by all that the outlines of an image may be called: an id, its file's name, with and without endings."""
    names: dict[str, str] = {}
    for name, path in images.items():
        for text in (name, path.stem, path.name, path.stem.removesuffix(_FOR_SEVERAL)):
            names.setdefault(text, name)
    return names | {name: name for name in images}


def _label_maps_go_first(folder: Path, options: ReadOptions) -> bool:
    """Whether there are label maps too: by their names; of truth and predictions also by what they look like.

    All images in the folder that ``--masks`` names are label maps, but where it is that of the pixels: so the
    outlines are taken that lie beside both.
    """
    if options.masks is not None:
        pixels = options.images or places.find_folder(folder, places.IMAGE_FOLDERS) or folder
        if options.masks.resolve() == pixels.resolve():
            return False
        return bool(list_images(options.masks)) or bool(places.seg_files(options.masks))
    if places.has_label_maps(folder, options.mask_filter):
        return True
    if options.use == "prepare":
        return False
    images = list_images(folder)
    return any(options.colours or looks_like_label_map(path) for path in images[:_LOOKED_AT])


def _items(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden; a folder that cannot be read is told of by whoever reads images."""
    try:
        items = list(folder.iterdir())
    except OSError:
        return []
    return [item for item in items if item.name[0] != "." and is_text(item.name)]
