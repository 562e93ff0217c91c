"""Images of a folder, by what their names end in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cellflow.errors import DataError
from cellflow.io._damage import unreadable
from cellflow.io._ome_zarr import images_in
from cellflow.io._zarr_metadata import is_zarr
from cellflow.storage.nearby import nearby

__all__ = [
    "IMAGE_SUFFIXES",
    "SLIDE_FILES",
    "SLIDE_SUFFIXES",
    "is_text",
    "list_images",
    "passed_over",
]

IMAGE_SUFFIXES = (
    ".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".jp2", ".j2k", ".jpx", ".webp",
)  # fmt: skip
"""Endings of the files that are read."""
SLIDE_FILES = (".bif", ".mrxs", ".ndpi", ".scn", ".svs", ".svslide")
"""Endings of slides that are one file each; what belongs to a .mrxs lies in a folder of its name."""
SLIDE_SUFFIXES = (*SLIDE_FILES, ".czi", ".dcm", ".vms", ".vmu")
"""Endings of the files that OpenSlide reads here; TIFFs of other endings are read as TIFF."""

_OTHER_FORMATS = {
    ".avif", ".btf", ".czi", ".dcm", ".dv", ".gif", ".h5", ".heic", ".ics", ".ims", ".jfif", ".jxl",
    ".jxr", ".lif", ".lsm", ".mha", ".mrc", ".mrxs", ".nd2", ".ndpi", ".nii", ".npy", ".npz", ".nrrd",
    ".oib", ".oif", ".oir", ".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".qptiff", ".scn", ".stk", ".svs",
    ".tf8", ".tga", ".vsi", ".zarr", ".zvi",
}  # fmt: skip
"""Endings of files that hold images and are not read."""
_OF_CELLPOSE = ("_seg.npy", "_size.npy")
"""What Cellpose writes beside images and models."""


def list_images(folder: Path, *, also: tuple[str, ...] = ()) -> list[Path]:
    """Image files directly in a folder, those with `also` other endings too, and OME-Zarr images, sorted by name.

    A zarr is one image, or as many as a plate has, and no folder to look into. Hidden files
    are passed over; so are broken links, names that are not UTF-8 and other formats, of which `passed_over`
    tells.

    Raises
    ------
    DataError
        If the folder does not exist or cannot be read.
    """
    found = []
    for item in sorted(_items(Path(folder))):
        if not is_text(item.name):
            continue
        if item.suffix.lower() in (*IMAGE_SUFFIXES, *also) and item.is_file():
            found.append(item)
        elif is_zarr(item):
            found += _in_zarr(item)
    return found


def passed_over(folder: Path, *, also: tuple[str, ...] = ()) -> list[tuple[Path, str]]:
    """Files of a folder that look like images and `list_images` does not take, with the reason, sorted by name.

    Names that are not UTF-8 are given in the form in which they can be written.

    Raises
    ------
    DataError
        If the folder does not exist or cannot be read.
    """
    found = []
    for item in _items(Path(folder)):
        suffix = item.suffix.lower()
        if is_zarr(item):
            if is_text(item.name) and not _in_zarr(item):
                found.append((item, "a zarr without an OME-Zarr image in it"))
            continue
        taken = suffix in (*IMAGE_SUFFIXES, *also)
        if not taken and suffix not in _OTHER_FORMATS:
            continue
        if item.name.endswith(_OF_CELLPOSE):
            continue
        if not is_text(item.name):
            name = item.name.encode("utf-8", "backslashreplace").decode()
            found.append((item.with_name(name), "its name is not UTF-8 text; rename it"))
        elif item.is_symlink() and not item.exists():
            found.append((item, "a link that leads nowhere"))
        elif not taken and also and suffix in SLIDE_SUFFIXES:
            found.append(
                (item, f"{suffix} is taken, as a slide, only where the file is named itself")
            )
        elif not taken:
            found.append((item, f"{suffix} is not read; convert it to TIFF or PNG"))
    return sorted(found)


def _in_zarr(path: Path) -> list[Path]:
    """Images of a zarr; a damaged one counts as an image, so that what is wrong shows when it is read."""
    try:
        return images_in(path)
    except DataError:
        return [path]


def _items(folder: Path) -> Iterator[Path]:
    """What lies in a folder and is not hidden."""
    if not folder.is_dir():
        what = "a file." if folder.exists() else f"nothing there.{nearby(folder)}"
        raise DataError(f"{folder}: expected a folder of images, found {what}", path=folder)
    try:
        yield from (item for item in folder.iterdir() if item.name[0] != ".")
    except OSError as error:
        raise unreadable(folder, error) from error


def is_text(name: str) -> bool:
    """Whether a file name can be written into tables and logs."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
