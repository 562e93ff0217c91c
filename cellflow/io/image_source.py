"""What people name as images to predict: datasets, folders, files, patterns such as ``*.tif``, and lists."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.io.folders import OUTPUT_ENDINGS, split_outputs
from cellflow.io.images import (
    IMAGE_SUFFIXES,
    image_info,
    is_text,
    list_images,
    passed_over,
    read_image,
)
from cellflow.io.pixel_size import PixelSize, read_pixel_size
from cellflow.storage.sizes import few_text, plural

__all__ = ["FoundImage", "ImageReaders", "find_images", "source_folders"]

ImageReaders = Mapping[str, Callable[[], NDArray[Any]]]
"""From id to a function that reads the image."""

LIST_SUFFIX = ".txt"
MAX_PROBLEMS = 20
HINT_LEVELS = 2
"""How deep sub-folders are searched for images that --recursive would take."""
FOLDER_JOINT = "__"
"""Between the folders and the name in the ids of images in sub-folders."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundImage:
    """An image that was found; call it to read its pixels.

    Attributes
    ----------
    path : Path
        The file.
    dataset : Dataset or None
        The dataset that it belongs to.
    name : str
        Its id there.
    given_size : float or None
        Micrometres per pixel that were given for it.
    """

    path: Path
    dataset: Dataset | None = None
    name: str = ""
    given_size: float | None = None

    def __call__(self) -> NDArray[Any]:
        """The pixels, ``(H, W)`` or ``(H, W, C)``; what is wrong is a `DataError`."""
        return read_image(self.path) if self.dataset is None else self.dataset.image(self.name)

    def pixel_size(self) -> PixelSize | None:
        """Micrometres per pixel: those that were given, else what the dataset or the file says."""
        if self.given_size is not None:
            return PixelSize(self.given_size, self.given_size)
        known = self.dataset.pixel_size(self.name) if self.dataset is not None else None
        return known or read_pixel_size(self.path)

    def channels(self) -> int | None:
        """How many channels it has, None where its file does not say; what is wrong shows when it is read."""
        if self.dataset is not None:
            return int(self.dataset.images["channels"][self.name])
        with suppress(DataError):
            return image_info(self.path).channels
        return None

    @property
    def fingerprint(self) -> str:
        """What tells whether it is still the same: its pixels' hash, or its file's size and time."""
        if self.dataset is not None:
            return str(self.dataset.images.at[self.name, "pixel_hash"])
        fact = self.path.stat()
        return f"{fact.st_size} {fact.st_mtime_ns}"


def find_images(
    sources: Path | Iterable[Path],
    *,
    recursive: bool = False,
    img_filter: str = "",
    pixel_size: float | None = None,
    log: logging.Logger | None = _log,
) -> dict[str, FoundImage]:
    """Images of dataset folders, folders, files, patterns or lists, by id.

    Nothing is read but the datasets' tables and the lists. Files that Cellpose wrote beside images
    (``NAME_masks``, ``NAME_flows`` and so on, see `split_outputs`) are passed over, unless there is
    nothing else, or a list or a path of its own names them without their image.

    Parameters
    ----------
    sources : Path or iterable of Path
        Each a dataset folder of `cellflow prepare`, a folder with images in it, an image file, a pattern
        (``*``, ``?``, ``[...]``, ``**`` for any folders), or a text file (.txt, UTF-8) with the path of
        one image a line: absolute or relative to the list's folder. Empty lines of a list and those that
        begin with # are passed over.
    recursive : bool
        Whether images in sub-folders count. Hidden folders, results of `cellflow predict`, datasets and
        ``masks/`` and ``labels/`` beside ``images/`` do not.
    img_filter : str
        Ending of the names of images, as Cellpose's ``--img_filter``: other files are passed over, and
        ids are names without it.
    pixel_size : float or None
        Micrometres per pixel of all images, whatever their files say.
    log : logging.Logger or None
        Gets one line for every kind of file that was passed over.

    Returns
    -------
    dict of str to FoundImage
        By id: the dataset's ids, or file names without ending; those in sub-folders have the folders in
        front, ``day1__a`` for ``day1/a.tif``. In the order of the sources, and in each of the dataset,
        of the names, or of the list.

    Raises
    ------
    DataError
        If there is no image, two files have the same id, or a list names a file that is not there (all
        such lines are told together).
    """
    search = _Search(recursive, img_filter, log)
    found: dict[str, FoundImage] = {}
    odd: list[str] = []
    for name, image in search.images(_as_list(sources)):
        if name in found:
            raise DataError(_same_id(name, found[name].path, image.path))
        if is_text(name):
            found[name] = replace(image, given_size=pixel_size)
        else:
            odd.append(ascii(str(image.path)))
    if odd:
        text = f"{plural(len(odd), 'image')} whose name is not UTF-8: {few_text(odd)}. Rename it."
        if not found:
            raise DataError(text)
        search.tell("passed over %s", text)
    return found


def source_folders(sources: Path | Iterable[Path]) -> str | list[str]:
    """Where images come from, for records: a single source, or the folders of several."""
    paths = _as_list(sources)
    if len(paths) == 1:
        return str(paths[0].resolve())
    folders = {path.resolve() if path.is_dir() else path.resolve().parent for path in paths}
    return sorted(map(str, folders))


@dataclass(frozen=True)
class _Search:
    """How sources are searched, and who hears of what is passed over."""

    recursive: bool
    img_filter: str
    log: logging.Logger | None

    def images(self, sources: list[Path]) -> Iterator[tuple[str, FoundImage]]:
        """Images of all sources with their ids, in order."""
        if not sources:
            raise DataError(
                "No images were named. Name a dataset, folders, files, a pattern in quotes such as "
                f"'plate/*.tif', or a list of files ({LIST_SUFFIX})."
            )
        files = [path for path in sources if _is_image_file(path)]
        passed = set(self._without_outputs(files, named=True)[1]) if len(files) > 1 else set()
        for source in sources:
            if source not in passed:
                yield from self._of(source)

    def _of(self, source: Path) -> Iterator[tuple[str, FoundImage]]:
        """Images of one source."""
        if (source / "dataset.json").is_file():
            dataset = Dataset.open(source)
            for name, file in zip(dataset.ids, dataset.images["file"], strict=True):
                yield name, FoundImage(source / "images" / str(file), dataset, name)
        elif source.is_dir():
            _refuse_run(source)
            for path in self._folder(source):
                yield self._id(path, source), FoundImage(path)
        else:
            for path in self._files(source):
                yield self._id(path, path.parent), FoundImage(path)

    def _id(self, path: Path, folder: Path) -> str:
        parts = path.relative_to(folder).parts[:-1]
        stem = path.stem
        if len(stem) > len(self.img_filter):
            stem = stem.removesuffix(self.img_filter)
        return FOLDER_JOINT.join([*parts, stem])

    def _files(self, source: Path) -> list[Path]:
        """The files of a list, of a pattern, or a single one."""
        if source.is_file():
            if source.suffix.lower() != LIST_SUFFIX:
                return [source]
            return _some(_read_list(source), f"{source}: no images in this list")
        if not _is_pattern(source):
            raise DataError(_nothing_there(source))
        found = glob(str(source), recursive=True)  # noqa: PTH207 - it takes absolute patterns
        matches = map(Path, sorted(found))
        files = [path for path in matches if path.is_file() and _has_suffix(path)]
        return self._without_outputs(_some(files, f"{source}: no images fit this pattern"))[0]

    def _folder(self, folder: Path) -> list[Path]:
        """The image files of a folder, and of its sub-folders where they are wanted."""
        own = self._filtered(list_images(folder))
        self._tell_of_others(folder)
        below = self._filtered(_below(folder, levels=None if self.recursive else HINT_LEVELS))
        if self.recursive:
            for place in dict.fromkeys(path.parent for path in below):
                self._tell_of_others(place)
            return self._without_outputs(
                _some(own + below, f"{folder}: no images in this folder or below{self._wanted}")
            )[0]
        if below and not own:
            raise DataError(
                f"{folder}: no images in this folder{self._wanted}, but {_counted(below, folder)} in its "
                "sub-folders. Add --recursive to take them all, or name a sub-folder."
            )
        if below:
            self.tell("%s in sub-folders of %s not taken; --recursive takes them too",
                       _counted(below, folder), folder)  # fmt: skip
        missing = f"{folder}: no images in this folder{self._wanted}"
        return self._without_outputs(_some(own, missing))[0]

    @property
    def _wanted(self) -> str:
        return f" whose names end in {self.img_filter}" if self.img_filter else ""

    def _filtered(self, paths: list[Path]) -> list[Path]:
        """Those whose names have the ending that was asked for."""
        return [path for path in paths if path.stem.endswith(self.img_filter)]

    def _without_outputs(
        self, paths: list[Path], *, named: bool = False
    ) -> tuple[list[Path], list[Path]]:
        """Images, and the files that Cellpose wrote beside them, which are told of."""
        if self.img_filter:  # the images are known by their names
            return paths, []
        images, outputs = split_outputs(paths, only_beside_image=named)
        if outputs:
            self.tell(
                "passed over: %s that Cellpose or somebody else made of images, by the endings of their "
                "names (%s); to predict such files, name them in a list (%s)",
                plural(len(outputs), "file"), few_text(path.name for path in outputs), LIST_SUFFIX,
            )  # fmt: skip
        return images, outputs

    def _tell_of_others(self, folder: Path) -> None:
        """Say which files look like images of people but are none that can be read."""
        reasons: dict[str, list[str]] = {}
        for path, reason in passed_over(folder):
            if not path.stem.endswith(OUTPUT_ENDINGS):
                reasons.setdefault(reason, []).append(path.name)
        for reason, names in reasons.items():
            self.tell(
                "%s: passed over %s (%s): %s",
                *(folder, plural(len(names), "file"), few_text(names), reason),
            )

    def tell(self, message: str, *words: Any) -> None:
        """Say what was passed over, if somebody hears."""
        if self.log is not None:
            self.log.warning(message, *words)


def _as_list(sources: Path | Iterable[Path]) -> list[Path]:
    return [Path(sources)] if isinstance(sources, str | Path) else [Path(item) for item in sources]


def _has_suffix(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _is_image_file(path: Path) -> bool:
    return _has_suffix(path) and path.is_file()


def _is_pattern(path: Path) -> bool:
    return any(sign in str(path) for sign in "*?[")


def _below(folder: Path, *, levels: int | None = None) -> list[Path]:
    """Image files in sub-folders, parents first, sorted by name.

    With `levels`, only so deep, and folders that cannot be read are left out: it is for a hint only.
    """

    def unreadable(error: OSError) -> None:
        if levels is None:
            raise DataError(f"{error.filename}: cannot be read ({error.strerror}).") from error

    found: list[Path] = []
    for place, folders, _ in os.walk(folder, onerror=unreadable):
        here = Path(place)
        if here != folder:
            with suppress(*(() if levels is None else (DataError,))):
                found += list_images(here)
        depth = len(here.relative_to(folder).parts)
        folders[:] = [] if depth == levels else sorted(filter(partial(_is_searched, here), folders))
    return found


def _is_searched(parent: Path, name: str) -> bool:
    """Whether images may be looked for in a sub-folder."""
    annotations = name in ("masks", "labels") and (parent / "images").is_dir()
    ours = any((parent / name / file).is_file() for file in _NO_IMAGES_IN)
    return name[0] != "." and not annotations and not ours


_NO_IMAGES_IN = ("prediction.json", "dataset.json", "config.yaml")
"""Files of results, datasets and runs."""


def _some(paths: list[Path], missing: str) -> list[Path]:
    """The paths, if there are any."""
    if not paths:
        endings = ", ".join(ending.lstrip(".") for ending in IMAGE_SUFFIXES)
        raise DataError(f"{missing} ({endings}).")
    return paths


def _refuse_run(folder: Path) -> None:
    if (folder / "config.yaml").is_file() and (folder / "folds.csv").is_file():
        raise DataError(
            f"{folder}: expected images, found a run. Models are named with --model (cellflow predict), or "
            "before --images (cellflow ensemble)."
        )


def _nothing_there(source: Path) -> str:
    return (
        f"{source}: no such file or folder. Expected images: a dataset, a folder, a file, a pattern in "
        f"quotes, or a list of files ({LIST_SUFFIX}). Models are named with --model (cellflow predict), or "
        "before --images (cellflow ensemble)."
    )


def _same_id(name: str, first: Path, second: Path) -> str:
    text = (
        f"Found two images with the id {name!r}: {first} and {second}. Ids are names without ending; "
        "rename or remove one"
    )
    if first.parent == second.parent:
        return f"{text}."
    return (
        f"{text}, or name the folder above both with --recursive, which puts the names of sub-folders in "
        "front."
    )


def _counted(paths: list[Path], folder: Path) -> str:
    """How many images lie in which folders."""
    places = dict.fromkeys(str(path.parent.relative_to(folder)) for path in paths)
    return f"{plural(len(paths), 'image')} ({few_text(places)})"


def _read_list(source: Path) -> list[Path]:
    """The files that a list names, in its order."""
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source}: expected UTF-8 text with the path of one image a line."
        ) from error
    paths, problems = [], []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        path = source.parent / text  # an absolute path stays as it is
        if path.is_file():
            paths.append(path)
        else:
            what = "a folder, expected an image file" if path.is_dir() else "no such file"
            problems.append(f"{source} line {number}: {what}: {path}")
    if problems:
        rest = len(problems) - MAX_PROBLEMS
        more = [f"and {rest} more"] if rest > 0 else []
        raise DataError("\n".join([*problems[:MAX_PROBLEMS], *more]))
    return paths
