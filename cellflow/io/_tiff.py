"""The one 2D image of a TIFF: which of its series, which axes are channels, palettes, orientation."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG

from cellflow.errors import DataError
from cellflow.io import _image_header as header
from cellflow.io._tiff_chain import refuse_torn_chain
from cellflow.io._tiff_pieces import refuse_swollen_pieces
from cellflow.io.pixel_limit import refuse_large
from cellflow.storage.sizes import few_text

FEW = 4
"""So many planes whose axis nobody has named are taken for channels."""
_CHANNELS, _UNNAMED = "SC", "QI"
"""Axes of channels, and axes that nobody has named."""
_SIDE_IMAGES = {"label", "macro", "thumbnail"}
"""Names of the pictures that slide scanners add."""
_PACKINGS = {
    COMPRESSION.NONE: "none",
    COMPRESSION.PACKBITS: "packbits",
    COMPRESSION.ADOBE_DEFLATE: "deflate",
    COMPRESSION.DEFLATE: "deflate",
    COMPRESSION.LZW: "LZW",
}
_NOT_RGB = {PHOTOMETRIC.SEPARATED, PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB}
"""Colours that nobody turns into RGB; YCbCr is, by the codecs of JPEG and its kin."""
_JPEG = {COMPRESSION.OJPEG, COMPRESSION.JPEG, COMPRESSION.JPEG_LOSSY}
_LOSSY = (set(tifffile.TIFF.IMAGE_COMPRESSIONS) - {COMPRESSION.PNG}) | {COMPRESSION.LERC}
"""Those of pictures: where they can also pack without loss, nothing says that they did."""


class Plane(NamedTuple):
    """Where the image of a file is and how it is to be read."""

    series: Any
    order: list[int]
    """Axes in the order Y, X and, if there are any, channels; axes of length 1 are left out."""
    page: Any
    indexed: bool
    alpha: bool
    orientation: int

    def smaller(self) -> Iterator[Plane]:
        """Smaller copies of the image, finest first; the first of another kind ends them."""
        own = self.page.photometric, self.page.samplesperpixel, self.series.dtype, self.alpha
        for series in self.series.levels[1:]:
            page, fits = series.keyframe, len(series.shape) == len(self.series.shape)
            same = own == (page.photometric, page.samplesperpixel, series.dtype, _has_alpha(page))
            if not fits or not same or any(item is None for item in series.pages):
                return
            refuse_swollen_pieces(page)
            yield self._replace(series=series)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """``(H, W)`` or ``(H, W, C)`` as it lies in the file: not turned, indices of a palette, with alpha."""
        return tuple(self.series.shape[axis] for axis in self.order)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what `read_pixels` gives."""
        height, width, *channels = self.stored_shape
        if self.indexed:
            channels = [3]
        elif self.alpha:
            channels = [channels[0] - 1] if channels[0] > 2 else []
        return (*header.turned_shape((height, width), self.orientation), *channels)

    def ordered(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Pixels with the axes of the series, ``(H, W)`` or ``(H, W, C)``; a view."""
        shape = self.series.shape
        others = [axis for axis in range(len(shape)) if axis not in self.order]
        pixels = np.transpose(pixels.reshape(shape), [*self.order, *others])
        return pixels.reshape(pixels.shape[: len(self.order)])  # the others have length 1

    def shown(self, pixels: NDArray[Any], *, colours: bool = True) -> NDArray[Any]:
        """Stored pixels, or a box of them, as they are read: without alpha, with colours, turned."""
        pixels = pixels[..., :-1] if self.alpha else pixels
        if self.indexed and colours:
            pixels = _colours(self.page.colormap, pixels)
        return header.turn(pixels, self.orientation)


def read_pixels(path: Path, *, colours: bool = True, most: int | None = None) -> NDArray[Any]:
    """Pixels ``(H, W)`` or ``(H, W, C)``; indices of a palette as they are without `colours`.

    One of more than `most` pixels, height times width, is refused before they are unpacked.
    Whatever tifffile raises on a damaged file comes through.
    """
    with open_plane(path) as plane:
        for lengths in (plane.series.shape, plane.page.chunks):
            refuse_swollen_claim(plane, path, lengths)
        refuse_large((plane.stored_shape[0], plane.stored_shape[1]), most)
        refuse_cut_off(plane)
        return plane.shown(plane.ordered(plane.series.asarray()), colours=colours)


def read_shape(path: Path) -> tuple[int, ...]:
    """Shape of what `read_pixels` gives, from the tags alone."""
    with open_plane(path) as plane:
        return plane.shape


def lossy_packing(path: Path) -> str:
    """The compression of the pixels if labels may not come back from it as they were, else nothing."""
    with open_plane(path) as plane:
        packing = plane.page.compression
        return COMPRESSION(packing).name.replace("_", " ") if packing in _LOSSY else ""


def is_in_several_files(path: Path) -> bool:
    """Whether planes of the image lie in other files of an OME set."""
    with open_plane(path) as plane:
        return len(_files(plane, path)) > 1


@contextmanager
def open_plane(path: Path) -> Iterator[Plane]:
    """The one image of a file, of which nothing but the tags has been read; the file is open until then."""
    refuse_torn_chain(path)
    with tifffile.TiffFile(path) as tiff:
        series = _only_series(tiff)
        page = series.keyframe
        if any(item is None for item in series.pages):
            raise DataError(
                f"planes of this image are missing: {_where_planes_lie(tiff, path)}. Put all files of the "
                "set into one folder, or export the image as one file.",
                path=path,
            )
        if page.photometric in _NOT_RGB or (
            page.photometric == PHOTOMETRIC.YCBCR and page.compression in _PACKINGS
        ):
            text = f"a TIFF in {page.photometric.name} colours; save it as grey or RGB."
            raise DataError(text, path=path, found=page.photometric.name)
        indexed = page.photometric == PHOTOMETRIC.PALETTE and page.colormap is not None
        indexed = indexed and not tiff.is_imagej  # where it only colours the display
        if indexed and (page.colormap.ndim != 2 or len(page.colormap) != 3):
            raise ValueError(f"its palette has {page.colormap.size:,} numbers")
        refuse_swollen_pieces(page)
        yield Plane(
            series,
            _order(series.axes, series.shape),
            page,
            indexed,
            _has_alpha(page),
            header.known_orientation(page.tags.valueof(header.ORIENTATION, 1)),
        )


def _only_series(tiff: Any) -> Any:
    """The one image of a file; thumbnails and smaller copies of it do not count."""
    images = [
        series
        for series in tiff.series
        if not series.keyframe.is_reduced and series.name.lower() not in _SIDE_IMAGES
    ]
    if len(images) > 1:  # those of a set of files, of which each describes all
        images = [series for series in images if _lies_in(tiff, series)] or images
    if len(images) > 1:
        sizes = few_text(" x ".join(map(str, series.shape)) for series in images)
        text = (
            f"expected one image, found {len(images)} in this file ({sizes}). Save each as a file "
            "of its own."
        )
        raise DataError(text, expected=1, found=len(images))
    return images[0] if images else tiff.series[0]


def _lies_in(tiff: Any, series: Any) -> bool:
    """Whether a file has planes of a series, rather than others of its set."""
    return any(page is not None and page.parent is tiff for page in series.pages)


def _where_planes_lie(tiff: Any, path: Path) -> str:
    """What is known of the files that a set lacks."""
    named = sorted(set(re.findall(r'\bFileName="([^"]+)"', tiff.ome_metadata or "")))
    gone = [name for name in named if not (path.parent / name).is_file()]
    return f"no {few_text(gone)} beside it" if gone else "they were cut off"


def _order(axes: str, shape: tuple[int, ...]) -> list[int]:
    """Axes in the order Y, X and, if there are any, channels; axes of length 1 are left out."""
    if len(axes) == 3 and axes[0] in _UNNAMED and shape[2] <= FEW < min(shape[:2]):
        return [0, 1, 2] if shape[2] > 1 else [0, 1]  # channels last, which no name says
    long = {
        name: axis
        for axis, name in enumerate(axes)
        if shape[axis] > 1 or name in "YX"  # a plane of one pixel height is still a plane
    }
    others = [name for name in long if name not in "YX"]
    if not {"Y", "X"} <= long.keys():
        text = f"expected one 2D image, found the shape {tuple(shape)} (axes {axes})."
        raise DataError(text, found=tuple(shape))
    if not others:
        return [long["Y"], long["X"]]
    planes = shape[long[others[0]]]
    few = others[0] in _UNNAMED and planes <= FEW
    if len(others) == 1 and (others[0] in _CHANNELS or few):
        return [long["Y"], long["X"], long[others[0]]]
    hint = ""
    if len(others) == 1 and others[0] in _UNNAMED:
        hint = f" If its {planes} planes are channels, save it with the axes CYX, as OME-TIFF or in ImageJ."
    text = (
        f"expected one 2D image, found a stack of shape {tuple(shape)} (axes {axes}). Save one plane per "
        f"file.{hint}"
    )
    raise DataError(text, expected=2, found=tuple(shape))


def _has_alpha(page: Any) -> bool:
    """Whether the last sample of a TIFF page is alpha (1 associated, 2 unassociated).

    tifffile marks the fourth channel of any array so, and with it scikit-image. Those of planes that lie one after
    another, of real numbers, and of 16 bits where tifffile wrote them, are channels of a microscope.
    """
    extra = tuple(getattr(page, "extrasamples", ()))
    if not extra or int(extra[-1]) not in (1, 2) or int(page.samplesperpixel) not in (2, 4):
        return False
    whole = page.dtype.kind == "u" and not (page.dtype.itemsize > 1 and page.is_shaped)
    return bool(whole and page.planarconfig == PLANARCONFIG.CONTIG)


def _colours(colormap: Any, indices: NDArray[Any]) -> NDArray[np.uint8]:
    """The colours that indices stand for, ``(H, W, 3)``.

    Colour maps of TIFF have 16 bits, which some programs fill as if they were 8 (so libtiff, too, asks
    whether any value needs more).
    """
    values = np.asarray(colormap)
    table = (values >> 8 if values.max() > 255 else values).astype(np.uint8).T
    return np.asarray(table[indices])


def refuse_swollen_claim(plane: Plane, path: Path, lengths: tuple[int, ...]) -> None:
    """Refuse a header that claims more samples, at once or in a tile or strip, than the file can hold."""
    page = plane.page
    packing = "JPEG" if page.compression in _JPEG else _PACKINGS.get(page.compression, "other")
    size = sum(file.stat().st_size for file in _files(plane, path))
    samples = int(np.prod(lengths, dtype=object))
    stored = samples * page.bitspersample // 8
    header.refuse_swollen(
        header.Claim(samples * plane.series.dtype.itemsize, stored), size, packing
    )


def refuse_cut_off(plane: Plane) -> None:
    """Refuse a file that ends before its pixels do, or lists fewer tiles or strips: both would be filled up."""
    if plane.page.compression == COMPRESSION.NONE and not plane.page.is_tiled:
        return  # here tifffile says so, and the lengths that files give are often not true
    pieces_needed = math.prod(plane.page.chunked)
    for page in plane.series.pages:
        if len(page.dataoffsets) < pieces_needed:
            raise ValueError(
                f"expected {pieces_needed:,} tiles or strips, found {len(page.dataoffsets):,}"
            )
        size = page.parent.filehandle.size
        pieces = zip(page.dataoffsets, page.databytecounts, strict=False)
        end = max((place + length for place, length in pieces if place), default=0)
        if end > size:
            raise ValueError(f"expected {end:,} bytes, found {size:,}")


def _files(plane: Plane, path: Path) -> set[Path]:
    """All files that hold planes of the image."""
    names = {page.parent.filehandle.path for page in plane.series.pages if hasattr(page, "parent")}
    return {Path(name).resolve() for name in (path, *names)}
