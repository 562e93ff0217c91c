"""Names of the channels of an image, as OME, ImageJ and OME-Zarr metadata tell them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import tifffile

from cellflow.io import _image_header as header
from cellflow.io import _ome_zarr
from cellflow.io._tiff_chain import refuse_torn_chain
from cellflow.io._zarr_metadata import is_zarr

__all__ = ["join_names", "read_channel_names", "split_names"]

_JOINT = ";"


def read_channel_names(path: Path) -> tuple[str, ...]:
    """Names of the channels that an image file tells, in their order.

    Those of OME-XML (``Channel Name`` of the first image) go before the labels of ImageJ's planes; of
    OME-Zarr the labels of ``omero`` are taken.

    Returns
    -------
    tuple of str
        Empty where there are none, or where they cannot be read; a channel without a name among others is
        an empty text. There may be more or fewer than the image has channels.
    """
    names = tuple[str, ...]()
    with suppress(Exception):  # whatever damaged metadata makes the library or a parser raise
        if is_zarr(Path(path)):
            names = _ome_zarr.channel_names(Path(path))
        elif header.kind_of_file(Path(path)) == "TIFF":
            refuse_torn_chain(path)
            with tifffile.TiffFile(path) as tiff:
                names = _of_tiff(tiff)
    names = tuple(" ".join(name.split()) for name in names)  # ImageJ's may have several lines
    return names if any(names) else ()


def _of_tiff(tiff: tifffile.TiffFile) -> tuple[str, ...]:
    if tiff.ome_metadata:
        pixels = ElementTree.fromstring(tiff.ome_metadata).find(".//{*}Pixels")
        found = [] if pixels is None else pixels.findall("{*}Channel")
        return tuple(channel.get("Name", "") for channel in found)
    labels = (tiff.imagej_metadata or {}).get("Labels", ())
    return (labels,) if isinstance(labels, str) else tuple(map(str, labels))


def join_names(names: Sequence[str]) -> str:
    """Names as one text for tables, ``DAPI;GFP``; a semicolon in a name becomes a comma."""
    return _JOINT.join(name.replace(_JOINT, ",") for name in names)


def split_names(text: str) -> tuple[str, ...]:
    """Names from the text of a table; none from an empty one."""
    return tuple(name.strip() for name in text.split(_JOINT)) if text.strip() else ()
