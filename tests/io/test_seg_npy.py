"""``NAME_seg.npy``: what Cellpose wrote is read without running anything, what we write its GUI reads."""

from __future__ import annotations

import io
import os
import pickle
import struct
import time
import tracemalloc
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.lib import format as npy
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io.formats import seg_npy
from cellflow.io.formats.seg_npy import read_seg_npy, write_seg_npy
from cellflow.io.pixel_limit import at_most
from cellflow.io.places import seg_files

LABELS = np.zeros((20, 30), np.uint16)
LABELS[2:8, 3:9] = 1
LABELS[10:18, 12:25] = 7


def gui(masks: Any = LABELS, **more: Any) -> dict[str, Any]:
    """What the GUI of Cellpose 3 saves."""
    shape = np.shape(masks)
    flows = [np.zeros((1, *shape, 3), np.uint8), np.zeros((1, *shape), np.uint8), [], [],
             np.zeros((3, *shape), np.float32)]  # fmt: skip
    return {
        "outlines": np.zeros(shape, np.uint16),
        "colors": np.array([[1, 2, 3]], np.uint8),
        "masks": masks,
        "chan_choose": [0, 0],
        "filename": "/home/me/a.tif",
        "flows": flows,
        "ismanual": np.zeros(2, bool),
        "manual_changes": [["11/27/2026, 10:00:00", "added mask", [np.array([3, 4])]]],
        "model_path": 0,
        "flow_threshold": 0.4,
        "normalize_params": {"lowhigh": None, "percentile": [1.0, 99.0], "tile_norm_blocksize": 0.0},
        "restore": None,
        "ratio": np.float64(1.0),
        "diameter": np.float32(30.5),
    } | more  # fmt: skip


def save(path: Path, value: Any, protocol: int = 4, *, numpy_1: bool = False) -> Path:
    """As ``np.save`` does, in any protocol of pickle, and as NumPy 1 names its functions."""
    array = np.array(value, dtype=object) if isinstance(value, dict) else value
    with path.open("wb") as file:
        npy.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": np.shape(array)}
        )
        stream = pickle.dumps(array, protocol=protocol)
        if numpy_1:
            assert b"numpy._core" in stream
            stream = stream.replace(b"numpy._core", b"numpy.core")
        file.write(stream)
    return path


@pytest.mark.parametrize(
    "masks",
    [
        LABELS,
        LABELS.astype(np.uint32) * 20_000,
        LABELS.astype(np.int32),
        LABELS.astype(">i4"),
        np.asfortranarray(LABELS),
        LABELS[np.newaxis],
        LABELS > 3,
    ],
)
def test_label_maps_of_every_kind(masks: NDArray[Any], tmp_path: Path) -> None:
    np.save(tmp_path / "a_seg.npy", gui(masks))
    found = read_seg_npy(tmp_path / "a_seg.npy")
    assert np.array_equal(found, masks.reshape(LABELS.shape))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle(protocol: int, tmp_path: Path) -> None:
    assert np.array_equal(read_seg_npy(save(tmp_path / "a_seg.npy", gui(), protocol)), LABELS)


@pytest.mark.parametrize("protocol", [2, 3])
def test_names_of_numpy_1(protocol: int, tmp_path: Path) -> None:
    path = save(tmp_path / "a_seg.npy", gui(), protocol, numpy_1=True)
    assert np.array_equal(read_seg_npy(path), LABELS)


def test_the_first_cellposes_had_a_background_of_minus_1_and_lists(tmp_path: Path) -> None:
    old = {
        "masks": LABELS.astype(np.int32) - 1,
        "outlines": [np.array([[1, 2], [3, 4]])],
        "est_diam": 3,
    }
    np.save(tmp_path / "a_seg.npy", old)  # type: ignore[arg-type]
    assert np.array_equal(read_seg_npy(tmp_path / "a_seg.npy"), LABELS)


def test_a_path_as_file_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a_seg.npy", gui(filename=Path("/home/me/a.tif")))  # type: ignore[arg-type]
    assert np.array_equal(read_seg_npy(tmp_path / "a_seg.npy"), LABELS)


MAPS = arrays.arrays(np.uint32, arrays.array_shapes(min_dims=2, max_dims=2))


@given(MAPS)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, labels: NDArray[np.uint32]) -> None:
    path = tmp_path_factory.mktemp("seg") / "a_seg.npy"
    small = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    write_seg_npy(path, small)
    assert np.array_equal(read_seg_npy(path), small)
    assert np.array_equal(np.load(path, allow_pickle=True).item()["masks"], small)


def test_more_cells_than_16_bits_hold(tmp_path: Path) -> None:
    many = np.arange(70_000, dtype=np.int32).reshape(250, 280)
    write_seg_npy(tmp_path / "a_seg.npy", many)
    assert np.array_equal(read_seg_npy(tmp_path / "a_seg.npy"), many)
    values = np.load(tmp_path / "a_seg.npy", allow_pickle=True).item()
    assert values["outlines"].dtype == values["masks"].dtype == np.uint32
    assert len(values["ismanual"]) == 69_999


def test_files_are_found_in_any_case(tmp_path: Path) -> None:
    for name in ("b_seg.npy", "a_seg.NPY", ".c_seg.npy", "d.npy", "e_seg.tif"):
        (tmp_path / name).touch()
    assert [path.name for path in seg_files(tmp_path)] == ["a_seg.NPY", "b_seg.npy"]
    assert seg_files(tmp_path / "none") == []


# ------------------------------------------------------------------------------------- hostile files


class Runs:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_seg_npy(path)
    assert caught.value.path == path
    return str(caught.value)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("place", ["filename", "masks", "flows"])
def test_code_is_not_run(place: str, protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    bad = Runs(os.system, f"touch {mark}")
    message = refused(save(tmp_path / "a_seg.npy", gui(**{place: bad}), protocol))
    assert not mark.exists()
    assert "Nothing of it was run" in message


@pytest.mark.parametrize(
    "bad",
    [
        Runs(eval, "1"),
        Runs(getattr, np.ndarray, "tofile"),
        Runs(np.load, "a_seg.npy"),
        Runs(np.ndarray, (10**12,), "u1"),
        Runs(bytearray, 10**12),
        Runs(np.zeros, 10**12),
        Runs(type, "x", (), {}),
    ],
)
def test_nothing_but_plain_values_is_made(bad: Runs, tmp_path: Path) -> None:
    assert "a_seg.npy" in refused(save(tmp_path / "a_seg.npy", gui(model_path=bad)))


def stream_of(path: Path, instructions: bytes) -> Path:
    with path.open("wb") as file:
        npy.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(b"\x80\x05" + instructions + b".")
    return path


@pytest.mark.parametrize(
    "instructions",
    [
        b"\x96" + struct.pack("<Q", 2**40),  # an array of bytes of a size that is declared only
        b"\x8e" + struct.pack("<Q", 2**40) + b"x",  # bytes
        b"\x8d" + struct.pack("<Q", 2**40) + b"x",  # text
        b"Nr" + struct.pack("<I", 2**31 - 1),  # a place in a table of that length
        b"\x82\x01",  # an extension
        b"cos\nsystem\n(S'true'\ntR",
    ],
)
def test_declared_sizes_take_no_memory(instructions: bytes, tmp_path: Path) -> None:
    refused(stream_of(tmp_path / "a_seg.npy", instructions))


EVIL = b"N}\x8c\x04name\x8c\x04evils\x86b"
"""Sets an attribute of what stands before it."""


@pytest.mark.parametrize(
    ("name", "real"),
    [
        ("pathlib PosixPath", PurePosixPath),
        ("pathlib WindowsPath", PureWindowsPath),
        ("numpy.core.multiarray _reconstruct", seg_npy._Array),
        ("numpy.core.multiarray scalar", seg_npy._scalar),
        ("numpy._core.numeric _frombuffer", seg_npy._from_buffer),
        ("numpy dtype", seg_npy._Type),
        ("_codecs encode", seg_npy._encode),
    ],
)
def test_no_name_can_be_changed(
    name: str, real: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = getattr(real, "name", None)
    monkeypatch.setattr(real, "name", before, raising=False)  # put back, whatever the file does
    global_ = b"c" + name.replace(" ", "\n").encode() + b"\n"
    assert "a change of" in refused(stream_of(tmp_path / "a_seg.npy", global_ + EVIL))
    assert real.name is before


@pytest.mark.parametrize(
    ("start", "end"),
    [(b"}", b"Ns"), (b"}(", b"Nu"), (b"(", b"Nd"), (b"\x8f(", b"\x90"), (b"(", b"\x91")],
)
def test_keys_are_texts_and_numbers(start: bytes, end: bytes, tmp_path: Path) -> None:
    """A tuple of tuples takes twice the time for its hash with every two bytes."""
    for more in (b"2\x86" * 20, b"\x94h\x00h\x00\x86"):
        stream = start + b")" + more + end
        assert "Nothing of it was run" in refused(stream_of(tmp_path / "a_seg.npy", stream))


@pytest.mark.parametrize("name", ["numpy dtype", "_codecs encode", "pathlib PosixPath"])
def test_no_text_is_made_of_lists(name: str, tmp_path: Path) -> None:
    """It would be twice as long with every few bytes."""
    global_ = b"c" + name.replace(" ", "\n").encode() + b"\n"
    nested = b")" + b"2\x86" * 18
    path = stream_of(tmp_path / "a_seg.npy", global_ + nested + b"\x85R")
    tracemalloc.start()
    refused(path)
    assert tracemalloc.get_traced_memory()[1] < 500_000
    tracemalloc.stop()


def test_paths_do_not_grow(tmp_path: Path) -> None:
    global_ = b"cpathlib\nPosixPath\n"
    stream = b"".join([global_] * 20) + b"\x8c\x02ab" + b"2\x86R" * 20
    path = stream_of(tmp_path / "a_seg.npy", stream)
    tracemalloc.start()
    assert "found str" in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 500_000
    tracemalloc.stop()


def test_an_array_of_a_number_of_bytes(tmp_path: Path) -> None:
    """That number of bytes would be made."""
    kind = b"cnumpy\ndtype\n\x8c\x02u1\x85R"
    stream = b"cnumpy.core.numeric\n_frombuffer\n(J\x00\x00\x00\x10" + kind + b"K\x01\x8c\x01CtR"
    path = stream_of(tmp_path / "a_seg.npy", stream)
    tracemalloc.start()
    refused(path)
    assert tracemalloc.get_traced_memory()[1] < 500_000
    tracemalloc.stop()


def test_a_key_without_end(tmp_path: Path) -> None:
    number = b"\x8b" + struct.pack("<I", 4000) + b"\x01" * 4000
    refused(stream_of(tmp_path / "a_seg.npy", b"}" + number + b"Ns"))


def test_a_huge_array_that_is_declared_only(tmp_path: Path) -> None:
    class Huge(np.ndarray):  # type: ignore[type-arg]
        def __reduce__(self) -> Any:
            make, arguments, state = np.zeros(3, np.uint8).__reduce__()  # type: ignore[misc]
            return make, arguments, (state[0], (10**6, 10**6), *state[2:])

    masks = np.zeros(3, np.uint8).view(Huge)
    assert "damaged" in refused(save(tmp_path / "a_seg.npy", gui(masks=masks)))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_files(share: float, tmp_path: Path) -> None:
    data = save(tmp_path / "b_seg.npy", gui()).read_bytes()
    (tmp_path / "a_seg.npy").write_bytes(data[: int(share * len(data))])
    refused(tmp_path / "a_seg.npy")


@given(st.data())
def test_any_damage_is_one_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array(gui(LABELS[:4, :5]), dtype=object))
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damage") / "a_seg.npy"
    path.write_bytes(damaged)
    try:
        assert read_seg_npy(path).ndim == 2
    except DataError as error:
        assert error.path == path


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"outlines": LABELS}, "found outlines"),
        (gui(np.stack([LABELS, LABELS])), "of one 2D image, found (2, 20, 30)"),
        (gui(LABELS.astype(np.float32)), "expected whole numbers as 'masks', found float32"),
        (gui(masks="none"), "found str"),
        (gui(LABELS.astype(np.int32) - 5), "found -5"),
    ],
)
def test_what_is_no_label_map(value: dict[str, Any], told: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a_seg.npy", value)  # type: ignore[arg-type]
    assert told in refused(tmp_path / "a_seg.npy")


def test_more_pixels_than_are_allowed(tmp_path: Path) -> None:
    write_seg_npy(tmp_path / "a_seg.npy", LABELS)
    with at_most(599):
        assert "a_seg.npy: it claims 20 x 30 pixels" in refused(tmp_path / "a_seg.npy")
    with at_most(600):
        assert read_seg_npy(tmp_path / "a_seg.npy").shape == (20, 30)


def test_a_plain_array_and_no_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a_seg.npy", LABELS)
    assert "in place of a dictionary" in refused(tmp_path / "a_seg.npy")
    assert "there is no such file" in refused(tmp_path / "b_seg.npy")


def test_marks_without_end(tmp_path: Path) -> None:
    """Each was looked for in a copy of all before it."""
    started = time.process_time()
    path = stream_of(tmp_path / "a_seg.npy", b"(" * 200_000 + b"0" * 200_000 + b"}.")
    assert refused(path)
    assert time.process_time() - started < 5.0
