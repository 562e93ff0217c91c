"""What people name as images to predict: a dataset, a folder, a file, or a list of files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.io.images import IMAGE_SUFFIXES, list_images, read_image

__all__ = ["ImageReaders", "find_images", "fingerprints", "image_paths"]

ImageReaders = dict[str, Callable[[], NDArray[Any]]]
"""From id to a function that reads the image."""

LIST_SUFFIX = ".txt"
MAX_PROBLEMS = 20


def fingerprints(source: Path) -> dict[str, str]:
    """What tells whether an image is still the same, by id: its pixels' hash, or its file's size and time.

    Parameters
    ----------
    source : Path
        As `find_images` takes it.
    """
    source = Path(source)
    if (source / "dataset.json").is_file():
        hashes = Dataset.open(source).images["pixel_hash"]
        return {str(name): str(value) for name, value in hashes.items()}
    facts = {name: path.stat() for name, path in _by_id(source, _paths(source)).items()}
    return {name: f"{fact.st_size} {fact.st_mtime_ns}" for name, fact in facts.items()}


def find_images(source: Path) -> ImageReaders:
    """Images of a dataset folder, a folder, a file or a list, as id and a function that reads it.

    Nothing is read but the dataset's tables or the list.

    Parameters
    ----------
    source : Path
        A dataset folder of `cellflow prepare`, a folder with images in it, an image file, or a text file
        (.txt, UTF-8) with the path of one image a line: absolute or relative to the list's folder.
        Empty lines of a list and those that begin with # are passed over.

    Returns
    -------
    dict of str to callable
        Readers by id: the dataset's ids, or file names without ending. In the order of the dataset, of
        the names, or of the list. What a reader raises is a `DataError`.

    Raises
    ------
    DataError
        If there is no image, two files have the same id, or a list names a file that is not there (all
        such lines are told together).
    """
    source = Path(source)
    if (source / "dataset.json").is_file():
        dataset = Dataset.open(source)
        return {name: partial(dataset.image, name) for name in dataset.ids}
    return {
        name: partial(read_image, path) for name, path in _by_id(source, _paths(source)).items()
    }


def image_paths(source: Path) -> list[Path]:
    """Files of the images that `find_images` finds, in its order."""
    source = Path(source)
    if (source / "dataset.json").is_file():
        dataset = Dataset.open(source)
        return [source / "images" / str(name) for name in dataset.images["file"]]
    return list(_by_id(source, _paths(source)).values())


def _paths(source: Path) -> list[Path]:
    """Image files of a folder, a list, or a single one."""
    if source.is_dir():
        paths, missing = list_images(source), "no images in this folder"
    elif source.is_file():
        listed = source.suffix.lower() == LIST_SUFFIX
        paths, missing = (_read_list(source) if listed else [source]), "no images in this list"
    else:
        raise DataError(
            f"{source}: no such file or folder. Expected images: a dataset, a folder, a file, or a list "
            f"of files ({LIST_SUFFIX})."
        )
    if not paths:
        endings = ", ".join(ending.lstrip(".") for ending in IMAGE_SUFFIXES)
        raise DataError(f"{source}: {missing} ({endings}).")
    return paths


def _by_id(source: Path, paths: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise DataError(
                f"{source} has two images with the id {path.stem!r}: {found[path.stem]} and {path}. "
                "Ids are names without ending; rename or remove one."
            )
        found[path.stem] = path
    return found


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
