"""ROIs of ImageJ and Fiji: ``X_rois.zip`` of the ROI manager, or ``X.roi`` of one cell."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io._damage import unreadable
from cellflow.io.formats.outline_files import OutlineFiles
from cellflow.io.found_outlines import FoundOutlines, printable
from cellflow.io.shapes import FEWEST_POINTS, Outline, Ring, closed, outlines_from_labels
from cellflow.storage.atomic import atomic_path
from cellflow.storage.sizes import size_text
from cellflow.storage.zips import ZIP_DAMAGES, names_in_zip
from cellflow.types import shorten

if TYPE_CHECKING:
    from roifile import ImagejRoi

__all__ = ["ROI_ENDING", "ImagejRois", "read_rois", "write_rois"]

ROI_ENDING = "_rois.zip"
"""What Cellpose and we put behind the id of an image."""
_MAX_ROI = 64 * 2**20
_FOLLOWED = "along the pixels of a border, as Cellpose writes them: taken with these pixels"
_LARGEST = 2**24
"""Pixels of the box around such an outline."""
_STEPS = 32
"""Points of a spline from corner to corner."""
_WIDEST = 65_535
"""Pixels of a rectangle or oval; ImageJ keeps 16 bits."""
_MOST_STEPS = 2048
"""Points of a quarter of an ellipse; that of the widest is right to 0.003 pixels with so many."""
_MALFORMED = (
    ValueError, TypeError, IndexError, struct.error, RuntimeError, AssertionError, OverflowError,
)  # fmt: skip
"""What roifile raises on bytes that are no ROI, or one with curves (`NotImplementedError`), and shapes on nonsense."""

MAX_FILE = 256 * 2**20
"""Bytes of a zip."""
MAX_MEMBERS = 500_000
MAX_MEMBER, MAX_TOTAL = 64 * 2**20, 2 * 2**30
"""Bytes of one member and of all, unpacked."""
MAX_RATIO, FREE = 200, 2**20
"""Unpacked over packed size, of a member larger than so many bytes."""


class ImagejRois(OutlineFiles):
    """ROIs that surround an area are cells; points, lines and texts are not, and are counted.

    ROIs may overlap. Names, groups and colours say nothing of a cell.
    """

    name = "imagej-rois"
    suffixes: ClassVar[tuple[str, ...]] = (".zip", ".roi")
    endings: ClassVar[tuple[str, ...]] = ("_rois", "_ROIs", "_RoiSet", "_roi")
    folders: ClassVar[tuple[str, ...]] = ("rois", "roi")
    of_only_image: ClassVar[str] = "RoiSet"
    expected: ClassVar[str] = "{0}_rois.zip, {0}.zip or {0}.roi"
    empty: ClassVar[str] = "a zip without ROIs"

    def is_one(self, path: Path) -> bool:
        """Whether a file is named so, or a zip holds ROIs: images and other things lie in zips too."""
        named = path.stem == self.of_only_image or path.stem.endswith(self.endings)
        if named or path.suffix.lower() == ".roi":
            return True
        return any(name.lower().endswith(".roi") for name in _names_in(path))

    def found(self, path: Path) -> FoundOutlines:
        """The ROIs of a file."""
        return read_rois(path)


def read_rois(path: Path) -> FoundOutlines:
    """Read ``.roi``, or a zip of them.

    Polygons, freehand and traced selections, rectangles (rounded too), ovals, ellipses and composite ROIs are
    cells. Of crossing lines and of composite ROIs the inside is what ImageJ fills: points inside an odd number
    of rings. Corners stand on the grid of pixel edges, sub-pixel ones in between.

    ROIs as Cellpose writes them go from pixel to pixel of the border, so that ImageJ fills less than the cell (6 %
    of the pixels of real label maps, ``benchmarks/outline_loss.py``). They are taken with these pixels.

    Raises
    ------
    DataError
        If the file or a ROI in it is damaged, or has curves that roifile does not know.
    """
    result = FoundOutlines()
    for name, data in _members(path):
        roi = _decode(path, name, data)
        if roi.position > 0 or roi.z_position > 0 or roi.t_position > 0:
            slice_, time = max(roi.position, roi.z_position), max(roi.t_position, 0)
            result.planes.add(f"slice {slice_}" + (f" time {time}" if time else ""))
        kind = _other_kind(roi)
        if kind:
            result.left_out[kind] += 1
        elif _follows_pixels(roi):
            result.remarks[_FOLLOWED] += 1
            result.add(name, _filled(roi))
        else:
            result.add(name, _outline(path, name, roi))
    return result


def write_rois(path: Path, labels: NDArray[Any]) -> None:
    """Write the outline of every cell as a ROI in a zip, atomically; the names are the numbers.

    A cell of one piece is a traced ROI, one with holes or several parts a composite ROI. No cells are a zip
    without members. The same labels give the same bytes.

    Parameters
    ----------
    path : Path
        Zip to write.
    labels : (H, W) integer ndarray
    """
    outlines = outlines_from_labels(labels)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in _encoded(outlines).items():
            member = zipfile.ZipInfo(f"{name}.roi")  # of 1980, whenever it is written
            archive.writestr(member, data, zipfile.ZIP_DEFLATED)


def _encoded(outlines: Mapping[int, Outline]) -> dict[int, bytes]:
    from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi

    found = {}
    for number, outline in outlines.items():
        rings = [ring for part in outline for ring in part]
        corners = np.concatenate([ring[:-1] for ring in rings]).astype(np.int64)
        roi = ImagejRoi.frompoints(corners, name=str(number))
        roi.options = ROI_OPTIONS(roi.options & ROI_OPTIONS.SUB_PIXEL_RESOLUTION)
        roi.right, roi.bottom = roi.right - 1, roi.bottom - 1  # of corners, not of pixels
        roi.roitype = ROI_TYPE.TRACED
        if len(rings) > 1:
            roi.roitype, roi.n_coordinates = ROI_TYPE.RECT, 0
            roi.integer_coordinates = roi.subpixel_coordinates = None
            roi.multi_coordinates = _path(rings)
            roi.shape_roi_size = len(roi.multi_coordinates)
        found[number] = roi.tobytes()
    return found


def _path(rings: Iterable[Ring]) -> NDArray[np.float32]:
    """Rings as ImageJ keeps a path: 0 x y moves, 1 x y draws a line, 4 closes."""
    steps: list[float] = []
    for ring in rings:
        for at, (x, y) in enumerate(ring[:-1].tolist()):
            steps += (float(at > 0), x, y)
        steps.append(4.0)
    return np.array(steps, dtype=np.float32)


def _members(path: Path) -> Iterable[tuple[str, bytes]]:
    if path.suffix.lower() == ".zip":
        members = list(_read_members(path, ".roi"))
        if not members and _names_in(path):
            raise DataError(
                f"{path}: expected ROIs (NAME.roi) in this zip, found other files only. Save the ROIs with "
                "More >> Save... of the ROI manager.",
                path=path,
            )
        return members
    try:
        with path.open("rb") as file:
            return [(path.stem, file.read(_MAX_ROI))]
    except OSError as error:
        raise unreadable(path, error) from error


def _decode(path: Path, name: str, data: bytes) -> ImagejRoi:
    from roifile import ImagejRoi

    try:
        return ImagejRoi.frombytes(data)
    except _MALFORMED as error:
        raise _malformed(path, name, error) from error


def _read_members(path: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the members of a zip whose names end in `suffix`, in their order.

    Names are given without folders and ending; nothing is written. What Macs put beside files is passed over.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            raise _too_large(path, f"{size_text(size)}", size_text(MAX_FILE))
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check(path, members)
            for member in members:
                name = PurePosixPath(member.filename)
                if name.suffix.lower() == suffix and name.name[0] != ".":
                    with archive.open(member) as file:
                        yield name.stem, file.read(MAX_MEMBER + 1)
    except ZIP_DAMAGES as error:
        text = f"{path}: not a zip, or a damaged or encrypted one ({error}). Save it again."
        raise DataError(text, path=path) from error
    except OSError as error:
        raise unreadable(path, error) from error


def _names_in(path: Path) -> list[str]:
    """Names of what a zip says it holds; none where it is no zip, or larger than any that is read."""
    try:
        return [] if path.stat().st_size > MAX_FILE else names_in_zip(path)
    except OSError:
        return []


def _check(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse a zip by what its table says; the library stops reading where a member is larger than that."""
    if len(members) > MAX_MEMBERS:
        raise _too_large(path, f"{len(members)} files", f"{MAX_MEMBERS}")
    total = sum(member.file_size for member in members)
    if total > MAX_TOTAL:
        raise _too_large(path, f"{size_text(total)} unpacked", size_text(MAX_TOTAL))
    for member in members:
        if member.file_size > MAX_MEMBER:
            found = f"{member.filename!r} of {size_text(member.file_size)}"
            raise _too_large(path, found, size_text(MAX_MEMBER))
        if member.file_size > max(FREE, MAX_RATIO * member.compress_size):
            found = (
                f"{member.filename!r}, {member.file_size} bytes packed into {member.compress_size}"
            )
            raise _too_large(path, found, f"{MAX_RATIO} times the packed size")


def _too_large(path: Path, found: str, limit: str) -> DataError:
    text = f"{path}: expected a zip of outlines, found {found} (at most {limit}). Is it another kind of zip?"
    return DataError(text, path=path, expected=limit, found=found)


def _malformed(path: Path, name: str, error: Exception) -> DataError:
    name = shorten(printable(name), 40)
    return DataError(
        f"{path}: the ROI {name!r} cannot be read ({error}). Save the ROIs again; one with curves "
        "loses them with Edit > Selection > Create Mask and Create Selection.",
        path=path,
    )


def _other_kind(roi: ImagejRoi) -> str:
    """What a ROI is that surrounds no area; empty where it does."""
    from roifile import ROI_SUBTYPE, ROI_TYPE

    if roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.IMAGE):
        return "text" if roi.subtype == ROI_SUBTYPE.TEXT else "picture"
    areas = (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED, ROI_TYPE.RECT, ROI_TYPE.OVAL)
    if roi.roitype in areas:
        return ""
    return "point" if roi.roitype == ROI_TYPE.POINT else "line"


def _outline(path: Path, name: str, roi: ImagejRoi) -> Outline:
    from roifile import ROI_OPTIONS, ROI_TYPE

    try:
        if roi.roitype in (ROI_TYPE.RECT, ROI_TYPE.OVAL) and not roi.composite:
            return [[_rounded(roi, oval=roi.roitype == ROI_TYPE.OVAL)]]
        rings = [closed(points) for points in roi.coordinates(multi=True)]
        smooth = roi.options & ROI_OPTIONS.SPLINE_FIT and not roi.composite
        return [[_spline(ring) for ring in rings] if smooth else rings]
    except _MALFORMED as error:
        raise _malformed(path, name, error) from error


def _follows_pixels(roi: ImagejRoi) -> bool:
    """Whether a ROI goes from each pixel to one beside it, and bears the marks of what roifile makes of points."""
    from roifile import ROI_OPTIONS, ROI_TYPE

    marks = ROI_OPTIONS.OVERLAY_BACKGROUNDS | ROI_OPTIONS.OVERLAY_LABELS
    points = roi.integer_coordinates
    if roi.roitype != ROI_TYPE.FREEHAND or roi.options != marks:
        return False
    if points is None or len(points) < 3:
        return False
    steps = np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1)
    return bool((steps == 1).all() and np.prod(np.ptp(points, axis=0) + 1.0) <= _LARGEST)


def _filled(roi: ImagejRoi) -> Outline:
    """The outline of the pixels on and inside a border."""
    import cv2

    assert roi.integer_coordinates is not None
    points = np.asarray(roi.integer_coordinates, dtype=np.int32)
    start = points.min(axis=0)
    mask = np.zeros((np.ptp(points, axis=0) + 1)[::-1], dtype=np.uint8)
    cv2.fillPoly(mask, [points - start], (1,))
    shift = start + np.array([roi.left, roi.top])
    return [[ring + shift for ring in part] for part in outlines_from_labels(mask)[1]]


def _spline(ring: Ring) -> Ring:
    """The curve through the corners that ImageJ draws (*Fit Spline*): cubic, periodic, centripetal."""
    from scipy.interpolate import CubicSpline

    lengths = np.hypot(*np.diff(ring, axis=0).T)
    corners = ring[np.concatenate([[True], lengths > 0])]
    if len(corners) < FEWEST_POINTS or not np.isfinite(ring).all():
        return ring
    ways = np.concatenate([[0.0], np.cumsum(np.sqrt(lengths[lengths > 0]))])
    steps = np.linspace(ways[:-1], ways[1:], _STEPS, endpoint=False).T
    return closed(CubicSpline(ways, corners, bc_type="periodic")(steps.ravel()))


def _rounded(roi: ImagejRoi, *, oval: bool) -> Ring:
    """A rectangle whose corners are quarters of ellipses: as much as all of it for an oval."""
    start, size = np.array([roi.left, roi.top]), np.array([roi.right, roi.bottom])
    size = size - start
    if roi.subpixelrect:  # ImageJ fills whole pixels of these, unlike those of polygons
        start, size = np.trunc([roi.xd, roi.yd]), np.ceil([roi.widthd, roi.heightd])
    if not (np.isfinite(start).all() and (np.abs(size) <= _WIDEST).all()):
        raise ValueError(f"a rectangle of {size[0]:g} x {size[1]:g} pixels")
    arc = size / 2 if oval else np.minimum(size, max(roi.rounded_rect_arc_size, 0)) / 2
    middle, inner = start + size / 2, size / 2 - arc
    steps = min(16 + 8 * int(arc.max()), _MOST_STEPS) if arc.any() else 1
    angles = np.linspace(0, np.pi / 2, steps)
    quarters = [
        middle + np.sign(np.array([np.cos(turn), np.sin(turn)])) * inner
        + arc * np.stack([np.cos(angles + turn - np.pi / 4), np.sin(angles + turn - np.pi / 4)], 1)
        for turn in np.pi * np.array([0.25, 0.75, 1.25, 1.75])
    ]  # fmt: skip
    return closed(np.concatenate(quarters))
