"""Plain images: a folder with its sub-folders, a file, a pattern such as ``*.tif``, or a list of files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path

from cellflow.errors import DataError
from cellflow.io._damage import unreadable
from cellflow.io._ome_zarr import images_in
from cellflow.io._zarr_metadata import is_zarr
from cellflow.io.file_names import image_id_of, kind_of, stem_of
from cellflow.io.formats.base import ReadOptions, SourceFormat
from cellflow.io.image_folders import SLIDE_FILES, SLIDE_SUFFIXES
from cellflow.io.images import IMAGE_SUFFIXES, list_images
from cellflow.io.places import OUTPUT_ENDINGS, RESULTS, tell_of_passed_over
from cellflow.io.source import FileImage, Source, by_id
from cellflow.storage.nearby import is_file, nearby
from cellflow.storage.sizes import few_text, plural

__all__ = ["LIST_SUFFIX", "ImageFiles", "ImageSearch", "folder_of", "image_id", "is_image_file"]

LIST_SUFFIX = ".txt"
MAX_PROBLEMS = 20
_LONGEST_LIST = 2**26
"""Bytes of a list of images."""
HINT_LEVELS = 2
"""How deep sub-folders are searched for images that --recursive would take."""
FOLDER_JOINT = "__"
"""Between the folders and the name in the ids of images in sub-folders."""
_OURS = (RESULTS, "dataset.json", "config.yaml")
"""Files of results, datasets and runs, in whose folders no images are looked for."""


class ImageFiles(SourceFormat):
    """Image files. Ids are their names without ending; those in sub-folders have the folders in front."""

    name = "images"
    uses = frozenset({"images"})

    def recognises(self, path: Path, options: ReadOptions) -> bool:
        """Any place: what is not there is reported when it is read."""
        return True

    def read(self, path: Path, options: ReadOptions) -> Source:
        """Find the files; nothing but a list is read."""
        search = ImageSearch(options)
        if path.is_dir() and not is_zarr(path):
            _refuse_run(path)
            files = [(file, path) for file in search.folder(path)]
        else:
            files = [(file, folder_of(file)) for file in search.files(path)]
        images = [FileImage(image_id(file, top, options.img_filter), file) for file, top in files]
        return Source(path, self.name, by_id(images))


@dataclass(frozen=True)
class ImageSearch:
    """How places are searched, and who hears of what is passed over."""

    options: ReadOptions

    def files(self, source: Path) -> list[Path]:
        """The files of a list, of a pattern, or a single one, which may be a zarr."""
        if is_zarr(source):
            return _some(images_in(source), f"{source}: a zarr without an OME-Zarr image in it")
        if source.is_file():
            if source.suffix.lower() != LIST_SUFFIX:
                return [source]
            return _some(_read_list(source), f"{source}: no images in this list")
        if not any(sign in str(source) for sign in "*?["):
            raise DataError(_nothing_there(source), path=source)
        found = glob(str(source), recursive=True)  # noqa: PTH207 - it takes absolute patterns
        files = _matching(map(Path, sorted(found)))
        return self.without_outputs(
            _some(files, f"{source}: no images fit this pattern", nearby(source))
        )[0]

    def folder(self, folder: Path) -> list[Path]:
        """The image files of a folder, and of its sub-folders where they are wanted."""
        here = self._filtered(list_images(folder, also=SLIDE_FILES))
        self._tell_of_passed_over(folder)
        levels = None if self.options.recursive else HINT_LEVELS
        below = self._filtered(_below(folder, levels=levels))
        if self.options.recursive:
            for place in dict.fromkeys(path.parent for path in below):
                self._tell_of_passed_over(place)
            missing = f"{folder}: no images in this folder or below{self._wanted}"
            return self.without_outputs(_some(here + below, missing))[0]
        if below and not here:
            raise DataError(
                f"{folder}: no images in this folder{self._wanted}, but {_counted(below, folder)} in its "
                "sub-folders. Add --recursive to take them all, or name a sub-folder.",
                path=folder,
            )
        if below:
            self.options.log.warning("%s in sub-folders of %s not taken; --recursive takes them too",
                       _counted(below, folder), folder)  # fmt: skip
        missing = f"{folder}: no images in this folder{self._wanted}"
        return self.without_outputs(_some(here, missing))[0]

    def _tell_of_passed_over(self, folder: Path) -> None:
        tell_of_passed_over(folder, log=self.options.log, but=OUTPUT_ENDINGS, also=SLIDE_FILES)

    @property
    def _wanted(self) -> str:
        return f" named {kind_of(self.options.img_filter)}" if self.options.img_filter else ""

    def _filtered(self, paths: list[Path]) -> list[Path]:
        """Those whose names are of the kind that was asked for."""
        wanted = self.options.img_filter
        return [path for path in paths if image_id_of(path, wanted) is not None]

    def without_outputs(
        self, paths: list[Path], *, named: bool = False
    ) -> tuple[list[Path], list[Path]]:
        """Images, and the files that Cellpose wrote beside them, which are reported."""
        if self.options.img_filter:  # the images are known by their names
            return paths, []
        images, outputs = _split_outputs(paths, only_beside_image=named)
        if outputs:
            self.options.log.warning(
                "passed over: %s that Cellpose or somebody else made of images, by the endings of their "
                "names (%s); to predict such files, name them in a list (%s)",
                plural(len(outputs), "file"), few_text(path.name for path in outputs), LIST_SUFFIX,
            )  # fmt: skip
        return images, outputs


def _split_outputs(
    paths: Sequence[Path], *, only_beside_image: bool
) -> tuple[list[Path], list[Path]]:
    """Tell images from the files that Cellpose wrote beside them, by the endings of their names.

    With `only_beside_image`, and where all names end like outputs (then some are images), a name counts
    only where the image that it was made of is among the `paths`.
    """
    there = {(path.parent, stem_of(path)) for path in paths}
    outputs = {path for path in paths if stem_of(path).endswith(OUTPUT_ENDINGS)}
    if only_beside_image or len(outputs) == len(paths):
        outputs = {
            path
            for path in outputs
            for ending in OUTPUT_ENDINGS
            if stem_of(path).endswith(ending)
            and (path.parent, stem_of(path).removesuffix(ending)) in there
        }
    return [path for path in paths if path not in outputs], [
        path for path in paths if path in outputs
    ]


def is_image_file(path: Path) -> bool:
    """Whether a path is a file with the ending of an image."""
    return path.suffix.lower() in (*IMAGE_SUFFIXES, *SLIDE_SUFFIXES) and path.is_file()


def _matching(paths: Iterable[Path]) -> list[Path]:
    """Images among the places that fit a pattern; what lies in a zarr that fits is no image of its own."""
    found, zarrs = list[Path](), set[Path]()
    for path in paths:
        if not zarrs.isdisjoint(path.parents):
            continue
        if is_zarr(path):
            zarrs.add(path)
            found += images_in(path)
        elif is_image_file(path):
            found.append(path)
    return found


def image_id(path: Path, folder: Path, img_filter: str = "") -> str:
    """Id of an image in a folder or below it, whose name may have more around it."""
    stem = image_id_of(path, img_filter) or path.stem
    return FOLDER_JOINT.join([*path.relative_to(folder).parts[:-1], stem])


def folder_of(path: Path) -> Path:
    """The folder of an image; for one of several in a zarr that of the zarr."""
    around = [place for place in path.parents if is_zarr(place)] if path.is_dir() else []
    return around[-1].parent if around else path.parent


def _below(folder: Path, *, levels: int | None = None) -> list[Path]:
    """Image files in sub-folders, parents first, sorted by name.

    With `levels`, only so deep, and folders that cannot be read are left out: it is for a hint only.
    """

    def refuse(error: OSError) -> None:
        if levels is None:
            raise unreadable(Path(error.filename), error) from error

    found: list[Path] = []
    for place, folders, _ in os.walk(folder, onerror=refuse):
        here = Path(place)
        if here != folder:
            with suppress(*(() if levels is None else (DataError,))):
                found += list_images(here, also=SLIDE_FILES)
        depth = len(here.relative_to(folder).parts)
        folders[:] = [] if depth == levels else sorted(filter(partial(_is_searched, here), folders))
    return found


def _is_searched(parent: Path, name: str) -> bool:
    """Whether images may be looked for in a sub-folder."""
    annotations = name in ("masks", "labels") and (parent / "images").is_dir()
    ours = any(_is_file(parent / name / file) for file in _OURS)
    return name[0] != "." and not annotations and not ours and not is_zarr(parent / name)


def _is_file(path: Path) -> bool:
    """Whether a file is there, as far as its folder may be looked into."""
    with suppress(OSError):
        return path.is_file()
    return False


def _some(paths: list[Path], missing: str, there: str = "") -> list[Path]:
    """The paths, if there are any; else what is missing is said, and what is there."""
    if not paths:
        endings = ", ".join(ending.lstrip(".") for ending in IMAGE_SUFFIXES)
        raise DataError(f"{missing} ({endings}, OME-Zarr, slides such as svs and ndpi).{there}")
    return paths


def _refuse_run(folder: Path) -> None:
    if (folder / "config.yaml").is_file() and (folder / "folds.csv").is_file():
        raise DataError(
            f"{folder}: expected images, found a run. Models are named with --model (cellflow predict), or "
            "before --images (cellflow ensemble).",
            path=folder,
        )


def _no_image(path: Path) -> str:
    """What is in place of the image that a list names."""
    with suppress(OSError):  # a text that is too long for a name
        if path.is_dir():
            return "a folder, expected an image file"
    return "no such file"


def _nothing_there(source: Path) -> str:
    return (
        f"{source}: no such file or folder. Expected images: a dataset, a folder, a file, a pattern in "
        f"quotes, or a list of files ({LIST_SUFFIX}). Models are named with --model (cellflow predict), or "
        f"before --images (cellflow ensemble).{nearby(source)}"
    )


def _counted(paths: list[Path], folder: Path) -> str:
    """How many images lie in which folders."""
    places = dict.fromkeys(str(path.parent.relative_to(folder)) for path in paths)
    return f"{plural(len(paths), 'image')} ({few_text(places)})"


def _read_list(source: Path) -> list[Path]:
    """The files that a list names, in its order."""
    try:
        size = source.stat().st_size
        if size > _LONGEST_LIST:
            text = f"{source}: {size:,} bytes are no list of images, of which at most {_LONGEST_LIST:,} are read."
            raise DataError(text, path=source, expected=_LONGEST_LIST, found=size)
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise unreadable(source, error) from error
    except UnicodeDecodeError as error:
        message = f"{source}: expected UTF-8 text with the path of one image a line."
        raise DataError(message, path=source) from error
    paths, problems = [], []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        path = source.parent / text  # an absolute path stays as it is
        if is_file(path):
            paths.append(path)
        elif is_zarr(path):
            paths += images_in(path)
        else:
            problems.append(f"{source} line {number}: {_no_image(path)}: {path}")
    if problems:
        rest = len(problems) - MAX_PROBLEMS
        more = [f"and {rest} more"] if rest > 0 else []
        raise DataError("\n".join([*problems[:MAX_PROBLEMS], *more]), path=source)
    return paths
