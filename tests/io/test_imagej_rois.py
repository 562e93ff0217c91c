from __future__ import annotations

import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi, roiread, roiwrite

from cellflow.errors import DataError
from cellflow.io.formats import imagej_rois
from cellflow.io.formats.imagej_rois import ImagejRois, read_rois, write_rois
from cellflow.io.found_outlines import cells_of
from cellflow.numeric.labels import compact, labels_from_instances

IJ_JAR = Path("/usr/share/java/ij.jar")


def masks_of(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Cells as we read them, ``(n, H, W)``."""
    cells = cells_of(read_rois(path), shape, path=path, image_id="x")
    masks = np.zeros((len(cells), shape[0] * shape[1]), np.uint8)
    for mask, (starts, lengths) in zip(masks, cells, strict=True):
        for start, length in zip(starts, lengths, strict=True):
            mask[start : start + length] = 1
    return masks.reshape(len(cells), *shape)


def labels_of(path: Path, shape: tuple[int, int]) -> np.ndarray:
    return labels_from_instances(cells_of(read_rois(path), shape, path=path, image_id="x"))


def save(path: Path, *rois: ImagejRoi) -> Path:
    roiwrite(path, rois, name=[f"roi{at}" for at in range(len(rois))], mode="w")
    return path


def polygon(points: list[tuple[float, float]], kind: ROI_TYPE = ROI_TYPE.POLYGON) -> ImagejRoi:
    roi = ImagejRoi.frompoints(np.array(points))
    roi.roitype = kind
    return roi


def box(kind: ROI_TYPE, left: int, top: int, width: int, height: int, arc: int = 0) -> ImagejRoi:
    return ImagejRoi(
        roitype=kind,
        left=left,
        top=top,
        right=left + width,
        bottom=top + height,
        rounded_rect_arc_size=arc,
    )


def holed() -> np.ndarray:
    """A ring with a cell in its hole, a cell in two parts, two corners that touch, a number above 65,535."""
    labels = np.zeros((20, 30), np.int32)
    labels[2:12, 2:12] = 1
    labels[4:10, 4:10] = 0
    labels[6:8, 6:8] = 2
    labels[2:5, 20:24] = labels[14:18, 20:22] = 3
    labels[14:16, 3:5] = labels[16:18, 5:7] = 70_000
    return labels


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(labels=hnp.arrays(np.int32, (7, 9), elements=st.sampled_from([0, 1, 1, 2, 70_000])))
def test_label_maps_survive(tmp_path: Path, labels: np.ndarray) -> None:
    path = tmp_path / "x_rois.zip"
    write_rois(path, labels)
    assert np.array_equal(labels_of(path, (7, 9)), compact(labels)[0])


def test_one_roi_a_cell_with_its_number_as_roifile_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "x_rois.zip"
    write_rois(path, holed())
    rois = roiread(path)
    assert [roi.name for roi in rois] == ["1", "2", "3", "70000"]
    assert zipfile.ZipFile(path).namelist() == ["1.roi", "2.roi", "3.roi", "70000.roi"]
    assert [roi.composite for roi in rois] == [True, False, True, True]
    assert [len(roi.coordinates(multi=True)) for roi in rois] == [2, 1, 2, 2]
    assert rois[1].roitype == ROI_TYPE.TRACED
    assert rois[1].coordinates().tolist() == [[6, 6], [6, 8], [8, 8], [8, 6]]
    assert {(roi.position, roi.c_position, roi.z_position, roi.t_position) for roi in rois} == {
        (0, 0, 0, 0)
    }
    assert (rois[0].left, rois[0].top, rois[0].right, rois[0].bottom) == (2, 2, 12, 12)


def test_the_same_labels_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_rois(tmp_path / f"{name}.zip", holed())
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_no_cells(tmp_path: Path) -> None:
    path = tmp_path / "x_rois.zip"
    write_rois(path, np.zeros((4, 5), np.int32))
    assert labels_of(path, (4, 5)).max() == 0


@pytest.mark.parametrize(
    "shape", [(20, 30), pytest.param((200, 330), marks=pytest.mark.slow)], ids=["few", "65,535"]
)
def test_a_cell_a_pixel(tmp_path: Path, shape: tuple[int, int]) -> None:
    many = np.arange(1, shape[0] * shape[1] + 1, dtype=np.int32).reshape(shape)
    write_rois(tmp_path / "x_rois.zip", many)
    assert np.array_equal(labels_of(tmp_path / "x_rois.zip", shape), many)


def test_kinds_of_rois(tmp_path: Path) -> None:
    ring = ImagejRoi(roitype=ROI_TYPE.RECT, left=1, top=1, right=8, bottom=8)
    ring.multi_coordinates = np.array(
        [0, 1, 1, 1, 8, 1, 1, 8, 8, 1, 1, 8, 4, 0, 3, 3, 1, 6, 3, 1, 6, 6, 1, 3, 6, 4], np.float32
    )  # both rings turn the same way: a hole all the same
    ring.shape_roi_size = len(ring.multi_coordinates)
    sub = polygon([(10.4, 1.6), (14.4, 1.6), (14.4, 4.6), (10.4, 4.6)], ROI_TYPE.FREEHAND)
    path = save(
        tmp_path / "kinds.zip",
        ring,
        sub,
        box(ROI_TYPE.RECT, 2, 10, 3, 4),
        box(ROI_TYPE.OVAL, 10, 10, 4, 4),
        polygon([(20, 2), (26, 2), (26, 8)]),
        polygon([(20, 10), (26, 16), (26, 10), (20, 16)]),  # crosses itself
    )
    masks = masks_of(path, (20, 30))
    # of the triangle, centres on the long side are outside, as in ImageJ
    assert masks[:5].sum(axis=(1, 2)).tolist() == [49 - 9, 12, 12, 12, 15]
    left, right, above = masks[5][12, 20:22], masks[5][12, 24:26], masks[5][10:12, 23]
    assert left.all() and right.all() and not above.any()


def test_rois_of_cellpose_keep_their_border(tmp_path: Path) -> None:
    io = pytest.importorskip("cellpose.io")
    labels = np.zeros((40, 60), np.int32)
    y, x = np.mgrid[:40, :60]
    for number, (cy, cx, ry, rx) in enumerate(((10, 12, 7, 9), (25, 30, 12, 5), (30, 52, 4, 6)), 1):
        labels[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = number
    labels[2:5, 30] = labels[5, 30:34] = labels[6, 34] = (
        4  # a line of one pixel's width, with a corner
    )
    labels[37:40, 0:3] = 5
    io.save_rois(labels, str(tmp_path / "x.tif"), multiprocessing=False)
    path = tmp_path / "x_rois.zip"
    assert read_rois(path).remarks.total() == 5
    assert np.array_equal(labels_of(path, labels.shape), labels)
    first = roiread(path)[0]
    first.options = ROI_OPTIONS.NONE  # as ImageJ saves it
    assert labels_of(save(path, first), labels.shape).sum() < np.sum(labels == 1)


def test_points_lines_and_texts_are_counted_and_no_cells(tmp_path: Path) -> None:
    text = box(ROI_TYPE.RECT, 1, 1, 9, 9)
    text.subtype, text.text, text.text_name = ROI_SUBTYPE.TEXT, "note", "SansSerif"
    line = ImagejRoi(roitype=ROI_TYPE.LINE, x1=1, y1=1, x2=8, y2=8)
    path = save(
        tmp_path / "x.zip",
        polygon([(1, 1), (4, 4)], ROI_TYPE.POINT),
        line,
        polygon([(1, 1), (4, 4), (8, 1)], ROI_TYPE.POLYLINE),
        text,
        polygon([(1, 1), (5, 1), (5, 5), (1, 5)]),
    )
    found = read_rois(path)
    assert found.names == ["roi4"]
    assert found.left_out == {"point": 1, "line": 2, "text": 1}


def test_a_single_roi_and_other_files_in_a_zip(tmp_path: Path) -> None:
    roi = polygon([(1, 1), (5, 1), (5, 5), (1, 5)])
    roi.tofile(tmp_path / "x.roi")
    assert labels_of(tmp_path / "x.roi", (8, 8)).sum() == 16
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        archive.writestr("RoiSet/../../../evil.roi", roi.tobytes())
        archive.writestr("__MACOSX/._evil.roi", b"resource fork")
        archive.writestr("notes.txt", b"hello")
    assert read_rois(tmp_path / "y.zip").names == ["evil"]
    assert {path.name for path in tmp_path.iterdir()} == {"x.roi", "y.zip"}
    assert not (tmp_path.parent / "evil.roi").exists()


def test_slices_of_a_stack_are_not_one_image(tmp_path: Path) -> None:
    rois = [polygon([(1, 1), (5, 1), (5, 5), (1, 5)]) for _ in range(2)]
    rois[0].position = rois[1].position = 4
    path = save(tmp_path / "x.zip", *rois)
    assert masks_of(path, (8, 8)).sum() == 32  # two on one slice
    rois[1].position = 5
    with pytest.raises(DataError, match=r"several slices.*slice 4, slice 5.*Remove Positions"):
        masks_of(save(path, *rois), (8, 8))


def test_cut_at_the_edge_and_refused_outside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inside = polygon([(1, 1), (5, 1), (5, 5), (1, 5)])
    over = polygon([(-4, 1), (3, 1), (3, 3), (-4, 3)])
    speck = polygon([(6.1, 6.1), (6.3, 6.1), (6.3, 6.3)])
    path = save(tmp_path / "x.zip", inside, over, speck)
    assert masks_of(path, (8, 8)).sum(axis=(1, 2)).tolist() == [16, 6]
    assert "cut at the edge of the image of 8 x 8 (height x width): 1 outline (roi1)" in caplog.text
    assert "left out, because no pixel's centre lies inside: 1 outline (roi2)" in caplog.text
    away = polygon([(100, 100), (105, 100), (105, 105)])
    with pytest.raises(DataError, match=r"1 outline outside the image x.*roi1 \(x 100 to 105") as e:
        masks_of(save(path, inside, away), (8, 8))
    assert (e.value.id, e.value.found) == ("x", ["roi1"])


def test_damaged_rois(tmp_path: Path) -> None:
    good = polygon([(1, 1), (5, 1), (5, 5), (1, 5)]).tobytes()
    path = tmp_path / "x_rois.zip"
    claims = bytearray(good)
    claims[16:18] = struct.pack(">H", 60_000)  # coordinates that are not there
    curve = ImagejRoi(roitype=ROI_TYPE.RECT, left=0, top=0, right=9, bottom=9)
    curve.multi_coordinates = np.array([0, 1, 1, 2, 5, 5, 9, 1, 4], np.float32)
    curve.shape_roi_size = len(curve.multi_coordinates)
    nowhere = polygon([(1.0, 1.0), (np.nan, 1.0), (5.0, 5.0)])
    for data in (b"", b"Iout", good[:70], bytes(claims), b"x" * 100, curve.tobytes()):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.roi", data)
        with pytest.raises(DataError, match=r"the ROI 'a' cannot be read") as caught:
            masks_of(path, (8, 8))
        assert caught.value.path == path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.roi", nowhere.tobytes())
    with pytest.raises(DataError, match="no place in an image"):
        masks_of(path, (8, 8))
    path.write_bytes(b"PK\x03\x04 and nothing")
    with pytest.raises(DataError, match="not a zip, or a damaged"):
        masks_of(path, (8, 8))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("picture.tif", b"II*")
    with pytest.raises(DataError, match="found other files only"):
        masks_of(path, (8, 8))


def test_names_and_members_of_damaged_zips(tmp_path: Path) -> None:
    """Python raises errors of several kinds on them."""
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("é.roi", bytes(range(256)))
    whole = path.read_bytes()
    start = whole.index("é.roi".encode()) + len("é.roi".encode()) + 9
    for data in (
        whole.replace("é".encode(), b"\xff\xfe"),
        whole[:start] + b"\xff" * 40 + whole[start + 40 :],
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"photos\.zip: not a zip, or a damaged") as error:
            read_rois(path)
        assert error.value.path == path
    path.write_bytes(whole.replace("é".encode(), b"\xff\xfe"))
    assert not ImagejRois().is_one(path)


@pytest.mark.parametrize("kind", [ROI_TYPE.OVAL, ROI_TYPE.RECT])
@pytest.mark.parametrize("width", [np.nan, np.inf, 1e9])
def test_rectangles_that_are_none(kind: ROI_TYPE, width: float, tmp_path: Path) -> None:
    roi = box(kind, 2, 2, 11, 8, arc=4)
    roi.options |= ROI_OPTIONS.SUB_PIXEL_RESOLUTION
    roi.xd, roi.yd, roi.widthd, roi.heightd = 2.0, 2.0, width, 8.0
    with pytest.raises(DataError, match=r"the ROI 'roi0' cannot be read") as error:
        read_rois(save(tmp_path / "x.zip", roi))
    assert error.value.path == tmp_path / "x.zip"


def test_the_largest_oval_has_few_points(tmp_path: Path) -> None:
    roi = box(ROI_TYPE.OVAL, 2, 2, 11, 8)
    roi.options |= ROI_OPTIONS.SUB_PIXEL_RESOLUTION
    roi.xd, roi.yd, roi.widthd, roi.heightd = 0.0, 0.0, 65_535.0, 65_535.0
    ((ring,),) = read_rois(save(tmp_path / "x.zip", roi)).cells[0]
    assert len(ring) < 10_000
    middle = (ring[1:] + ring[:-1]) / 2 - 65_535 / 2
    assert np.abs(np.hypot(*middle.T) - 65_535 / 2).max() < 0.01


def test_a_spline_that_is_none(tmp_path: Path) -> None:
    roi = polygon([(0.0, 0.0), (1e30, 0.0), (1e30, 1e-30), (5.0, 5.0)])
    roi.options |= ROI_OPTIONS.SPLINE_FIT
    with pytest.raises(DataError, match=r"the ROI 'roi0' cannot be read"):
        read_rois(save(tmp_path / "x.zip", roi))


def test_zips_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.roi", bytes(8 * 2**20))
    assert path.stat().st_size < 20_000
    with pytest.raises(DataError, match=r"8388608 bytes packed into \d+ \(at most 200 times"):
        read_rois(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.roi", bytes(2000))
        archive.writestr("b.roi", bytes(2000))
    for name, most, said in (
        ("MAX_MEMBERS", 1, "2 files"),
        ("MAX_MEMBER", 1000, r"'a.roi' of 2.0 KiB"),
        ("MAX_TOTAL", 3000, "3.9 KiB unpacked"),
        ("MAX_FILE", 100, r"found 4.\d KiB"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(imagej_rois, name, most)
            with pytest.raises(DataError, match=said):
                read_rois(path)


@pytest.fixture(scope="module")
def imagej(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The beginning of commands for the classes in ``imagej/``, which call ImageJ itself."""
    if not IJ_JAR.is_file() or shutil.which("javac") is None:
        pytest.skip("needs ImageJ and a JDK: apt-get install libij-java default-jdk-headless")
    folder = tmp_path_factory.mktemp("imagej")
    sources = sorted((Path(__file__).parent / "imagej").glob("*.java"))
    subprocess.run(["javac", "-cp", IJ_JAR, "-d", folder, *sources], check=True)
    return ["java", "-Djava.awt.headless=true", "-cp", f"{IJ_JAR}:{folder}"]


def filled(imagej: list[str], path: Path, shape: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    """What ImageJ fills, ``(n, H, W)``, and what it calls the ROIs."""
    out = path.with_suffix(".bytes")
    command = [*imagej, "Masks", path, str(shape[1]), str(shape[0]), out]
    done = subprocess.run(command, check=True, capture_output=True)
    return np.fromfile(out, np.uint8).reshape(-1, *shape), done.stdout.decode().splitlines()


def test_imagej_fills_what_we_write(imagej: list[str], tmp_path: Path) -> None:
    labels = holed()
    path = tmp_path / "x_rois.zip"
    write_rois(path, labels)
    masks, named = filled(imagej, path, labels.shape)
    assert named == ["1 Composite", "2 Traced", "3 Composite", "70000 Composite"]
    for mask, number in zip(masks, (1, 2, 3, 70_000), strict=True):
        assert np.array_equal(mask, labels == number)


def test_we_fill_what_imagej_fills(imagej: list[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rois = [box(ROI_TYPE.RECT, 3, 4, 5, 7), box(ROI_TYPE.RECT, 3, 4, 30, 22, arc=15)]
    rois += [box(ROI_TYPE.OVAL, 3, 4, w, h) for w in range(1, 40, 3) for h in range(1, 40, 4)]
    for kind in (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED):
        for _ in range(30):
            points = rng.uniform(2, 60, (9, 2))  # most cross themselves
            rois += [polygon(points.tolist(), kind), polygon(np.round(points).astype(int), kind)]  # type: ignore[arg-type]
    for kind in (ROI_TYPE.RECT, ROI_TYPE.OVAL):
        roi = box(kind, 2, 2, 11, 8)
        roi.options |= ROI_OPTIONS.SUB_PIXEL_RESOLUTION
        roi.xd, roi.yd, roi.widthd, roi.heightd = 2.7, 2.2, 10.4, 7.9
        rois.append(roi)
    path = save(tmp_path / "many.zip", *rois)
    theirs, _ = filled(imagej, path, (64, 64))
    assert np.array_equal(masks_of(path, (64, 64)), theirs)


def test_all_that_imagej_writes(imagej: list[str], tmp_path: Path) -> None:
    areas, others = tmp_path / "areas.zip", tmp_path / "others.zip"
    subprocess.run([*imagej, "Kinds", areas, others], check=True)
    theirs, named = filled(imagej, areas, (64, 64))
    ours = masks_of(areas, (64, 64))
    assert len(ours) == len(named) == 14
    differ = dict(zip(named, (ours != theirs).sum(axis=(1, 2)).tolist(), strict=True))
    assert differ.pop("spline Polygon") <= 3  # of 2304
    assert set(differ.values()) == {0}, differ
    found = read_rois(others)
    assert not found.cells
    assert found.left_out == {"point": 1, "line": 4, "text": 1}
